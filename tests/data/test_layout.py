"""Samples of one shape and of many: what is made of their bytes is what the dataset gave."""

from __future__ import annotations

import collections
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch.utils.data import DataLoader, default_collate

import hasten
from hasten.data import store
from hasten.data.cache import SampleCache
from hasten.data.store import RowStore
from hasten.data.structure import alike, flatten
from tests.data.common import Made, Noted, noted, passes


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HASTEN_CACHE_DIR", str(tmp_path))


def keyed(i: int) -> Any:
    sample = collections.defaultdict(list)
    sample["x"] = torch.ones(2) * i
    return sample


SAMPLES: dict[str, Callable[[int], Any]] = {
    "tensor": lambda i: torch.arange(3) * i,
    "array and label": lambda i: (np.full((2, 2), i, dtype=np.uint8), i),
    "dictionary": lambda i: {"x": torch.full((2,), float(i)), "y": i % 3},
    "NaN": lambda i: torch.tensor([float("nan"), i]),
    "empty": lambda i: torch.empty(0, 3),
    "numbers of two types": lambda i: [0.5, 0.5, 0.5, 1][i % 4],
    "conjugated": lambda i: torch.full((2,), 1j * i).conj(),
    "half precision": lambda i: torch.full((2,), float(i), dtype=torch.bfloat16),
    "defaultdict": keyed,
    "text": lambda i: {"x": torch.ones(2) * i, "name": "n" * (1 + 3 * i), "raw": b"b" * i},
    "rows last": lambda i: torch.full((4, 5, 3), float(i)).permute(2, 0, 1),
    "cut out, rows last": lambda i: torch.arange(4 * 5 * 3).reshape(4, 5, 3)[1:3, 1:4].permute(2, 0, 1) * i,
    "expanded": lambda i: torch.full((1, 4, 5), float(i)).expand(3, -1, -1),
    "turned": lambda i: torch.full((4, 5), float(i)).T,
    "half precision, rows last": lambda i: torch.full((4, 5, 3), float(i), dtype=torch.bfloat16).permute(2, 0, 1),
}


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kept_in", ["memory", "file"])
def test_batches_are_the_same_bits(name: str, workers: int, kept_in: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if kept_in == "file":
        monkeypatch.setattr(store, "IN_MEMORY", -1)
    if workers and name == "conjugated":
        pytest.skip("torch itself cannot put them together in a worker process")

    def loader() -> DataLoader[Any]:
        return DataLoader(Made(10, SAMPLES[name]), batch_size=4, shuffle=True, num_workers=workers)

    assert passes(hasten.CacheSamples()(loader()), 3) == passes(loader(), 3)


def test_samples_that_differ_in_kind_are_told_apart_as_by_flattening_them() -> None:
    leaves: list[Any] = [
        torch.ones(2),
        torch.ones(3),
        torch.ones(2, dtype=torch.float64),
        torch.ones(2, dtype=torch.bfloat16),
        np.ones(2, np.float32),
        np.float32(1),
        np.float64(1),
        1,
        1.0,
        True,
    ]
    samples = [*leaves, *((x, 1) for x in leaves), *([x, 1] for x in leaves), *({"x": x, "y": 1} for x in leaves)]
    samples += [{"y": 1, "x": torch.ones(2)}, (1,), (), collections.OrderedDict(x=torch.ones(2), y=1)]
    for a in samples:
        skeleton, _ = flatten(a)
        like = alike(skeleton)
        assert [like(b) for b in samples] == [flatten(b)[0] == skeleton for b in samples], a
    assert not alike(flatten(torch.ones(2))[0])(torch.ones(2, requires_grad=True))
    assert not alike(flatten(torch.ones(2))[0])(torch.nn.Parameter(torch.ones(2)))
    assert not alike(flatten(1)[0])(2**63)


def test_samples_are_kept_however_few_of_a_batch_are_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where they are written all at once: a batch with old and new samples, and the same sample twice."""
    one_by_one: list[Any] = []
    monkeypatch.setattr(RowStore, "write", lambda *args: one_by_one.append(args))
    data = Noted(10, lambda i: {"x": torch.full((2, 3), float(i)), "y": i})
    cache = SampleCache(data, default_collate)
    for rows in ([0, 1], [1, 2, 2], [0, 1, 2], [9, 2, 3], [3, 9]):
        batch = cache.batch(rows)
        assert batch["y"].tolist() == rows
        assert batch["x"][:, 1, 1].tolist() == rows
    assert noted("asked") == [0, 1, 2, 2, 9, 3]
    assert not one_by_one


def test_samples_of_varying_size() -> None:
    def loader() -> DataLoader[Any]:
        return DataLoader(Made(9, lambda i: torch.arange(1 + i % 3)), batch_size=4, collate_fn=list)

    assert passes(hasten.CacheSamples()(loader()), 3) == passes(loader(), 3)


@pytest.mark.parametrize("size", [1, 3])
def test_samples_that_are_alike_at_first_only_are_kept(size: int) -> None:
    def loader() -> DataLoader[Any]:
        return DataLoader(Noted(9, lambda i: torch.arange(1 + i // 3)), batch_size=size)

    found = passes(hasten.CacheSamples()(loader()), 3)
    assert len(noted("asked")) <= 9 + 3 + 2  # three were kept for nothing; one is compared at every further pass
    assert found == passes(loader(), 3)
    noted("asked")


def test_a_batch_of_old_samples_and_of_the_first_of_another_shape() -> None:
    data = Made(9, lambda i: torch.arange(1 + i // 3))
    cache = SampleCache(data, list)
    for rows in ([0, 1], [1, 8], [0, 1, 8], [5]):
        assert [len(x) for x in cache.batch(rows)] == [1 + i // 3 for i in rows]
    assert not cache.why_off and cache.ready([0, 1, 5, 8])


def pictures(folder: Path, open_only: bool) -> DataLoader[Any]:
    """Files that say that they are to be turned."""
    for i in range(4):
        picture = Image.fromarray(np.full((6, 8, 3), i, dtype=np.uint8))
        exif = picture.getexif()
        exif[0x0112] = 6
        picture.save(folder / f"{i}.jpg", exif=exif)

    def opened(i: int) -> Any:
        found = Image.open(folder / f"{i}.jpg")
        return found if open_only else found.convert("RGB")

    def turned(batch: list[Any]) -> Any:
        return [(np.asarray(ImageOps.exif_transpose(p)), p.info["exif"], getattr(p, "format", None)) for p in batch]

    return DataLoader(Made(4, opened), batch_size=2, shuffle=True, collate_fn=turned)


@pytest.mark.parametrize("open_only", [False, True])
def test_pictures_keep_what_their_files_say_of_them(tmp_path: Path, open_only: bool) -> None:
    remedy = hasten.CacheSamples()
    assert passes(remedy(pictures(tmp_path, open_only)), 3) == passes(pictures(tmp_path, open_only), 3)
    assert not remedy.broken()
