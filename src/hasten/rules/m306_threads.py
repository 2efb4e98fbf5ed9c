"""The number of intra-op threads does not suit the model or the machine.

Why it is slow
    Every parallel region ends in a barrier. For small tensors the barrier costs more than the work it shares out,
    and when another process holds a core, every region waits for the thread on that core. Threads without work go
    on turning round for a while, on a core that the rest of the script may need.

Remedy
    ``Threads(n)`` sets ``torch.set_num_threads(n)``.

Fidelity
    equivalent: sums are split at other places, so their rounding may differ.

When it does not help
    When the operations are large and the cores are idle.

References
    https://docs.pytorch.org/docs/stable/notes/cpu_threading_torchscript_inference.html
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from hasten.core.errors import Unsuited
from hasten.core.finding import Finding, Rule, ms
from hasten.core.remedy import Fidelity, Remedy, Seam, Undo
from hasten.core.trace import Trace

BUSY = 0.25  # cores' worth of other work beside the training
SMALL_STEP = 0.02  # seconds; steps this short are made of small operations
FACTOR = (1.0, 1.6)  # measured 0.53 to 1.9 on public scripts: only a trial can tell
SERIAL = 0.05  # part of the model's work that no thread shares: from one core to two was measured 1.9 times as fast
MANY = 8  # threads, from which on a quarter of them is tried before one
FACTOR_BUSY = 10.0  # measured 4, 6 and 9 where others kept both of two cores busy: threads wait for each other …
FACTOR_SPIN = 1.25  # … and for work, on the core that what is no work of torch's needs (figures: measured 1.13)

ELSEWHERE = (
    "plot",
    "progress bar",
    "log",
    "decode",
    "encode",
    "read",
    "table",
    "metric",
)  # kinds of work of which torch does none


@dataclass(frozen=True)
class Threads(Remedy):
    """Sets the number of intra-op threads."""

    count: int = 1
    fidelity: ClassVar[Fidelity] = Fidelity.EQUIVALENT
    seam: ClassVar[Seam] = Seam.PROCESS
    settle: ClassVar[int] = 1
    at_once: ClassVar[bool] = True
    upset_by: ClassVar[tuple[str, ...]] = ("Compile",)  # few large operations share out what many small ones cannot
    parallel: ClassVar[bool] = True

    def on(self, target: Any = None) -> Undo:
        import torch

        before = torch.get_num_threads()
        if before == self.count:
            raise Unsuited(f"torch already runs {before} threads")
        torch.set_num_threads(self.count)
        return lambda: torch.set_num_threads(before)


def detect(trace: Trace) -> Iterator[Finding]:
    process = trace.process
    if process.device != "cpu" or not trace.step_seconds > 0:
        return
    used = trace.usage.cores
    work = trace.phase("forward") + trace.phase("backward")
    cores = process.physical_cores or process.cores  # two threads of one core share its units
    crowded = process.threads + trace.usage.other_load > process.cores + BUSY
    others = trace.usage.strangers if trace.usage.strangers > BUSY else 0.0
    if process.threads < cores and trace.step_seconds >= SMALL_STEP and work > 0.5 * trace.step_seconds:
        yield RULE.finding(
            f"torch runs {process.threads} of {cores} threads",
            trace.place("forward"),
            (1.0, trace.amdahl(work * (1 - _time(max(process.threads, cores - others)) / _time(process.threads)))),
            remedies=(Threads(cores),),
            notes=_as_busy(others),
        )
    elif process.threads > 1 and (trace.step_seconds < SMALL_STEP or crowded or used < 1.3):
        busy = f"keep {used:.1f} cores busy in" if used >= 0 else "take turns in"
        others = others if crowded else 0.0
        yield RULE.finding(
            f"{process.threads} threads {busy} a step of {ms(trace.step_seconds)}",
            trace.place("forward") or trace.place("backward"),
            _busy(trace) if others else trace.faster(_threaded(trace), FACTOR),
            label="starts and ends a team of threads in every operation",
            remedies=tuple(map(Threads, _counts(trace, crowded))),
            notes=_as_busy(others),
        )


def _as_busy(others: float) -> tuple[str, ...]:
    return (f"others keep {others:.1f} cores busy: it holds for a machine as busy",) if others else ()


def _busy(trace: Trace) -> tuple[float, float]:
    """Speed-ups of a step on a machine that others keep busy."""
    threaded = _threaded(trace)
    rest = max(0.0, trace.step_seconds - threaded)
    return 1.0, trace.amdahl(threaded * (1 - 1 / FACTOR_BUSY) + rest * (1 - 1 / FACTOR_SPIN))


def _time(threads: float) -> float:
    """What the model's work takes with so many threads, of what it takes with one."""
    return SERIAL + (1 - SERIAL) / max(1, threads)


def _counts(trace: Trace, crowded: bool) -> tuple[int, ...]:
    """Smaller numbers of threads, best guess first: what others leave free, a quarter of many, one."""
    threads = trace.process.threads
    free = int(trace.process.cores - trace.usage.other_load) if crowded else 0
    few = threads // 4 if threads >= MANY else 0
    return tuple(dict.fromkeys(n for n in (free, few, 1) if 1 <= n < threads))


def _threaded(trace: Trace) -> float:
    """Seconds of a step that may be spent in operations of torch: not what is known to be others' work, and of making
    samples in this process only what is known to transform or to stack them."""
    others = sum(c.seconds.value for p in trace.phases if p.name != "fetch" for c in p.children if c.name in ELSEWHERE)
    rest = trace.step_seconds - min(others, trace.step_seconds)
    if trace.loader is None or trace.loader.num_workers:
        return rest
    fetch = next((p for p in trace.phases if p.name == "fetch"), None)
    parts = fetch.children if fetch is not None else ()
    known = sum(p.seconds.value for p in parts if p.name in ("transform", "collate"))
    return max(0.0, rest - trace.phase("fetch")) + known


RULE = Rule("M306", "threads", detect, __doc__, (Threads,))
