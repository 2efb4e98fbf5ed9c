"""How samples lie in a store: those of one shape in columns, a leaf each; others as records, in slots of one width."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from hasten.data.store import RowStore
from hasten.data.structure import (
    Leaf,
    Unsupported,
    alike,
    batch_like,
    columns_of,
    flatten,
    laid_out,
    pack_skeleton,
    rebuild,
    unpack_skeleton,
)

MOST_LARGER = 1.5  # slots of varying samples have room for this many times the first batch's largest
SPARE = 256  # bytes of a slot for heads and notes that are longer than the first ones
_HEAD = struct.Struct("<II")

Flat = tuple[Any, list[tuple[Leaf, bytes]]]  # a sample's skeleton, and its leaves with their bytes


class Varies(Unsupported):
    """A sample of another shape than the samples before."""


class Layout:
    """What the first samples say of all.

    Args:
        flat: the first samples, flattened.

    Attributes:
        fixed: whether samples are of one shape, and lie in columns.
        widths: bytes of a sample in each column of the store.
        columns: the store's columns as arrays, where batches are gathered from them; else empty.
    """

    def __init__(self, flat: list[Flat]) -> None:
        self.skeleton = flat[0][0]
        self.leaves = [leaf for leaf, _ in flat[0][1]]
        self.columns: list[np.ndarray] = []
        self.like: Any = None
        self.alike: Callable[[Any], bool] = lambda _: False
        texts = any(leaf.kind in ("str", "bytes") for leaf in self.leaves)  # of other lengths sooner or later
        noted = any(leaf.kind == "notes" for leaf in self.leaves)  # so are they
        self.fixed = not (texts or noted) and all(skeleton == self.skeleton for skeleton, _ in flat)
        self.widths = tuple(leaf.nbytes for leaf in self.leaves) if self.fixed else ()
        if not self.fixed:
            kinds = [[leaf for leaf, _ in leaves if leaf.kind != "notes"] for _, leaves in flat]
            of_one_size = not texts and len(kinds) > 1 and all(k == kinds[0] for k in kinds)
            self.widths = (width_of(flat, 1.0 if of_one_size else MOST_LARGER),)

    def gather_from(self, store: RowStore, collated: Any) -> None:
        """Have batches gathered from the store's columns.

        Args:
            collated: a batch of the first samples; it is not kept, since the script may change it.

        Raises:
            Unsupported: they are not what torch collates.
        """
        self.open_columns(store)
        columns = columns_of(collated, self.skeleton)
        self.alike = alike(self.skeleton)
        self.like = batch_like(collated, self.skeleton, [c.new_empty((0, *c.shape[1:])) for c in columns])

    def open_columns(self, store: RowStore) -> None:
        """Take the columns of this store."""
        self.columns = []
        for column, leaf in enumerate(self.leaves):
            if leaf.kind == "image":
                raise Unsupported("a picture where torch collates tensors")
            dtype = np.dtype("<i2") if leaf.dtype == "bfloat16" else np.dtype(leaf.dtype)
            self.columns.append(store.view(column, dtype, leaf.shape))

    def vary(self, width: int) -> None:
        """Samples were alike by chance: from now on each is a record, in a slot of at least so many bytes."""
        width = max(width, int(MOST_LARGER * sum(self.widths)) + len(pack_skeleton(self.skeleton)) + SPARE)
        self.fixed, self.columns, self.widths = False, [], (width,)

    def encode(self, sample: Any, store: RowStore) -> list[bytes] | None:
        """A sample's bytes, a part for each column; None where a varying sample is larger than its slot in the store.

        Raises:
            Varies: it is of another shape than all before.
        """
        skeleton, leaves = flatten(sample)
        if self.fixed:
            if skeleton != self.skeleton:
                raise Varies("another shape than the samples before")
            return [content for _, content in leaves]
        content = b"".join(c for _, c in leaves)
        head = pack_skeleton(skeleton)
        record = _HEAD.pack(len(head), len(content)) + head + content
        return [record] if len(record) <= store.widths[0] else None

    def arrays(self, collated: Any) -> list[np.ndarray] | None:
        """The columns of a batch as the store holds them; None where one differs in kind."""
        arrays = [_raw(c) for c in columns_of(collated, self.skeleton)]
        if any(a.dtype != c.dtype or a.shape[1:] != c.shape[1:] for a, c in zip(arrays, self.columns, strict=True)):
            return None
        return arrays

    def sample(self, row: int, store: RowStore) -> Any:
        """A sample, made of its bytes."""
        if self.fixed:
            parts = [store.read(row, column) for column in range(len(self.leaves))]
            return rebuild(self.skeleton, memoryview(b"".join(parts)))
        content = store.read(row, 0)
        head, size = _HEAD.unpack_from(content)
        start = _HEAD.size + head
        return rebuild(unpack_skeleton(bytes(content[_HEAD.size : start])), content[start : start + size])

    def batch(self, rows: np.ndarray) -> Any:
        """A batch, gathered from the columns."""
        return batch_like(self.like, self.skeleton, [self._gather(i, rows) for i in range(len(self.columns))])

    def _gather(self, column: int, rows: np.ndarray) -> Any:
        import torch

        source = self.columns[column]
        out = np.empty((len(rows), *source.shape[1:]), source.dtype)
        np.take(source, rows, axis=0, out=out, mode="clip")
        leaf, tensor = self.leaves[column], torch.from_numpy(out)
        tensor = tensor.view(torch.bfloat16) if leaf.dtype == "bfloat16" else tensor
        return laid_out(tensor, leaf, 1).contiguous()  # as torch stacks them


def width_of(flat: list[Flat], larger: float = MOST_LARGER) -> int:
    """Bytes of a slot that holds any of these samples, or one so many times as large."""
    sizes = [sum(len(content) for _, content in leaves) for _, leaves in flat]
    return int(larger * max(sizes)) + max(len(pack_skeleton(skeleton)) for skeleton, _ in flat) + SPARE


def _raw(column: Any) -> np.ndarray:
    """A collated tensor's numbers as the store holds them."""
    import torch

    found: np.ndarray = (column.view(torch.int16) if column.dtype is torch.bfloat16 else column).numpy()
    return found
