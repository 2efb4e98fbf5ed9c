"""Do datasets stay what they are from one pass over their loader to the next?

A script that draws negative samples, or grows its data, before every epoch has other samples in each; what was asked
twice within one pass says nothing of that.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

from hasten.data.fingerprint import close_fingerprint
from hasten.seams.watch import Watch

MOST_PASSES = 3  # looked at, of a loader; a look at many settings takes some tens of milliseconds


@dataclass
class _Passes:
    """Those over a dataset: of one loader, or of several of which each was made when the last one was gone."""

    loader: Any  # weakly
    dataset: Any
    begun: int = 0
    mark: Any = None  # of the dataset when the last one began; None where it is looked at no longer
    changing: bool = False


class Changing:
    """Looks at a loader's dataset when a pass over it begins, and remembers where it is another than before."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.passes: dict[Any, _Passes] = {}  # the latest, by what tells loaders of one dataset apart
        watch.new_target = self

    def __call__(self, kind: str, target: Any) -> None:
        watch = self.watch
        if kind != "loader" or watch.driver is not None:  # in a child nothing is found out that the parent will know
            return
        passes = self._of(target)
        if passes.mark is not None or not passes.begun:
            self._look(passes, target.dataset)
        passes.begun += 1
        watch.record_of(target).changing = passes.changing

    def _of(self, loader: Any) -> _Passes:
        own = self.passes.get(id(loader))
        if own is not None and own.loader() is loader:
            return own
        try:
            dataset = weakref.ref(loader.dataset)
        except TypeError:  # a list, say, that another may follow in its place
            dataset = weakref.ref(loader)
        like = (id(loader.dataset), loader.batch_size, type(loader.sampler))
        last = self.passes.get(like)
        if last is None or last.loader() is not None or last.dataset() is not loader.dataset:
            last = _Passes(None, dataset)
        last.loader = weakref.ref(loader)
        self.passes[id(loader)] = self.passes[like] = last
        return last

    def _look(self, passes: _Passes, dataset: Any) -> None:
        before, passes.mark = passes.mark, None
        if passes.changing or passes.begun >= MOST_PASSES:
            return
        mark = self._aside(dataset)
        if passes.begun and mark == before:
            return  # it stayed what it was
        passes.changing = mark is not None and passes.begun > 1  # the first makes what is made once (a file's handle)
        passes.mark = mark

    def _aside(self, dataset: Any) -> Any:
        """A dataset's mark, made in no time of the script's; None where its own objects raise something."""
        watch, clock = self.watch, self.watch.clock
        thread, clock.thread = clock.thread, -1
        before = clock.now()
        try:
            return close_fingerprint(dataset)
        except Exception:
            return None
        finally:
            took = clock.now() - before
            clock.thread = thread
            clock.last += took
            watch.step_started += took
            watch.sampler.skip()
