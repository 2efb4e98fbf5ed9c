"""Steps with a remedy and without it by turns, in one process that is gone afterwards: a forked child, or a throw-away
process."""

from __future__ import annotations

import time
from collections.abc import Sequence

from hasten.core.remedy import Grain, Remedy, Seam, Undo, undo_all
from hasten.measure.interleave import Pairs
from hasten.seams import fork, schedule
from hasten.seams.apply import Switchboard
from hasten.seams.batches import Ahead, Batches
from hasten.seams.child import LONG_STEP, WITH, WITHOUT, Alternating
from hasten.seams.watch import Watch

UNIT_SECONDS = 0.004  # of steps in one timing, at least …
MOST_UNIT = 8  # … if so many are enough for that
SILENT_SECONDS = 20.0  # a child that says nothing for so long (beyond its steps) is given up
TOO_NOISY = "so small a gain cannot be told from this noise in the time it had"
TIME_UP = "its part of the budget was over"
RAISED = "the child ended:"
TOO_EARLY = "the child ended before it could be timed"
SILENT = "the child fell silent"
OVER = "the child ended before there were pairs enough"
SHORT = "the script ended before there were pairs enough: a trial takes more steps"
SILENT_AT_END = 0.1  # of what a child may be silent, behind the script's last step


def unit_of(step_seconds: float) -> int:
    """Steps a timing."""
    return max(1, min(MOST_UNIT, round(UNIT_SECONDS / max(step_seconds, 1e-6))))


def settle_of(remedies: list[Remedy], step_seconds: float) -> int:
    """Steps after a switch that are not timed; one is enough where steps are long, or none."""
    if step_seconds < LONG_STEP:
        return max((r.settle for r in remedies), default=0)
    return max((r.settle if r.one_off_seconds else min(r.settle, not r.at_once) for r in remedies), default=0)


def switchable(changed: Sequence[Remedy], common: Sequence[Remedy], workers: bool = False) -> bool:
    """Whether ``changed`` can be switched between two steps of one process in which ``common`` are on.

    Args:
        workers: whether worker processes make the batches: how they do is settled when they are started.
    """
    upset = any(r.name in c.upset_by for c in changed for r in common)
    settled = workers and any(r.seam is Seam.FETCHER for r in changed)
    return all(r.grain in (Grain.STEP, Grain.CALL) for r in changed) and not upset and not settled


def split(without: list[Remedy], with_: list[Remedy]) -> tuple[list[Remedy], list[Remedy], list[Remedy]]:
    """What is on all the time, what is on without only, what is on with only."""
    return (
        [r for r in without if r in with_],
        [r for r in without if r not in with_],
        [r for r in with_ if r not in without],
    )


def alternating(
    sender: fork.Sender,
    watch: Watch,
    switchboard: Switchboard,
    batches: Batches,
    remedies: tuple[list[Remedy], list[Remedy], list[Remedy]],
    undo_off: list[Undo],
    *,
    settle: int,
    unit: int,
    taken: int = 0,
) -> Alternating:
    """The driver of such a process.

    Args:
        remedies: as of :func:`split`; the first two kinds are on.
        undo_off: ways back of the second kind.
        settle: steps after a switch that are not timed.
        unit: steps a timing.
        taken: steps of the script that ``watch`` has not counted.

    Raises:
        Unsuited: one of the third kind cannot be applied.
    """
    _, off, on = remedies

    def switch() -> Undo:
        undo_all(undo_off)()
        undos = [switchboard.on(r) for r in on]

        def back() -> None:
            undo_all(undos)()
            undo_off.extend(switchboard.on(r) for r in off)

        return back

    switch()()
    ahead = Ahead(watch, batches, [r for kind in remedies for r in kind])
    left = schedule.expected(watch)[0] - watch.steps - taken
    return Alternating(sender, watch, switch, prepare=ahead, settle=settle, unit=unit, left=left)


def too_early(child: fork.Child, otherwise: str = TOO_EARLY) -> str:
    """Why a child has ended before it was timed to the end: its error, or else ``otherwise``."""
    error = child.error
    return f"{RAISED} {error}" if error else otherwise


def listen(child: fork.Child, pairs: Pairs, seconds: float, silent: float, first: float = 0.0) -> str:
    """Take in the pairs that ``child`` sends until they suffice, the time is up, or it falls silent; it is gone then.

    Args:
        seconds: for the pairs.
        silent: after so many seconds without a word it is given up.
        first: so many seconds more until its first word; they do not count.

    Returns:
        Why there is no claim; empty where the pairs decide.
    """
    heard = time.monotonic() + first
    end = heard + seconds
    half: tuple[int, float, float] | None = None
    try:
        while not pairs.exhausted:
            now = time.monotonic()
            if child.is_over(0.0 if child.ended or now > end else SILENT_AT_END * silent):
                return too_early(child, SHORT)
            if child.ended:
                return too_early(child, OVER if pairs.wall else TOO_EARLY)
            if now > end:
                return TIME_UP
            if now - heard > silent:
                return SILENT
            for kind, wall, cpu, _, _ in child.rows(min(0.5, end - now)):
                if first:
                    first, end = 0.0, time.monotonic() + seconds
                heard = time.monotonic()
                if kind == fork.DONE:
                    return ""
                if half is None:
                    half = (kind, wall, cpu)
                    continue
                times = {half[0]: half[1:], kind: (wall, cpu)}
                half = None
                if len(times) == 2:
                    pairs.add(times[WITHOUT][0], times[WITH][0], times[WITHOUT][1], times[WITH][1])
                    pairs.look()
                    if pairs.hopeless(1 - (end - heard) / seconds):
                        return TOO_NOISY
        return ""
    finally:
        child.kill()
