"""One invented training script with everything a report can say about it. Needs no torch."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from hasten.core.facts import LoaderFacts, Place, Usage
from hasten.core.finding import Finding
from hasten.core.interval import Interval
from hasten.core.plan import Plan, Step
from hasten.core.remedy import Fidelity, Remedy, Seam, Undo
from hasten.core.report import Report, Result, Trial
from hasten.core.trace import Ceilings, Epoch, Growth, Phase, Trace


@dataclasses.dataclass(frozen=True)
class LoaderWorkers(Remedy):
    """Stands in for the real one."""

    workers: int
    fidelity: ClassVar[Fidelity] = Fidelity.IDENTICAL
    seam: ClassVar[Seam] = Seam.LOADER

    def on(self, target: Any = None) -> Undo:
        return lambda: None


@dataclasses.dataclass(frozen=True)
class FusedOptimizer(Remedy):
    """Stands in for the real one."""

    fidelity: ClassVar[Fidelity] = Fidelity.EQUIVALENT
    seam: ClassVar[Seam] = Seam.OPTIMIZER

    def on(self, target: Any = None) -> Undo:
        return lambda: None


def ms(value: float, half: float, n: int = 600) -> Interval:
    """Milliseconds as an interval in seconds."""
    return Interval(value / 1e3, (value - half) / 1e3, (value + half) / 1e3, "s", 0.95, n)


def ratio(value: float, low: float, high: float, level: float = 0.99, n: int = 48) -> Interval:
    return Interval(value, low, high, "ratio", level, n)


LOADER_LINE = Place("train.py", 31, "main", "    loader = DataLoader(dataset, batch_size=64, shuffle=True)", 14, 62)
LOOP_LINE = Place("train.py", 40, "main", "    for x, y in loader:")
DECODE_LINE = Place("dataset.py", 19, "__getitem__", "        image = Image.open(path)")
LOSS_LINE = Place("train.py", 47, "main", "        total += loss", 9, 22)
BACKWARD_LINE = Place("train.py", 45, "main", "        loss.backward()", 9, 24)
STEP_LINE = Place("train.py", 46, "main", "        optimizer.step()", 9, 25)
LOG_LINE = Place("train.py", 48, "main", "        print(loss.item(), flush=True)", 15, 26)


def trace(**changes: Any) -> Trace:
    """A step of 99.2 ms, most of it fetching."""
    phases = (
        Phase(
            "fetch",
            ms(61.3, 0.9),
            LOOP_LINE,
            1.0,
            (
                Phase("decode", ms(46.8, 0.8), DECODE_LINE),
                Phase("transform", ms(11.2, 0.4), Place("dataset.py", 21, "__getitem__", "        x = resize(image)")),
                Phase("collate", ms(0.6, 0.2), LOOP_LINE),
            ),
        ),
        Phase("backward", ms(18.44, 0.21), BACKWARD_LINE, 1.0),
        Phase("forward", ms(12.31, 0.14), Place("train.py", 43, "main", "        out = model(x)", 15, 23), 1.0),
        Phase("optimizer", ms(4.1, 0.12), STEP_LINE, 1.0),
        Phase("python", ms(3.05, 0.3), LOG_LINE, 0.0, (Phase("write", ms(2.41, 0.3), LOG_LINE),)),
    )
    values: dict[str, Any] = {
        "script": "train.py",
        "steps": 640,
        "window": 637,
        "wall_seconds": 66.2,
        "startup_seconds": 2.41,
        "import_seconds": 1.12,
        "first_step_seconds": 0.38,
        "step": ms(99.2, 0.7),
        "step_median": 0.0981,
        "phases": phases,
        "unaccounted": 0.64e-3,
        "ceilings": Ceilings(
            ms(99.6, 1.1, 40), ms(37.9, 0.4, 40), ms(67.6, 1.4, 40), ratio(2.62, 2.57, 2.67, 0.95, 40),
            "fork, alternating step by step",
        ),
        "epochs": tuple(Epoch(80, 7.9 + i / 100, 4.9 + i / 200, 0.0) for i in range(8)),
        "loaders": (LoaderFacts("training", "Photos", LOOP_LINE, 5120, 64, batches=640, starts=8),),
        "usage": Usage(cpu_seconds=0.11, resident_bytes=6.1e8),
        "curve": tuple(0.099 + 0.004 * ((i * 7919) % 13 - 6) / 6 for i in range(200)),
        "curve_stride": 3,
        "ended": "finished",
        "machine": {
            "cpu": "AMD EPYC 7763",
            "cores": 8,
            "system": "Linux x86_64",
            "versions": {"python": "3.12.4", "torch": "2.13.0", "numpy": "2.3.1"},
        },
    }  # fmt: skip
    return Trace(**(values | changes))


def growing(**changes: Any) -> Trace:
    """A trace whose steps get slower and whose memory grows."""
    slope, memory = Interval(31e-6, 28e-6, 34e-6, "s", 0.95, 637), Interval(61e3, 58e3, 64e3, "B", 0.95, 80)
    growth = Growth(slope, memory, 0.22, True, True, BACKWARD_LINE, 0.0143, "total", LOSS_LINE)
    return trace(growth=growth, **changes)


FINDINGS = (
    Finding(
        "D101",
        "single-process-loader",
        "the model waits 61.3 ms a step; 7 idle cores could fetch",
        LOADER_LINE,
        ratio(2.02, 1.57, 2.6, 0.9, 0),
        "num_workers is 0",
        (LoaderWorkers(7), LoaderWorkers(3)),
    ),
    Finding(
        "S501",
        "logging",
        "every step waits for its loss to be printed: 2.4 ms a step go into a line that nobody can read at that speed",
        LOG_LINE,
        ratio(1.02, 1.01, 1.03, 0.9, 0),
        "waits for the result of the whole step, then writes and flushes one line",
        advice="print every 50th step: `if step % 50 == 0: print(loss.item())`",
        notes=("1.0 calls a step",),
    ),
    Finding(
        "O402",
        "unfused-optimizer",
        "Adam steps 14 tensors one by one",
        Place("train.py", 46),
        ratio(1.02, 1.01, 1.03, 0.9, 0),
        "",
        (FusedOptimizer(),),
    ),
)

COMMAND = ("/usr/bin/python3", "train.py", "--epochs", "8")


def report(**changes: Any) -> Report:
    """What `hasten explain train.py --epochs 8` found."""
    values: dict[str, Any] = {"trace": trace(), "findings": FINDINGS, "command": COMMAND, "version": "0.1.0"}
    return Report(**(values | changes))


def plan() -> Plan:
    step = Step("LoaderWorkers", {"workers": 7}, "identical", "D101", ratio(2.31, 2.27, 2.35), "to the bit")
    return Plan("train.py", "ab" * 32, {"torch": "2.13.0"}, {"cpu": "AMD EPYC 7763", "cores": 8}, (step,), "2026-01-05")


TRIALS = (
    Trial(
        "LoaderWorkers(7)", "LoaderWorkers", {"workers": 7}, "identical", "D101", ratio(2.02, 1.57, 2.6, 0.9, 0),
        ratio(2.31, 2.27, 2.35), ratio(0.98, 0.97, 0.99), 48, "kept", "", "fork, child by child",
        "identical after 40 steps", 61.0,
    ),
    Trial(
        "FusedOptimizer()", "FusedOptimizer", {}, "equivalent", "O402", ratio(1.02, 1.01, 1.03, 0.9, 0),
        ratio(1.001, 0.992, 1.012), ratio(1.0, 0.99, 1.01), 96, "dropped", "no difference", "fork, step by step",
        "", 47.0,
    ),
    Trial(
        "Autocast(bf16)", "Autocast", {"dtype": "bf16"}, "approximate", "M303", ratio(1.28, 1.1, 1.5, 0.9, 0),
        verdict="not tried", why="it lowers precision: ask for it with --allow approximate",
    ),
)  # fmt: skip


def result(**changes: Any) -> Result:
    """What `hasten run train.py --epochs 8` led to."""
    values: dict[str, Any] = {
        "trials": TRIALS,
        "plan": plan(),
        "before": ms(99.2, 0.7),
        "after": ms(42.9, 0.5),
        "overall": ratio(2.31, 2.27, 2.35),
        "cost_seconds": 108.0,
        "budget_seconds": 120.0,
        "payback_seconds": 190.0,
        "proof": "identical after 40 steps, to the bit",
        "report": report(),
        "plan_path": "train.hasten.json",
    }
    return Result(**(values | changes))
