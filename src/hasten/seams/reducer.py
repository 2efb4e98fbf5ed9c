"""How long ``backward`` waits for other processes, where DistributedDataParallel reduces gradients.

Its reducer sends gradients off while others are still computed, and waits at the end of ``backward`` until all have
come back: for the network, and for the slowest process. It takes these times itself, in every hundredth step; on a CPU
that needs no more than reading clocks, so in the window it is asked to do so in every step.
"""

from __future__ import annotations

from typing import Any

from hasten.core.interval import Interval
from hasten.measure.clock import INDEX
from hasten.seams.watch import Watch

BACKWARD = INDEX["backward"] + 1
WAITS = "wait for other processes"
_EVERY, _USUAL = 1, 100  # steps between two readings: in the window, and of torch's own
_ENDS = ("backward_compute_time_end", "backward_comm_time_end")
LEAST = 5  # readings


class Reducer:
    """Of the first model that is wrapped so, the waiting at the end of each backward pass of the window."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.seconds: list[float] = []
        self.of = 0.0  # seconds of all backward passes then
        self._model: Any = None
        self._last = 0

    def start(self) -> None:
        """Have the reducer of a model on a CPU take its times in every step."""
        model = next((m for r in self.watch.models.values() if _reduces(m := r.module())), None)
        if model is None or any(p.is_cuda for p in model.parameters()):
            return
        model._set_ddp_runtime_logging_sample_rate(_EVERY)
        self._model = model
        self._last = self._ends()[1]

    def read(self) -> None:
        """At a step's end: what the step before has waited (the reducer tells it when the next forward begins)."""
        if self._model is not None:
            computed, reduced = self._ends()
            self.seconds.append(max(0, reduced - computed) / 1e9 if reduced != self._last else 0.0)
            self._last = reduced
            self.of += sum(row[BACKWARD] for row in self.watch.recent(1)) / 1e9

    def stop(self) -> None:
        if self._model is not None:
            self._model._set_ddp_runtime_logging_sample_rate(_USUAL)
            self._model = None

    def _ends(self) -> tuple[int, int]:
        told = self._model._get_ddp_logging_data()
        computed, reduced = (int(told.get(name, 0)) for name in _ENDS)
        return computed, reduced

    @property
    def share(self) -> Interval | None:
        """Of the time of backward passes; None where it is not known."""
        if len(self.seconds) < LEAST or not self.of:
            return None
        return Interval.of_mean(self.seconds, unit="").scaled(len(self.seconds) / self.of)


def _reduces(model: Any) -> bool:
    import torch

    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return False
    from torch.nn.parallel import DistributedDataParallel

    return isinstance(model, DistributedDataParallel) and hasattr(model, "_set_ddp_runtime_logging_sample_rate")
