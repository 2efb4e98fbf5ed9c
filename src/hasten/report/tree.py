"""Where the time goes, as rows: a step, its phases and their lines; every level sums to its parent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from hasten.core.facts import Place
from hasten.core.interval import Interval
from hasten.core.trace import Phase, Trace
from hasten.report.figures import significant

TITLES = {
    "fetch": "fetch a batch",
    "copy": "copy to the device",
    "wait": "wait for a value",
    "log": "logging",
    "loader start": "start and end of workers",
    "python": "lines in between",
}
SMALL = 0.01  # share of the step below which a sub-phase is summed up under "other lines"
GAP = 0.02  # share of its parent that sub-phases may leave open before "other lines" is shown
SAME = 0.9  # a single sub-phase with this share of its parent, on the same line, says nothing new


@dataclass(frozen=True)
class Row:
    """One line of the phase tree.

    Attributes:
        name: as shown.
        seconds: per step; infinite ends where no interval is known.
        share: of the step, 0 to 1.
        lasts: for each level from the outside, whether the branch there is its parent's last; () for the step itself.
        phase: the first-level phase this row belongs to, "" for the step, "unaccounted" for the rest.
    """

    name: str
    seconds: Interval
    share: float
    place: Place | None
    lasts: tuple[bool, ...]
    phase: str

    @property
    def prefix(self) -> str:
        """The branches drawn before the name."""
        if not self.lasts:
            return ""
        return "".join("   " if last else "│  " for last in self.lasts[:-1]) + ("└─ " if self.lasts[-1] else "├─ ")


def tree(trace: Trace, small: float = SMALL) -> list[Row]:
    """The step and its phases; rows of one level sum to their parent. Empty where no step was measured."""
    if trace.step is None or not trace.step.known:
        return []
    rows = branches(trace.step, parts(trace.phases, trace.step.value, trace.unaccounted), small)
    named = {}
    if trace.process.device == "cpu":
        named[TITLES["copy"]] = "Tensor.to"  # to another type, or to where it is
    if trace.loaders and not any(loader.num_workers for loader in trace.loaders):
        named[TITLES["loader start"]] = "start of a pass"
    return [replace(row, name=named.get(row.name, row.name)) for row in rows]


def branches(step: Interval, phases: Sequence[Phase], small: float = SMALL) -> list[Row]:
    """A step's row with its phases' rows below it."""
    rows = [Row("step", step, 1.0, None, (), "")]
    for i, phase in enumerate(phases):
        last = i == len(phases) - 1
        rows.append(_row(phase, step.value, (last,), phase.name))
        below = children(phase, step.value * small)
        rows.extend(_row(child, step.value, (last, j == len(below) - 1), phase.name) for j, child in enumerate(below))
    return rows


def on_device(trace: Trace) -> list[Row]:
    """The step and its phases by the device's own time; empty where none was measured."""
    if not trace.device_phases or trace.step is None:
        return []
    return branches(trace.step, parts(trace.device_phases, trace.step.value, 0.0))


class Digits(NamedTuple):
    """Decimal places that a step's parts show: of their time at most and at least, of their share in %."""

    most: int
    least: int
    share: int


def digits(step: Interval, factor: float) -> Digits:
    """For times that are multiplied by ``factor``: so many that rounding does not part a sum from its parts."""
    certain = (step.high - step.low) / 2 < 0.02 * step.value
    most = max(0, significant(step.value * factor, 4))
    return Digits(most, significant(step.value * factor, 2), 1 if certain else 0)


def _row(phase: Phase, step: float, lasts: tuple[bool, ...], owner: str) -> Row:
    name = TITLES.get(phase.name, phase.name) if len(lasts) == 1 else phase.name
    return Row(name, phase.seconds, phase.seconds.value / step if step else math.nan, phase.place, lasts, owner)


def parts(phases: Sequence[Phase], step: float, unaccounted: float) -> list[Phase]:
    """First-level phases that sum to ``step`` seconds.

    What no line accounts for is taken out of ``python``, where it was measured, and stands last as ``unaccounted``;
    where none was seen there (in a replayed plan none is looked for), all of ``python`` is the script's own.
    """
    left_open = max(0.0, step - math.fsum(p.seconds.value for p in phases))
    sampled = any(p.children for p in phases if p.name == "python")
    hidden = max(0.0, unaccounted - left_open) if sampled and math.isfinite(unaccounted) else 0.0
    out = [_less(p, hidden) if p.name == "python" else p for p in phases]
    out = [p for p in out if p.seconds.value > 1e-4 * step or p.children]
    out.sort(key=lambda p: -p.seconds.value)
    rest = max(0.0, step - math.fsum(p.seconds.value for p in out))
    return [*out, Phase("unaccounted", Interval(rest, -math.inf, math.inf))]


def _less(phase: Phase, hidden: float) -> Phase:
    hidden = min(hidden, phase.seconds.value)
    x = phase.seconds
    return replace(phase, seconds=Interval(x.value - hidden, x.low - hidden, x.high - hidden, x.unit, x.level, x.n))


def children(phase: Phase, small: float) -> list[Phase]:
    """Sub-phases worth a line, and what is left of their parent as "other lines"."""
    if len(phase.children) == 1 and _says_nothing(phase, phase.children[0]):
        return []
    shown = [c for c in phase.children if c.seconds.value >= small]
    rest = phase.seconds.value - math.fsum(c.seconds.value for c in shown)
    if shown and rest > GAP * phase.seconds.value:
        shown.append(Phase("other lines", Interval(rest, -math.inf, math.inf)))
    return shown


def _says_nothing(phase: Phase, child: Phase) -> bool:
    return same_line(phase.place, child.place) and child.seconds.value > SAME * phase.seconds.value


def same_line(a: Place | None, b: Place | None) -> bool:
    return a is not None and b is not None and (a.file, a.line) == (b.file, b.line)
