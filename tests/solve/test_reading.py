"""Bytes of a file, through the page cache or past it: the same."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hasten.measure import machine
from hasten.solve import BadData, Moments
from hasten.solve.reading import PAGE, Reader, aligned


@pytest.mark.parametrize("direct", [False, True])
def test_any_part_of_a_file(tmp_path: Path, direct: bool) -> None:
    content = np.random.default_rng(0).integers(0, 256, 5 * PAGE + 77, dtype=np.uint8)
    path = tmp_path / "bytes"
    content.tofile(path)
    buffer = aligned(len(content) + 2 * PAGE)
    assert buffer.ctypes.data % PAGE == 0
    with closing(Reader(path, direct)) as reader:
        for start, size in [(0, 10), (128, PAGE), (PAGE, PAGE), (PAGE - 1, 2), (0, len(content)), (5 * PAGE + 3, 74)]:
            assert np.array_equal(reader.read(buffer, start, size), content[start : start + size])
        with pytest.raises(BadData, match="ends before"):
            reader.read(buffer, 5 * PAGE, 200)


def test_a_file_system_that_cannot_is_read_as_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = np.arange(3 * PAGE, dtype=np.uint8)
    path = tmp_path / "bytes"
    content.tofile(path)
    real = os.preadv
    refused = []

    def preadv(handle: int, *args: Any) -> int:
        if handle == reader.past:
            refused.append(handle)
            raise OSError(22, "Invalid argument")
        return real(handle, *args)

    with closing(Reader(path, True)) as reader:
        monkeypatch.setattr(os, "preadv", preadv)
        buffer = aligned(5 * PAGE)
        for _ in range(2):
            assert np.array_equal(reader.read(buffer, 5, 2 * PAGE), content[5 : 5 + 2 * PAGE])
        assert len(refused) <= 1 and reader.past is None


def test_files_larger_than_memory_are_read_past_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).standard_normal((5000, 7))
    path = tmp_path / "rows.npy"
    np.save(path, rows)
    with closing(Reader(path)) as small:
        assert small.past is None
    cached = Moments.scan(path)
    monkeypatch.setattr(machine, "available_bytes", lambda: rows.nbytes // 3)
    with closing(Reader(path)) as large:
        assert large.past is not None or not hasattr(os, "O_DIRECT") or os.statvfs(tmp_path).f_bsize < 512
    assert np.array_equal(Moments.scan(path).scatter, cached.scatter)
