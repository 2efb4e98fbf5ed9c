"""One script under test, and the ways to run it: plain, explained, run with trials, run with a plan."""

from __future__ import annotations

import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sampler
from common import ROOT

WITNESS = ROOT / "bench" / "witness"
START_SECONDS = 180.0  # added to every limit: imports, data sets


@dataclass(frozen=True)
class Script:
    """An entry of the manifest; see bench/README.md."""

    name: str
    cwd: str
    argv: tuple[str, ...]
    python: str = sys.executable
    env: dict[str, str] = field(default_factory=dict)
    seeded: bool | None = None
    by_hand: float | None = None
    by_hand_argv: tuple[str, ...] = ()
    source: str = ""
    budget: float | None = None
    least_steps: int = 0
    prints_samples: bool = False

    @classmethod
    def of(cls, entry: dict[str, Any], short: bool) -> Script:
        argv = (entry.get("short_argv") if short else None) or entry["argv"]
        return cls(
            name=entry["name"],
            cwd=entry["cwd"],
            argv=tuple(argv),
            python=entry.get("python") or sys.executable,
            env=dict(entry.get("env") or {}),
            seeded=entry.get("seeded"),
            by_hand=entry.get("by_hand"),
            by_hand_argv=tuple(entry.get("by_hand_argv") or ()),
            budget=entry.get("budget"),
            least_steps=int(entry.get("least_steps") or 0),
            prints_samples=bool(entry.get("prints_samples")),
            source=" ".join(filter(None, [entry.get("repo"), entry.get("commit")])),
        )


@dataclass
class Arm:
    """How one run of a script went.

    Attributes:
        code: exit code, negative for a signal; None where it was stopped for taking too long.
        steps, stamps, weights: what the witness saw.
        document: the report, from runs under hasten.
        sampled: shares of the main thread's time, from a run under py-spy; see sampler.py.
    """

    way: str
    code: int | None
    stdout: str
    stderr: str
    seconds: float
    steps: int = 0
    stopped: bool = False
    stamps: list[int] = field(default_factory=list)
    weights: str = ""
    document: dict[str, Any] | None = None
    sampled: dict[str, float] = field(default_factory=dict)

    @property
    def job_seconds(self) -> float:
        """Mean seconds from step to step over the whole run, evaluations and all."""
        return (self.stamps[-1] - self.stamps[0]) / 1e9 / (len(self.stamps) - 1) if len(self.stamps) > 1 else 0.0

    @property
    def step_seconds(self) -> float:
        """Median seconds from step to step over the run's second half."""
        late = self.stamps[len(self.stamps) // 2 - 1 :] if len(self.stamps) > 3 else self.stamps
        return statistics.median(b - a for a, b in itertools.pairwise(late)) / 1e9 if len(late) > 1 else 0.0

    def plan(self) -> list[dict[str, Any]]:
        """The remedies of the plan in the report."""
        run = (self.document or {}).get("run") or {}
        return list((run.get("plan") or {}).get("steps") or [])


@dataclass(frozen=True)
class Bench:
    """Where and how long scripts are run."""

    folder: Path
    most_seconds: float

    def first(self, script: Script) -> Arm:
        """As its author runs it, but ended by the clock if it is long."""
        limits = {"WITNESS_SECONDS": str(self.most_seconds), "WITNESS_LEAST": str(script.least_steps)}
        return self._run("plain", script, [script.python, *script.argv], **limits)

    def plain(self, script: Script, steps: int) -> Arm:
        """As its author runs it; ended after ``steps`` optimizer steps unless that is 0, as all later arms."""
        return self._run("plain", script, [script.python, *script.argv], WITNESS_STEPS=str(steps))

    def by_hand(self, script: Script, steps: int) -> Arm:
        """As somebody made it faster by editing it."""
        return self._run("by hand", script, [script.python, *script.by_hand_argv], WITNESS_STEPS=str(steps))

    def explain(self, script: Script, steps: int) -> Arm:
        """Under ``hasten explain``."""
        return self._hasten("explain", script, ["explain"], steps)

    def sampled(self, script: Script, steps: int) -> Arm | None:
        """Under py-spy; None where the script's interpreter has none beside it."""
        beside = Path(script.python).with_name("py-spy")
        if not beside.exists():
            return None
        out = self.folder / "sampled.json"
        out.unlink(missing_ok=True)
        command = sampler.command(beside, out, [script.python, *script.argv])
        arm = self._run("sampled", script, command, WITNESS_STEPS=str(steps))
        arm.sampled = sampler.read(out)
        return arm

    def search(self, script: Script, steps: int, budget: float, allow: str, plan: Path) -> Arm:
        """Under ``hasten run``, which writes ``plan``."""
        options = ["run", "--budget", str(budget), "--allow", allow, "--save-plan", str(plan)]
        return self._hasten("run", script, options, steps, budget)

    def replay(self, script: Script, steps: int, plan: Path) -> Arm:
        """Under ``hasten run --plan``."""
        return self._hasten("plan", script, ["run", "--plan", str(plan)], steps)

    def _hasten(self, way: str, script: Script, options: list[str], steps: int, more: float = 0.0) -> Arm:
        report = self.folder / "report.json"
        report.unlink(missing_ok=True)
        command = [script.python, "-m", "hasten", *options, "--quiet", "--json", str(report), *script.argv]
        arm = self._run(way, script, command, more, WITNESS_STEPS=str(steps))
        try:
            arm.document = json.loads(report.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            arm.document = None
        return arm

    def _run(self, way: str, script: Script, command: list[str], more: float = 0.0, /, **witness: str) -> Arm:
        with tempfile.TemporaryDirectory(dir=self.folder) as seen:
            paths = [str(WITNESS), str(ROOT / "src"), script.env.get("PYTHONPATH") or os.environ.get("PYTHONPATH", "")]
            env = {
                **os.environ,
                **script.env,
                "PYTHONPATH": os.pathsep.join(filter(None, paths)),
                "WITNESS": seen,
                **witness,
            }
            out, err = self.folder / "stdout", self.folder / "stderr"
            start = time.perf_counter()
            with out.open("wb") as stdout, err.open("wb") as stderr:
                process = subprocess.Popen(
                    command,
                    cwd=script.cwd,
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=stderr,
                    start_new_session=True,
                )
                code = _wait(process, 4 * self.most_seconds + START_SECONDS + more)
            arm = Arm(way, code, _text(out), _text(err), time.perf_counter() - start)
            _add_witness(arm, Path(seen))
        return arm


def _wait(process: subprocess.Popen[bytes], limit: float) -> int | None:
    """Exit code; None where the limit was passed and the whole process group was ended."""
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return None


def _text(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "replace")


def _add_witness(arm: Arm, folder: Path) -> None:
    """What the process that took most steps has told."""
    told = [json.loads(p.read_text(encoding="utf-8")) for p in folder.glob("*.json")]
    if told:
        most = max(told, key=lambda t: (t["steps"], max(map(len, t["stamps"]))))
        arm.steps, arm.stopped, arm.weights = most["steps"], most["stopped"], most["weights"]
        arm.stamps = max(most["stamps"], key=len)
