"""A paired A/B of one remedy in forked children of the running script."""

from __future__ import annotations

import math
import os
import random
import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from hasten.core.errors import Unsuited
from hasten.core.remedy import Grain, Remedy, Seam
from hasten.core.trace import Trace
from hasten.measure.interleave import (
    LOOKS,
    TURNS_LOOKS,
    TURNS_LOOKS_LONG,
    Outcome,
    Pairs,
    TurnPairs,
    coin_flips,
)
from hasten.run import calls, compiled, stepwise
from hasten.run.again import Looking, seen_again
from hasten.run.renewal import FEW_BATCHES, renew_iterator, training_loader
from hasten.run.room import Asked, Measured, Room
from hasten.run.stepwise import SILENT_SECONDS, TIME_UP, TOO_NOISY
from hasten.seams import fork, schedule
from hasten.seams.apply import Switchboard
from hasten.seams.batches import Ahead, Batches
from hasten.seams.child import LONG_STEP, WITH, WITHOUT, Alternating, Tokened, warm_steps
from hasten.seams.record import NOT_ASKED, record_batches
from hasten.seams.watch import Watch

FORKED_STEPWISE = "fork, step by step"
FORKED_IN_TURNS = "fork, two children in turns"
FORKED_CALLS = "fork, calls of an evaluation by turns"
UNIT_SECONDS = 0.02  # a turn lasts at least this long …
WORKER_UNIT = 4  # … and this many steps where workers deliver in bursts
FIRST_SHARE = 0.6  # of a trial's time may pass until two children make a claim; the rest is for the two that confirm it
SPARED = "the copies had no page faults to save, by chance; the script has"
SPARED_SHARE = 0.25  # of the script's page faults, below which copies count as spared …
SPARED_AFTER = 4  # … and pairs of which that is seen, again and again: the heap of a new copy grows in its first steps
NOT_CONFIRMED = "two other children did not confirm it"


class TrialRoom(Room):
    """Runs trials at one point of the script: all children start from the same state.

    Args:
        step_seconds: mean duration of a step now.
        folder: where children leave outcomes.
        compiled: where they leave compiled code, for the parent to use.
        faults: minor page faults of a step.
    """

    def __init__(
        self,
        watch: Watch,
        switchboard: Switchboard,
        step_seconds: float,
        folder: str = "",
        compiled: str = "",
        faults: float = math.nan,
    ) -> None:
        self.watch = watch
        self.switchboard = switchboard
        self.step_seconds = step_seconds
        self.folder = folder
        self.compiled = compiled
        self.faults = faults
        self.recorded: deque[Any] | None = record_batches(watch)

    def least_seconds(self, remedy: Remedy, base: Sequence[Remedy] = ()) -> float:
        """What the shortest trial that can end in a claim takes, on top of ``base``."""
        warm, settle = warm_steps(self.step_seconds), self._settle([remedy])
        starts = sum(r.start_seconds for r in base)
        if remedy.grain is Grain.CALL:
            return 2 * LOOKS[0] * max(calls.UNIT_SECONDS, self.step_seconds)
        if stepwise.switchable([remedy], base, self.in_workers(base)):
            return (warm + 2 * LOOKS[0] * (1 + settle)) * self.step_seconds + starts
        steps = 2 * 2 * (max(warm, settle) + self._turn_looks[0])
        if self.renews([remedy, *base]):
            steps += 2 * 2 * FEW_BATCHES
        return steps * self.step_seconds + remedy.one_off_seconds + remedy.start_seconds + 4 * starts

    @property
    def _turn_looks(self) -> tuple[int, ...]:
        return TURNS_LOOKS if self.step_seconds < LONG_STEP else TURNS_LOOKS_LONG

    def _settle(self, remedies: list[Remedy]) -> int:
        return stepwise.settle_of(remedies, self.step_seconds)

    # -- one trial -----------------------------------------------------------------------------------------------

    def _measured(self, asked: Asked) -> Measured:
        common, off, on = asked.ways
        changed = [*off, *on]
        if all(r.grain is Grain.CALL for r in changed):
            return self._by_calls(common, asked.seconds)
        one = stepwise.switchable(changed, common, self.in_workers(asked.with_))
        pairs: Pairs
        if one:
            pairs = asked.so_far(Pairs())
            why = self._stepwise(asked, pairs)
        else:
            pairs = turns = asked.so_far(TurnPairs(looks=self._turn_looks))
            why = self._in_turns(asked.without, asked.with_, turns, asked.seconds)
        if why == stepwise.TOO_EARLY and self.recorded is not None and not self.recorded:
            why = NOT_ASKED
        return Measured(pairs, FORKED_STEPWISE if one else FORKED_IN_TURNS, 0.0, why)

    def _by_calls(self, common: list[Remedy], seconds: float) -> Measured:
        """An evaluation's calls without a graph against the same calls with one; what share of a step they are is
        taken from how often the script makes them."""
        pairs = Pairs()
        record = calls.evaluated(self.watch)
        if record is None:
            return Measured(pairs, FORKED_CALLS, 0.0, calls.NO_CALL)

        def driver(sender: fork.Sender) -> None:
            self.arrange(common, fresh=False)
            calls.Calls(sender, self.watch, self.switchboard.forward).run()

        child = fork.go(self.watch, driver, allowed=self.allowed, processes=False)
        why = self._listen(child, pairs, seconds, common)
        often = record.evaluations_with_graph / max(1, self.watch.steps)
        share = min(1.0, often * pairs.mean_without / max(self.step_seconds, 1e-9))
        return Measured(pairs, FORKED_CALLS, 0.0, why, share)

    def _stepwise(self, asked: Asked, pairs: Pairs) -> str:
        common, off, on = remedies = asked.ways
        settle, unit = self._settle([*on, *off]), stepwise.unit_of(self.step_seconds)

        def driver(sender: fork.Sender) -> Alternating:
            batches = self.arrange(common, fresh=False)
            undo_off = [self.switchboard.on(r) for r in off]
            return stepwise.alternating(
                sender, self.watch, self.switchboard, batches, remedies, undo_off, settle=settle, unit=unit
            )

        child = fork.go(self.watch, driver, allowed=self.allowed, processes=False)
        return self._listen(child, pairs, asked.seconds, [*asked.without, *asked.with_])

    def _listen(self, child: fork.Child, pairs: Pairs, seconds: float, remedies: list[Remedy]) -> str:
        """An evaluation may be compiled in between, where the training is."""
        patience = SILENT_SECONDS + 40 * self.step_seconds + sum(r.one_off_seconds for r in {*remedies})
        return stepwise.listen(child, pairs, seconds, patience)

    def _in_turns(self, without: list[Remedy], with_: list[Remedy], pairs: TurnPairs, seconds: float) -> str:
        """Two children take turns; a claim is made only where two others, forked in the other order, confirm it.

        A coin decides who comes first within a pair, but not in what two children differ all the time (where their
        threads lie, what is cached): the child is the unit that must be repeated.
        """
        start = time.monotonic()
        why = self._by_two(without, with_, pairs, start + FIRST_SHARE * seconds, (WITHOUT, WITH))
        if pairs.outcome not in (Outcome.FASTER, Outcome.SLOWER):
            return why
        again = TurnPairs(looks=pairs.looks)
        why = self._by_two(without, with_, again, start + seconds, (WITH, WITHOUT))
        if again.outcome is not pairs.outcome:
            pairs.outcome = Outcome.OPEN
            why = why or NOT_CONFIRMED
        pairs.wall += again.wall
        pairs.cpu += again.cpu
        pairs.faults += again.faults
        return why

    def _by_two(
        self, without: list[Remedy], with_: list[Remedy], pairs: TurnPairs, end: float, order: tuple[int, int]
    ) -> str:
        changed = [r for r in (*without, *with_) if (r in without) != (r in with_)]
        fresh = self.renews(changed, self.in_workers(without) or self.in_workers(with_))
        unit = max(1, min(16, round(UNIT_SECONDS / max(self.step_seconds, 1e-6))))
        warm = max(warm_steps(self.step_seconds), self._settle([*without, *with_]))
        few = self.keeps_for_workers(without) or self.keeps_for_workers(with_)
        if fresh or few:
            unit, warm = max(unit, WORKER_UNIT), warm + 4
        children: dict[int, fork.Child] = {}

        def kill() -> None:
            for child in children.values():
                child.kill()

        with fork.AtEnd(kill):
            for way in order:
                remedies = without if way == WITHOUT else with_
                driver = self._tokened(remedies, fresh, few, warm, unit)
                child = children[way] = fork.go(self.watch, driver, allowed=self.allowed, processes=False)
                if not self._ready(child, end):
                    return self._early(child, "the child was not ready in time", stepwise.TOO_EARLY)
                child.freeze()
            return self._take_turns(children, pairs, end, any(r.saves_faults for r in changed))

    def _spared(self, pairs: TurnPairs) -> bool:
        """Whether copies have none of the script's page faults, any more or at all: nor will others, all are made from
        the same heap."""
        few = statistics.median(pairs.faults[-SPARED_AFTER:]) < SPARED_SHARE * self.faults
        return few and pairs.outcome is Outcome.OPEN

    def _tokened(
        self, remedies: list[Remedy], fresh: bool, few: bool, warm: int, unit: int
    ) -> Callable[[fork.Sender], Tokened]:
        def driver(sender: fork.Sender) -> Tokened:
            batches = self.arrange(remedies, fresh, few=few)
            ahead, left = Ahead(self.watch, batches, remedies), schedule.expected(self.watch)[0] - self.watch.steps
            return Tokened(sender, self.watch, warm=warm, unit=unit, prepare=ahead, left=left)

        return driver

    def _early(self, child: fork.Child, late: str, ended: str) -> str:
        """Why a child said nothing more: the script was over in it, it has ended, or else the time was up."""
        if child.is_over(0.0):
            return stepwise.too_early(child, stepwise.SHORT)
        return stepwise.too_early(child, ended) if child.ended else late

    def _is_left(self, child: fork.Child, end: float) -> bool:
        patience = SILENT_SECONDS + 40 * self.step_seconds
        return time.monotonic() < end and not child.ended and not child.is_over(stepwise.SILENT_AT_END * patience)

    def _ready(self, child: fork.Child, end: float) -> bool:
        while self._is_left(child, end):
            if any(r[0] == fork.READY for r in child.rows(0.2)):
                return True
        return False

    def _take_turns(
        self, children: dict[int, fork.Child], pairs: TurnPairs, end: float, saves_faults: bool = False
    ) -> str:
        start = time.monotonic()
        cores = sorted(os.sched_getaffinity(0))
        source = random.SystemRandom()  # leaves the user's random states alone
        for heads in coin_flips():
            times = {}
            first = source.randrange(len(cores))  # the same for both of a pair
            placed = cores[first:] + cores[:first]
            for way in (WITHOUT, WITH) if heads else (WITH, WITHOUT):
                child = children[way]
                child.turn(placed)
                row = self._await_row(child, end)
                if row is None:
                    return self._early(child, TIME_UP, stepwise.OVER)
                child.freeze()
                times[way] = row
            if all(row[0] == 0 for row in times.values()):
                pairs.add(times[WITHOUT][1], times[WITH][1], times[WITHOUT][2], times[WITH][2])
                pairs.faults.append(times[WITHOUT][4])
                pairs.look()
            if saves_faults and pairs.faults and not len(pairs.faults) % SPARED_AFTER and self._spared(pairs):
                return SPARED
            now = time.monotonic()
            if pairs.exhausted:
                return ""
            if now > end:
                return TIME_UP
            if pairs.hopeless((now - start) / (end - start)):
                return TOO_NOISY
        return ""

    def _await_row(self, child: fork.Child, end: float) -> tuple[int, float, float, float, float] | None:
        while self._is_left(child, end):
            rows = child.rows(min(0.5, max(0.0, end - time.monotonic())))
            if rows:
                return rows[-1]
        return None

    def unsuited(self, remedy: Remedy, base: list[Remedy]) -> str:
        """Why a remedy cannot be applied on top of ``base``; empty when it can.

        Asked in a child: not every switch has a way back.
        """
        path = os.path.join(self.folder, "unsuited")

        def driver(sender: fork.Sender) -> None:
            words = ""
            self.arrange(base, fresh=False)
            try:
                self._on(remedy, base)
                words = calls.unsuited(self.watch, self.switchboard.forward) if remedy.grain is Grain.CALL else ""
            except Unsuited as error:
                words = str(error)
            with open(path, "w", encoding="utf-8") as file:
                file.write(words)
            sender.row(fork.DONE)
            sender.leave()

        fork.go(self.watch, driver, allowed=self.allowed, processes=False).drain(SILENT_SECONDS)
        try:
            with open(path, encoding="utf-8") as file:
                words = file.read()
            os.unlink(path)
            return words
        except OSError:
            return "switching it on failed"

    def again(self, trace: Trace, remedies: list[Remedy], seconds: float) -> Trace | None:
        """What would be seen with ``remedies`` on; from then on steps are taken to be as long as they are with them.
        None if nothing could be seen in so many seconds."""
        path = os.path.join(self.folder, "again.json")
        warm = max(warm_steps(self.step_seconds), self._settle(remedies))

        def driver(sender: fork.Sender) -> Looking:
            batches = self.arrange(remedies, fresh=False)
            return Looking(sender, self.watch, path, warm, self.step_seconds, Ahead(self.watch, batches, remedies))

        child = fork.go(self.watch, driver, allowed=self.allowed, processes=False)
        child.drain(min(seconds, SILENT_SECONDS + 40 * self.step_seconds))
        seen = seen_again(trace, path, self.recorded is None or self.renews(remedies))
        if seen is not None:
            self.step_seconds = seen.step_seconds
        return seen

    # -- inside a child ------------------------------------------------------------------------------------------

    @property
    def allowed(self) -> tuple[str, ...]:
        return tuple(f for f in (self.folder, self.compiled) if f)

    def in_workers(self, remedies: Sequence[Remedy]) -> bool:
        """Whether worker processes make the batches with these on."""
        counts = [r.workers for r in remedies if hasattr(r, "workers")]
        return bool(counts[-1]) if counts else self.recorded is not None

    def renews(self, remedies: Sequence[Remedy], workers: bool | None = None) -> bool:
        """Whether these take hold of a new pass only: those of loaders, and how batches are made where workers do."""
        workers = self.in_workers(remedies) if workers is None else workers
        return any(r.seam is Seam.LOADER or (workers and r.seam is Seam.FETCHER) for r in remedies)

    def keeps_for_workers(self, remedies: Sequence[Remedy]) -> bool:
        """Whether workers would find ready, from the second pass on, what these have kept."""
        return self.in_workers(remedies) and any(hasattr(r, "ahead") for r in remedies)

    def arrange(self, remedies: list[Remedy], fresh: bool, endless: bool = True, few: bool = False) -> Batches:
        """In a child: serve batches so that the loop goes on, and switch remedies on.

        Args:
            fresh: give the loop a new iterator, made with the remedies on.
            few: have it ask for a few batches again and again, as is done where workers keep samples: what is kept of
                these is made before they start.
        """
        watch = self.watch
        if self.compiled:
            os.environ[compiled.VARIABLE] = self.compiled
            os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
            os.environ["TMPDIR"] = self.compiled
        fresh = fresh or self.renews(remedies)
        recorded = deque(self.recorded) if self.recorded is not None and not fresh else None
        batches = Batches(watch, recorded, endless)
        batches.take_over()
        early = [r for r in remedies if r.seam in (Seam.LOADER, Seam.FETCHER)] if fresh else []
        for remedy in early:  # the new iterator's fetcher, here or in its workers, is made with them on
            self.switchboard.on(remedy, required=False)
        if fresh:
            renew_iterator(watch, batches, remedies, endless and (few or self.keeps_for_workers(remedies)))
        for remedy in remedies:
            if remedy not in early:
                self.switchboard.on(remedy)
        return batches

    @property
    def renewable(self) -> bool:
        """Whether a child can begin a new pass over the training data."""
        record = self.watch.trained_from
        return record is not None and record.loader() is not None

    def _on(self, remedy: Remedy, base: list[Remedy]) -> None:
        """Switch on in a child; how workers make batches is asked of their loader."""
        if remedy.seam is Seam.FETCHER and self.in_workers(base):
            remedy.on(training_loader(self.watch)[1])
        else:
            self.switchboard.on(remedy)
