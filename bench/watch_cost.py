"""What does watching cost when there is nothing to do? Microseconds a step, for steps of several lengths.

Three measurements. *Forked pair*: a plan without remedies is replayed (or the loop explained) until the steady state;
then two forked copies of the process take turns of a few steps, in random order, one of them with everything taken out
of torch that hasten has put in. The median of the paired differences is the cost; copies are made anew several times,
and the interval is that between them. *Whole processes*: the same loop by plain Python
and under ``hasten run --plan``, in pairs of random order; the loop times itself over its second half. That includes
everything else (reports, the wider heap), but differs from run to run by much more than what is looked for, as its
interval says. *In its hooks*: a watch whose plan is replayed and whose first close look is over leaves nothing in torch
but its two hooks around an optimizer's step; marks before and behind them in torch's own rows of hooks time them at
every step, as cold as they are then. What they push out of the caches only the other two can see. TraceML, where it is
installed, is measured in the second way: it cannot be taken out of a process.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import RESULTS, ROOT, centre, child_environment, head, save, say

from hasten.core.codec import encode
from hasten.core.interval import Interval
from hasten.core.plan import Plan, sha256_of_file
from hasten.measure import machine

CLAIM = "Cost of watching with an empty plan (goal: at most 20 µs a step)"
NAME = "watch-cost"
SIZES = (0.5, 2.0, 5.0, 50.0)  # milliseconds
TURN_SECONDS = 0.005  # a turn of a copy
LEAST_FORKS = 10  # pairs of copies: two copies differ by themselves, as their memory lies elsewhere, …
FORK_SECONDS = 0.75  # … and by more than turns of one pair: many pairs of copies for a short time each
MARKED_SECONDS = 0.5  # of steps that give one mean of the time in the hooks
SETTLE_SECONDS = 0.5  # of steps in a copy before its first turn
WATCHED = Path(__file__).with_name("small_loop.py")
PEER = ROOT / ".venv-traceml"
PEER_PACKAGES = ("torch==2.13.0", "traceml-ai==0.5.0")


@dataclass
class Row:
    """Cost of one tracer for one length of step, seconds a step."""

    tracer: str
    way: str
    clock: str
    step: float
    cost: Interval
    differences: list[float]


def empty_plan(script: str) -> Plan:
    return Plan(script, sha256_of_file(script), machine.versions(), machine.machine())


# -- forked copies -----------------------------------------------------------------------------------------------------


def forked(mode: str, milliseconds: float, seconds: float) -> list[Row]:
    """Two copies of one process, with and without hasten's wrappers (in a process of their own, as patches stay)."""
    command = [sys.executable, __file__, "--inside", str(milliseconds), "--mode", mode, "--seconds", str(seconds)]
    done = subprocess.run(command, env=child_environment(), stdout=subprocess.PIPE, text=True, check=True)
    rows = [[float(x) for x in line.split()] for line in done.stdout.splitlines()]
    step = statistics.median(r[1] for r in rows)
    forks = [[r[1:] for r in rows if r[0] == fork] for fork in sorted({r[0] for r in rows})]
    walls = [statistics.median(r[2] - r[0] for r in mine) for mine in forks]
    cpus = [statistics.median(r[3] - r[1] for r in mine) for mine in forks]
    return [
        Row(f"hasten {mode}", "forked pair", "wall", step, centre(walls, "s"), walls),
        Row(f"hasten {mode}", "forked pair", "CPU", step, centre(cpus, "s"), cpus),
    ]


def in_hooks(milliseconds: float, seconds: float) -> Row:
    """The time that steps spend in hasten's hooks (in a process of their own)."""
    command = [sys.executable, __file__, "--inside", str(milliseconds), "--mode", "hooks", "--seconds", str(seconds)]
    done = subprocess.run(command, env=child_environment(), stdout=subprocess.PIPE, text=True, check=True)
    rows = [[float(x) for x in line.split()] for line in done.stdout.splitlines()]
    means = [cost for _, cost in rows]
    step = statistics.median(length for length, _ in rows)
    return Row("hasten run", "in its hooks", "wall", step, centre(means, "s"), means)


class Marks:
    """Hooks of torch's that note the time: two before hasten's, and one behind them. What passes between the first two
    is the marks' own."""

    def __init__(self) -> None:
        self.stamps: list[int] = []
        for _ in range(2):
            self._register()

    def _register(self) -> None:
        from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

        append, now = self.stamps.append, time.perf_counter_ns
        register_optimizer_step_pre_hook(lambda *_: append(now()))
        register_optimizer_step_post_hook(lambda *_: append(now()))

    def close(self) -> None:
        """hasten's hooks are in."""
        self._register()

    def take(self) -> float:
        """Mean seconds a step in the hooks between since the last call."""
        s = self.stamps
        rows = [s[i : i + 3] for i in range(0, len(s), 3)]
        total = sum((behind - before) - (before - first) for first, before, behind in rows)
        s.clear()
        return 2 * total / len(rows) / 1e9  # a step is two rows: before it, and after


def hooks_inside(milliseconds: float, seconds: float) -> None:
    """Print seconds a step, and of them in the hooks, for each part of the time."""
    import torch
    from inside import take_out, watched
    from small_loop import fillers_for, training

    from hasten.run.inside import begin

    torch.set_num_threads(1)
    fillers = fillers_for(milliseconds / 1000)
    marks = Marks()
    with tempfile.TemporaryDirectory() as folder:
        session = watched(Path(folder), {"mode": "run", "plan": encode(empty_plan(__file__))})
        marks.close()
        begin(session)
        steps = training(fillers)
        while not session.watch.light:
            next(steps)
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            marks.stamps.clear()
            start, count = time.perf_counter(), 0
            while time.perf_counter() - start < MARKED_SECONDS:
                next(steps)
                count += 1
            print((time.perf_counter() - start) / count, marks.take())
        take_out(session)


def inside(mode: str, milliseconds: float, seconds: float) -> None:
    """Print a line a pair: wall and CPU seconds a step without, then with."""
    import torch
    from forked_pair import Copy, pairs
    from inside import take_out, watched
    from small_loop import fillers_for, training

    from hasten.explain.inside import begin as begin_explain
    from hasten.run.inside import begin as begin_run
    from hasten.seams.window import HERTZ_AFTER

    torch.set_num_threads(1)
    fillers = fillers_for(milliseconds / 1000)
    count = max(1, round(TURN_SECONDS * 1000 / milliseconds))
    with tempfile.TemporaryDirectory() as folder:
        if mode == "run":
            session = watched(Path(folder), {"mode": mode, "plan": encode(empty_plan(__file__))})
            begin_run(session)
        else:
            session = watched(Path(folder), {"mode": mode, "ceilings": False})
            begin_explain(session)
        watch = session.watch
        steps = training(fillers)
        for _ in steps:  # until the close look at the first steps is over
            if watch.next_call > watch.steps + 1:
                break
        sampling = watch.sampler.running
        watch.sampler.stop()
        watch.forking = True  # the copies stay watched
        settle = max(10, round(SETTLE_SECONDS * 1000 / milliseconds))
        ways = {"without": lambda: take_out(session), "with": lambda: _resume(watch, HERTZ_AFTER if sampling else 0.0)}
        forks = max(LEAST_FORKS, round(seconds / FORK_SECONDS))
        for fork in range(forks):
            copies = {way: Copy(steps, ways[way], count, settle) for way in random.sample(sorted(ways), 2)}
            for row in pairs(copies["without"], copies["with"], seconds / forks):
                print(fork, *row)
            for copy in copies.values():
                copy.end()
        take_out(session)


def _resume(watch: Any, hertz: float) -> None:
    watch.sampler.forget()
    if hertz:
        watch.sampler.start(hertz)


# -- whole processes ---------------------------------------------------------------------------------------------------


def whole_processes(tracer: str, milliseconds: float, pairs: int, seconds: float, peer: Path) -> Row:
    """Pairs of runs, plain and traced, in random order."""
    with tempfile.TemporaryDirectory() as folder:
        python = sys.executable if tracer == "hasten" else str(peer)
        fillers = _calibrated(python, milliseconds)
        plan = Path(folder) / "plan.json"
        empty_plan(str(WATCHED)).save(plan)
        loop = [str(WATCHED), "--fillers", str(fillers), "--seconds", str(seconds)]
        traced = {
            "hasten": [python, "-m", "hasten", "run", "--plan", str(plan), "--quiet", *loop],
            "traceml": [str(peer.with_name("traceml")), "run", *loop[:1], "--args", *loop[1:], "--tracer", "traceml"],
        }
        plain, differences = [], []
        for _ in range(pairs):
            times = {}
            for on in random.sample((True, False), 2):
                times[on] = _timed_loop(traced[tracer] if on else [python, *loop], Path(folder))
            plain.append(times[False])
            differences.append(times[True] - times[False])
    return Row(tracer, "whole processes", "wall", statistics.median(plain), centre(differences, "s"), differences)


def _calibrated(python: str, milliseconds: float) -> int:
    command = [python, str(WATCHED), "--calibrate", str(milliseconds)]
    return int(subprocess.run(command, env=child_environment(), capture_output=True, text=True, check=True).stdout)


def _timed_loop(command: list[str], folder: Path) -> float:
    """Seconds a step that the loop says of itself."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=child_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    for line in done.stdout.splitlines():
        if line.startswith("seconds a step "):
            return float(line.rpartition(" ")[2])
    raise SystemExit(f"{' '.join(command)} said no time:\n{done.stdout}\n{done.stderr}")


def peer_python(install: bool) -> Path | None:
    """The interpreter of an environment with TraceML; None where there is none."""
    python = PEER / "bin" / "python"
    if install and not python.exists():
        say(f"installing {' '.join(PEER_PACKAGES)} into {PEER.name}")
        subprocess.run([sys.executable, "-m", "venv", str(PEER)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PEER_PACKAGES], check=False)
    if not python.exists():
        return None
    known = subprocess.run([str(python), "-c", "import traceml_ai"], capture_output=True, check=False)
    return python if known.returncode == 0 else None


# -- the table ---------------------------------------------------------------------------------------------------------


def show(row: Row) -> None:
    cost = row.cost
    say(
        f"{1e3 * row.step:7.2f}  {row.tracer:14} {f'{row.way}, {row.clock}':20} {micro(cost.value):>9}  "
        f"{f'{micro(cost.low)} to {micro(cost.high)}':>20}  {100 * cost.value / row.step:7.2f} %  {cost.n:5}"
    )


def micro(seconds: float) -> str:
    return f"{1e6 * seconds:.1f}"


def summary(rows: list[Row]) -> str:
    """The steady state, by length of step."""
    own = [r for r in rows if r.way != "whole processes" and r.clock == "wall"] or rows
    return "; ".join(
        f"{r.tracer}, {r.way}, {1e3 * r.step:.1f} ms step: {micro(r.cost.value)} µs "
        f"({micro(r.cost.low)} to {micro(r.cost.high)})"
        for r in own
    )


def measured(size: float, seconds: float, pairs: int, peer: Path | None) -> Iterator[Row]:
    """Every way of measuring one length of step."""
    yield in_hooks(size, seconds)
    for mode in ("run", "explain"):
        yield from forked(mode, size, seconds)
    for tracer in ("hasten", "traceml") if pairs else ():
        if tracer == "hasten" or peer is not None:
            yield whole_processes(tracer, size, pairs, seconds / 3, peer or Path(sys.executable))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=float, nargs="+", default=SIZES, help="milliseconds a step")
    parser.add_argument("--seconds", type=float, default=20.0, help="for each size; a third of it a whole process")
    parser.add_argument("--pairs", type=int, default=6, help="pairs of whole processes a size; 0 leaves them out")
    parser.add_argument("--peer", action="store_true", help=f"install TraceML into {PEER.name} if it is not there")
    parser.add_argument("--inside", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--mode", choices=["run", "explain", "hooks"], default="run", help=argparse.SUPPRESS)
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.inside and args.mode == "hooks":
        hooks_inside(args.inside, args.seconds)
        return
    if args.inside:
        inside(args.mode, args.inside, args.seconds)
        return
    head("cost of watching with an empty plan (one thread)")
    peer = peer_python(args.peer)
    rows = []
    say(f"step ms  {'tracer':14} {'measured in':20} µs a step  {'95 % interval':>20}  of the step  pairs")
    for size in args.sizes:
        for row in measured(size, args.seconds, args.pairs, peer):
            rows.append(row)
            show(row)
    if peer is None:
        say("\nTraceML was not measured: it is not installed (--peer installs it)")
    figures = {f"{1e3 * r.step:.2f} ms, {r.tracer}, {r.way}, {r.clock}": r.cost for r in rows}
    save(NAME, summary(rows), figures, rows, args.results)


if __name__ == "__main__":
    main()
