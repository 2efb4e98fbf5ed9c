"""A loader's batches of row numbers as tensors, where its sampler is torch's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

AT_ONCE = 256  # batches whose row numbers are cut from the order in one call


def torchs_own(sampler: Any) -> bool:
    """Whether a batch sampler shuffles or counts as torch's own do, without replacement, every row once."""
    from torch.utils.data import BatchSampler, RandomSampler, SequentialSampler

    if type(sampler) is not BatchSampler:
        return False
    rows = sampler.sampler
    if type(rows) is SequentialSampler:
        return True
    return type(rows) is RandomSampler and not rows.replacement and rows._num_samples is None


def row_batches(sampler: Any, as_tensors: Callable[[], bool]) -> Iterator[Any]:
    """What ``iter(sampler)`` gives, in the same order, with the same random draws at the same times.

    Args:
        sampler: one that is :func:`torchs_own`.
        as_tensors: asked for every batch: whether it is to be an int64 tensor rather than a list.
    """
    rows, size = sampler.sampler, sampler.batch_size
    length = len(rows.data_source)
    order, end = _order(rows, length)
    full = length - length % size
    for block in order[:full].split(size * AT_ONCE):
        for batch in block.split(size) if full else ():
            yield batch if as_tensors() else batch.tolist()
    end()
    if full < length and not sampler.drop_last:
        yield order[full:] if as_tensors() else order[full:].tolist()


def _order(rows: Any, length: int) -> tuple[Any, Callable[[], Any]]:
    """All rows in order, and what ``RandomSampler`` does when it has given the last: draw again, for no row."""
    import torch
    from torch.utils.data import SequentialSampler

    if type(rows) is SequentialSampler:
        return torch.arange(length), lambda: None
    generator = rows.generator
    if generator is None:
        generator = torch.Generator()
        generator.manual_seed(int(torch.empty((), dtype=torch.int64).random_().item()))
        return torch.randperm(length, generator=generator), lambda: None  # nobody sees this generator
    return torch.randperm(length, generator=generator), lambda: torch.randperm(length, generator=generator)
