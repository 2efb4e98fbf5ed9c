"""What somebody who makes these scripts faster by hand would write into them; laid beside the edited copies.

Batches come in the order, and random numbers are drawn, as by the DataLoader that they replace, so that an edited
script trains on the same batches from the same seed.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from typing import Any

import torch

Take = Callable[[Any], tuple[torch.Tensor, ...]]

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # of glibc's malloc.h
DRAWN = 64 * 1024  # indices drawn at once where batches have no end; a multiple of the 32 that RandomSampler draws


def keep_pages() -> None:
    """Have glibc keep the memory that is freed: large blocks are not mapped anew, and faulted in, for every tensor."""
    libc = ctypes.CDLL(None)
    for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 64 << 20)):
        libc.mallopt(option, value)


class Batches:
    """Stands in for a DataLoader without workers, but takes a batch at once instead of item by item.

    Args:
        take: gives the batch of a tensor of indices, or of a slice where the order is the data's own.
        n: number of items.
        endless: indices are drawn with replacement, for ever.
        dataset: what the script expects as the loader's ``dataset``.
        unused: what DataLoaders are given besides: workers, pinned memory.
    """

    def __init__(
        self,
        take: Take,
        n: int,
        batch_size: int = 1,
        shuffle: bool = False,
        drop_last: bool = False,
        endless: bool = False,
        dataset: Any = None,
        **unused: Any,
    ) -> None:
        self.take, self.n, self.batch_size = take, n, batch_size
        self.shuffle, self.drop_last, self.endless = shuffle, drop_last, endless
        self.dataset = range(n) if dataset is None else dataset

    def __len__(self) -> int:
        return self.n // self.batch_size if self.drop_last else -(-self.n // self.batch_size)

    def __iter__(self) -> Iterator[list[torch.Tensor]]:
        torch.empty((), dtype=torch.int64).random_()  # the seed that a DataLoader draws for workers
        return (list(self.take(indices)) for indices in self._indices())

    def _indices(self) -> Iterator[torch.Tensor | slice]:
        if self.endless:
            generator = _generator()
            while True:
                drawn = torch.randint(self.n, (DRAWN // self.batch_size * self.batch_size,), generator=generator)
                yield from drawn.split(self.batch_size)
        elif self.shuffle:
            order = torch.randperm(self.n, generator=_generator())
            yield from (order[i : i + self.batch_size] for i in self._starts())
        else:
            yield from (slice(i, min(i + self.batch_size, self.n)) for i in self._starts())

    def _starts(self) -> range:
        return range(0, len(self) * self.batch_size, self.batch_size)


def _generator() -> torch.Generator:
    """As a RandomSampler makes its own."""
    seed = int(torch.empty((), dtype=torch.int64).random_().item())
    return torch.Generator().manual_seed(seed)


def whole(*tensors: torch.Tensor, **options: Any) -> Batches:
    """Batches of tensors that hold all items; ``options`` as for Batches."""
    return Batches(lambda i: tuple(t[i] for t in tensors), len(tensors[0]), **options)


def stacked(dataset: Any, **options: Any) -> Batches:
    """Batches of a data set whose items are tuples of tensors, never change, and fit into memory."""
    if not hasattr(dataset, "columns_by_hand"):
        columns = zip(*(dataset[i] for i in range(len(dataset))), strict=True)
        dataset.columns_by_hand = [torch.stack(c) for c in columns]
    return whole(*dataset.columns_by_hand, dataset=dataset, **options)


def mnist(dataset: Any, **options: Any) -> Batches:
    """Batches of a torchvision MNIST, or of a Subset of one."""
    images, labels = digits(getattr(dataset, "dataset", dataset))
    if hasattr(dataset, "indices"):
        images, labels = images[dataset.indices], labels[dataset.indices]
    return whole(images, labels, dataset=dataset, **options)


def digits(dataset: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """All images as ToTensor, and Normalize where the data set has it, give them; and their labels."""
    images = dataset.data.unsqueeze(1).to(torch.float32).div_(255)
    for transform in getattr(dataset.transform, "transforms", ()):
        if hasattr(transform, "mean"):
            images.sub_(torch.tensor(transform.mean)).div_(torch.tensor(transform.std))
    return images, dataset.targets


def windows(dataset: Any, marks: bool = True, **options: Any) -> Batches:
    """Batches of the sliding windows of Dataset_ETT_hour and its like.

    Args:
        marks: False leaves the time features out, for models that do not look at them.
    """
    seen, told = dataset.seq_len, dataset.label_len + dataset.pred_len
    values = torch.from_numpy(dataset.data_x).float()
    stamps = torch.from_numpy(dataset.data_stamp).float()
    inputs, outputs = torch.arange(seen), torch.arange(told) + (seen - dataset.label_len)
    first = torch.arange(len(dataset))

    def take(i: Any) -> tuple[torch.Tensor, ...]:
        start = first[i].unsqueeze(1)
        x, y = start + inputs, start + outputs
        rest = (stamps[x], stamps[y]) if marks else (stamps[:0], stamps[:0])
        return (values[x], values[y], *rest)

    return Batches(take, len(dataset), dataset=dataset, **options)


def text(dataset: Any, **options: Any) -> Batches:
    """Batches of pieces of a minGPT text and of the same pieces one character on."""
    codes = torch.tensor([dataset.stoi[c] for c in dataset.data])
    offsets = torch.arange(dataset.config.block_size + 1)

    def take(i: Any) -> tuple[torch.Tensor, ...]:
        piece = codes[i.unsqueeze(1) + offsets]
        return piece[:, :-1].contiguous(), piece[:, 1:].contiguous()

    return Batches(take, len(dataset), dataset=dataset, **options)


def rows(dataset: Any) -> list[dict[str, torch.Tensor]]:
    """The rows of a Hugging Face data set with tensors in place of lists of numbers."""
    columns = {name: torch.tensor(dataset[name][:]).unbind() for name in dataset.column_names}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
