"""How much faster is the demo with the plan that ``hasten run`` found, and are its final weights the same?

A plan is made once. Then the script runs twice at a time, by plain Python and with the plan, and the two take turns:
one epoch of the one while the other is frozen, then the same epoch of the other, in random order. So both see the same
machine. The speed-up is that of the epochs from the second on; the first fills the cache and is shown by itself.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from common import RESULTS, ROOT, child_environment, head, ratio, save, say, span

CLAIM = "The demo with the plan found (goal: 4× from the second epoch on, the same weights to the bit)"
NAME = "demo-speedup"
SCRIPT = ROOT / "demo" / "train.py"
HASTEN = [sys.executable, "-m", "hasten", "run", "--quiet"]


class Frozen:
    """A script that runs only while it is asked for its next line."""

    def __init__(self, command: list[str]) -> None:
        self.process = subprocess.Popen(
            command,
            env=child_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a process group of its own, workers and all, to be frozen as one
        )
        self._signal(signal.SIGSTOP)

    def _signal(self, number: int) -> None:
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            pass

    def line(self) -> tuple[str, float]:
        """Run until the next line of stdout; the line, and the seconds it took."""
        assert self.process.stdout is not None
        start = time.perf_counter()
        self._signal(signal.SIGCONT)
        text = self.process.stdout.readline()
        seconds = time.perf_counter() - start
        self._signal(signal.SIGSTOP)
        return text.rstrip("\n"), seconds

    def end(self) -> int:
        self._signal(signal.SIGCONT)
        return self.process.wait()


@dataclass
class Session:
    """Epoch times of a plain run and of one with the plan, side by side."""

    plain: list[float]
    planned: list[float]
    plain_weights: str
    planned_weights: str

    @property
    def same(self) -> bool:
        return bool(self.plain_weights) and self.plain_weights == self.planned_weights


def make_plan(photos: str, epochs: int, budget: float, allow: str, path: Path) -> None:
    """Let hasten find a plan; its trials are said on stderr."""
    command = [*HASTEN, "--budget", str(budget), "--allow", allow, "--save-plan", str(path), str(SCRIPT), photos]
    subprocess.run([*command, "--epochs", str(epochs)], env=child_environment(), stdout=subprocess.DEVNULL, check=True)
    if not path.exists():
        raise SystemExit("nothing was kept, so there is no plan")


def session(photos: str, epochs: int, plan: Path) -> Session:
    script = [str(SCRIPT), photos, "--epochs", str(epochs)]
    runs = {"plain": Frozen([sys.executable, *script]), "plan": Frozen([*HASTEN, "--plan", str(plan), *script])}
    times: dict[str, list[float]] = {"plain": [], "plan": []}
    for _ in range(epochs):
        for way in random.sample(sorted(runs), 2):
            _, seconds = runs[way].line()
            times[way].append(seconds)
    weights = {way: run.line()[0].removeprefix("weights ") for way, run in runs.items()}
    for way, run in runs.items():
        if run.end():
            raise SystemExit(f"the {way} run failed")
    return Session(times["plain"], times["plan"], weights["plain"], weights["plan"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", help="a folder made by demo/make_photos.py")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--sessions", type=int, default=3)
    parser.add_argument("--budget", type=float, default=60.0)
    parser.add_argument("--allow", default="identical", choices=["identical", "equivalent", "approximate"])
    parser.add_argument("--plan", type=Path, help="an existing plan instead of a new one")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    head("the demo by plain Python and with hasten's plan, epoch by epoch in turns")
    with tempfile.TemporaryDirectory() as folder:
        plan = args.plan or Path(folder) / "plan.json"
        if args.plan is None:
            make_plan(args.photos, args.epochs, args.budget, args.allow, plan)
        content = plan.read_text(encoding="utf-8").replace(f"{ROOT}/", "")  # where it was run is nobody's affair
        found = [session(args.photos, args.epochs, plan) for _ in range(args.sessions)]
    show(found)
    conclude(found, content, args.results)


def show(found: list[Session]) -> None:
    say("session  epoch  plain, s  plan, s  speed-up")
    for number, one in enumerate(found, 1):
        for epoch, (a, b) in enumerate(zip(one.plain, one.planned, strict=True), 1):
            note = "  start-up and filling included" if epoch == 1 else ""
            say(f"{number:7}  {epoch:5}  {a:8.2f}  {b:7.2f}  {a / b:7.2f}x{note}")
        say(f"{'':9}weights {'the same, ' + one.plain_weights[:16] + ' …' if one.same else 'DIFFER'}")


def conclude(found: list[Session], plan: str, results: Path) -> None:
    logs = [math.log(a / b) for s in found for a, b in list(zip(s.plain, s.planned, strict=True))[1:]]
    later = ratio(logs)
    whole = ratio([math.log(sum(s.plain) / sum(s.planned)) for s in found])
    same = sum(s.same for s in found)
    say(f"\nfrom the second epoch on  {later.value:.2f}x  ({span(later)}, 95 %, {later.n} pairs)")
    say(f"whole jobs                {whole.value:.2f}x  ({span(whole)}, {whole.n})")
    say(f"sha256 of the weights equal in {same} of {len(found)} sessions")
    summary = (
        f"{later.value:.2f}× from the second epoch on ({span(later)}, {later.n} pairs of epochs); "
        f"weights the same in {same} of {len(found)}"
    )
    save(
        NAME,
        summary,
        {"from the second epoch on": later, "whole jobs": whole},
        {"sessions": found, "plan": plan},
        results,
    )


if __name__ == "__main__":
    main()
