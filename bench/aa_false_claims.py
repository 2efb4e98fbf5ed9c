"""How often does a trial claim a difference between two things that are the same?

A/A trials with a remedy that does nothing, through the very code that ``hasten run`` uses, on a quiet machine and
while another process keeps a core busy. Beside it the protocol that is common elsewhere: 60 steps of one way, then 60
of the other, and a claim when their medians differ by more than 3 %.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from common import RESULTS, busy_core, clopper_pearson, head, save, say
from inside import watched
from small_loop import fillers_for, training

from hasten.core.interval import Interval
from hasten.core.remedy import Fidelity, Grain, Remedy, Seam, Undo
from hasten.measure.interleave import Outcome
from hasten.run.trial import TrialRoom
from hasten.seams.watch import Watch

CLAIM = "A/A trials that claim a difference (goal: at most 1 in 200, busy or not)"
CLAIM_IN_TURNS = "The same for remedies that need two children in turns"
CLAIM_LONG = "The same in turns where a step is so long that few pairs must do"
NAME = "aa-false-claims"
NAME_IN_TURNS = "aa-false-claims-in-turns"
NAME_LONG = "aa-false-claims-long-steps"
WARM, WARM_LONG = 50, 12  # steps before the first trial
BLOCK = 60  # steps of either way in the block-after-block protocol
FLOOR = 0.03  # difference that it claims


@dataclass(frozen=True)
class Nothing(Remedy):
    """A remedy that changes nothing, tried as finely as ``grain`` says."""

    fidelity: ClassVar[Fidelity] = Fidelity.IDENTICAL
    seam: ClassVar[Seam] = Seam.PROCESS

    def on(self, target: Any = None) -> Undo:
        return lambda: None


@dataclass(frozen=True)
class NothingInTurns(Nothing):
    """The same, tried with two children that take turns."""

    grain: ClassVar[Grain] = Grain.CHILD


@dataclass
class AA:
    """One A/A trial."""

    condition: str
    outcome: str
    pairs: int
    ratio: float
    seconds: float
    blocks: float  # ratio of the medians of two blocks of steps; NaN where not asked for

    @property
    def claims(self) -> bool:
        return self.outcome in (Outcome.FASTER.value, Outcome.SLOWER.value)


class Trials:
    """Runs trials in the middle of a training loop."""

    def __init__(self, remedy: Remedy, seconds: float, blocks: bool, folder: Path, fillers: int = 0) -> None:
        self.fillers = fillers
        self.remedy = remedy
        self.seconds = seconds
        self.blocks = blocks
        self.session = watched(folder, {"mode": "bench"})
        self.watch: Watch = self.session.watch
        self.measured: Any = None
        self.steps = self._steps()
        for _ in range(WARM_LONG if fillers else WARM):
            next(self.steps)
        self.session.forward.settle()

    def _steps(self) -> Iterator[None]:
        for _ in training(self.fillers):
            if self.watch.driver is None:  # a child goes on here, until its parent ends it
                yield

    def one(self, condition: str) -> AA:
        self.watch.at_step, self.watch.next_call = self._between, self.watch.steps + 1
        next(self.steps)
        pairs = self.measured.pairs
        ratio = pairs.ratio()
        return AA(
            condition,
            self.measured.outcome.value,
            len(pairs.wall),
            ratio.value if ratio is not None else float("nan"),
            self.measured.seconds,
            self._block() / self._block() if self.blocks else float("nan"),
        )

    def _between(self, _now: int) -> None:
        self.watch.at_step = None
        step = statistics.median(r[0] / 1e9 for r in self.watch.records()[-40:])
        room = TrialRoom(self.watch, self.session.switchboard, step)
        self.measured = room.compare([], [self.remedy], self.seconds)

    def _block(self) -> float:
        times = []
        for _ in range(BLOCK):
            start = time.perf_counter()
            next(self.steps)
            times.append(time.perf_counter() - start)
        return statistics.median(times)


def table(found: list[AA]) -> dict[str, Interval]:
    """Print claims a condition and a protocol; return them."""
    figures = {}
    say(f"{'condition':12} {'protocol':28} {'claims':>12}  {'rate':>7}  95 % interval")
    for condition in dict.fromkeys(a.condition for a in found):
        mine = [a for a in found if a.condition == condition]
        rows = {"randomised pairs (hasten)": sum(a.claims for a in mine)}
        with_blocks = [a.blocks for a in mine if a.blocks == a.blocks]
        if with_blocks:
            rows["block after block, > 3 %"] = sum(abs(b - 1) > FLOOR for b in with_blocks)
        for protocol, claims in rows.items():
            rate = clopper_pearson(claims, len(mine))
            figures[f"{condition}: {protocol}"] = rate
            interval = f"{100 * rate.low:.1f}–{100 * rate.high:.1f} %"
            say(f"{condition:12} {protocol:28} {claims:5} of {len(mine):4}  {100 * rate.value:5.1f} %  {interval}")
        verdicts = {o.value: sum(a.outcome == o.value for a in mine) for o in Outcome}
        seconds = statistics.fmean(a.seconds for a in mine)
        say(f"{'':12} verdicts: {', '.join(f'{n} {v}' for v, n in verdicts.items() if n)}; {seconds:.1f} s a trial")
    return figures


def summary(figures: dict[str, Interval]) -> str:
    return "; ".join(
        f"{name}: {100 * rate.value:.1f} % ({100 * rate.low:.1f}–{100 * rate.high:.1f}) of {rate.n}"
        for name, rate in figures.items()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=200, help="for each condition")
    parser.add_argument("--seconds", type=float, default=10.0, help="at most, for one trial")
    parser.add_argument("--conditions", nargs="+", default=["quiet", "busy"], choices=["quiet", "busy"])
    parser.add_argument("--in-turns", action="store_true", help="two children in turns instead of step by step")
    parser.add_argument("--long", type=float, metavar="MS", help="in turns, with steps of this length")
    parser.add_argument("--blocks", action=argparse.BooleanOptionalAction, default=True, help="the other protocol, too")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    head("A/A trials: claims of a difference where there is none")
    found: list[AA] = []
    with tempfile.TemporaryDirectory() as folder:
        remedy = NothingInTurns() if args.in_turns or args.long else Nothing()
        fillers = fillers_for(args.long / 1000) if args.long else 0
        trials = Trials(remedy, args.seconds, args.blocks and not args.long, Path(folder), fillers)
        for condition in args.conditions:
            with busy_core(condition == "busy"):
                for number in range(1, args.trials + 1):
                    found.append(trials.one(condition))
                    if number % 20 == 0:
                        say(f"  {condition}: {number} of {args.trials}, {sum(a.claims for a in found)} claims so far")
    figures = table(found)
    name = NAME_LONG if args.long else NAME_IN_TURNS if args.in_turns else NAME
    save(name, summary(figures), figures, [asdict(a) for a in found], args.results)


if __name__ == "__main__":
    main()
