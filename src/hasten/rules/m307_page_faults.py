"""Memory is given back to the system and taken again in every step.

Why it is slow
    glibc serves large requests by mmap and gives them back at once; the next step faults every page in again,
    zeroed by the kernel. Stage timers do not show it: it is system time spread over all operations.

Remedy
    ``Allocator()`` sets glibc's thresholds so that freed memory is kept and used again. Where jemalloc or tcmalloc is
    installed, ``PreloadedAllocator("jemalloc")`` puts it in glibc's place. A process must be started with it: it is
    tried in throw-away processes, if the budget holds that many, and takes hold when the plan is replayed.

Fidelity
    identical: only addresses change.

When it does not help
    Whether glibc gives memory back depends on what lies at the end of its heap, so that a script may have these faults
    in one run and none in the next, or lose them half-way; a trial in a copy that has none says so, and whole processes
    of the script are timed in turns instead, where the budget holds eight of them.
    When tensors are small, or when another allocator is loaded. The process keeps its peak memory. Programs that the
    script starts inherit LD_PRELOAD.

References
    https://www.gnu.org/software/libc/manual/html_node/Malloc-Tunable-Parameters.html
    https://docs.pytorch.org/tutorials/recipes/recipes/tuning_guide.html (switch memory allocator)
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from hasten.core.errors import Unsuited
from hasten.core.finding import Finding, Rule, ms
from hasten.core.remedy import Fidelity, Grain, Remedy, Seam, Undo
from hasten.core.trace import Trace
from hasten.measure.machine import allocators, loaded

LEAST_FAULTS = 500  # minor faults per step
LEAST_SHARE = 0.03  # of the step that the faults may cost at most; below, nobody would notice
FAULT_SECONDS = (0.1e-6, 5e-6)  # a fault with its zeroed page; measured up to 3.2e-6, the kernel's locks included
BESIDE = 0.35  # of the system time, at most, spared of the script's own: new pages are in no cache (0.25 to 0.45)
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4  # malloc.h
_ADAPTED = ((_TRIM_THRESHOLD, 64 << 20), (_TOP_PAD, 128 << 10), (_MMAP_THRESHOLD, 32 << 20), (_MMAP_MAX, 65536))


@dataclass(frozen=True)
class Allocator(Remedy):
    """Lets glibc's malloc keep freed pages (no mmap for large blocks, no trimming)."""

    fidelity: ClassVar[Fidelity] = Fidelity.IDENTICAL
    seam: ClassVar[Seam] = Seam.PROCESS
    grain: ClassVar[Grain] = Grain.CHILD
    saves_faults: ClassVar[bool] = True
    settle: ClassVar[int] = 4

    def on(self, target: Any = None) -> Undo:
        import ctypes

        try:
            mallopt = ctypes.CDLL("libc.so.6").mallopt
        except (OSError, AttributeError):
            raise Unsuited("this system's allocator is not glibc's") from None
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)
        mallopt(_TOP_PAD, 64 << 20)

        def undo() -> None:
            # glibc adapts its thresholds until they are first set; that cannot be brought back, only approached.
            for option, value in _ADAPTED:
                mallopt(option, value)

        return undo


@dataclass(frozen=True)
class PreloadedAllocator(Remedy):
    """Another allocator in glibc's place, by LD_PRELOAD.

    Args:
        malloc: ``"jemalloc"``, ``"tcmalloc"`` or ``"tcmalloc_minimal"``.
    """

    malloc: str = "jemalloc"
    fidelity: ClassVar[Fidelity] = Fidelity.IDENTICAL
    seam: ClassVar[Seam] = Seam.LAUNCH
    grain: ClassVar[Grain] = Grain.JOB

    def environment(self) -> dict[str, str]:
        path = allocators().get(self.malloc)
        if path is None:
            return {}
        return {"LD_PRELOAD": ":".join(filter(None, [path, os.environ.get("LD_PRELOAD")]))}

    def on(self, target: Any = None) -> Undo:
        if not loaded(self.malloc):
            path = allocators().get(self.malloc)
            how = f"LD_PRELOAD={path}" if path else f"no lib{self.malloc}.so was found; install it"
            raise Unsuited(f"a process must be started with it: {how}")
        return lambda: None


def detect(trace: Trace) -> Iterator[Finding]:
    faults = trace.usage.minor_faults
    if not faults >= LEAST_FAULTS or trace.process.device != "cpu":
        return
    system = trace.usage.system_seconds
    least, most = (faults * each for each in FAULT_SECONDS)  # of the system time the rest is reading files and the like
    saved = min(max(min(system, most), least), 0.8 * trace.step_seconds)
    if not saved >= LEAST_SHARE * trace.step_seconds:
        return
    place, label = trace.usage.faults_place, "most of the page faults came here"
    if trace.usage.model_faults >= 0.5:
        place = trace.place("forward") or trace.place("backward")
        label = "memory of this step was given back after the last one"
    usage = trace.usage
    waited = usage.waited_seconds / usage.wall_seconds if 0 < usage.waited_seconds < usage.wall_seconds else 0.0
    most = max(saved, min(system * (1 + BESIDE), most)) / (1 - waited)  # this work waits for a core like the rest
    yield RULE.finding(
        f"{faults:.0f} page faults a step and {ms(system)} of system time: freed memory is taken anew",
        place,
        (trace.amdahl(0.1 * saved), trace.amdahl(min(most, 0.8 * trace.step_seconds))),
        label=label if place is not None else "",
        remedies=(Allocator(), *map(PreloadedAllocator, trace.process.allocators)),
        notes=() if place is not None else ("they are spread over many lines, or were seen too seldom to name one",),
    )


RULE = Rule("M307", "page-faults", detect, __doc__, (Allocator, PreloadedAllocator))
