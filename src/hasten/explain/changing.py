"""Do datasets stay what they are from one pass over their loader to the next?

A script that draws negative samples, or grows its data, before every epoch has other samples in each; what was asked
twice within one pass says nothing of that.
"""

from __future__ import annotations

from typing import Any

from hasten.data.fingerprint import close_fingerprint
from hasten.seams.watch import Watch

MOST_PASSES = 3  # looked at, of a loader; a look at many settings takes some tens of milliseconds


class Changing:
    """Looks at a loader's dataset when a pass over it begins, and remembers where it is another than before."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.marks: dict[int, Any] = {}  # of the loaders that are alive, by the key of their record
        watch.new_target = self

    def __call__(self, kind: str, target: Any) -> None:
        watch = self.watch
        if kind != "loader" or watch.driver is not None:  # in a child nothing is found out that the parent will know
            return
        record = watch.record_of(target)
        if record.changing or record.starts >= MOST_PASSES:
            self.marks.pop(id(target), None)
            return
        if record.starts and id(target) not in self.marks:
            return  # it stayed what it was
        mark = self._aside(target.dataset)
        same = self.marks.pop(id(target), None) == mark
        if mark is None or (record.starts and same):
            return
        record.changing = record.starts > 1  # the first makes what is made once (a file's handle)
        self.marks[id(target)] = mark

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
