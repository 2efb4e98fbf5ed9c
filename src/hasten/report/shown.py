"""What a report shows of a trace beside what the trace holds itself: its rows as drawn, ceilings with speed-ups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hasten.core.facts import Place
from hasten.core.interval import Interval
from hasten.core.trace import Trace
from hasten.report import tree, view


@dataclass(frozen=True)
class Part:
    """A row of "where the time goes".

    Attributes:
        name: as shown.
        phase: the phase of the trace that it belongs to; empty for the step, "unaccounted" for what is left.
        depth: 0 for the step, 1 for its phases, 2 for their lines; the rows of a level sum to the row above them.
        seconds: per step; its ends are null where no interval is known.
        share: of the step, 0 to 1.
        place: the line that owns it.
    """

    name: str
    phase: str
    depth: int
    seconds: Interval
    share: float
    place: Place | None


@dataclass(frozen=True)
class Ceiling:
    """A step with one side made free.

    Attributes:
        name: "as it is", "data free" or "model free".
        seconds: per step; null where it was not measured.
        speedup: over the step as it is; null where unknown.
    """

    name: str
    seconds: Interval | None
    speedup: Interval | None


@dataclass(frozen=True)
class Shown:
    """What a report shows that is computed from the trace.

    Attributes:
        parts: where the time of a step goes, in the order of the report; lines below 1 % of the step are summed up.
        device_parts: the same on the device; empty on a CPU.
        ceilings: empty where none was measured; the trace says why.
        other_cores: cores that neither the script nor its loaders' workers kept busy, but others did.
    """

    parts: tuple[Part, ...]
    device_parts: tuple[Part, ...]
    ceilings: tuple[Ceiling, ...]
    other_cores: float


def shown(trace: Trace) -> Shown:
    """What is shown of a trace."""
    return Shown(
        _parts(tree.tree(trace)),
        _parts(tree.on_device(trace)),
        tuple(Ceiling(c.name, c.seconds, c.speedup) for c in view.ceilings(trace)),
        trace.usage.strangers,
    )


def _parts(rows: Sequence[tree.Row]) -> tuple[Part, ...]:
    return tuple(Part(r.name, r.phase, len(r.lasts), r.seconds, r.share, r.place) for r in rows)
