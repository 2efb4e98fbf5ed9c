"""Samples are kept only as long as the files and settings that they were made of: by hand, and in worker processes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, RandomSampler, default_collate

import hasten
from hasten.data import cache as module
from hasten.data.cache import SampleCache
from hasten.rules.d103_repeated_samples import cache_of
from tests.data.common import Made, note, noted, passes


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HASTEN_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))


def files(folder: Path, count: int) -> Callable[[int], Any]:
    """Rows of a dataset of one file a sample; its samples are noted as they are made."""
    for i in range(count):
        (folder / f"{i}.txt").write_text(str(i))

    def read(i: int) -> Any:
        note("asked", i)
        return torch.tensor(float((folder / f"{i}.txt").read_text()))

    return read


def fetched(data: Any, size: int, workers: int = 0) -> Any:
    """A pass as ``hasten run`` has it: the remedy is on for the fetcher of each pass."""
    loader = DataLoader(data, batch_size=size, num_workers=workers)
    iterator = iter(loader)
    hasten.CacheSamples()(iterator._dataset_fetcher)  # type: ignore[attr-defined]
    return iterator


@pytest.mark.parametrize("by_hand", [False, True])
def test_one_file_of_many_that_changes_within_a_pass_is_read_again(tmp_path: Path, by_hand: bool) -> None:
    data = Made(600, files(tmp_path, 600))
    loader = hasten.CacheSamples()(DataLoader(data, batch_size=100)) if by_hand else None
    noted("asked")
    for number in range(3):
        seen = []
        for batch in loader or fetched(data, 100):
            seen += batch.tolist()
            if number == 2 and len(seen) == 300:
                noted("asked")
                (tmp_path / "555.txt").write_text("-1.0")
        assert seen == [float(i) if i != 555 or number < 2 else -1.0 for i in range(600)]
    asked = noted("asked")
    assert 555 in asked and len(asked) < 10  # no other sample for its sake
    assert not cache_of(data, default_collate).broken


@pytest.mark.parametrize("how", ["replaced, of the same size and age", "removed"])
def test_a_file_in_anothers_place_is_another_one(tmp_path: Path, how: str) -> None:
    data = Made(400, files(tmp_path, 400))
    [b.tolist() for b in fetched(data, 100)]
    path = tmp_path / "399.txt"
    before = path.stat()
    path.unlink()
    if how == "removed":
        with pytest.raises(FileNotFoundError):
            list(fetched(data, 100))
    else:
        (tmp_path / "new").write_text("777")
        os.utime(tmp_path / "new", ns=(before.st_atime_ns, before.st_mtime_ns))
        os.replace(tmp_path / "new", path)
        assert list(fetched(data, 100))[-1][-1] == 777
    noted("asked")


@pytest.mark.parametrize("persistent", [False, True])
def test_a_file_that_changes_is_read_again_by_workers(tmp_path: Path, persistent: bool) -> None:
    """Also by a worker that has not read it before."""
    data = Made(300, files(tmp_path, 300))
    kept = DataLoader(data, batch_size=10, num_workers=2, shuffle=True, persistent_workers=persistent)
    loader = hasten.CacheSamples()(kept)
    for number in range(4):
        if number == 2:
            (tmp_path / "299.txt").write_text("-1.0")
        values = sorted(v for batch in loader for v in batch.tolist())
        assert (values[0], values[-1]) == ((0.0, 299.0) if number < 2 else (-1.0, 298.0))


def test_samples_of_more_files_than_can_be_followed_are_not_kept(tmp_path: Path) -> None:
    read = files(tmp_path, 300)
    data = Made(2, lambda i: torch.stack([read(j) for j in range(150 * i, 150 * i + 150)]))
    cache = SampleCache(data, default_collate)
    cache.batch([0, 1])
    assert "more files than are followed" in cache.why_off
    noted("asked")


def test_room_for_files_grows_where_the_first_samples_had_none(tmp_path: Path) -> None:
    read = files(tmp_path, 40)
    data = Made(40, lambda i: torch.stack([read(j) for j in range(i % 4)] or [torch.zeros(())]).sum())
    cache = SampleCache(data, default_collate)
    for _ in range(3):
        assert [cache.batch([i, i + 1]).tolist() for i in range(0, 40, 2)]
    noted("asked")
    cache.batch(list(range(40)))
    assert not noted("asked") and not cache.why_off
    (tmp_path / "2.txt").write_text("100")
    assert cache.batch([3, 5]).tolist() == [101, 0]
    noted("asked")


def by_hand(data: Any, **settings: Any) -> tuple[DataLoader[Any], SampleCache]:
    loader = DataLoader(data, batch_size=5, num_workers=2, **settings)
    return hasten.CacheSamples()(loader), cache_of(data, default_collate)


@pytest.mark.parametrize("persistent", [False, True])
def test_samples_of_other_shapes_are_kept_by_workers(persistent: bool) -> None:
    data = Made(30, lambda i: torch.arange(1 + i // 10))
    loader, cache = by_hand(data, persistent_workers=persistent)
    plain = DataLoader(data, batch_size=5, num_workers=2, persistent_workers=persistent)
    assert passes(loader, 3) == passes(plain, 3)
    assert not cache.why_off and cache.store is not None
    assert cache.store.written.sum() == 30


def test_a_shape_that_comes_late_is_kept_by_the_next_workers() -> None:
    data = Made(40, lambda i: torch.arange(1 + (i in range(5, 10))))
    loader, cache = by_hand(data)
    assert passes(loader, 3) == passes(DataLoader(data, batch_size=5, num_workers=2), 3)
    assert cache.store is not None and cache.store.written.all()


def test_a_setting_that_changes_once_is_forgotten_once_by_workers() -> None:
    data = Made(40, lambda i: torch.tensor(i * getattr(data, "factor", 1)))
    loader, cache = by_hand(data)
    passes(loader, 2)
    data.factor = 2  # type: ignore[attr-defined]
    passes(loader, 1)
    assert cache.store is not None
    before = cache.store.served[0]
    assert [v for b in loader for v in b.tolist()] == [2 * i for i in range(40)]
    assert cache.store.served[0] - before == 8  # all batches


def test_by_hand_a_dataset_is_compared_as_a_whole_once_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    mark = module.close_fingerprint
    monkeypatch.setattr(module, "close_fingerprint", lambda data: calls.append(1) or mark(data))
    data = Made(60, lambda i: torch.tensor(i))
    loader = hasten.CacheSamples()(DataLoader(data, batch_size=2))
    calls.clear()
    passes(loader, 3)
    assert len(calls) == 3


def test_by_hand_an_iterator_that_never_ends_is_compared_as_often_as_passes_would_be() -> None:
    level = {"now": 0}  # outside of the dataset
    data = Made(20, lambda i: torch.tensor(level["now"]))
    sampler = RandomSampler(data, replacement=True, num_samples=2000)
    batches = iter(hasten.CacheSamples()(DataLoader(data, batch_size=5, sampler=sampler)))
    assert [next(batches).tolist() for _ in range(8)] == [[0] * 5] * 8
    level["now"] = 7
    assert next(b for b in [next(batches).tolist() for _ in range(9)][-1:]) == [7] * 5


def test_by_hand_with_workers_a_sample_that_is_never_asked_for_may_fail() -> None:
    def make(i: int) -> Any:
        if not i:
            raise ValueError("no such file")
        return torch.tensor(i)

    loader = hasten.CacheSamples()(DataLoader(Made(9, make), batch_size=4, num_workers=1, sampler=range(1, 9)))
    for _ in range(2):
        assert [v for batch in loader for v in batch.tolist()] == list(range(1, 9))


FACTOR = 1


class Scaled(Made):
    def __getitem__(self, i: int) -> Any:
        return torch.tensor(i * FACTOR)


def test_what_code_reads_outside_of_a_dataset_is_noticed_within_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a script that changes a level at some step."""
    seen: list[int] = []
    loader = hasten.CacheSamples()(DataLoader(Scaled(8, int), batch_size=2))
    for _ in range(2):
        for batch in loader:
            seen += batch.tolist()
            monkeypatch.setattr("tests.data.test_kept.FACTOR", 10 if len(seen) == 12 else FACTOR)
    assert seen == [*range(8), 0, 1, 2, 3, 40, 50, 60, 70]
