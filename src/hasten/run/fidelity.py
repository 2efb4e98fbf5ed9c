"""Did what was learned stay the same? Compared, not assumed.

All children start from one state of the running script and take the same K steps. ``identical`` must give the same
sha256 of weights, buffers, optimizer state and random states. ``equivalent`` must stay as close to the unchanged script
as the unchanged script stays to itself when every weight is moved by some units in the last place: that is what
rounding alone does to this model in K steps. They are so many that what jumps (a ReLU, the largest of a pool) jumps
there, too: of a million activations one or two lie so near to their threshold that any other rounding moves them
across, and then all gradients before them differ by far more than rounding does elsewhere.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from hasten.core.remedy import Fidelity, Remedy
from hasten.run.trial import TrialRoom
from hasten.seams import fork
from hasten.seams.batches import Ahead
from hasten.seams.child import Straight
from hasten.seams.state import Layout, Snapshot
from hasten.seams.thrown import reseed

MOST_STEPS = 40  # steps compared …
LEAST_STEPS = 4  # … or fewer where steps are long
UNITS = 32  # in the last place: an equivalent remedy rounds in every operation of every step, the yardstick only once
MARGIN = 3.0  # times what that changes, for what jumps is not the same in every run
DRAWS = 3  # yardsticks, the largest of which counts, before a promise is called broken
BUSY = 6.0  # times what a child should take at most, as long as it goes on: where others take the cores, steps are long
MARKS = (1, 4)  # steps after which weights are compared besides the last: chaos has not yet blown up rounding there
AGAIN = "again"  # the unchanged script once more: does it differ from itself?
SHARP = 1e-3  # a tolerance below this tells a wrong gradient from rounding; the longest such comparison is quoted
BLUNT = 0.05  # a tensor whose tolerance is larger than this is not judged
BUFFERS = 0.01  # tolerance of buffers: means over a batch lose more digits than weights do, a second forward gains 90 %
TOO_LONG = "the budget was used up before the weights were compared"
STILL = 1e-6  # relative; a tensor that moved by less when all weights were moved stands still
LEAST_JUDGED = 0.5  # share of the moving weights that must be judged, else nothing is proved and nothing kept
SEEDS = 3  # other seeds, whose losses an approximate remedy's are compared with
LEAST_TOLERANCE = 1e-6  # relative; a few units in the last place of float32


@dataclass(frozen=True)
class Finding:
    """Outcome of one comparison.

    Attributes:
        kept: whether the promise was kept; None where it cannot be judged (the script differs from itself).
        words: one line for the report.
        distance: relative distance of the weight updates; 0 for the same bits.
    """

    kept: bool | None
    words: str
    distance: float = math.nan

    def or_late(self, until: float) -> Finding:
        """Itself; where nothing was found and the time is up, that this is why."""
        return Finding(None, TOO_LONG) if self.kept is None and time.monotonic() >= until else self


@dataclass
class Judge:
    """Runs the unchanged script once and compares others with it.

    Args:
        part_seconds: what one child should take; sets how many steps are compared.
    """

    room: TrialRoom
    folder: str
    step_seconds: float
    part_seconds: float = 5.0
    _until: float = math.inf
    _error: str = ""
    _known: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        return int(max(LEAST_STEPS, min(MOST_STEPS, self.part_seconds / max(self.step_seconds, 1e-6))))

    def least_seconds(self, remedy: Remedy, base: Sequence[Remedy] = ()) -> float:
        """What comparing weights takes, on top of ``base``, where steps are so long that only the fewest are
        compared."""
        children = 2 if remedy.fidelity is Fidelity.IDENTICAL else 4
        starts = sum(r.start_seconds for r in (remedy, *base))
        return children * LEAST_STEPS * self.step_seconds + starts

    def judge(self, remedies: list[Remedy], until: float = math.inf) -> Finding:
        """Compare the script with ``remedies`` on to the script as it is.

        Args:
            until: no child goes on beyond this (``time.monotonic``).
        """
        self._until, self._error = until, ""
        return self._compared(remedies).or_late(until)

    def _compared(self, remedies: list[Remedy]) -> Finding:
        promise = max((r.fidelity for r in remedies), key=lambda f: f.rank, default=Fidelity.IDENTICAL)
        fresh = self.room.renews(remedies) or (
            promise is Fidelity.APPROXIMATE and self.room.renewable  # another seed is felt in a new pass only
        )
        if not Snapshot.of(self.room.watch).parameters():
            return Finding(None, "no optimizer or module is known whose weights could be compared")
        base = self._run("plain" + "+fresh" * fresh, [], fresh)
        other = self._run("", remedies, fresh)
        if base is None or other is None:
            return self._ended()
        steps = len(base["losses"])
        if steps < LEAST_STEPS:
            return Finding(None, f"a child took only {steps} steps, too few for a comparison")
        same = [k for k in ("weights", "optimizer", "random") if base[k] == other[k]]
        if len(same) == 3:
            return Finding(True, f"identical after {steps} steps, to the bit", 0.0)
        again = self._run(AGAIN + "+fresh" * fresh, [], fresh)
        if again is None:
            return self._ended()
        if any(base[k] != again[k] for k in ("weights", "optimizer")):
            return Finding(None, "the script differs from itself when run twice, so nothing can be compared")
        if promise is Fidelity.IDENTICAL:
            changed = ", ".join(k for k in ("weights", "optimizer", "random") if k not in same)
            return Finding(False, f"promised the same bits, but after {steps} steps these differ: {changed}")
        if "random" not in same:
            return Finding(False, "other random numbers were drawn")
        if promise is Fidelity.APPROXIMATE:
            return self._curves(base, other, fresh)
        return self._distance(base, other, fresh)

    def _ended(self) -> Finding:
        return Finding(None, "a child ended before the comparison" + (f": {self._error}" if self._error else ""))

    def _distance(self, base: dict[str, Any], other: dict[str, Any], fresh: bool) -> Finding:
        """Equivalent: as close as rounding explains, by the largest of some yardsticks where one does not."""
        path = os.path.join(self.folder, "start")
        snapshot = Snapshot.of(self.room.watch)
        snapshot.write(path)
        layout = snapshot.layout()
        start = weights(path, layout)
        yardsticks: list[dict[str, Any]] = []
        found = Finding(None, "the weights could not be written")
        for draw in range(DRAWS) if start is not None else ():
            moved = self._run(f"moved{draw}" + "+fresh" * fresh, [], fresh, moved_by=draw)
            if moved is None:
                return self._ended()
            yardsticks.append(moved)
            found = self._marked(start, base, other, yardsticks, layout)
            if found.kept is not False:
                break
        return found

    def _marked(
        self, start: Any, base: dict[str, Any], other: dict[str, Any], yardsticks: list[dict[str, Any]], layout: Layout
    ) -> Finding:
        """At every mark as close as rounding explains, and at one mark at least that is a sharp test."""
        best: Comparison | None = None
        for mark in (*MARKS, 0):
            a, b, *ends = (
                weights(x["weights_file"] + (str(mark) if mark else ""), layout) for x in (base, other, *yardsticks)
            )
            starts = [weights(x["moved_file"], layout) for x in yardsticks]
            if a is None or b is None or any(x is None for x in (*starts, *ends)):
                continue  # the script ended before this mark
            found = compare(start, a, b, list(zip(starts, ends, strict=True)), layout, mark or len(base["losses"]))
            if not found.kept:
                return Finding(False, found.words(), found.distance)
            if found.judged >= LEAST_JUDGED and (best is None or found.tolerance < SHARP):
                best = found
        if best is None:
            return Finding(None, "rounding alone changes the updates of most weights: nothing can be compared")
        return Finding(True, best.words(), best.distance)

    def _curves(self, base: dict[str, Any], other: dict[str, Any], fresh: bool) -> Finding:
        """Losses beside the losses of the same script with other random numbers."""
        seeded = [self._run(f"seed{k}" + "+fresh" * fresh, [], fresh, seed=k) for k in range(SEEDS)]
        return curves(base["losses"], other["losses"], [s["losses"] if s else [] for s in seeded])

    def _run(
        self, name: str, remedies: list[Remedy], fresh: bool, *, moved_by: int | None = None, seed: int | None = None
    ) -> dict[str, Any] | None:
        """One child; the unchanged ones are remembered by name.

        Args:
            moved_by: which draw of units in the last place its weights are moved by.
        """
        if name in self._known:
            return self._known[name]
        path = os.path.join(self.folder, f"{name or 'with'}.json")
        if os.path.exists(path):
            os.unlink(path)
        snapshot = Snapshot.of(self.room.watch)

        def driver(sender: fork.Sender) -> Straight:
            if seed is not None:
                reseed(seed)
            batches = self.room.arrange(remedies, fresh, endless=False)
            if moved_by is not None:
                snapshot.perturb(UNITS, moved_by)
                snapshot.write(path + ".moved")
            # what a cache serves is compared, and not what it was filled with; one batch ahead draws what comes next
            ahead = Ahead(self.room.watch, batches, remedies, depth=1)
            return Straight(
                sender,
                self.room.watch,
                self.steps,
                warm=0,
                snapshot=snapshot,
                outcome=path,
                written=not name.startswith(AGAIN),  # whose digest is all that is asked for
                marks=tuple(mark for mark in MARKS if mark < self.steps),
                prepare=ahead if ahead.remedies else lambda: None,
            )

        child = fork.go(self.room.watch, driver, allowed=(self.folder,), processes=False)
        one_off = max((r.one_off_seconds for r in remedies), default=0.0)
        silent = self.part_seconds + 6 * self.steps * self.step_seconds + 2 * one_off
        heard = time.monotonic()
        end = min(heard + BUSY * silent, self._until)
        try:
            while not child.ended and time.monotonic() < min(end, heard + silent):
                rows = child.rows(0.5)
                if any(r[0] == fork.DONE for r in rows):
                    break
                heard = time.monotonic() if rows else heard
        finally:
            error = child.error
            child.kill()
        try:
            with open(path, encoding="utf-8") as file:
                result: dict[str, Any] = json.load(file)
        except (OSError, ValueError):
            self._error = self._error or error
            return None
        result |= {"weights_file": path + ".weights", "moved_file": path + ".moved"}
        if name:
            self._known[name] = result
        return result


@dataclass(frozen=True)
class Comparison:
    """Updates of two runs, tensor by tensor.

    Attributes:
        judged: share of the weights that the script moves which lie in tensors where rounding alone is small enough to
            tell.
        distance, tolerance: of the tensor nearest to its limit, relative to the length of its update; infinite and 0
            where a tensor was changed that the script leaves alone.
    """

    kept: bool
    judged: float
    distance: float
    tolerance: float
    steps: int

    def words(self) -> str:
        steps = f"{self.steps} {'steps' if self.steps > 1 else 'step'}"
        if self.tolerance == 0:
            return f"after {steps} weights or buffers are changed that the script leaves alone"
        return (
            f"updates differ by at most {self.distance:.1e} of their length after {steps}; rounding "
            f"alone explains {self.tolerance:.1e} ({self.judged:.0%} of the moving weights judged)"
        )


Numbers = npt.NDArray[np.floating[Any]]


def compare(
    start: Numbers, base: Numbers, other: Numbers, yardsticks: Sequence[tuple[Any, Any]], layout: Layout, steps: int
) -> Comparison:
    """Judge every tensor's update by what some units in the last place do to it.

    Tensors whose update is rounding and nothing else (a bias before a normalisation) are chaos under any change and
    are not judged. A tensor that the unchanged script leaves where it was must be left there.

    Args:
        start, base, other: all weights and buffers as flat arrays, (layout.total,): before, and after ``steps`` steps
            of the unchanged script, and of the script with remedies.
        yardsticks: before and after as many steps of the unchanged script, with every weight moved at the start.
    """
    judged, moving, worst, at = 0, 0, (0.0, LEAST_TOLERANCE), 0
    eps = float(np.finfo(layout.dtype).eps)
    for i, size in enumerate((*layout.parameters, *layout.buffers)):
        buffer = i >= len(layout.parameters)
        part = slice(at, at + size)
        at += size
        update = base[part].astype(np.float64) - start[part]
        moved, apart = _length(update), _length(other[part], base[part])
        rounding = max(_length(end[part].astype(np.float64) - begun[part], update) for begun, end in yardsticks)
        if moved == 0:
            if apart != 0 and rounding <= STILL * _length(start[part]):
                return Comparison(False, judged / max(1, moving), math.inf, 0.0, steps)
            continue
        stored = eps * math.sqrt(steps / 2) * _length(start[part])  # every step rounds its sum, in both runs
        tolerance = max(MARGIN * max(rounding, stored) / moved, BUFFERS if buffer else LEAST_TOLERANCE)
        moving += 0 if buffer else size
        if not tolerance <= BLUNT:
            continue
        judged += 0 if buffer else size
        distance = apart / moved if math.isfinite(apart) else math.inf
        if distance / tolerance >= worst[0] / worst[1]:
            worst = (distance, tolerance)
    return Comparison(worst[0] <= worst[1], judged / max(1, moving), worst[0], worst[1], steps)


def _length(a: Numbers, b: Numbers | float = 0.0) -> float:
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinity are judged by the caller
        return float(np.linalg.norm((a - b).astype(np.float64)))


def weights(path: str, layout: Layout) -> Numbers | None:
    """What :meth:`Snapshot.write` wrote; None where it is not there or not whole."""
    try:
        found = np.fromfile(path, np.dtype(layout.dtype))
    except OSError:
        return None
    return found if len(found) == layout.total else None


def curves(base: list[float], other: list[float], seeded: list[list[float]]) -> Finding:
    """Approximate: the mean loss differs by no more than that of the same script with other random numbers.

    Args:
        base, other: losses of the steps of the unchanged script, and with remedies.
        seeded: losses of the unchanged script with other seeds; those of a run that failed are none.
    """
    if any(len(losses) != len(base) for losses in (other, *seeded)):
        return Finding(None, "the noise between seeds could not be measured")
    a, b = np.array(base), np.array(other)
    spread = max(abs(float(np.mean(np.array(losses) - a))) for losses in seeded)
    if spread == 0:
        return Finding(None, "other seeds change nothing in these steps: there is no noise to compare with")
    gap = abs(float(np.mean(b - a)))
    words = f"mean loss over {len(a)} steps differs by {gap:.2e}; between seeds it differs by {spread:.2e}"
    return Finding(bool(gap <= spread and np.isfinite(b).all()), words, gap)
