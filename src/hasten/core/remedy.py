"""The cure, and what it may change."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar

from hasten.core.errors import Unsuited
from hasten.core.trace import Trace

Undo = Callable[[], None]


class Fidelity(StrEnum):
    """What a remedy may change about what is learned."""

    IDENTICAL = "identical"  # the same bits at a fixed seed
    EQUIVALENT = "equivalent"  # the same mathematics, other rounding
    APPROXIMATE = "approximate"  # lower precision or less work

    @property
    def rank(self) -> int:
        return list(Fidelity).index(self)


class Seam(StrEnum):
    """The place in a script where a remedy takes hold, and so the object it is called on."""

    LOADER = "loader"  # torch.utils.data.DataLoader, before an iterator is made from it
    FETCHER = "fetcher"  # anything with .dataset, .collate_fn and .auto_collation
    OPTIMIZER = "optimizer"  # torch.optim.Optimizer
    MODEL = "model"  # the outermost torch.nn.Module
    PROCESS = "process"  # nothing: a switch of the whole process
    LAUNCH = "launch"  # nothing: what a process must be started with


class Grain(StrEnum):
    """How finely a trial may alternate between with and without."""

    STEP = "step"  # on and off between two steps of one process
    CALL = "call"  # calls of a module in one child, by turns
    CHILD = "child"  # one forked child with, one without
    JOB = "job"  # one process of the whole script with, one without


@dataclass(frozen=True)
class Remedy(ABC):
    """A frozen setting that can be switched on for an object and off again.

    A remedy is a plain callable on the user's own object: ``LoaderWorkers(2)(loader)``. :meth:`on` is the same with a
    way back, which is what trials use.
    """

    fidelity: ClassVar[Fidelity]
    seam: ClassVar[Seam]
    grain: ClassVar[Grain] = Grain.STEP
    settle: ClassVar[int] = 0  # steps after a switch that a trial does not time
    at_once: ClassVar[bool] = False  # a switch takes some milliseconds: where steps are long, none has to settle
    conflicts: ClassVar[tuple[str, ...]] = ()
    saves_faults: ClassVar[bool] = False  # gains only where the process has page faults
    upset_by: ClassVar[tuple[str, ...]] = ()  # remedies that may make a loss of its gain: then it is tried once more
    parallel: ClassVar[bool] = False  # may trade CPU time for wall time
    of_frozen: ClassVar[bool] = False  # for models that are called and never trained, too
    later_passes: ClassVar[bool] = False  # gains only from the second pass over the data on
    one_off_seconds: ClassVar[float] = 0.0  # set-up cost of the first time, which a trial pays
    start_seconds: ClassVar[float] = 0.0  # set-up cost of every later start, which the remaining steps must pay back

    @abstractmethod
    def on(self, target: Any = None) -> Undo:
        """Switch on for ``target`` in place and return the way back.

        Raises:
            Unsuited: ``target`` cannot take it; nothing was changed.
        """

    def __call__(self, target: Any = None) -> Any:
        """Switch on for ``target`` and return it.

        Raises:
            Unsuited: ``target`` cannot take it; nothing was changed.
        """
        takes, known_by = _TARGETS.get(self.seam, ("", ""))
        if known_by and not hasattr(target, known_by):
            given = "nothing" if target is None else f"a {type(target).__name__}"
            raise Unsuited(f"{self} takes {takes}, and was given {given}", "", f"{self}({takes.split()[-1].lower()})")
        self.on(target)
        return target

    def environment(self) -> dict[str, str]:
        """Environment variables that a process must be started with; only of remedies of the launch."""
        return {}

    def broken(self) -> bool:
        """Whether it has found, while it was on, that its promise does not hold."""
        return False

    def idle(self) -> str:
        """Why it does nothing although it is on; empty where it does."""
        return ""

    def replaces(self, other: Remedy) -> bool:
        """Whether both cannot be on: ``other`` goes when this one comes."""
        return other.name in self.conflicts

    def direction(self, trace: Trace) -> str:
        """Which way this setting leads from what the script does now. Where one setting was clearly slower, others that
        lead the same way are not tried."""
        return ""

    @property
    def name(self) -> str:
        return type(self).__name__

    def __str__(self) -> str:
        values = ", ".join(str(getattr(self, f.name)) for f in dataclasses.fields(self))
        return f"{self.name}({values})"

    def settings(self) -> dict[str, Any]:
        """The remedy's own fields, as JSON values."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}


_TARGETS = {  # what a remedy takes, and an attribute that it is known by
    Seam.LOADER: ("a DataLoader", "dataset"),
    Seam.FETCHER: ("a DataLoader", "dataset"),
    Seam.OPTIMIZER: ("an optimizer", "param_groups"),
    Seam.MODEL: ("a module", "named_modules"),
}


def undo_all(undos: list[Undo]) -> Undo:
    """One undo out of many, last first."""

    def undo() -> None:
        while undos:
            undos.pop()()

    return undo
