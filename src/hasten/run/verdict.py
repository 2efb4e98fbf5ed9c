"""What a trial's pairs say of its remedy."""

from __future__ import annotations

from hasten.core.remedy import Remedy
from hasten.core.trace import Trace
from hasten.measure.interleave import Outcome
from hasten.run.room import Measured
from hasten.run.stepwise import TIME_UP, TOO_NOISY
from hasten.run.trial import SPARED_SHARE

UNCLEAR = "faster, but not clearly enough for a claim"
ALMOST = "faster so far, but a claim takes more pairs: a larger --budget may make it"


def verdict(measured: Measured, remedy: Remedy) -> tuple[str, str]:
    outcome = measured.outcome
    if outcome is Outcome.FASTER:
        cpu = measured.cpu_ratio
        if cpu is not None and cpu.high < 1 and not remedy.parallel:
            return "cannot tell", "wall time and CPU time contradict each other"
        return "kept", ""
    if outcome is Outcome.SLOWER:
        return "dropped", "slower"
    if outcome in (Outcome.SAME, Outcome.NO_GAIN):
        return "dropped", outcome.value
    if measured.ratio is not None and measured.ratio.high < 1.02:
        return "dropped", "no gain worth having"
    if measured.why in (TIME_UP, TOO_NOISY, "") and measured.ratio is not None and measured.ratio.low > 1:
        return "cannot tell", ALMOST if measured.why else UNCLEAR
    return "cannot tell", measured.why or "the noise is larger than the difference"


def spared(measured: Measured, remedy: Remedy, trace: Trace) -> bool:
    """Whether the copies had none of the page faults that the script has and a remedy would have saved: what lies at
    the end of the heap decides whether freed memory is given back, and a fork may put something there."""
    return remedy.saves_faults and measured.faults < SPARED_SHARE * trace.usage.minor_faults
