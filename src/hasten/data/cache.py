"""Samples kept after they were made once, for datasets whose items are the same every time."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hasten.data.effects import Effects, outdated, packed
from hasten.data.fingerprint import close_fingerprint
from hasten.data.layout import Layout, Varies, width_of
from hasten.data.store import NoRoom, RowStore
from hasten.data.structure import Unsupported, flatten
from hasten.data.view import asked_together, samples_of
from hasten.measure.digest import random_states, restore, same_states

OFF, BROKEN, RANDOM, FULL = 0, 1, 2, 3  # bytes of RowStore.signals
AUDIT_EVERY = 64  # batches served from the cache between two comparisons with a sample made anew
AUDIT_SHARE, MOST_AUDITED = 1 / 200, 32  # of all samples, compared at a new iterator
FIRST = 8  # samples that are made before worker processes are forked
ANOTHER = "the dataset is another one in every pass"
IDLE_PASSES = 2  # whose samples were all forgotten, after which that is told
MOST_NOTED = 4096  # bytes of the files that one sample is made of: thirty or so


class SampleCache:
    """Serves batches of a map-style dataset, making every sample at most once.

    What is trusted is checked while it runs: that making a sample leaves the random states alone (each time samples
    are made) and prints nothing (else they are made every time), that the dataset's settings and what its code reads
    besides stay the same (at every new iterator), so do the files that a sample was made of (each time it is served),
    and that samples made anew are the same bytes (some at every new iterator, then one in every :data:`AUDIT_EVERY`
    batches). A failed check switches the cache off for good: from then on the dataset is asked as before.

    Args:
        dataset: map-style, with a length; it is not kept alive, where it can be referred to weakly.
        collate: the loader's collate function; where it is torch's own, batches are gathered without it.
        gone: called when the dataset is gone.
    """

    def __init__(
        self, dataset: Any, collate: Callable[[list[Any]], Any], gone: Callable[[], object] = lambda: None
    ) -> None:
        from torch.utils.data._utils.collate import default_collate

        self._dataset = weakly(dataset, gone)
        self.collate = collate
        self.gathers = collate is default_collate
        self.length = len(dataset)
        self.store: RowStore | None = None
        self.layout: Layout  # of the store, where there is one
        self.off = ""
        self.mark = close_fingerprint(dataset)
        self.effects = Effects()
        self.turns = 0  # new iterators so far
        self.lost = 0  # passes over the dataset whose samples were forgotten

    @property
    def dataset(self) -> Any:
        return self._dataset()

    # -- the door ------------------------------------------------------------------------------------------------

    def batch(self, indices: Sequence[Any]) -> Any:
        """What ``collate([dataset[i] for i in indices])`` is."""
        rows = None if self.off else self._rows(indices)
        if rows is None or (self.store is not None and self.store.signals[OFF]):
            return self.collate(self.ask(indices))
        store = self.store
        if store is not None:
            self._drop_outdated(store, rows)
        if store is not None and store.written.take(rows).all():
            return self._serve(rows, indices)
        missing = list(range(len(rows))) if store is None else np.flatnonzero(store.written.take(rows) == 0).tolist()
        made, notes = self._make([indices[j] for j in missing])
        if len(missing) == len(rows):
            out = self.collate(made)
            self._keep(rows, made, notes, out)
            return out
        self._keep(rows[missing], made, notes, None)
        if self.store is not store:  # begun anew
            return self.collate(self.ask(indices))
        if store is not None and not store.signals[OFF] and store.written.take(rows).all():
            return self._serve(rows, indices)
        fresh = dict(zip(missing, made, strict=True))
        return self.collate([fresh[j] if j in fresh else self._sample(int(r)) for j, r in enumerate(rows)])

    def ask(self, indices: Sequence[Any]) -> list[Any]:
        """The dataset's own samples."""
        return samples_of(self.dataset, indices)

    def open(self) -> None:
        """Before worker processes are forked: look whether the dataset is still the same, and make some samples, so
        that they share one store, with room for what they hold; draws no random number.

        Raises:
            Exception: the dataset's own, where it gives none of these.
        """
        if self.why_off or not self.length:
            return
        if self.store is not None:
            self.is_same()
            try:
                self._widen(self.store)
            except NoRoom as error:
                self._switch_off(FULL, error.strerror or "no room")
            return
        states = random_states()
        try:
            self._open_with(sorted({i * (self.length - 1) // (FIRST - 1) for i in range(FIRST)}))
        finally:
            restore(states)

    def _open_with(self, indices: list[int]) -> None:
        """One by one, since the script may leave out those that cannot be made."""
        rows, samples, notes, failed = [], [], [], None
        for i in indices:
            try:
                made, noted = self._make([i])
            except Exception as error:
                failed = error
                continue
            if self.effects.acted:
                return
            rows.append(i)
            samples += made
            notes += noted
        if rows:
            self._keep(np.array(rows), samples, notes, None)
        elif failed is not None:
            raise failed

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
        self.effects.renew()
        if self.store is not None:
            self.lost += bool(self.store.written.any())
            self.store.forget()
        return False

    def _compare_some(self) -> None:
        assert self.store is not None
        count = audited(self.length)
        self.turns += 1
        for n in range(count):  # others every time, all over the dataset
            row = (n * self.length // count + self.turns * 7919) % self.length
            if self.store.written[row] and not self.compare(row):
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
        anew = ANOTHER if self.lost >= IDLE_PASSES else ""
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

    def _make(self, indices: Sequence[Any]) -> tuple[list[Any], list[bytes]]:
        """Samples, and notes of the files that each was made of."""
        before = random_states()
        with self.effects:
            asked = [self._asked([i]) for i in indices] if not asked_together(self.dataset) else [self._asked(indices)]
        if not same_states(before, random_states()):
            self._switch_off(RANDOM, "the dataset drew random numbers")
        return [x for made, _ in asked for x in made], [note for made, note in asked for _ in made]

    def _asked(self, indices: Sequence[Any]) -> tuple[list[Any], bytes]:
        self.effects.read.clear()
        return self.ask(indices), packed(self.effects.read.items())

    def _drop_outdated(self, store: RowStore, rows: np.ndarray) -> None:
        """Forget those of these samples that were made of files which are others now."""
        if store.noting:
            notes = store.notes(rows)
            old = {note for note in set(notes) if outdated(note)}
            if old:
                store.written[rows[[note in old for note in notes]]] = 0

    def _keep(self, rows: np.ndarray, samples: list[Any], notes: list[bytes], collated: Any) -> None:
        if self.off or self.effects.acted:
            return
        try:
            if self.store is None:
                self._open(rows, samples, notes, collated)
            store = self.store
            assert store is not None
            if (room := min(max(map(len, notes)), MOST_NOTED)) > store.noting:
                self._want(noting=room)
            if self.layout.columns and self._keep_at_once(rows, samples, notes, collated):
                return
            others = self._keep_each(rows, samples, notes)
            if others:
                self._want(width=width_of([flatten(s) for s in others]))
            if self.store is not store:
                self._keep_each(rows, samples, notes)
        except Unsupported as error:
            self._switch_off(OFF, f"a sample holds {error}")
        except NoRoom as error:
            self._switch_off(FULL, error.strerror or "no room")
        except OSError as error:
            self._switch_off(FULL, error.strerror or "writing failed")

    def _keep_each(self, rows: np.ndarray, samples: list[Any], notes: list[bytes]) -> list[Any]:
        """Write what there is room for; the samples of another shape than those before are given back."""
        assert self.store is not None
        others = []
        for row, sample, note in zip(rows, samples, notes, strict=True):
            try:
                content = self.layout.encode(sample, self.store)
            except Varies:
                others.append(sample)
                continue
            if content is not None and len(note) <= self.store.noting:
                self.store.write(int(row), content, note)
        return others

    def _keep_at_once(self, rows: np.ndarray, samples: list[Any], notes: list[bytes], collated: Any) -> bool:
        """Write samples as the columns that they collate to; False, and nothing done, where one differs in kind."""
        assert self.store is not None
        if not all(map(self.layout.alike, samples)) or max(map(len, notes)) > self.store.noting:
            return False
        arrays = self.layout.arrays(self.collate(samples) if collated is None else collated)
        if arrays is None:
            return False
        self.store.write_rows(rows, arrays, notes if self.store.noting else ())
        return True

    def _switch_off(self, signal: int, why: str) -> None:
        self.off = why
        if self.store is not None:
            self.store.signals[OFF] = 1
            self.store.signals[signal] = 1

    def _open(self, rows: np.ndarray, samples: list[Any], notes: list[bytes], collated: Any) -> None:
        flat = [flatten(s) for s in samples]
        if asked_together(self.dataset) and any(
            flatten(self._make([int(row)])[0][0]) != made for row, made in zip(rows, flat, strict=True)
        ):
            raise Unsupported("what depends on the others of its batch")
        if min(map(len, notes)) > MOST_NOTED:
            raise Unsupported("what comes from more files than are followed")
        noting = _room(max(map(len, notes)))
        layout = self.layout = Layout(flat)
        store = RowStore(self.length, layout.widths, noting=noting)
        if layout.fixed and self.gathers:
            layout.gather_from(store, self.collate(samples) if collated is None else collated)
        self.store = store

    def _want(self, width: int = 0, noting: int = 0) -> None:
        """More room is needed for a sample, or for a note of its files: begin anew with it; in a worker process, which
        shares its store with others, say so, and it will be there for the workers that are forked next."""
        from torch.utils.data import get_worker_info

        assert self.store is not None
        self.store.wanted[:] = np.maximum(self.store.wanted, (width, noting))
        if get_worker_info() is None:
            self._widen(self.store)

    def _widen(self, store: RowStore) -> None:
        """Begin anew where room was wanted; samples that were alike by chance are kept as such of varying size then."""
        width, noting = (int(wanted) for wanted in store.wanted)
        noting = max(store.noting, _room(noting))
        if width and self.layout.fixed:
            self.layout.vary(width)
        elif noting <= store.noting:
            return
        self.store = RowStore(self.length, self.layout.widths, noting=noting)
        if self.layout.columns:
            self.layout.open_columns(self.store)

    # -- serving -------------------------------------------------------------------------------------------------

    def _serve(self, rows: np.ndarray, indices: Sequence[Any]) -> Any:
        assert self.store is not None
        self.store.served[0] += 1
        turn, rest = divmod(int(self.store.served[0]), AUDIT_EVERY)
        if rest == 0 and not self.compare(int(rows[turn % len(rows)])):
            return self.collate(self.ask(indices))
        if not self.layout.columns:
            return self.collate([self._sample(int(r)) for r in rows])
        return self.layout.batch(rows)

    def _sample(self, row: int) -> Any:
        assert self.store is not None
        return self.layout.sample(row, self.store)

    def compare(self, row: int) -> bool:
        """Make one sample that is kept anew and compare its bytes."""
        assert self.store is not None
        states = random_states()
        made, _ = self._make([row])
        if self.off:
            restore(states)
            return False
        try:
            parts = self.layout.encode(made[0], self.store)
            same = parts is not None and all(
                bytes(self.store.read(row, i)[: len(part)]) == part for i, part in enumerate(parts)
            )
        except Unsupported:
            same = False
        if not same and any(map(outdated, self.store.notes(np.array([row])))):
            self.store.written[row] = 0
            return True
        if not same:
            self._switch_off(BROKEN, "a sample made anew differed from the cached one")
        return same


def audited(length: int) -> int:
    """How many of so many samples are compared with others made anew where a pass begins."""
    return min(MOST_AUDITED, max(1, round(length * AUDIT_SHARE)))


def weakly(dataset: Any, gone: Callable[[], object]) -> Callable[[], Any]:
    """What gives ``dataset`` as long as it lives, and has ``gone`` called after that; where it cannot be referred to
    weakly (a list), it lives on."""
    try:
        return weakref.ref(dataset, lambda _: gone())
    except TypeError:
        return lambda: dataset


def _room(note: int) -> int:
    """Bytes that samples get for notes, where one of them needs so many; none where none has read a file."""
    return min(MOST_NOTED, note + note // 2)
