"""A head learns behind a frozen network (bench/frozen/train.py, which knows nothing of hasten): how much faster?

``hasten run`` once, for its plan. Then the script as it is, with the plan, and edited by hand so that the network is
asked once for each picture (bench/frozen/by_hand.py), in turns, each a process of its own. Epochs are timed by the
script itself: their median from the third on, and the time of all of them. The losses that are printed must agree.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from common import RESULTS, ROOT, head, ratio, save, say, span

from hasten.core.plan import Plan

CLAIM = "A head behind a frozen network, unmodified script: an epoch from the third on (no goal; same losses)"
NAME = "frozen-features"
FOLDER = ROOT / "bench" / "frozen"
EPOCH = re.compile(r"epoch \d+: loss ([\d.]+), ([\d.]+) s")
SAME = 1e-3  # relative, of losses
STEADY = 2  # epochs before: the first fills what is kept
ENV = {**os.environ, "PYTHONPATH": str(ROOT / "src")}


def run(*command: str) -> list[tuple[float, float]]:
    """Loss and seconds of every epoch."""
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=ENV, check=True)
    return [(float(loss), float(seconds)) for loss, seconds in EPOCH.findall(done.stdout)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    head("a head behind a frozen network: the script as it is, with hasten's plan, and edited by hand")
    script = str(FOLDER / "train.py")
    with tempfile.TemporaryDirectory() as folder:
        plan = str(Path(folder) / "plan.json")
        run("-m", "hasten", "run", "--quiet", "--budget", "60", "--save-plan", plan, script)
        kept = ", ".join(str(step) for step in Plan.load(plan).steps)
        say(f"  kept: {kept}")
        ways = {
            "plain": (script,),
            "plan": ("-m", "hasten", "run", "--quiet", "--plan", plan, script),
            "by hand": (str(FOLDER / "by_hand.py"),),
        }
        rounds = []
        for number in range(args.rounds):
            order = list(ways) if number % 2 == 0 else list(ways)[::-1]
            rounds.append({way: run(*ways[way]) for way in order})
            said = {way: statistics.median(s for _, s in rounds[-1][way][STEADY:]) for way in ways}
            say("  " + ", ".join(f"{way} {1000 * seconds:.0f} ms an epoch" for way, seconds in said.items()))

    def gained(way: str, first: int) -> list[float]:
        """Logarithms of how many times faster it is, of epochs from ``first`` on."""
        times = [[statistics.fmean(s for _, s in r[w][first:]) for w in ("plain", way)] for r in rounds]
        return [math.log(a / b) for a, b in times]

    first = rounds[0]["plain"]
    apart = max(abs(a / b - 1) for r in rounds for w in ways for (a, _), (b, _) in zip(r[w], first, strict=True))
    steady, whole, by_hand = (ratio(gained(*of)) for of in (("plan", STEADY), ("plan", 0), ("by hand", STEADY)))
    summary = (
        f"{steady.value:.1f}× ({span(steady)}); all eight epochs {whole.value:.1f}× ({span(whole)}); by hand "
        f"{by_hand.value:.1f}× ({span(by_hand)}); losses differ by at most {apart:.0e} of them; kept: {kept}"
    )
    say("\n" + summary)
    save(NAME, summary, {"steady": steady, "whole": whole, "by hand": by_hand}, rounds, args.results)
    return 0 if apart < SAME else 1


if __name__ == "__main__":
    sys.exit(main())
