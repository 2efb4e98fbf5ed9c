"""What does rounding alone do to a convolutional network, and which yardstick tells it from other mathematics?

Three small networks with batch normalisation and ReLU, two optimizers, two batch sizes, several seeds: after some
steps each takes four more as it is, in the channels_last memory format (the same mathematics, rounded elsewhere), and
with inputs of convolutions rounded to ten bits of mantissa as TF32 does (other mathematics). Both are compared with
the plain run by ``hasten.run.fidelity.compare``, after one step and after four, by two yardsticks: one run whose
weights were moved by one unit in the last place, times 32; and the one that hasten uses. No time is measured.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import sys
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import torch
from common import head, save, say
from torch import nn

from hasten.run import fidelity
from hasten.seams.state import Layout, Snapshot

CLAIM = "Channels-last is not called another mathematics, TF32 is (goal: of no comparison, of all)"
NAME = "yardsticks"
BEFORE, STEPS, MARKS, WIDTH, TF32 = 15, 4, (1, 4), 16, 13
Batches = list[tuple[torch.Tensor, torch.Tensor]]


class Block(nn.Module):  # type: ignore[misc]
    """A residual block. x: (rows, a, height, width)."""

    def __init__(self, a: int, b: int, stride: int) -> None:
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(a, b, 3, stride, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU())
        self.two = nn.Sequential(nn.Conv2d(b, b, 3, 1, 1, bias=False), nn.BatchNorm2d(b))
        self.by = nn.Sequential(nn.Conv2d(a, b, 1, stride, bias=False), nn.BatchNorm2d(b))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.two(self.one(x)) + self.by(x))


def plain(a: int, b: int) -> list[nn.Module]:
    return [nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU(), nn.MaxPool2d(2)]


def apart(a: int, b: int) -> list[nn.Module]:
    """Depthwise, then pointwise."""
    deep = [nn.Conv2d(a, a, 3, 2, 1, groups=a, bias=False), nn.BatchNorm2d(a), nn.ReLU6()]
    return [*deep, nn.Conv2d(a, b, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU6()]


def network(kind: str) -> nn.Sequential:
    w = WIDTH
    first = [nn.Conv2d(3, w, 3, padding=1, bias=False), nn.BatchNorm2d(w), nn.ReLU()]
    bodies: dict[str, Callable[[], list[nn.Module]]] = {
        "plain": lambda: [*plain(3, w), *plain(w, 2 * w), *plain(2 * w, 4 * w)],
        "residual": lambda: [*first, Block(w, w, 1), Block(w, 2 * w, 2), Block(2 * w, 4 * w, 2)],
        "depthwise": lambda: [*first, *apart(w, 2 * w), *apart(2 * w, 4 * w)],
    }
    return nn.Sequential(*bodies[kind](), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * w, 10))


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGD": lambda parameters: torch.optim.SGD(parameters, 0.1, momentum=0.9),
    "Adam": lambda parameters: torch.optim.Adam(parameters, 1e-3),
}


class Rounded(torch.autograd.Function):  # type: ignore[misc]
    """Ten bits of mantissa are left, forward and backward."""

    @staticmethod
    def forward(_: Any, x: torch.Tensor) -> torch.Tensor:
        return ((x.contiguous().view(torch.int32) + (1 << (TF32 - 1))) & (-1 << TF32)).view(torch.float32)

    @staticmethod
    def backward(_: Any, gradient: torch.Tensor) -> torch.Tensor:
        return Rounded.forward(_, gradient)


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, batches: Batches) -> list[fidelity.Numbers]:
    """All weights and buffers before, and after each step."""
    found = [flat(model)]
    for x, y in batches:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        found.append(flat(model))
    return found


def flat(model: nn.Module) -> fidelity.Numbers:
    return np.concatenate([t.detach().contiguous().numpy().ravel() for t in (*model.parameters(), *model.buffers())])


def layout(model: nn.Module) -> Layout:
    return Layout([p.numel() for p in model.parameters()], [b.numel() for b in model.buffers()], "float32")


class Case:
    """A network in the middle of its training, and its next batches."""

    def __init__(self, kind: str, optimizer: str, rows: int, seed: int) -> None:
        torch.manual_seed(seed)
        self.make = OPTIMIZERS[optimizer]
        self.model = network(kind)
        self.state = self.make(self.model.parameters())
        steps(self.model, self.state, self.batches(BEFORE, rows))
        self.next = self.batches(STEPS, rows)

    @staticmethod
    def batches(count: int, rows: int) -> Batches:
        return [(torch.randn(rows, 3, 32, 32), torch.randint(0, 10, (rows,))) for _ in range(count)]

    def run(self, change: Callable[[nn.Module], Any] = lambda model: None, channels_last: bool = False) -> Any:
        """The next steps of a copy that was changed before."""
        model = copy.deepcopy(self.model)
        optimizer = self.make(model.parameters())
        optimizer.load_state_dict(copy.deepcopy(self.state.state_dict()))
        change(model)
        batches = self.next
        if channels_last:
            model = model.to(memory_format=torch.channels_last)
            batches = [(x.contiguous(memory_format=torch.channels_last), y) for x, y in batches]
        return steps(model, optimizer, batches)


def rounded(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(lambda _, given: (Rounded.apply(given[0]),))


def moved(units: int, draw: int) -> Callable[[nn.Module], None]:
    return lambda model: Snapshot([model]).perturb(units, draw)


def judge(case: Case) -> dict[str, list[bool]]:
    """By yardstick and run: whether it is called the same mathematics after each of ``MARKS``."""
    base, form = case.run(), layout(case.model)
    runs = {"channels_last": case.run(channels_last=True), "tf32": case.run(rounded)}
    once = [case.run(moved(1, 0))]
    some = [case.run(moved(fidelity.UNITS, draw)) for draw in range(fidelity.DRAWS)]
    found: dict[str, list[bool]] = {}
    for (name, run), mark in itertools.product(runs.items(), MARKS):

        def kept(yardsticks: list[Any], margin: float) -> bool:
            pairs = [(y[0], y[mark]) for y in yardsticks]
            with mock.patch.object(fidelity, "MARGIN", margin):
                return fidelity.compare(base[0], base[mark], run[mark], pairs, form, mark).kept

        found.setdefault(f"one unit, {name}", []).append(kept(once, 32.0))
        found.setdefault(f"hasten's, {name}", []).append(kept(some, fidelity.MARGIN))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=6)
    args = parser.parse_args()
    head("yardsticks of rounding: how many comparisons are called the same mathematics")
    total: dict[str, list[bool]] = {}
    raw = []
    for kind, optimizer, rows in itertools.product(("plain", "residual", "depthwise"), OPTIMIZERS, (16, 64)):
        told: dict[str, list[bool]] = {}
        for seed in range(args.seeds):
            for name, kept in judge(Case(kind, optimizer, rows, seed)).items():
                told.setdefault(name, []).extend(kept)
        raw.append({"network": kind, "optimizer": optimizer, "rows": rows, **told})
        said = "; ".join(f"{name}: {sum(kept)} of {len(kept)}" for name, kept in told.items())
        say(f"  {kind:9} {optimizer:4} {rows:3} rows  {said}")
        for name, kept in told.items():
            total.setdefault(name, []).extend(kept)
    count = len(total["hasten's, tf32"])
    broken = {name: count - sum(kept) for name, kept in total.items()}
    ours, tf32 = broken["hasten's, channels_last"], broken["hasten's, tf32"]
    summary = (
        f"called broken in {ours} of {count} comparisons ({broken['one unit, channels_last']} by one unit in the last "
        f"place times 32); rounding as TF32 does in {tf32} ({broken['one unit, tf32']})"
    )
    say("\n" + summary)
    save(NAME, summary, {name: broken[name] for name in broken}, raw)
    return 0


if __name__ == "__main__":
    sys.exit(main())
