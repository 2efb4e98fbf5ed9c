"""From a watched process to a :class:`~hasten.core.trace.Trace`."""

from __future__ import annotations

import itertools
import math
import os
import statistics
from collections.abc import Iterable
from typing import Any

from hasten.core.facts import Event, Hot, Place, SuccessionFacts
from hasten.core.interval import Interval
from hasten.core.trace import PHASES, RECOMPUTE, Epoch, Phase, Trace
from hasten.measure import machine
from hasten.measure.clock import INDEX
from hasten.measure.interleave import without
from hasten.seams.child import rare_phases
from hasten.seams.facts import loader_facts, model_facts, optimizers_facts, process_facts
from hasten.seams.known import MOST_EPOCHS
from hasten.seams.locate import is_users, place_of_line, resolve, shown
from hasten.seams.reducer import WAITS
from hasten.seams.samples import SampleKey
from hasten.seams.watch import Watch
from hasten.seams.window import WARM, Window

SMALL = 0.02  # sub-phases below this share of their phase are summed up as "other"
MOST_CHILDREN = 6
CURVE_POINTS = 600
_SPLIT = ("fetch", "python", "evaluation", "log", "checkpoint", "forward")


def collect(watch: Watch, window: Window, *, ended: str = "") -> Trace:
    """Everything measured so far. Cheap enough to be called between two steps."""
    window.collect()
    records = watch.records()
    warm = 1 if watch.fold > 1 else WARM
    settled = records[warm:] if len(records) > warm else records[1:]
    walls = [r[0] / 1e9 for r in settled]
    phases = _phases(watch, settled, window.samples, window.reducer.share)
    step = Interval.of_mean(walls) if walls else None
    python = next((p for p in phases if p.name == "python"), None)
    unaccounted = 0.0
    if python is not None:
        unaccounted = python.seconds.value * (1 - _owned(INDEX["python"], window.samples))
    start = machine.process_started()
    zero = _perf_counter_at(start)
    predicted, steps_from = (-1, "")
    return Trace(
        script=shown(watch.script) if watch.script else "",
        steps=watch.steps,
        window=len(settled) * watch.fold,
        wall_seconds=max(0.0, (watch.clock.now() - zero) / 1e9),
        startup_seconds=_seconds(zero, watch.first_fetch or watch.first_step),
        import_seconds=_seconds(watch.torch_started, watch.torch_imported),
        first_step_seconds=records[0][0] / 1e9 if records and warm != 1 else math.nan,
        step=step,
        step_median=statistics.median(walls) if walls else math.nan,
        phases=phases,
        unaccounted=unaccounted,
        epochs=tuple(_epochs(watch)),
        loaders=tuple(loader_facts(r) for r in watch.loaders.values() if r.batches),
        optimizers=optimizers_facts(watch),
        models=tuple(m for r in watch.models.values() if (m := model_facts(r)) is not None),
        successions=tuple(_successions(watch)),
        usage=window.usage,
        process=process_facts(watch),
        hot=tuple(_hot(window.samples, max(watch.steps - (window.opened_at or WARM), 1))),
        events=tuple(_events(watch, window)),
        reopened=window.opens.events(),
        curve=tuple(_curve(walls)),
        curve_stride=max(1, len(walls) // CURVE_POINTS) * watch.fold,
        predicted_steps=predicted,
        steps_from=steps_from,
        backwards=watch.backwards / max(1, watch.steps),
        batches=watch.batches,
        clock=watch.clock_name,
        device_phases=_device_phases(watch, window),
        pid=os.getpid(),
        rank=int(os.environ.get("RANK", "0") or 0),
        ended=ended,
        notes=tuple(watch.notes),
        machine={**machine.machine(), "versions": machine.versions()},
    )


def _device_phases(watch: Watch, window: Window) -> tuple[Phase, ...]:
    """The device's seconds per step by phase, from events in its stream; empty without a device."""
    times = watch.clock.device
    if times is None:
        return ()
    steps = max(1, (window.closed_at or watch.steps) - window.opened_at)
    found = [
        Phase(name, Interval.exact(ms / 1e3 / steps))
        for name, ms in zip(PHASES, times.milliseconds, strict=True)
        if ms > 0
    ]
    return tuple(sorted(found, key=lambda p: -p.seconds.value))


def _perf_counter_at(monotonic_seconds: float) -> int:
    """The perf_counter value at a time since boot (both clocks count from boot on Linux)."""
    import time

    return time.perf_counter_ns() - int((time.clock_gettime(time.CLOCK_BOOTTIME) - monotonic_seconds) * 1e9)


def _seconds(start: int, end: int) -> float:
    return max(0.0, (end - start) / 1e9) if start and end else math.nan


def _phases(
    watch: Watch, records: list[tuple[int, ...]], samples: dict[SampleKey, float], reduced: Interval | None
) -> tuple[Phase, ...]:
    owners: dict[int, Place] = {}
    models = [model_facts(record) for record in watch.models.values()]
    rare = [i + 1 for i in rare_phases(records)]
    usual = [row for row in records if not any(row[i] for i in rare)]
    for phase, place, _count, _ns in resolve(watch.clock.places):
        owners.setdefault(phase, place)
    found = []
    for i, name in enumerate(PHASES):
        values = [r[i + 1] / 1e9 for r in records]
        if not any(values):
            continue
        seconds = Interval.of_mean(values)
        owner = owners.get(i)
        children = _children(i, seconds, samples) if name in _SPLIT or _recomputes(i, samples) else ()
        if reduced is not None and name == "backward":
            children = (_waiting(seconds, reduced), *children)
        if owner is None and name == "evaluation":
            owner = next((f.evaluation_place for f in models if f is not None and f.evaluation_place is not None), None)
        if owner is None and children:
            owner = max(children, key=lambda c: c.seconds.value).place
        calls = watch.clock.calls[i] / max(1, watch.steps)
        vanished = without([(row[0], row[i + 1]) for row in usual])
        found.append(Phase(name, seconds, owner, calls, children, vanished))
    return tuple(sorted(found, key=lambda p: -p.seconds.value))


def _recomputes(phase: int, samples: dict[SampleKey, float]) -> bool:
    return any(key[0] == phase and key[3] == RECOMPUTE for key in samples)


def _children(phase: int, seconds: Interval, samples: dict[SampleKey, float]) -> tuple[Phase, ...]:
    mine = {k: w for k, w in samples.items() if k[0] == phase}
    total = sum(mine.values())
    if total <= 0:
        return ()
    groups: dict[tuple[str, str, int], tuple[Place, float, dict[str, float]]] = {}
    for (_, code, line, kind, callee), weight in sorted(mine.items(), key=lambda x: -x[1]):
        if not is_users(code.co_filename):
            continue
        place = place_of_line(code, line)
        key = (kind, place.file, place.line) if kind != "wait for workers" else (kind, "", 0)
        old = groups.get(key, (place, 0.0, {}))  # the place of those that are put together is the largest's
        old[2][callee] = old[2].get(callee, 0.0) + weight
        groups[key] = (old[0], old[1] + weight, old[2])
    count = max(4, len(mine), int(total * 100))
    out: list[Phase] = []
    for (kind, _, _), (place, weight, callees) in sorted(groups.items(), key=lambda g: -g[1][1]):
        share = min(1.0, weight / total)  # added up in another order, they may exceed it in the last digit
        if share < SMALL or len(out) == MOST_CHILDREN:
            break
        name = kind or _short(place.text.strip()) or max(callees, key=lambda c: callees[c]) or place.function
        error = 1.96 * math.sqrt(share * (1 - share) / count)
        out.append(Phase(name, _part(seconds, share, error, count), place))
    return tuple(out)


def _part(whole: Interval, share: float, error: float, count: int) -> Interval:
    """A share of a time, no better known than the time and the share are."""
    low, high = (math.hypot(whole.value * error, share * (whole.value - end)) for end in (whole.low, whole.high))
    value = whole.value * share
    return Interval(value, max(0.0, value - low), value + high, "s", 0.95, count)


def _waiting(whole: Interval, share: Interval) -> Phase:
    """The part of the backward pass in which other processes are waited for."""
    part = min(1.0, share.value)
    return Phase(WAITS, _part(whole, part, max(0.0, share.high - share.value), share.n))


def _owned(phase: int, samples: dict[SampleKey, float]) -> float:
    """Share of a phase's samples that a line of the user's accounts for, be it shown or among the other lines."""
    mine = [(code, weight) for (number, code, *_), weight in samples.items() if number == phase]
    total = math.fsum(weight for _, weight in mine)
    return math.fsum(weight for code, weight in mine if is_users(code.co_filename)) / total if total > 0 else 0.0


def _short(text: str, most: int = 40) -> str:
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def _hot(samples: dict[SampleKey, float], steps: int) -> Iterable[Hot]:
    total = sum(samples.values())
    lines: dict[tuple[int, str, int], list[Any]] = {}
    for (phase, code, line, _kind, callee), weight in samples.items():
        if not is_users(code.co_filename):
            continue
        place = place_of_line(code, line)
        entry = lines.setdefault((phase, place.file, place.line), [place, 0.0, {}])
        entry[1] += weight
        entry[2][callee] = entry[2].get(callee, 0.0) + weight
    for (phase, _, _), (place, weight, callees) in sorted(lines.items(), key=lambda x: -x[1][1])[:40]:
        if weight / total < 0.005:
            break
        callee = max(callees, key=lambda c: callees[c])
        yield Hot(PHASES[phase], place, weight / steps, weight / total, callee)


def _events(watch: Watch, window: Window) -> Iterable[Event]:
    steps = max(1, (window.closed_at or watch.steps) - window.opened_at)
    for phase, place, calls, nanoseconds in resolve(watch.clock.places)[:40]:
        yield Event(PHASES[phase], place, calls / steps, nanoseconds / 1e9 / steps)


def _curve(walls: list[float]) -> list[float]:
    stride = max(1, len(walls) // CURVE_POINTS)
    return [statistics.median(walls[i : i + stride]) for i in range(0, len(walls), stride)]


def _epochs(watch: Watch) -> Iterable[Epoch]:
    records, fold = watch.records(), watch.fold
    record = watch.trained_from
    bounds = record.epochs if record is not None else []
    if len(bounds) > MOST_EPOCHS:
        return
    if not bounds:
        bounds = list(range(0, watch.steps, 1000))
    bounds = [*sorted(set(bounds)), watch.steps]
    fetch, evaluation = INDEX["fetch"] + 1, INDEX["evaluation"] + 1
    for a, b in itertools.pairwise(bounds):
        rows = records[a // fold : max(b // fold, a // fold + 1)]
        if rows and b > a:
            yield Epoch(
                b - a,
                sum(r[0] for r in rows) * fold / 1e9,
                sum(r[fetch] for r in rows) * fold / 1e9,
                sum(r[evaluation] for r in rows) * fold / 1e9,
            )


def _successions(watch: Watch) -> Iterable[SuccessionFacts]:
    """Lines of models that followed each other; the running one's steps count as well."""
    returns = watch.succession.returns
    for line, running in watch.succession.counted():
        yield SuccessionFacts(line.model, line.optimizer, line.elements, line.models, line.steps + running, returns)
