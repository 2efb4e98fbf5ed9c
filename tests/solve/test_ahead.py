"""Blocks that a thread shifts ahead: the same bits as shifted by the caller, whatever the data do meanwhile."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hasten.solve import BadData, Moments, files, gram
from hasten.solve.files import NpySource, ParquetSource
from hasten.solve.kernel import Sums
from tests.solve.data import table


@pytest.fixture(params=["kernel", "BLAS"], autouse=True)
def multiplier(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The compiled kernel shifts in passing; blocks for BLAS are shifted ahead."""
    if request.param == "BLAS":
        monkeypatch.setattr(gram, "suits", lambda columns: False)
    elif gram.kernel() is None:
        pytest.skip("no C++ compiler here, or a processor without AVX2")
    return str(request.param)


def wandering(rows: int = 6000) -> Any:
    """(rows, 5) far from 0, and from row 3000 on far from there."""
    X, y = table(rows, 4)
    found = np.column_stack([X, y]) + 50.0
    found[rows // 2 :] += 1e6
    return found


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("options", [{}, {"folds": 3}, {"precision": "float32"}, {"missing": "error"}])
@pytest.mark.parametrize("slow", ["reader", "caller"])
def test_who_shifts_changes_no_bit(
    tmp_path: Path, dtype: Any, options: dict[str, Any], slow: str, multiplier: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "data.npy"
    np.save(path, wandering().astype(dtype))
    monkeypatch.setattr(files, "READ_BYTES", 1 << 13)
    used = []
    add, ready = Sums.add, Sums.ready

    def counted(self: Sums, *args: Any, **options: Any) -> bool:
        used.append(options.get("ready") is not None)
        if slow == "caller":
            time.sleep(0.002)
        return add(self, *args, **options)

    def slowly(self: Sums, *args: Any) -> Any:
        if slow == "reader":
            time.sleep(0.002)
        return ready(self, *args)

    monkeypatch.setattr(Sums, "add", counted)
    monkeypatch.setattr(Sums, "ready", slowly)
    two = Moments.scan(path, **options)
    assert any(used) == ("folds" not in options and multiplier == "BLAS")
    monkeypatch.setattr(NpySource, "file", False)
    one = Moments.scan(path, **options)
    assert np.array_equal(two.parts.scatter, one.parts.scatter) and np.array_equal(two.parts.mean, one.parts.mean)


def test_a_value_that_is_missing_is_found_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "data.npy"
    rows = wandering()
    rows[5500, 2] = np.nan
    np.save(path, rows)
    monkeypatch.setattr(files, "READ_BYTES", 1 << 13)
    with pytest.raises(BadData, match=r"row 5500, column 'x2'"):
        Moments.scan(path, missing="error")
    marked = Moments.scan(path)
    monkeypatch.setattr(NpySource, "file", False)
    assert np.array_equal(Moments.scan(path).scatter, marked.scatter)


def test_tables_are_decoded_by_the_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "data.parquet"
    pd.DataFrame(wandering(), columns=list("abcde")).to_parquet(path, row_group_size=500)
    two = Moments.scan(path, "e")
    monkeypatch.setattr(ParquetSource, "file", False)
    assert np.array_equal(Moments.scan(path, "e").scatter, two.scatter)


def test_threads_end_with_a_pass_that_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "data.npy"
    np.save(path, wandering())
    monkeypatch.setattr(files, "READ_BYTES", 1 << 12)
    real, calls = Moments._add_block, []

    def dies(self: Moments, *args: Any) -> None:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        real(self, *args)

    monkeypatch.setattr(Moments, "_add_block", dies)
    with pytest.raises(KeyboardInterrupt):
        Moments.scan(path)
    deadline = time.monotonic() + 20
    while any(t.name == "hasten reader" for t in threading.enumerate()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(t.name == "hasten reader" for t in threading.enumerate())
