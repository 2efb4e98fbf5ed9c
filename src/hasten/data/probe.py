"""Asking a dataset for the same items twice: is it deterministic, does it draw random numbers, where does it start to?

Asking may have side effects in the dataset, so callers do it in a forked child.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import os
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from hasten.core.facts import Probe
from hasten.data import beside
from hasten.data.chain import Split, cacheable_stages, find_chain, plain
from hasten.data.effects import Effects
from hasten.data.fingerprint import DEEPEST, SMALL, draws_by_itself, fingerprint
from hasten.data.gather import NotGatherable, gather_of
from hasten.data.structure import Unsupported, flatten
from hasten.measure.digest import random_digest, random_states, restore, sha256

ITEMS = 6
MIXED, MOST_COLLATED = 3, 256  # samples of which a batch is put together to time collating, and its size at most
MOST_SHARED = 16  # files that are told
FEW = 16  # smaller whole numbers may be switches (a mode, a level); larger ones are sizes and counts


def probe(dataset: Any, loader: Any = None) -> Probe:
    """Ask for a few items twice, with the same random states before each.

    Args:
        loader: that collates them, for what this takes.
    """
    found = dataclasses.replace(_asked(dataset), gatherable=_gatherable(dataset), kind=kind_of(dataset))
    if not found.deterministic and not found.prefix_exact:
        return found
    collating = _collating(dataset, loader)
    each = found.seconds + (collating if collating > 0 else 0.0)
    keeps = found.deterministic and not found.unkept
    return dataclasses.replace(
        found,
        check_seconds=beside.looking(dataset) + (beside.comparing(dataset, loader) if keeps else 0.0),
        collate_seconds=collating,
        gathered=beside.gathered(dataset, loader, each) if found.gatherable else None,
        cached=beside.cached(dataset, loader, each) if keeps else None,
    )


def _collating(dataset: Any, loader: Any) -> float:
    """Seconds for one sample; NaN where nothing is collated, or not by what a few samples show."""
    size = getattr(loader, "batch_size", None)
    if not size:
        return math.nan
    try:
        items = [dataset[i] for i in range(min(MIXED, size, len(dataset)))]
        batch = [items[i % len(items)] for i in range(min(size, MOST_COLLATED))]
        return _median_seconds(lambda: loader.collate_fn(batch)) / len(batch)
    except Exception:
        return math.nan


def _median_seconds(call: Callable[[], object]) -> float:
    """Of three calls, after one that is not timed."""
    call()
    times = []
    for _ in range(3):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def kind_of(dataset: Any) -> str:
    """What a dataset is made of, as a short digest: its class, and the classes and switches of what it works with
    (transforms, other datasets, objects of classes beside its own). A switch is a bool, a name, a small number, and
    whether a larger one is there. Data that it holds, and handles that it opens when it is first asked, are no part."""
    return hashlib.sha256(repr(_made_of(dataset, type(dataset).__module__, set())).encode()).hexdigest()[:12]


def _made_of(value: Any, home: str, inside: set[int]) -> Any:
    """None for what is no part of it."""
    if isinstance(value, (bool, float)):
        return bool(value)
    if type(value) is int:
        return min(abs(value), FEW)
    if type(value) is str:  # paths may be others in each run
        return value if value.replace("-", "_").isidentifier() else None
    if isinstance(value, (list, tuple)):
        return [_made_of(v, home, inside) for v in value] if 0 < len(value) <= SMALL else None
    named = getattr(value, "__qualname__", None)
    if named is not None:  # a class, a function
        return named
    kind = type(value)
    works = callable(value) or kind.__module__ == home or (hasattr(value, "__getitem__") and hasattr(value, "dataset"))
    if not works or id(value) in inside or len(inside) > DEEPEST:
        return None
    parts = {k: _made_of(v, home, inside | {id(value)}) for k, v in list(getattr(value, "__dict__", {}).items())}
    return kind.__qualname__, [(k, part) for k, part in parts.items() if part is not None]


def _gatherable(dataset: Any) -> bool:
    try:
        gather_of(dataset)
    except NotGatherable:
        return False
    return True


def _asked(dataset: Any) -> Probe:
    try:
        length = len(dataset)
        indices = sorted({i * (length - 1) // max(1, ITEMS - 1) for i in range(ITEMS)}) if length else []
        if not indices:
            return Probe(why_not="the dataset is empty")
        same, untouched, size, times = True, not draws_by_itself(dataset), 0, []
        settings, effects, opened = fingerprint(dataset), Effects(), Counter[str]()
        for i in indices:
            before = random_digest()
            start = time.perf_counter()
            effects.read.clear()
            with effects:
                first = dataset[i]
            times.append(time.perf_counter() - start)
            opened.update(list(effects.read))
            untouched &= random_digest() == before and not effects.acted
            same &= sha256(plain(first)) == sha256(plain(dataset[i]))
            size = max(size, _bytes(first))
    except Exception as error:
        return Probe(why_not=f"the dataset raised {type(error).__name__}")
    if fingerprint(dataset) != settings:
        return Probe(sample_bytes=size, seconds=statistics.median(times), why_not="being asked changes the dataset")
    seconds = statistics.median(times)
    shared = tuple(_shown(path) for path, count in opened.items() if count > 1)
    base = Probe(same and untouched, untouched, size, seconds, shared_files=shared[:MOST_SHARED], unkept=_unkept(first))
    return base if base.deterministic else _with_stages(base, dataset, indices)


def _shown(path: str) -> str:
    """A path as a user writes it: relative where it is below the working folder."""
    inside = os.path.relpath(path)
    return path if inside.startswith(os.pardir) else inside


def _with_stages(base: Probe, dataset: Any, indices: list[int]) -> Probe:
    chain = find_chain(dataset)
    if chain is None:
        return base
    stages = chain.stages
    split = Split.make(dataset, cacheable_stages(dataset, indices))
    names = tuple(map(_called, stages))
    if split is None:
        return dataclasses.replace(base, stages=names)
    exact, prefix_times, suffix_times, size = True, [], [], 0
    for i in indices:
        state = random_states()
        whole = sha256(plain(dataset[i]))
        after = random_digest()
        restore(state)
        start = time.perf_counter()
        item = split.prefix(i)
        middle = time.perf_counter()
        exact &= sha256(plain(split.suffix(item))) == whole and random_digest() == after
        prefix_times.append(middle - start)
        suffix_times.append(time.perf_counter() - middle)
        size = max(size, _bytes(item))
    return dataclasses.replace(
        base,
        stages=names,
        cacheable_stages=split.count,
        prefix_exact=exact,
        prefix_seconds=statistics.median(prefix_times),
        suffix_seconds=statistics.median(suffix_times),
        prefix_bytes=size,
    )


def _called(stage: Any) -> str:
    """What a stage of a chain is called: a function by its own name, an object by its class's."""
    while isinstance(stage, functools.partial):
        stage = stage.func
    name = getattr(stage, "__name__", type(stage).__name__)
    return "a lambda" if name == "<lambda>" else str(name)


def _unkept(sample: Any) -> str:
    try:
        flatten(sample)
    except Unsupported as reason:
        return str(reason)
    return ""


def _bytes(value: Any) -> int:
    import torch

    value = plain(value)
    if isinstance(value, torch.Tensor):
        return int(value.numel() * value.element_size())
    if hasattr(value, "nbytes"):
        return int(value.nbytes)
    if isinstance(value, Mapping):
        return sum(_bytes(v) for v in value.values())
    if isinstance(value, (list, tuple)):
        return sum(_bytes(v) for v in value)
    return 8
