"""Would torch.compile of the whole stacked step pay? Prints; ARCHITECTURE.md says what came of it.

For each of a few small networks: CPU time of a step of one model by a tape (where it has one), stacked by
``torch.func``, the same compiled, and by the plain loop, in turns in one thread; seconds of compiling (less where
torch has kept an earlier call's); and whether a model's bits in the compiled step depend on its place.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from hasten.fleet import planner, stack_trial, stacked
from hasten.fleet.loop import LoopTrainer
from hasten.fleet.modules import Factory
from hasten.fleet.recipe import Recipe
from hasten.fleet.tasks import Task, jobs_of

WIDTH, ROWS, COLUMNS, BATCH, ROUNDS, STEPS = 32, 320, 64, 64, 25, 4
Forward = Callable[[Any, torch.Tensor], torch.Tensor]


class Net(nn.Module):  # type: ignore[misc]
    """Some layers, and a function of them and the rows. X: (rows, COLUMNS)."""

    def __init__(self, forward: Forward, *layers: nn.Module) -> None:
        super().__init__()
        self.layers, self.way = nn.ModuleList(layers), forward

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.way(self.layers, x)


def bent(m: Any, x: torch.Tensor) -> torch.Tensor:
    h = torch.atan(m[0](x[:, None]))
    return m[2]((torch.atan(m[1](h)) + h).flatten(1))


def normed(m: Any, x: torch.Tensor) -> torch.Tensor:
    h = m[1](torch.relu(m[0](x.reshape(-1, 1, 8, 8))))
    return m[3](torch.relu(m[2](h)).flatten(1))


def summed(m: Any, x: torch.Tensor) -> torch.Tensor:
    h = nn.functional.mish(m[0](x)).cumsum(1) / 8
    return m[2](nn.functional.mish(m[1](h)))


def across(m: Any, x: torch.Tensor) -> torch.Tensor:
    h = torch.relu(m[1](torch.relu(m[0](x[:, None]))))
    return m[3](torch.relu(m[2](h)).flatten(1))


def conv(a: int, b: int, k: int, **settings: int) -> nn.Module:
    return nn.Conv1d(a, b, k, **settings)


NETS: dict[str, Callable[[], nn.Module]] = {
    "atan": lambda: Net(bent, conv(1, 16, 5, padding=2), conv(16, 16, 5, padding=2), nn.Linear(16 * 64, 1)),
    "local norm": lambda: Net(
        normed, nn.Conv2d(1, 8, 3, padding=1), nn.LocalResponseNorm(4), nn.Conv2d(8, 16, 3, stride=2, padding=1),
        nn.Linear(256, 1),
    ),
    "cumulative sum": lambda: Net(summed, nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 1)),
    "transposed": lambda: Net(
        across, conv(1, 8, 4, stride=2, padding=1), conv(8, 16, 4, stride=2, padding=1),
        nn.ConvTranspose1d(16, 8, 4, stride=2, padding=1), nn.Linear(256, 1),
    ),
}  # fmt: skip


def measured(name: str) -> None:
    """Time one network's ways, and print them."""
    draw, recipe, factory = np.random.default_rng(0), Recipe(batch_size=BATCH), Factory(NETS[name])
    tasks = {
        str(k): Task(draw.standard_normal((ROWS, COLUMNS), np.float32), draw.standard_normal(ROWS, np.float32))
        for k in range(WIDTH)
    }
    jobs = jobs_of(tasks, recipe, {})
    kind = planner.kinds_of(jobs, factory)[0][0]

    def stack(order: Any = range(WIDTH), call: Any = None, tape: bool = False) -> stacked.Stack:
        made = stack_trial.filled(kind, [jobs[k] for k in order], factory, recipe, WIDTH)
        made.tape, made.call = made.tape if tape else None, call or made.call
        return made

    def loss(*given: Any) -> Any:  # without the bounds of embeddings, which a graph cannot hold
        params, buffers, x, y, rows = given
        return recipe.loss(torch.func.functional_call(first.module, (params, buffers), (x,)), y, rows)

    first = stack()
    begun = time.perf_counter()
    call = torch.compile(torch.func.vmap(loss), dynamic=False, fullgraph=True)
    compiled = stack(call=call)
    compiled.step()
    seconds = time.perf_counter() - begun
    ways = {"torch.func": first, "compiled": compiled}
    if (taped := stack(tape=True)).tape is not None:
        ways["tape"] = taped
    trainer, rows = LoopTrainer(factory(jobs[0]), kind.layout, jobs[0], recipe), jobs[0].epoch_order(0)[:BATCH]
    taken: dict[str, list[float]] = {way: [] for way in (*ways, "loop")}
    for _ in range(ROUNDS):
        for way, one in ways.items():
            stack_trial.rewind(one)
            taken[way].append(cpu(one.step) / WIDTH)
        taken["loop"].append(cpu(lambda: trainer.step(rows)))
    said = ", ".join(f"{way} {1e6 * np.median(found[2:]):.0f} µs" for way, found in taken.items())
    print(f"{name}: {said} a step of one model; compiling took {seconds:.0f} s; ", end="")
    print("bits depend on the place" if moved(stack, call) else "bits do not depend on the place", flush=True)


def cpu(call: Callable[[], Any]) -> float:
    """CPU seconds of a call."""
    begun = time.process_time()
    call()
    return time.process_time() - begun


def moved(stack: Callable[..., stacked.Stack], call: Any) -> bool:
    """Whether a model has other bits after some steps in another place."""
    orders = [list(range(WIDTH)), list(range(WIDTH))[::-1], np.random.default_rng(1).permutation(WIDTH).tolist()]
    ends = []
    for order in orders:
        made = stack(order, call)
        for _ in range(STEPS):
            made.step()
        ends.append(made.flat[:, np.argsort(order)])
    return any(not torch.equal(ends[0], end) for end in ends[1:])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(NETS), help=", ".join(NETS))
    torch.set_num_threads(1)
    for chosen in parser.parse_args().names:
        measured(chosen)
