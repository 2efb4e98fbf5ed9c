"""Which remedies to try, in which order, within which budget; what is kept."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from hasten.core.finding import Finding
from hasten.core.remedy import Fidelity, Grain, Remedy, Seam
from hasten.core.report import Trial
from hasten.core.trace import LEAST_PASSES, Trace
from hasten.measure.interleave import Outcome, Pairs
from hasten.rules import find
from hasten.run.budget import LEAST_TRIAL, most_promising
from hasten.run.fidelity import Judge
from hasten.run.kept import Kept
from hasten.run.processes import ProcessJudge, ProcessRoom
from hasten.run.room import Measured
from hasten.run.stepwise import TIME_UP, TOO_NOISY
from hasten.run.trial import SPARED, TrialRoom
from hasten.run.verdict import spared, verdict

NEXT_START = "takes hold when the plan is replayed; not among all kept together below"
BY_PROCESSES = "told by whole processes, as copies had no page faults to save; not among all kept together below"
TOO_LATE = "takes hold when the plan is replayed: this run ends before its start would be repaid"
HELD = "takes hold when the plan is replayed: the loader's workers were started without it, and outlive its passes"
SAME_OUTPUTS = "outputs of the evaluation identical, to the bit"
SLACK = 1.3  # times the shortest trial, where steps are long
LONG_STEPS = "the budget holds only trials of what promises more"
TOO_DEAR = "dearer to try than the budget allows"
USED_UP = "the budget was used up"
GENEROUS = 1.5  # times an equal part of what is left: what a trial leaves, later ones have
CLEARLY_SLOWER = 0.9  # measured speed-up of one setting below which others of the same direction are not tried
MUCH_MORE = 2.0  # times as long as it had, for which a trial that could not tell is taken up again
LEAST_REVEALED = 1.03  # predicted gain that a remedy needs to be tried after the second look
LEAST_GAIN = 1.005  # predicted best case below which a remedy is not tried


class Cut(NamedTuple):
    """A trial that ended for want of time: what was on in both ways, its pairs, what it took."""

    base: list[Remedy]
    pairs: Pairs
    seconds: float


@dataclass
class Search:
    """Tries remedies one on top of the other.

    Args:
        room, judge: where trials and comparisons run.
        trace: what was measured before.
        budget: seconds for the trials.
        reserve: seconds after them for timing all that is kept together; a comparison of weights may use them up, so
            that what a trial has found is not lost.
        allow: the most that a remedy may change.
        say: progress, one line each.
        launches: where remedies are tried and compared that only whole processes can tell about, if not in ``room``.

    Attributes:
        kept: what won and is on in the next trial.
        launched: what won in whole processes: it is not on in the trials of the room.
    """

    room: TrialRoom | ProcessRoom
    judge: Judge | ProcessJudge
    trace: Trace
    budget: float
    allow: Fidelity = Fidelity.EQUIVALENT
    reserve: float = 0.0
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    say: Callable[[str], None] = lambda text: None
    launches: tuple[ProcessRoom, ProcessJudge] | None = None
    kept: list[Kept] = field(default_factory=list)
    launched: list[Kept] = field(default_factory=list)
    trials: list[Trial] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    _begun: int = 0
    _end: float = math.inf
    _unsuited: set[str] = field(default_factory=set)
    _slower: set[tuple[str, str]] = field(default_factory=set)
    _seen_with: list[Remedy] = field(default_factory=list)
    _cut: dict[str, Cut] = field(default_factory=dict)
    _goes_on: dict[str, Cut] = field(default_factory=dict)
    _aside: list[tuple[Finding, Remedy]] = field(default_factory=list)
    _proved: tuple[set[str], str] = field(default_factory=lambda: (set(), ""))

    def run(self) -> None:
        """Try everything that the budget allows."""
        self._end = time.monotonic() + self.budget
        candidates = self.candidates(self.trace)
        later = [c for c in candidates if self._waits(c[1])]
        candidates = [c for c in candidates if not self._waits(c[1])]
        affordable = self._affordable(candidates, self.budget)
        number = 0
        while number < len(candidates):
            finding, remedy = candidates[number]
            number += 1
            left = self.left
            trial = _trial(finding, remedy)
            why = self._why_not(finding, remedy, left) or self._too_dear(remedy, affordable, left)
            if why:
                self.trials.append(replace(trial, why=why))
            else:
                rest = [r for f, r in candidates[number:] if str(r) in affordable and not self._why_not(f, r, left)]
                rest += [r for _, r in self._aside if str(r) in affordable]
                self.trials.append(self._try(finding, remedy, trial, self._seconds(remedy, rest, left), bool(rest)))
                if self.trials[-1].why == SPARED and self.launches is not None:
                    self._aside.append((finding, remedy))
                    affordable = self._chosen_anew(candidates[number:], affordable)
                if self.trials[-1].verdict == "kept":
                    candidates.extend(self._reopened(candidates) if remedy.seam is Seam.LOADER else ())
                    self._reconsider(remedy)
            if number == len(candidates):
                affordable |= {str(r) for _, r in self._aside}
                self._tell_spared()
                left = self.left
                more = (
                    self._revealed(left) or self._afforded(candidates, affordable, left) or self._cut_short(candidates)
                )
                candidates.extend(more)
                affordable |= self._affordable(more, self.left)
        for finding, remedy in later:
            self.trials.append(self._launch(finding, remedy, self.left))

    @property
    def left(self) -> float:
        """Seconds of the budget that are not used up."""
        return self._end - time.monotonic()

    def _too_dear(self, remedy: Remedy, affordable: set[str], left: float) -> str:
        if str(remedy) in affordable and self._least(remedy) <= left:
            return ""
        if remedy.one_off_seconds or self._least(remedy) > self.budget:
            return TOO_DEAR
        return LONG_STEPS if str(remedy) not in affordable else USED_UP

    def candidates(self, trace: Trace) -> list[tuple[Finding, Remedy]]:
        """Remedies of all findings in the rules' order, each once."""
        found: dict[str, tuple[Finding, Remedy]] = {}
        for finding in find(trace):
            for remedy in finding.remedies:
                found.setdefault(str(remedy), (finding, remedy))
        return self._rivals_in_turn(list(found.values()))

    def _rivals_in_turn(self, found: list[tuple[Finding, Remedy]]) -> list[tuple[Finding, Remedy]]:
        """Of two that take each other's place, the one that promises more takes the first one's turn, where it may be
        tried at all: the other is for where it does not hold what it promises."""
        out = list(found)
        for i, j in itertools.combinations(range(len(out)), 2):
            (first, a), (second, b) = out[i], out[j]
            promises = first.predicted.value < second.predicted.value
            if promises and a.replaces(b) and b.replaces(a) and not self._barred(b):
                out[i], out[j] = out[j], out[i]
        return out

    def _least(self, remedy: Remedy) -> float:
        """Seconds that its shortest trial takes, and its proof."""
        if self.launches is not None and any(r is remedy for _, r in self._aside):
            return sum(x.least_seconds(remedy, self._on) for x in self.launches)
        return self.room.least_seconds(remedy, self._on) + self.judge.least_seconds(remedy, self._on)

    @property
    def _on(self) -> list[Remedy]:
        return [k.remedy for k in self.kept]

    def _seconds(self, remedy: Remedy, rest: list[Remedy], left: float) -> float:
        """What a trial may take: a generous part of what is left, but not of its proof or of the shortest trials of the
        rest."""
        least = self.room.least_seconds(remedy, self._on)
        part = max(SLACK * least, GENEROUS * left / (1 + len(rest)))
        left -= self.judge.least_seconds(remedy, self._on)
        free = left - sum(map(self._least, rest))
        return min(left, max(LEAST_TRIAL + 2 * remedy.one_off_seconds, least, min(part, free)))

    def _waits(self, remedy: Remedy) -> bool:
        """Whether it cannot be tried in the room and waits for the others, to be tried on top of all that is kept."""
        return self.launches is not None and remedy.seam is Seam.LAUNCH

    def _revealed(self, left: float) -> list[tuple[Finding, Remedy]]:
        """Remedies that come into question now: what is kept has other costs left, or has brought some about (another
        memory layout has other page faults)."""
        kept = self._on
        if not kept or kept == self._seen_with or left < LEAST_TRIAL:
            return []
        self._seen_with = kept
        trace = self.room.again(self.trace, kept, left)
        if trace is None:
            return []
        tried = {t.remedy for t in self.trials if t.pairs} | self._unsuited
        found = [(f, r) for f, r in self.candidates(trace) if str(r) not in tried and not self._waits(r)]
        out = [(f, r) for f, r in found if f.predicted.value >= LEAST_REVEALED]
        self.trials = [t for t in self.trials if t.remedy not in {str(r) for _, r in out}]
        return out

    def _reopened(self, candidates: list[tuple[Finding, Remedy]]) -> list[tuple[Finding, Remedy]]:
        """Remedies of fetching that could not be applied before: with other workers they may be."""
        again = [(f, r) for f, r in candidates if r.seam is Seam.FETCHER and str(r) in self._unsuited]
        self._unsuited -= {str(r) for _, r in again}
        self.trials = [t for t in self.trials if t.remedy not in {str(r) for _, r in again}]
        return again

    def _affordable(self, candidates: list[tuple[Finding, Remedy]], left: float) -> set[str]:
        """Where the budget does not hold the shortest trials of all, those that promise most together: a dear one, or
        the cheap ones in its place."""
        open_ = [(f, r) for f, r in candidates if not self._why_not(f, r, left)]
        return most_promising([(math.log(f.predicted.value), self._least(r), str(r)) for f, r in open_], left)

    def _chosen_anew(self, to_come: list[tuple[Finding, Remedy]], affordable: set[str]) -> set[str]:
        """``affordable``, of what is to come those that promise most beside whole processes for what is set aside."""
        waiting = [*to_come, *self._aside]
        return (affordable - {str(r) for _, r in waiting}) | self._affordable(waiting, self.left)

    def _afforded(
        self, candidates: list[tuple[Finding, Remedy]], affordable: set[str], left: float
    ) -> list[tuple[Finding, Remedy]]:
        """Remedies whose trials the budget did not hold beside the others, and holds now that these took less."""
        waiting = [(f, r) for f, r in candidates if str(r) not in affordable]
        chosen = self._affordable(waiting, left)
        self.trials = [t for t in self.trials if t.remedy not in chosen]
        return [(f, r) for f, r in waiting if str(r) in chosen]

    def _cut_short(self, candidates: list[tuple[Finding, Remedy]]) -> list[tuple[Finding, Remedy]]:
        """Remedies whose trials could not tell in the time they had, where each can have much more of it now: what was
        reserved for others was not used up. Each once."""
        open_ = {t.remedy for t in self.trials if t.verdict == "cannot tell" and t.remedy in self._cut}
        found = {str(r): (f, r) for f, r in candidates if str(r) in open_ and not self._why_not(f, r, self.left)}
        share = self.left / max(1, len(found))
        more = [c for name, c in found.items() if share >= max(LEAST_TRIAL, MUCH_MORE * self._cut[name].seconds)]
        names = {str(r) for _, r in more}
        self.trials = [t for t in self.trials if t.remedy not in names]
        for name in names:
            self._goes_on[name] = self._cut.pop(name)
        return more

    def _barred(self, remedy: Remedy) -> str:
        """Why the user does not want it tried; empty where that may be."""
        if self.only and remedy.name not in self.only:
            return "not among --only"
        if remedy.name in self.skip:
            return "skipped as asked"
        return f"ask: --allow {remedy.fidelity.value}" if remedy.fidelity.rank > self.allow.rank else ""

    def _rival(self, finding: Finding, remedy: Remedy) -> Remedy | None:
        """What is kept in its place, and promised as much."""
        kept = [k.remedy for k in self.kept if k.remedy.replaces(remedy) and remedy.replaces(k.remedy)]
        promised = {t.remedy: t.predicted for t in self.trials}
        return next((r for r in kept if (p := promised.get(str(r))) and p.value >= finding.predicted.value), None)

    def _why_not(self, finding: Finding, remedy: Remedy, left: float) -> str:
        if barred := self._barred(remedy):
            return barred
        if rival := self._rival(finding, remedy):
            return f"{rival}, which promises more, was kept in its place"
        if any(k.remedy.name == remedy.name for k in (*self.kept, *self.launched)):
            return "another setting of it was kept"
        if (remedy.name, remedy.direction(self.trace)) in self._slower:
            return "another setting of it was clearly slower"
        gathers = any(k.remedy.name == "BatchedFetch" for k in self.kept)
        if remedy.later_passes and remedy.seam is Seam.FETCHER and gathers:
            return "whole batches are gathered already, from the first pass on"
        if remedy.later_passes and self.trace.passes < LEAST_PASSES:
            return "the job passes over its data once"
        if finding.predicted.high < LEAST_GAIN and not self.only:
            return "predicted to gain nothing"
        if left < LEAST_TRIAL + remedy.one_off_seconds:
            return USED_UP if not remedy.one_off_seconds else TOO_DEAR
        return ""

    def _try(self, finding: Finding, remedy: Remedy, trial: Trial, seconds: float, awaited: bool) -> Trial:
        """One trial, ended before its time where it can tell nothing and others wait for it."""
        start = time.monotonic()
        base = self._on
        with_ = [*(r for r in base if not remedy.replaces(r)), remedy]
        unsuited = self.room.unsuited(remedy, [r for r in with_ if r is not remedy])
        if unsuited:
            self._unsuited.add(str(remedy))
            return replace(trial, why=unsuited)
        self._begun += 1
        self.say(f"trial {self._begun}: {remedy}")
        before = self._goes_on.pop(str(remedy), None)
        hoped = finding.predicted.high if awaited and before is None else math.inf
        if before is not None and before.base == base:
            measured = self.room.compare(base, with_, seconds, hoped, before.pairs)
        else:
            measured = self.room.compare(base, with_, seconds, hoped)
        if before is None and measured.why in (TIME_UP, TOO_NOISY):
            self._cut[str(remedy)] = Cut(base, measured.pairs, measured.seconds)
        trial = self._judged(trial, measured, remedy, with_, self.judge)
        self._note_proof(trial, remedy, with_)
        if trial.verdict == "kept":
            for old in [k.remedy for k in self.kept if remedy.replaces(k.remedy)]:
                self._give_up(old, "replaced", f"{remedy} takes its place")
            self.kept.append(Kept(remedy, finding.code, measured, trial.fidelity_found, alone=not base))
        return replace(trial, seconds=time.monotonic() - start)

    def _note_proof(self, trial: Trial, remedy: Remedy, with_: list[Remedy]) -> None:
        if trial.fidelity_found and remedy.grain is not Grain.CALL:
            self._proved = ({str(r) for r in with_}, trial.fidelity_found)

    def _give_up(self, remedy: Remedy, verdict: str, why: str, **found: Any) -> None:
        """Keep ``remedy`` no longer, and say so where it was said to be kept."""
        self.kept = [k for k in self.kept if k.remedy is not remedy]
        self.trials[:] = [
            replace(t, verdict=verdict, why=why, **found) if (t.remedy, t.verdict) == (str(remedy), "kept") else t
            for t in self.trials
        ]

    def _reconsider(self, new: Remedy) -> None:
        """Try without what was kept before and may cost something now that ``new`` is on; what does goes."""
        for old in [k.remedy for k in self.kept if new.name in k.remedy.upset_by]:
            on = self._on
            rest = [r for r in on if r is not old]
            seconds = self.left - self.judge.least_seconds(new, rest)
            if seconds < self.room.least_seconds(old, rest):
                continue
            start = time.monotonic()
            self.say(f"{old} once more, now that {new} is on")
            measured = self.room.compare(on, rest, seconds)
            if measured.outcome is not Outcome.FASTER or measured.ratio is None:
                continue
            before = next(t for t in self.trials if t.remedy == str(old))
            without = self._judged(before, measured, old, rest, self.judge)
            if without.verdict != "kept":
                continue
            self._note_proof(without, new, rest)
            self.kept = [replace(k, proof=without.fidelity_found) if k.remedy is new else k for k in self.kept]
            found = {
                "ratio": measured.ratio.inverse,
                "cpu_ratio": measured.cpu_ratio and measured.cpu_ratio.inverse,
                "pairs": without.pairs,
                "method": without.method,
                "seconds": before.seconds + time.monotonic() - start,
            }
            self._give_up(old, "replaced", f"slower with {new} on", **found)

    def _judged(
        self, trial: Trial, measured: Measured, remedy: Remedy, with_: list[Remedy], judge: Judge | ProcessJudge
    ) -> Trial:
        """The trial with its verdict; what is faster must keep its promise, too."""
        if measured.ratio is not None and measured.ratio.value < CLEARLY_SLOWER and measured.ratio.high < 1:
            self._slower.add((remedy.name, remedy.direction(self.trace)))
        said, why = verdict(measured, remedy)
        if said != "kept" and measured.outcome is not Outcome.SLOWER and spared(measured, remedy, self.trace):
            said, why = "cannot tell", SPARED
        proof = ""
        if said == "kept" and remedy.grain is Grain.CALL:
            proof = SAME_OUTPUTS  # asked before the trial, see TrialRoom.unsuited
        elif said == "kept":
            found = judge.judge(with_, self._end + self.reserve)
            proof = found.words
            if found.kept is None:
                said, why = "dropped", found.words
            elif not found.kept:
                said, why = "broken promise", found.words
                self.broken.append(f"{remedy}: {found.words}")
        return replace(
            trial,
            ratio=measured.ratio,
            cpu_ratio=measured.cpu_ratio,
            pairs=len(measured.pairs.wall),
            method=measured.method,
            verdict=said,
            why=why,
            fidelity_found=proof,
        )

    def _tell_spared(self) -> None:
        """What copies cannot tell, whole processes of the script can, on top of all that is kept, where the budget
        holds them."""
        for finding, remedy in self._aside:
            number, trial = next((n, t) for n, t in enumerate(self.trials) if t.remedy == str(remedy))
            told = self._launch(finding, remedy, self.left)
            if told.pairs:
                self.trials[number] = replace(told, seconds=trial.seconds + told.seconds)
            else:
                self.trials[number] = replace(trial, why=f"{SPARED}; {told.why}")
        self._aside.clear()

    def _launch(self, finding: Finding, remedy: Remedy, left: float) -> Trial:
        """Try in whole processes what is left to them, on top of all that is kept, if the budget holds the starts."""
        assert self.launches is not None
        room, judge = self.launches
        start = time.monotonic()
        trial = _trial(finding, remedy)
        base = [*self._on, *(k.remedy for k in self.launched)]
        proving = judge.least_seconds(remedy, base)
        why = self._why_not(finding, remedy, left) or room.unsuited(remedy, base)
        if not why and room.least_seconds(remedy, base) + proving > left:
            why = "starting the script so often is dearer than the budget allows"
        if why:
            return replace(trial, why=why)
        self.say(f"trial of {remedy}: the script is started again, in turns with and without it")
        measured = room.compare(base, [*base, remedy], left - proving)
        trial = self._judged(trial, measured, remedy, [*base, remedy], judge)
        if trial.verdict == "kept":
            self.launched.append(Kept(remedy, finding.code, measured, trial.fidelity_found))
            trial = replace(trial, why=NEXT_START if remedy.seam is Seam.LAUNCH else BY_PROCESSES)
        return replace(trial, seconds=time.monotonic() - start)

    def prove(self) -> str:
        """What the comparison of weights says of all kept remedies together; nothing is kept without a proof."""
        if not self.kept:
            return ""
        if self._proved[0] == {str(k.remedy) for k in self.kept}:
            return self._proved[1]
        found = self.judge.judge(self._on)
        if found.kept is False:
            self.broken.append(f"all together: {found.words}")
        for remedy in [] if found.kept else self._on:
            self._give_up(remedy, "dropped", found.words)
        return found.words

    def overall(self) -> Measured | None:
        """All kept remedies together against the script as it is, in the time that is reserved for it, or in what is
        left where that is too short."""
        if not self.kept:
            return None
        if len(self.kept) == 1 and self.kept[0].alone:
            return self.kept[0].measured
        least = SLACK * max(self.room.least_seconds(r, self._on) for r in self._on)
        seconds = min(self.left + self.reserve, max(self.reserve, least))
        return self.room.compare([], self._on, max(LEAST_TRIAL, seconds))


def _trial(finding: Finding, remedy: Remedy) -> Trial:
    return Trial(str(remedy), remedy.name, remedy.settings(), remedy.fidelity.value, finding.code, finding.predicted)
