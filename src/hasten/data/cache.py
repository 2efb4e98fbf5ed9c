"""Samples kept after they were made once, for datasets whose items are the same every time."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hasten.data.effects import Effects
from hasten.data.fingerprint import close_fingerprint
from hasten.data.store import NoRoom, RowStore
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
from hasten.data.view import asked_together, samples_of
from hasten.measure.digest import random_states, restore, same_states

OFF, BROKEN, RANDOM, FULL = 0, 1, 2, 3  # bytes of RowStore.signals
AUDIT_EVERY = 64  # batches served from the cache between two comparisons with a sample made anew
AUDIT_SHARE, MOST_AUDITED = 1 / 200, 32  # of all samples, compared at a new iterator
IDLE_PASSES = 2  # whose samples were all forgotten, after which that is told
MOST_LARGER = 1.5  # slots of varying samples have room for this many times the first batch's largest
_HEAD = struct.Struct("<II")


class SampleCache:
    """Serves batches of a map-style dataset, making every sample at most once.

    What is trusted is checked while it runs: that making a sample leaves the random states alone (each time samples
    are made) and prints nothing (else they are made every time), that the dataset's settings, what its code reads
    besides, and the files it reads stay the same (at every new iterator), and that samples made anew are the same bytes
    (some at every new iterator, then one in every :data:`AUDIT_EVERY` batches). A failed check switches the cache off
    for good: from then on the dataset is asked as before.

    Args:
        dataset: map-style, with a length.
        collate: the loader's collate function.
        default_collate: torch's own; batches are gathered without it where ``collate`` is it.
    """

    def __init__(self, dataset: Any, collate: Callable[[list[Any]], Any]) -> None:
        from torch.utils.data._utils.collate import default_collate

        self.dataset = dataset
        self.collate = collate
        self.gathers = collate is default_collate
        self.length = len(dataset)
        self.store: RowStore | None = None
        self.skeleton: Any = None
        self.leaves: list[Leaf] = []
        self.columns: list[np.ndarray] = []
        self.like: Any = None
        self._alike: Callable[[Any], bool] = lambda _: False
        self.fixed = False
        self.off = ""
        self.mark = close_fingerprint(dataset)
        self.effects = Effects()
        self.turns = 0  # new iterators so far
        self.lost = 0  # passes over the dataset whose samples were forgotten

    # -- the door ------------------------------------------------------------------------------------------------

    def batch(self, indices: Sequence[Any]) -> Any:
        """What ``collate([dataset[i] for i in indices])`` is."""
        rows = None if self.off else self._rows(indices)
        if rows is None or (self.store is not None and self.store.signals[OFF]):
            return self.collate(self.ask(indices))
        store = self.store
        if store is not None and store.written.take(rows).all():
            return self._serve(rows, indices)
        missing = list(range(len(rows))) if store is None else np.flatnonzero(store.written.take(rows) == 0).tolist()
        made = self._make([indices[j] for j in missing])
        if len(missing) == len(rows):
            out = self.collate(made)
            self._keep(rows, made, out)
            return out
        self._keep(rows[missing], made, None)
        if store is not None and not store.signals[OFF] and store.written.take(rows).all():
            return self._serve(rows, indices)
        fresh = dict(zip(missing, made, strict=True))
        return self.collate([fresh[j] if j in fresh else self._sample(int(r)) for j, r in enumerate(rows)])

    def ask(self, indices: Sequence[Any]) -> list[Any]:
        """The dataset's own samples."""
        return samples_of(self.dataset, indices)

    def open(self) -> None:
        """Make the first samples, so that worker processes forked later share one store; draws no random number."""
        if self.store is None and self.length and not self.why_off:
            states = random_states()
            self.batch([0, min(1, self.length - 1)])
            restore(states)

    def new_iterator(self) -> None:
        """A pass over the dataset begins: look whether it is still the same, and compare some samples with new ones."""
        if self.is_same() and self.store is not None and not self.off:
            self._compare_some()

    def is_same(self) -> bool:
        """Whether the dataset's settings, and the files that it reads, are as they were; if not, forget everything."""
        mark = close_fingerprint(self.dataset)
        if mark == self.mark and not self.effects.changed():
            return True
        self.mark = mark
        self.effects.forget()
        if self.store is not None:
            self.lost += bool(self.store.written.any())
            self.store.forget()
        return False

    def _compare_some(self) -> None:
        assert self.store is not None
        count = min(MOST_AUDITED, max(1, round(self.length * AUDIT_SHARE)))
        self.turns += 1
        for n in range(count):  # others every time, all over the dataset
            row = (n * self.length // count + self.turns * 7919) % self.length
            if self.store.written[row] and not self._audit(row):
                return

    def ready(self, indices: Sequence[Any]) -> bool:
        """Whether these would be served without asking the dataset."""
        rows = self._rows(indices)
        return rows is not None and self.store is not None and bool(self.store.written.take(rows).all())

    @property
    def why_off(self) -> str:
        """Why the cache is off; empty while it is on."""
        if self.store is not None and not self.off:
            if self.store.signals[BROKEN]:
                return "a sample made anew differed from the cached one"
            if self.store.signals[RANDOM]:
                return "the dataset drew random numbers"
            if self.store.signals[FULL]:
                return "the disk is full"
        return self.off

    @property
    def why_idle(self) -> str:
        """Why nothing is served; empty where samples are."""
        anew = "the dataset is another one in every pass" if self.lost >= IDLE_PASSES else ""
        return self.why_off or anew

    @property
    def broken(self) -> bool:
        """Whether a cached sample was found to differ from one made anew."""
        return self.store is not None and bool(self.store.signals[BROKEN])

    # -- keeping -------------------------------------------------------------------------------------------------

    def _rows(self, indices: Sequence[Any]) -> np.ndarray | None:
        try:
            rows = np.asarray(indices)
        except (ValueError, TypeError):
            return None
        if rows.ndim != 1 or rows.dtype.kind not in "iu" or not rows.size:
            return None
        rows = rows.astype(np.int64, copy=False)
        if rows.min() < 0 or rows.max() >= self.length:
            return None
        return rows

    def _make(self, indices: Sequence[Any]) -> list[Any]:
        before = random_states()
        with self.effects:
            made = self.ask(indices)
        if not same_states(before, random_states()):
            self._switch_off(RANDOM, "the dataset drew random numbers")
        return made

    def _keep(self, rows: np.ndarray, samples: list[Any], collated: Any) -> None:
        if self.off or self.effects.acted:
            return
        try:
            if self.store is None:
                if collated is None:
                    return
                self._open(rows, samples, collated)
            if self.columns and self._keep_at_once(rows, samples, collated):
                return
            for row, sample in zip(rows, samples, strict=True):
                content = self._encode(sample)
                if content is not None:
                    self.store.write(int(row), content)  # type: ignore[union-attr]
        except Unsupported as error:
            self._switch_off(OFF, f"a sample holds {error}")
        except NoRoom as error:
            self._switch_off(FULL, error.strerror or "no room")
        except OSError as error:
            self._switch_off(FULL, error.strerror or "writing failed")

    def _keep_at_once(self, rows: np.ndarray, samples: list[Any], collated: Any) -> bool:
        """Write samples as the columns that they collate to; False, and nothing done, where one differs in kind."""
        assert self.store is not None
        if not all(map(self._alike, samples)):
            return False
        columns = columns_of(self.collate(samples) if collated is None else collated, self.skeleton)
        arrays = [_raw(c) for c in columns]
        if any(a.dtype != c.dtype or a.shape[1:] != c.shape[1:] for a, c in zip(arrays, self.columns, strict=True)):
            return False
        self.store.write_rows(rows, arrays)
        return True

    def _switch_off(self, signal: int, why: str) -> None:
        self.off = why
        if self.store is not None:
            self.store.signals[OFF] = 1
            self.store.signals[signal] = 1

    def _open(self, rows: np.ndarray, samples: list[Any], collated: Any) -> None:
        flat = [flatten(s) for s in samples]
        if asked_together(self.dataset) and any(
            flatten(self._make([int(row)])[0]) != made for row, made in zip(rows, flat, strict=True)
        ):
            raise Unsupported("what depends on the others of its batch")
        self.skeleton = flat[0][0]
        texts = any(leaf.kind in ("str", "bytes") for leaf, _ in flat[0][1])  # of other lengths sooner or later
        self.fixed = not texts and all(skeleton == self.skeleton for skeleton, _ in flat)
        if not self.fixed:
            sizes = [sum(len(c) for _, c in leaves) for _, leaves in flat]
            width = int(MOST_LARGER * max(sizes)) + max(len(pack_skeleton(s)) for s, _ in flat) + 256
            self.store = RowStore(self.length, (width,))
            return
        self.leaves = [leaf for leaf, _ in flat[0][1]]
        store = RowStore(self.length, tuple(leaf.nbytes for leaf in self.leaves))
        if self.gathers:
            self._open_columns(store, collated)
        self.store = store

    def _open_columns(self, store: RowStore, collated: Any) -> None:
        for column, leaf in enumerate(self.leaves):
            if leaf.kind == "image":
                raise Unsupported("a picture where torch collates tensors")
            dtype = np.dtype("<i2") if leaf.dtype == "bfloat16" else np.dtype(leaf.dtype)
            self.columns.append(store.view(column, dtype, leaf.shape))
        columns = columns_of(collated, self.skeleton)
        self._alike = alike(self.skeleton)
        # not the batch itself, which the script may change
        self.like = batch_like(collated, self.skeleton, [c.new_empty((0, *c.shape[1:])) for c in columns])

    def _encode(self, sample: Any) -> list[bytes] | None:
        """A sample's bytes, a part for each column; None where a varying sample is larger than its slot."""
        skeleton, leaves = flatten(sample)
        if self.fixed:
            if skeleton != self.skeleton:
                raise Unsupported("another shape than the samples before")
            return [content for _, content in leaves]
        content = b"".join(c for _, c in leaves)
        head = pack_skeleton(skeleton)
        record = _HEAD.pack(len(head), len(content)) + head + content
        assert self.store is not None
        return [record] if len(record) <= self.store.widths[0] else None

    # -- serving -------------------------------------------------------------------------------------------------

    def _serve(self, rows: np.ndarray, indices: Sequence[Any]) -> Any:
        assert self.store is not None
        self.store.served[0] += 1
        turn, rest = divmod(int(self.store.served[0]), AUDIT_EVERY)
        if rest == 0 and not self._audit(int(rows[turn % len(rows)])):
            return self.collate(self.ask(indices))
        if not self.columns:
            return self.collate([self._sample(int(r)) for r in rows])
        return batch_like(self.like, self.skeleton, [self._gather(i, rows) for i in range(len(self.columns))])

    def _gather(self, column: int, rows: np.ndarray) -> Any:
        import torch

        source = self.columns[column]
        out = np.empty((len(rows), *source.shape[1:]), source.dtype)
        np.take(source, rows, axis=0, out=out, mode="clip")
        leaf, tensor = self.leaves[column], torch.from_numpy(out)
        tensor = tensor.view(torch.bfloat16) if leaf.dtype == "bfloat16" else tensor
        return laid_out(tensor, leaf, 1).contiguous()  # as torch stacks them

    def _sample(self, row: int) -> Any:
        assert self.store is not None
        if self.fixed:
            parts = [self.store.read(row, column) for column in range(len(self.leaves))]
            return rebuild(self.skeleton, memoryview(b"".join(parts)))
        content = self.store.read(row, 0)
        head, size = _HEAD.unpack_from(content)
        start = _HEAD.size + head
        return rebuild(unpack_skeleton(content[_HEAD.size : start]), content[start : start + size])

    def _audit(self, row: int) -> bool:
        """Make one sample anew and compare its bytes."""
        assert self.store is not None
        states = random_states()
        made = self._make([row])
        if self.off:
            restore(states)
            return False
        try:
            parts = self._encode(made[0])
            same = parts is not None and all(
                bytes(self.store.read(row, i)[: len(part)]) == part for i, part in enumerate(parts)
            )
        except Unsupported:
            same = False
        if not same:
            self._switch_off(BROKEN, "a sample made anew differed from the cached one")
        return same


def _raw(column: Any) -> np.ndarray:
    """A collated tensor's numbers as the store holds them."""
    import torch

    found: np.ndarray = (column.view(torch.int16) if column.dtype is torch.bfloat16 else column).numpy()
    return found
