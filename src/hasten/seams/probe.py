"""Asking a dataset for the same items twice, in a forked child: is it deterministic, does it draw random numbers?"""

from __future__ import annotations

import copy
import itertools
import json
import os
import random
import shutil
import statistics
import time
from typing import Any

from hasten.core.codec import decode, encode
from hasten.core.trace import Probe
from hasten.seams import fork
from hasten.seams.child import exchange_folder
from hasten.seams.state import _sha256, random_digest, random_states
from hasten.seams.watch import Watch

ITEMS = 6
LIMIT_SECONDS = 10.0


def probe_loaders(watch: Watch) -> dict[int, Probe]:
    """A probe for every map-style loader, by the key of :attr:`Watch.loaders`."""
    from torch.utils.data import IterableDataset

    found = {}
    for key, record in watch.loaders.items():
        loader = record.loader()
        if loader is None or not record.batches:
            continue
        if isinstance(loader.dataset, IterableDataset):
            found[key] = Probe(why_not="an IterableDataset has no items to ask for")
            continue
        found[key] = probe_in_child(watch, loader.dataset)
    return found


def probe_in_child(watch: Watch, dataset: Any) -> Probe:
    """Probe a dataset in a forked child; the caller has checked that forking is safe."""
    folder = exchange_folder()
    path = os.path.join(folder, "probe.json")

    def driver(sender: fork.Sender) -> Any:
        result = probe(dataset)
        with open(path, "w", encoding="utf-8") as file:
            json.dump(encode(result), file)
        sender.row(fork.DONE)
        sender.leave()

    child = fork.go(watch, driver, allowed=(folder,))
    try:
        end = time.monotonic() + LIMIT_SECONDS
        while not child.ended and time.monotonic() < end:
            if any(r[0] == fork.DONE for r in child.rows(0.5)):
                break
        child.kill()
        with open(path, encoding="utf-8") as file:
            return decode(Probe, json.load(file))
    except (OSError, ValueError):
        return Probe(why_not="asking the dataset twice failed or took too long")
    finally:
        child.kill() if not child.ended else None
        shutil.rmtree(folder, ignore_errors=True)


def probe(dataset: Any) -> Probe:
    """Ask for a few items twice, with the same random states before each."""
    try:
        length = len(dataset)
        indices = sorted({i * (length - 1) // max(1, ITEMS - 1) for i in range(ITEMS)}) if length else []
        if not indices:
            return Probe(why_not="the dataset is empty")
        same, untouched, size, times = True, True, 0, []
        for i in indices:
            before = random_digest()
            start = time.perf_counter()
            first = dataset[i]
            times.append(time.perf_counter() - start)
            untouched &= random_digest() == before
            same &= _sha256(_plain(first)) == _sha256(_plain(dataset[i]))
            size = max(size, _bytes(first))
    except Exception as error:
        return Probe(why_not=f"the dataset raised {type(error).__name__}")
    seconds = statistics.median(times)
    base = Probe(same and untouched, untouched, size, seconds)
    return base if base.deterministic else _with_stages(base, dataset, indices)


def _with_stages(base: Probe, dataset: Any, indices: list[int]) -> Probe:
    import dataclasses

    chain = find_chain(dataset)
    if chain is None:
        return base
    stages = list(chain[1].transforms)
    split = Split.make(dataset, cacheable_stages(dataset, indices))
    names = tuple(type(s).__name__ for s in stages)
    if split is None:
        return dataclasses.replace(base, stages=names)
    exact, prefix_times, suffix_times, size = True, [], [], 0
    for i in indices:
        state = random_states()
        whole = _sha256(_plain(dataset[i]))
        after = random_digest()
        restore(state)
        start = time.perf_counter()
        item = split.prefix(i)
        middle = time.perf_counter()
        exact &= _sha256(_plain(split.suffix(item))) == whole and random_digest() == after
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


def restore(states: dict[str, Any]) -> None:
    """Set the random states back."""
    import numpy as np
    import torch

    random.setstate(states["python"])
    torch.set_rng_state(states["torch"])
    if "numpy" in states:
        np.random.set_state(states["numpy"])


def find_chain(dataset: Any) -> tuple[Any, Any] | None:
    """(owner, chain) where ``owner.transform`` is a chain with a ``transforms`` list (torchvision's Compose and its
    likes); looks through Subset-like wrappers."""
    owner = dataset
    for _ in range(8):
        chain = getattr(owner, "transform", None)
        if isinstance(getattr(chain, "transforms", None), (list, tuple)) and callable(chain):
            return owner, chain
        inner = getattr(owner, "dataset", None)
        if inner is None or inner is owner:
            return None
        owner = inner
    return None


def with_chain(dataset: Any, transform: Any) -> Any:
    """A shallow copy of ``dataset`` (and of its wrappers) whose transform is another."""
    twin = copy.copy(dataset)
    if getattr(dataset, "transform", None) is not None and find_chain(dataset) == (dataset, dataset.transform):
        twin.transform = transform
        if hasattr(getattr(twin, "transforms", None), "transform"):  # torchvision keeps a second reference
            twin.transforms = copy.copy(twin.transforms)
            twin.transforms.transform = transform
        return twin
    twin.dataset = with_chain(dataset.dataset, transform)
    return twin


class _Tap:
    """Runs the first stages and marks their result, so that it is found again inside the sample."""

    def __init__(self, stages: list[Any]) -> None:
        self.stages = stages

    def __call__(self, value: Any) -> Any:
        for stage in self.stages:
            value = stage(value)
        return Marked(value)


class Marked:
    """The value between prefix and suffix, inside a sample."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class Split:
    """A dataset cut in two: ``suffix(prefix(i))`` is ``dataset[i]``."""

    def __init__(self, dataset: Any, stages: list[Any], count: int) -> None:
        self.count = count
        self.tapped = with_chain(dataset, _Tap(stages[:count]))
        self.rest = stages[count:]

    @classmethod
    def make(cls, dataset: Any, count: int) -> Split | None:
        chain = find_chain(dataset)
        if chain is None:
            return None
        split = cls(dataset, list(chain[1].transforms), count)
        try:
            item = split.prefix(0)
        except Exception:
            return None
        marks = [v for v in (item if isinstance(item, (tuple, list)) else (item,)) if isinstance(v, Marked)]
        return split if len(marks) == 1 else None

    def prefix(self, index: int) -> Any:
        return self.tapped[index]

    def suffix(self, item: Any) -> Any:
        if isinstance(item, Marked):
            return self._finish(item.value)
        return type(item)(self._finish(v.value) if isinstance(v, Marked) else v for v in item)

    def _finish(self, value: Any) -> Any:
        for stage in self.rest:
            value = stage(value)
        return value


def cacheable_stages(dataset: Any, indices: list[int]) -> int:
    """How many leading stages are deterministic and leave the random states alone, on these items."""
    chain = find_chain(dataset)
    assert chain is not None
    stages = list(chain[1].transforms)
    for count in itertools.count(1):
        if count > len(stages):
            return len(stages)
        split = Split.make(dataset, count)
        if split is None:
            return count - 1
        for i in indices[:3]:
            before = random_digest()
            first = _sha256(_plain(split.prefix(i)))
            if random_digest() != before or _sha256(_plain(split.prefix(i))) != first:
                return count - 1
    return 0


def _plain(value: Any) -> Any:
    """A sample with pictures as arrays and marks taken off, ready for hashing."""
    import numpy as np

    if isinstance(value, Marked):
        return _plain(value.value)
    if type(value).__module__.startswith("PIL."):
        return [value.mode, value.size, np.asarray(value)]
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value


def _bytes(value: Any) -> int:
    import torch

    value = _plain(value)
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    if hasattr(value, "nbytes"):
        return int(value.nbytes)
    if isinstance(value, dict):
        return sum(_bytes(v) for v in value.values())
    if isinstance(value, (list, tuple)):
        return sum(_bytes(v) for v in value)
    return 8
