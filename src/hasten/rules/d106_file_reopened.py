"""The same file is opened and read for every sample.

Why it is slow
    ``np.load``, ``torch.load``, ``h5py.File`` or ``read_csv`` in ``__getitem__`` parses, and often reads, the whole
    file to hand out one row of it.

Remedy
    None from outside: what stays open is the dataset's business. By hand: open the file once, when the first sample
    is asked for, and index it; ``np.load(path, mmap_mode="r")`` and ``torch.load(path, mmap=True)`` then read only
    the rows that are used. Opened at the first sample, every loader worker has a handle of its own.

Fidelity
    identical: the same bytes are read.

When it does not help
    One file a sample. What worker processes open is not watched: there the dataset is asked for some items in a forked
    child, by ``explain``, and the line is told only if the step waits for the workers.

References
    https://numpy.org/doc/stable/reference/generated/numpy.memmap.html
    https://docs.pytorch.org/docs/stable/generated/torch.load.html
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from hasten.core.facts import Event, Place
from hasten.core.finding import Finding, Rule, ms
from hasten.core.trace import Trace

LEAST_SHARE = 0.03  # of the step; less is not worth a change
LEAST_OPENS = 0.5  # of one file per step; a file opened more seldom is opened once a pass or so
SAVED = (0.5, 0.98)  # part of the reading that goes; measured 42x for a step that read a 20 MB array a sample
_READS = re.compile(r"\b(load|loads|read\w*|open|File|fromfile|loadtxt|genfromtxt|parse|getvalue)\s*\(")
_ADVICE = (
    ("np.load(", 'open it once: self.data = np.load(path, mmap_mode="r"), and index self.data[i]'),
    ("numpy.load(", 'open it once: self.data = numpy.load(path, mmap_mode="r"), and index self.data[i]'),
    ("torch.load(", "load it once: self.data = torch.load(path, mmap=True), and index self.data[i]"),
    ("h5py.File(", "open the h5py.File at the first sample of a worker, keep it in self, and index its dataset"),
    ("read_csv(", "read it once in __init__ and keep its columns as one tensor"),
    ("read_parquet(", "read it once in __init__ and keep its columns as one tensor"),
)


def detect(trace: Trace) -> Iterator[Finding]:
    yield from _in_workers(trace)
    places: dict[Place, list[Event]] = {}
    for event in trace.reopened:
        if event.calls >= LEAST_OPENS:
            places.setdefault(event.place, []).append(event)
    for place, events in places.items():
        seconds = _reading(trace, place) or sum(e.seconds for e in events)
        if not seconds >= LEAST_SHARE * trace.step_seconds:
            continue
        opens = sum(e.calls for e in events)
        yield RULE.finding(
            f"{_names(events)}: opened and read {opens:.0f} times a step, {ms(seconds)}",
            place,
            (trace.amdahl(SAVED[0] * seconds), trace.amdahl(SAVED[1] * seconds)),
            label="opens the whole file again",
            advice=_advice(place),
        )


def _in_workers(trace: Trace) -> Iterator[Finding]:
    loader, wait = trace.loader, trace.phase("fetch")
    if loader is None or not loader.num_workers or loader.probe is None or not wait >= LEAST_SHARE * trace.step_seconds:
        return
    places: dict[Place, list[Event]] = {}
    for event in loader.probe.reopened:
        places.setdefault(event.place, []).append(event)
    for place, events in places.items():
        yield RULE.finding(
            f"{_names(events)}: opened anew for every sample, in {loader.num_workers} worker processes; a sample takes"
            f" {ms(loader.probe.seconds)}, and the step waits {ms(wait)}",
            place,
            (1.0, trace.amdahl(SAVED[1] * wait)),
            label="opens the whole file again",
            advice=_advice(place),
        )


def _names(events: list[Event]) -> str:
    return os.path.basename(events[0].kind) + (f" and {len(events) - 1} other files" if len(events) > 1 else "")


def _advice(place: Place) -> str:
    return next(
        (text for call, text in _ADVICE if call in place.text),
        "open it once, when the first sample is asked for, keep the handle in self, and read only the sample",
    )


def _reading(trace: Trace, place: Place) -> float:
    """Seconds per step of the line that opens, and of the lines of the same function that read."""
    return sum(
        hot.seconds
        for hot in trace.hot
        if hot.phase in ("fetch", "python")
        and (hot.place.file, hot.place.function) == (place.file, place.function)
        and (hot.place.line == place.line or _READS.search(hot.place.text))
    )


RULE = Rule("D106", "file-reopened", detect, __doc__)
