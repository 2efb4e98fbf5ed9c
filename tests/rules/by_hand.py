"""Traces written by hand for what cannot be measured on every machine: a trouble, and the same without it."""

from __future__ import annotations

import dataclasses
import math

from hasten.core.facts import Event, LoaderFacts, ModelFacts, Place, Process
from hasten.core.interval import Interval
from hasten.core.trace import Phase, Trace

PLACE = Place("train.py", 12, "main", "        loss = criterion(model(x.to(device)), y)", 9, 49)
STEP = 0.1  # seconds


def gpu(**seconds: float) -> Trace:
    """A step of 100 ms on a GPU; seconds of its phases by name, the rest is forward."""
    times = {"forward": STEP - sum(seconds.values()), **seconds}
    return Trace(
        "train.py",
        steps=500,
        window=400,
        step=Interval(STEP, STEP, STEP, "s", 0.95, 400),
        phases=tuple(Phase(name, Interval.exact(s), PLACE, 1.0) for name, s in times.items()),
        loaders=(LoaderFacts("training", "Photographs", PLACE, 10_000, 64, num_workers=4),),
        models=(ModelFacts("ResNet", PLACE, 11_000_000, 60, ("float32",)),),
        process=Process(threads=8, cores=16, device="cuda", bfloat16_units=True),
    )


def waits(trace: Trace, reads: float, busy: float) -> Trace:
    """With so many reads of values a step, on a device that works so many seconds of it."""
    kernels = Phase("kernels", Interval.exact(busy))
    return dataclasses.replace(
        trace, events=(Event("wait", PLACE, reads, trace.phase("wait")),), device_phases=(kernels,)
    )


def with_process(trace: Trace, **changes: object) -> Trace:
    return dataclasses.replace(trace, process=dataclasses.replace(trace.process, **changes))  # type: ignore[arg-type]


def pinned(trace: Trace) -> Trace:
    return dataclasses.replace(trace, loaders=tuple(dataclasses.replace(x, pin_memory=True) for x in trace.loaders))


BY_HAND: dict[str, tuple[Trace, tuple[Trace, ...]]] = {
    "C201": (gpu(copy=0.02), (gpu(copy=0.001), pinned(gpu(copy=0.02)))),
    "M303": (gpu(), (with_process(gpu(), autocast=True), with_process(gpu(), device="cpu", bfloat16_units=False))),
    "M304": (gpu(), (with_process(gpu(), float32_matmul="high"), with_process(gpu(), device="cpu"))),
    "M313": (
        with_process(gpu(), device="cpu", autocast=True, bfloat16_units=False),
        (
            with_process(gpu(), device="cpu", autocast=False, bfloat16_units=False),
            with_process(gpu(), device="cpu", autocast=True, bfloat16_units=True),
            with_process(gpu(), autocast=True, bfloat16_units=False),
        ),
    ),
    "S502": (
        waits(gpu(wait=0.04), 20, 0.05),
        (
            waits(gpu(wait=0.04), 20, 0.099),  # the device works all the time: whoever waits, waits for work
            waits(gpu(wait=0.001), 20, 0.05),
            with_process(waits(gpu(wait=0.001), 20, 0.0), device="cpu"),
        ),
    ),
}

NAN = Interval(math.nan, math.nan, math.nan)
UNKNOWN = Trace(
    "train.py",
    steps=500,
    step=NAN,
    phases=tuple(Phase(p, NAN, PLACE) for p in ("fetch", "copy", "forward", "backward", "optimizer", "wait", "log")),
    loaders=(LoaderFacts("training", "unknown"),),
    models=(ModelFacts("unknown"),),
)
