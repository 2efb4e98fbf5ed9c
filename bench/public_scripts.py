"""Scripts of other people, unmodified: are they left as they are, explained rightly, and made faster?

Reads a manifest (its form and how to make one: bench/README.md). For each script: plain, explained, run with trials,
then plain, with the found plan, and edited by hand in turns (ABC CBA). An independent witness in every arm
(bench/witness) stamps the optimizer steps and hashes the final weights; hasten's own clock is not asked. Long scripts
are ended after the same number of optimizer steps in every arm.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import tempfile
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from arms import Arm, Bench, Script
from common import RESULTS, head, ratio, save, say, span
from same_output import difference

from hasten.core.codec import decode
from hasten.core.interval import Interval

CLAIM = "Public scripts, unmodified (goal: same output, exit code and weights; 1.6× in the mean)"
NAME = "public-scripts"
SUMS_WITHIN = 0.02  # phases against the step
TIE = 0.05  # shares that differ by less are as large
MORE_PLAIN = 4  # plain runs that must all print the same before a difference is blamed on hasten
REACHED = 0.95  # of the speed reached by hand
MORE_BY_HAND = 8  # runs edited by hand that must all end in the same bits
SLOWEST = 0.98  # a found plan must not be slower than this
LATE = re.compile(r"starts after (\d+) s of training")  # said by a replay of what waits in a job of unknown length
LONGEST = 90.0  # seconds of training; of a plan that begins with something later, that is not seen
TOLD = ("remedy", "verdict", "why", "seconds", "predicted", "ratio")  # of a trial, kept in the result
GROUPS = {
    "fetch": ("fetch", "loader start"),
    "forward": ("forward",),
    "backward": ("backward",),
    "optimizer": ("optimizer", "zero_grad"),
    "evaluation": ("evaluation",),
}


@dataclass
class Tried:
    """A remedy that was measured, or why it was not.

    Attributes:
        alone: whether nothing had been kept before it; a prediction is made for the script as it is.
    """

    remedy: str
    verdict: str
    why: str
    seconds: float
    predicted: Interval | None
    ratio: Interval | None
    alone: bool = True

    @property
    def foretold(self) -> bool | None:
        """Whether the measured speed-up may lie in the predicted range; None where they cannot be compared. What is
        slower is dropped, and gains nothing."""
        if self.predicted is None or self.ratio is None or not self.alone:
            return None
        return max(1.0, self.ratio.low) <= self.predicted.high and max(1.0, self.ratio.high) >= self.predicted.low


@dataclass
class Verdict:
    """What was found out about one script.

    Attributes:
        broken: promises that were broken; must be empty.
        remarks: what is worth knowing besides.
        by_hand: speed-up by hand as the manifest says it; ``hand`` is what was measured here beside the plan's,
            ``reached`` the time by hand over the time with the plan.
        shares: of the step by py-spy's samples, and by hasten.
        together: the speed-up of all that was kept, as ``hasten run`` measured and said it.
        trials: remedies with verdict, seconds, and the speed-up as predicted and as measured.
    """

    name: str
    source: str = ""
    steps: int = 0
    seeded: bool = False
    step_seconds: float = 0.0
    sums: float = math.nan
    largest: str = ""
    sampled: str = ""
    agrees: bool = False
    shares: list[dict[str, float]] = field(default_factory=list)
    together: Interval | None = None
    trials: tuple[Tried, ...] = ()
    kept: list[str] = field(default_factory=list)
    step: Interval | None = None
    job: Interval | None = None
    by_hand: float | None = None
    hand: Interval | None = None
    reached: Interval | None = None
    broken: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


class Examination:
    """Runs one script in all ways and judges it."""

    def __init__(self, bench: Bench, script: Script, args: argparse.Namespace) -> None:
        self.bench = bench
        self.script = script
        self.args = args
        self.verdict = Verdict(script.name, script.source, by_hand=script.by_hand)
        self.arms: list[Arm] = []
        self.more: list[Arm] = []
        self.itself: bool | None = None

    def run(self) -> Verdict:
        first = self._keep(self.bench.first(self.script))
        if first.code is None:
            self.verdict.remarks.append("the plain run took too long and was ended; nothing was compared")
            return self.verdict
        steps = first.steps if first.stopped else 0
        second = self._keep(self.bench.plain(self.script, steps))
        if first.stopped:
            self.verdict.remarks.append(f"ended after {steps} optimizer steps in every arm")
        self.plain = (first, second)
        self.verdict.steps = second.steps
        self.verdict.seeded = bool(first.weights) and first.weights == second.weights
        self._explained(self._keep(self.bench.explain(self.script, steps)))
        plan = self.bench.folder / "plan.json"
        plan.unlink(missing_ok=True)
        searched = self.bench.search(self.script, steps, self.script.budget or self.args.budget, self.args.allow, plan)
        self._searched(self._keep(searched))
        if first.stopped and searched.plan():
            steps = self._long_enough(steps, plan)
        self._timed(steps, plan, searched)
        return self.verdict

    def _long_enough(self, steps: int, plan: Path) -> int:
        """Steps of an arm in whose second half the whole plan is on: some remedies wait in a job of unknown length
        until it is old enough to repay their start, and a script that the clock ends sooner never sees them."""
        arm = self._keep(self.bench.replay(self.script, steps, plan))
        told = ((arm.document or {}).get("run") or {}).get("message") or ""
        after = max(map(float, LATE.findall(told)), default=0.0)
        wanted = math.ceil(2 * after / arm.step_seconds) if arm.step_seconds else 0
        if wanted <= steps:
            return steps
        if 2 * after > LONGEST:
            self.verdict.remarks.append(f"not seen here: what the plan begins with after {after:.0f} s of training")
            return steps
        self.verdict.remarks.append(f"timed over {wanted} steps: the plan begins with a part after {after:.0f} s")
        self.bench = replace(self.bench, most_seconds=max(self.bench.most_seconds, 2 * after))
        self.plain = (
            self._keep(self.bench.plain(self.script, wanted)),
            self._keep(self.bench.plain(self.script, wanted)),
        )
        self.verdict.steps = self.plain[1].steps
        return wanted

    def _sampled(self, steps: int) -> dict[str, float]:
        arm = self.bench.sampled(self.script, steps)
        if arm is None:
            self.verdict.remarks.append("no py-spy beside the script's interpreter: the largest phase was not checked")
            return {}
        if not self._keep(arm).sampled:
            self.verdict.remarks.append(f"py-spy sampled nothing: {arm.stderr.strip()[-200:]}")
        return arm.sampled

    def _keep(self, arm: Arm) -> Arm:
        self.arms.append(arm)
        say(f"  {self.script.name}: {arm.way:8} exit {arm.code}, {arm.steps} steps, {arm.seconds:.1f} s")
        return arm

    def _left_alone(self, arm: Arm, identical: bool) -> None:
        """The script's exit code, output and weights are its own."""
        first, second = self.plain
        broken = self.verdict.broken
        if arm.code != second.code:
            broken.append(f"{arm.way}: exit code {arm.code} instead of {second.code}")
        found = difference(first.stdout, second.stdout, arm.stdout, numbers=identical)
        if found and self.script.prints_samples and not identical:
            self.verdict.remarks.append(f"{arm.way}: prints text drawn from the model, which rounding changes")
        elif found and self._differs_from_itself():
            self.verdict.remarks.append(f"{arm.way}: the script's output differs from run to run, by itself, too")
        elif found:
            broken.append(f"{arm.way}: stdout: {found}")
        if identical and self.verdict.seeded and arm.weights != second.weights:
            broken.append(f"{arm.way}: the final weights differ")

    def _differs_from_itself(self) -> bool:
        """Whether more plain runs, up to four, print something else than the first two, which may agree by chance."""
        first, second = self.plain
        while self.itself is None and len(self.more) < MORE_PLAIN:
            self.more.append(self._keep(self.bench.plain(self.script, first.steps if first.stopped else 0)))
            if difference(first.stdout, second.stdout, self.more[-1].stdout, numbers=True):
                self.itself = True
        return bool(self.itself)

    def _explained(self, arm: Arm) -> None:
        self._left_alone(arm, identical=True)
        trace = (arm.document or {}).get("trace")
        if not trace or not trace["step"]:
            self.verdict.remarks.append((arm.document or {}).get("message") or "explain wrote no report")
            return
        total = sum(p["seconds"]["value"] for p in trace["phases"])
        self.verdict.sums = total / trace["step"]["value"] - 1
        if abs(self.verdict.sums) > SUMS_WITHIN:
            self.verdict.broken.append(f"phases sum to {100 * (1 + self.verdict.sums):.1f} % of the step")
        ours = shares({p["name"]: p["seconds"]["value"] for p in trace["phases"]})
        self.verdict.largest = max(ours, key=lambda g: ours[g])
        sampled = self._sampled(self.plain[0].steps if self.plain[0].stopped else 0)
        if sampled:
            self.verdict.shares = [sampled, ours]
            self.verdict.sampled = max(sampled, key=lambda g: sampled[g])
            self.verdict.agrees = as_large(sampled, self.verdict.largest) or as_large(ours, self.verdict.sampled)

    def _searched(self, arm: Arm) -> None:
        steps = arm.plan()
        self.verdict.kept = [_remedy(s) for s in steps]
        self._left_alone(arm, _identical(steps))
        run = (arm.document or {}).get("run") or {}
        self.verdict.broken.extend(f"run: {b}" for b in run.get("broken", ()))
        overall = run.get("overall")
        self.verdict.together = decode(Interval, overall) if overall else None
        for told in run.get("trials", ()):
            alone = all(t.verdict not in ("kept", "replaced") for t in self.verdict.trials)
            tried = decode(Tried, {"alone": alone, **{key: told[key] for key in TOLD}})
            self.verdict.trials = (*self.verdict.trials, tried)
        if run.get("message"):
            self.verdict.remarks.append(run["message"])

    def _timed(self, steps: int, plan: Path, searched: Arm) -> None:
        ways = {"plain": lambda: self.bench.plain(self.script, steps)}
        if searched.plan():
            ways["plan"] = lambda: self.bench.replay(self.script, steps, plan)
        if self.script.by_hand_argv:
            ways["by hand"] = lambda: self.bench.by_hand(self.script, steps)
        if len(ways) == 1:
            return
        rounds: list[dict[str, Arm]] = []
        for number in range(self.args.rounds):
            rounds.append(
                {way: self._keep(ways[way]()) for way in (list(ways) if number % 2 == 0 else list(ways)[::-1])}
            )
            if "plan" in ways:
                self._left_alone(rounds[-1]["plan"], _identical(searched.plan()))
        if any(r["by hand"].code != r["plain"].code or not r["by hand"].step_seconds for r in rounds if "by hand" in r):
            self.verdict.remarks.append("the script edited by hand failed")
            rounds = [{way: arm for way, arm in r.items() if way != "by hand"} for r in rounds]
        self._blame([r["by hand"] for r in rounds if "by hand" in r], steps)
        self._judge_times([r for r in rounds if all(arm.step_seconds for arm in r.values())])

    def _blame(self, by_hand: list[Arm], steps: int) -> None:
        """Multi-threaded arithmetic may round by timing, which shows once a script no longer waits for its data. Where
        bits differ with the plan, the script edited by hand is asked whether its own differ from run to run."""
        differs = [b for b in self.verdict.broken if b.startswith(("plan: stdout", "plan: the final weights"))]
        if not differs or not by_hand:
            return
        while len({arm.weights for arm in by_hand}) == 1 and len(by_hand) < MORE_BY_HAND:
            by_hand.append(self._keep(self.bench.by_hand(self.script, steps)))
        if len({arm.weights for arm in by_hand}) > 1:
            self.verdict.broken = [b for b in self.verdict.broken if b not in differs]
            self.verdict.remarks.append("plan: bits vary from run to run at this speed, also when edited by hand")

    def _judge_times(self, rounds: list[dict[str, Arm]]) -> None:
        """Ratios, each of arms of one round; where nothing was kept the plan is the script as it is."""
        if not rounds:
            self.verdict.remarks.append("too few steps to be timed")
            return
        self.verdict.step_seconds = sum(r["plain"].step_seconds for r in rounds) / len(rounds)
        if "by hand" in rounds[0]:
            self.verdict.hand = ratio([math.log(r["plain"].step_seconds / r["by hand"].step_seconds) for r in rounds])
            with_plan = [r.get("plan", r["plain"]).step_seconds for r in rounds]
            times = [(r["by hand"].step_seconds, planned) for r, planned in zip(rounds, with_plan, strict=True)]
            self.verdict.reached = ratio([math.log(hand / planned) for hand, planned in times])
        if "plan" not in rounds[0]:
            return
        self.verdict.step = ratio([math.log(r["plain"].step_seconds / r["plan"].step_seconds) for r in rounds])
        self.verdict.job = ratio([math.log(r["plain"].job_seconds / r["plan"].job_seconds) for r in rounds])
        together = self.verdict.together
        if together is not None and self.verdict.step.high < together.low:
            said = f"{together.value:.2f}x ({span(together)})"
            self.verdict.remarks.append(f"the plan gained less here than hasten run said of all together: {said}")
        if self.verdict.step.high < SLOWEST:
            self.verdict.broken.append(f"slower with the plan: {self.verdict.step.value:.2f}x")


def shares(phases: dict[str, float]) -> dict[str, float]:
    """Shares of the groups that a sampler can tell apart."""
    total = sum(phases.values())
    found = {group: sum(phases.get(n, 0.0) for n in names) / total for group, names in GROUPS.items()}
    return {**found, "other": 1 - sum(found.values())}


def as_large(found: dict[str, float], group: str) -> bool:
    """Whether a group has the largest share, or as good as that."""
    return found.get(group, 0.0) > max(found.values()) - TIE


def _identical(steps: list[dict[str, Any]]) -> bool:
    return all(s["fidelity"] == "identical" for s in steps)


def _remedy(step: dict[str, Any]) -> str:
    return f"{step['remedy']}({', '.join(str(v) for name, v in step['settings'].items() if name != 'of')})"


# -- the table ---------------------------------------------------------------------------------------------------------


HEADS = ("script", "steps", "ms/step", "speed-up", "95 %", "job", "by hand", "of it", "sums", "largest phase", "kept")
NUMBERS = range(1, 9)  # columns that are aligned to the right


def show(verdicts: list[Verdict]) -> None:
    """One row a script; below it what was broken and what is worth knowing."""
    rows = [HEADS, *(cells(v) for v in verdicts)]
    widths = [max(len(r[i]) for r in rows) for i in range(len(HEADS))]
    say()
    for row, verdict in zip(rows, [None, *verdicts], strict=True):
        aligned = [c.rjust(w) if i in NUMBERS else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        say("  ".join(aligned).rstrip())
        for text in (*(f"BROKEN  {b}" for b in verdict.broken), *verdict.remarks) if verdict else ():
            say(f"    {text}")


def cells(v: Verdict) -> tuple[str, ...]:
    """One row of the table."""
    sampler = ""
    if v.sampled and v.largest:
        sampler = ", sampler too" if v.agrees else f", sampler: {v.sampled}"
    return (
        v.name,
        str(v.steps),
        f"{1e3 * v.step_seconds:.2f}" if v.step_seconds else "–",
        f"{v.step.value:.2f}x" if v.step else "–",
        span(v.step) if v.step else "–",
        f"{v.job.value:.2f}x" if v.job else "–",
        f"{v.hand.value:.2f}x" if v.hand else f"({v.by_hand:.2f}x)" if v.by_hand else "–",
        f"{100 * v.reached.value:.0f} %" if v.reached else "–",
        f"{100 * v.sums:+.1f} %" if v.sums == v.sums else "–",
        v.largest + sampler or "–",
        ", ".join(v.kept) or "nothing",
    )


def geometric_mean(verdicts: list[Verdict]) -> Interval | None:
    """Over all scripts that ran; one where nothing was kept counts as 1. The interval is that between scripts."""
    logs = [math.log(v.step.value) if v.step else 0.0 for v in verdicts if v.steps]
    return ratio(logs) if logs else None


def summary(verdicts: list[Verdict], mean: Interval | None) -> str:
    ran = [v for v in verdicts if v.steps]
    seeded = [v for v in ran if v.seeded]
    whole = sum(not v.broken for v in ran)
    speed = f"geometric mean {mean.value:.2f}× ({span(mean)} between scripts)" if mean else "none timed"
    words = f"{len(ran)} scripts, {len(seeded)} of them seeded: no promise broken in {whole}; {speed}"
    foretold = [t.foretold for v in ran for t in v.trials if t.foretold is not None]
    if foretold:
        words += f"; predicted ranges held in {sum(foretold)} of {len(foretold)} trials"
    agrees = [v.agrees for v in ran if v.sampled]
    if agrees:
        words += f"; the largest phase is py-spy's in {sum(agrees)} of {len(agrees)}"
    beside = [v for v in ran if v.hand and v.reached]
    if beside:
        hand = ratio([math.log(v.hand.value) for v in beside if v.hand])
        enough = sum(bool(v.reached and v.reached.value >= REACHED) for v in beside)
        words += f"; {len(beside)} edited by hand: {hand.value:.2f}×, of which the plan reaches 95 % in {enough}"
    return words


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path)
    parser.add_argument("--merge", type=Path, nargs="+", help="run nothing; one table of the scripts of these results")
    parser.add_argument("--only", nargs="+", help="names of scripts; all unless given")
    parser.add_argument("--full", action="store_true", help="argv instead of short_argv")
    parser.add_argument("--seconds", type=float, default=60.0, help="of training after which a script is ended")
    parser.add_argument("--budget", type=float, default=60.0, help="seconds for the trials of a script")
    parser.add_argument("--allow", default="equivalent", choices=["identical", "equivalent"])
    parser.add_argument("--rounds", type=int, default=4, help="pairs of plain and with the plan")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.merge:
        head("public scripts, unmodified, from several runs of this bench")
        results = [json.loads(path.read_text(encoding="utf-8")) for path in args.merge]
        return conclude([decode(Verdict, v) for r in results for v in r["raw"]], args.results)
    if args.manifest is None:
        parser.error("--manifest is needed: which scripts, and where")
    entries = json.loads(args.manifest.read_text(encoding="utf-8"))
    scripts = [Script.of(e, not args.full) for e in entries if not args.only or e["name"] in args.only]
    head(f"{len(scripts)} public scripts, unmodified")
    verdicts = []
    with tempfile.TemporaryDirectory() as folder:
        for script in scripts:
            verdicts.append(Examination(Bench(Path(folder), args.seconds), script, args).run())
    return conclude(verdicts, args.results)


def conclude(verdicts: list[Verdict], results: Path) -> int:
    """The table, the summary, the file; 1 where a promise was broken."""
    show(verdicts)
    mean = geometric_mean(verdicts)
    say("\n" + summary(verdicts, mean))
    save(NAME, summary(verdicts, mean), {"geometric mean": mean}, [asdict(v) for v in verdicts], results)
    return 1 if any(v.broken for v in verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())
