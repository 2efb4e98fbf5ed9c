"""A paired A/B of calls of a module: an evaluation that the script has made is made again, in a forked child.

Evaluations are too far apart for trials that go on in the script's loop. Their calls are not: one whose arguments were
kept is made with the remedy and without it, in pairs of random order.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from hasten.measure.digest import sha256
from hasten.measure.interleave import LOOKS, coin_flips
from hasten.seams.child import WITH, WITHOUT
from hasten.seams.fork import DONE, Sender
from hasten.seams.forward import ForwardSeam
from hasten.seams.known import ModelRecord
from hasten.seams.on_demand import OnDemand
from hasten.seams.watch import Watch

UNIT_SECONDS = 0.004  # of calls in one timing, at least
NO_CALL = "no evaluation was seen whose arguments could be kept"
LEFT_ALONE = "what it returns cannot be had without a graph and be differentiated all the same"
DIFFERENT = "without a graph torch takes other kernels, which round elsewhere"


def evaluated(watch: Watch) -> ModelRecord | None:
    """A model whose evaluation recorded a graph and can be made again."""
    found = [r for r in watch.models.values() if r.evaluation_call is not None and r.module() is not None]
    return max(found, key=lambda r: r.evaluations_with_graph, default=None)


def unsuited(watch: Watch, forward: ForwardSeam) -> str:
    """Why the call cannot be made without a graph; empty when it can, to the same bits. Asked in a child."""
    import torch

    ways = _ways(watch, forward)
    if ways is None:
        return NO_CALL
    with torch.enable_grad():
        state = torch.get_rng_state()
        plain = ways[WITHOUT]()
        ways[WITH]()  # the first call is looked at only
        torch.set_rng_state(state)
        out = ways[WITH]()
        if not _on_demand(out):
            return LEFT_ALONE
        return "" if sha256(out) == sha256(plain) else DIFFERENT


class Calls:
    """Makes the calls in pairs, and sends the seconds of each way."""

    def __init__(self, sender: Sender, watch: Watch, forward: ForwardSeam) -> None:
        ways = _ways(watch, forward)
        assert ways is not None
        self.sender = sender
        self.ways = ways

    def run(self) -> None:
        """Until all pairs are made or the parent has seen enough; does not return."""
        import torch

        with torch.enable_grad():
            seconds = max(self._seconds(way, 1)[0] for way in (WITHOUT, WITH, WITHOUT, WITH))
            unit = max(1, round(UNIT_SECONDS / max(seconds, 1e-6)))
            for _, heads in zip(range(LOOKS[-1]), coin_flips(), strict=False):
                for way in (WITHOUT, WITH) if heads else (WITH, WITHOUT):
                    self.sender.row(way, *(spent / unit for spent in self._seconds(way, unit)))
        self.sender.row(DONE)
        self.sender.leave()

    def _seconds(self, way: int, calls: int) -> tuple[float, float]:
        """Wall and CPU seconds of so many calls, what they return and saved given back."""
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(calls):
            self.ways[way]()
        return time.perf_counter() - wall, time.process_time() - cpu


def _ways(watch: Watch, forward: ForwardSeam) -> dict[int, Callable[[], Any]] | None:
    record = evaluated(watch)
    module = record.module() if record is not None else None
    if record is None or module is None:
        return None
    call, (args, kwargs), run = forward.original, record.evaluation_call, OnDemand()
    module.eval()
    return {WITHOUT: lambda: call(module, *args, **kwargs), WITH: lambda: run(call, module, args, kwargs)}


def _on_demand(out: Any) -> bool:
    import torch

    values = out.values() if isinstance(out, dict) else out if isinstance(out, (tuple, list)) else [out]
    return any(isinstance(v, torch.Tensor) and type(v.grad_fn).__name__ == "AgainBackward" for v in values)
