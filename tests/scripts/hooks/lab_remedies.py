"""Remedies that do nothing, or break their promise on purpose, and how a test has them tried."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from hasten.core.finding import Rule
from hasten.core.remedy import Fidelity, Grain, Remedy, Seam, Undo

TRIAL_SECONDS = 1.0


def nothing() -> None:
    return None


@dataclass(frozen=True)
class Nothing(Remedy):
    """Changes nothing; tried step by step."""

    fidelity: ClassVar[Fidelity] = Fidelity.IDENTICAL
    seam: ClassVar[Seam] = Seam.PROCESS

    def on(self, target: Any = None) -> Undo:
        return nothing


@dataclass(frozen=True)
class NothingInTurns(Nothing):
    """Changes nothing; tried in two children."""

    grain: ClassVar[Grain] = Grain.CHILD


@dataclass(frozen=True)
class NothingNew(Nothing):
    """Changes nothing; tried in two children with new iterators."""

    grain: ClassVar[Grain] = Grain.CHILD
    seam: ClassVar[Seam] = Seam.LOADER


@dataclass(frozen=True)
class Wrong(Nothing):
    """Promises the same bits and does ``spoil`` to the first parameter after every step."""

    seam: ClassVar[Seam] = Seam.OPTIMIZER

    def on(self, target: Any = None) -> Undo:
        def spoil(optimizer: Any, _args: Any, _kwargs: Any) -> None:
            self.spoil(optimizer.param_groups[0]["params"][0])

        return target.register_step_post_hook(spoil).remove  # type: ignore[no-any-return]

    def spoil(self, parameter: Any) -> None:
        raise NotImplementedError


@dataclass(frozen=True)
class OneBit(Wrong):
    """Moves one weight by one unit in the last place."""

    def spoil(self, parameter: Any) -> None:
        import torch

        with torch.no_grad():
            first = parameter.view(-1)[:1]
            first.copy_(torch.nextafter(first, first + 1))


@dataclass(frozen=True)
class Draws(Wrong):
    """Draws a random number, and no weight changes by it."""

    def spoil(self, parameter: Any) -> None:
        import torch

        torch.rand(1)


_AHEAD: set[tuple[int, ...]] = set()


@dataclass(frozen=True)
class Stale(Nothing):
    """Promises the same bits, and makes batches well until it serves what it has kept: one bit of that is wrong."""

    seam: ClassVar[Seam] = Seam.FETCHER

    def on(self, target: Any = None) -> Undo:
        from hasten.data.view import original, put

        dataset, collate = original(target)

        def batch(indices: Any) -> Any:
            made = collate([dataset[i] for i in indices])
            if tuple(indices) not in _AHEAD:
                return made
            return made.nextafter(made + 1) if hasattr(made, "nextafter") else [x.nextafter(x + 1) for x in made]

        return put(target, batch)

    def ahead(self, target: Any, indices: Any) -> None:
        _AHEAD.add(tuple(indices))


@dataclass(frozen=True)
class Percent(Remedy):
    """Promises the same mathematics and learns by one percent too much."""

    fidelity: ClassVar[Fidelity] = Fidelity.EQUIVALENT
    seam: ClassVar[Seam] = Seam.OPTIMIZER

    def on(self, target: Any = None) -> Undo:
        for group in target.param_groups:
            group["lr"] *= 1.01

        def undo() -> None:
            for group in target.param_groups:
                group["lr"] /= 1.01

        return undo


@dataclass(frozen=True)
class Rough(Percent):
    """Promises little: it may change results by less than another seed does."""

    fidelity: ClassVar[Fidelity] = Fidelity.APPROXIMATE


KINDS: dict[str, type[Remedy]] = {
    "step": Nothing,
    "child": NothingInTurns,
    "loader": NothingNew,
    "one_bit": OneBit,
    "draws": Draws,
    "stale": Stale,
    "percent": Percent,
    "rough": Rough,
}


def install(asked: dict[str, Any]) -> None:
    """Have ``asked["remedies"]`` tried and kept."""
    from hasten.run import inside, processes, search, throwaway, trial
    from hasten.seams import window

    remedies = tuple(_remedy(name) for name in asked["remedies"])
    rule = Rule("T999", "test", lambda trace: (), "")

    def find(trace: Any) -> Any:
        return (rule.finding("a test", None, (1.0, 2.0), remedies=remedies),)

    window.LEAST_SECONDS = 0.2
    search.LEAST_TRIAL = 0.5
    search.find = find  # type: ignore[attr-defined]
    search.verdict = lambda measured, remedy: ("kept", "") if measured.pairs.wall else ("cannot tell", measured.why)
    inside.remedy_types = throwaway.remedy_types = lambda: {type(r).__name__: type(r) for r in remedies}
    for room in (trial.TrialRoom, processes.ProcessRoom):
        _be_brief(room, asked.get("seconds", TRIAL_SECONDS))
    for name in asked.get("patches", ()):
        globals()[name]()


def _remedy(name: str) -> Remedy:
    if name == "cache":
        from hasten.rules.d103_repeated_samples import CacheSamples

        return CacheSamples()
    return KINDS[name]()


def _be_brief(room: Any, limit: float) -> None:
    """A trial that does nothing would go on to the end of its time; it is tried again if nothing came of it."""
    compare = room.compare

    def briefly(self: Any, without: Any, with_: Any, seconds: float, *hoped: float) -> Any:
        found = compare(self, without, with_, min(seconds, limit), *hoped)
        return found if found.pairs.wall else compare(self, without, with_, seconds, *hoped)

    room.compare = briefly


def judged() -> None:
    """Trials are taken for what they are."""
    from hasten.run import search, verdict

    search.verdict = verdict.verdict


def kept_in_files() -> None:
    """Caches lie in files, however small they are."""
    from hasten.data import store

    store.IN_MEMORY = -1


def disk_fills() -> None:
    """Once the script itself has opened a store, no file may grow beyond a megabyte."""
    import os
    import resource
    import sys

    from hasten.data.store import RowStore

    kept_in_files()

    script = os.getpid()
    opened = RowStore.__init__

    def __init__(self: RowStore, *args: Any, **kwargs: Any) -> None:
        opened(self, *args, **kwargs)
        if os.getpid() == script:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
            print("hasten: the disk is full", file=sys.stderr)

    RowStore.__init__ = __init__  # type: ignore[method-assign]


def _fails(where: type, name: str, after: int = 5) -> None:
    """Calls of a method of hasten's fail from the given one on."""
    original = getattr(where, name)
    left = [after]

    def fail(*args: Any, **kwargs: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise RuntimeError("planted")
        return original(*args, **kwargs)

    setattr(where, name, fail)


def window_fails() -> None:
    from hasten.seams.window import Window

    _fails(Window, "step")


def optimizer_fails() -> None:
    from hasten.seams.watch import Watch

    _fails(Watch, "optimizer_entered")


def boundary_fails() -> None:
    from hasten.seams.watch import Watch

    _fails(Watch, "boundary")


def forward_fails() -> None:
    from hasten.seams.watch import Watch

    _fails(Watch, "module_called")


def search_fails() -> None:
    from hasten.run.search import Search

    _fails(Search, "run", 0)
