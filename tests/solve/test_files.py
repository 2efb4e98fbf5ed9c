"""Files: read in blocks, resumed after kill -9 with the same bits, refused when torn."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hasten.solve import BadData, Moments, comma, files, storage
from tests.solve.data import apart, table


@pytest.fixture
def frame() -> pd.DataFrame:
    X, y = table(3000, 3)
    return pd.DataFrame(X, columns=list("abc")).assign(t=np.where(X[:, 0] > 0, "u", "v"), y=y)


@pytest.mark.parametrize("kind", ["parquet", "csv", "csv.gz", "tsv"])
def test_files_give_the_moments_of_their_table(tmp_path: Path, frame: pd.DataFrame, kind: str) -> None:
    path = tmp_path / f"data.{kind}"
    if kind == "parquet":
        frame.to_parquet(path, row_group_size=500)
    else:
        frame.to_csv(path, index=False, sep="\t" if kind == "tsv" else ",")
    m = Moments.scan(path, "y", folds=4)
    assert m.n == 3000 and set(m.names) == {"a", "b", "c", "t=u", "t=v"}
    wanted = Moments(frame[list("abc")].to_numpy(), frame["y"])
    assert apart(m.scatter[:3, :3], wanted.scatter[:3, :3]) < 1e-12
    few = Moments.scan(path, "y", features=["b"])
    assert few.names == ["b"]


def test_npy_with_its_target_inside_or_beside(tmp_path: Path) -> None:
    X, y = table(5000, 4)
    np.save(tmp_path / "both.npy", np.column_stack([X, y]))
    np.save(tmp_path / "x.npy", X.astype(np.float32))
    np.save(tmp_path / "y.npy", y)
    assert apart(Moments.scan(tmp_path / "both.npy").scatter, Moments(X, y).scatter) < 1e-12
    beside = Moments.scan(tmp_path / "x.npy", y=tmp_path / "y.npy")
    assert apart(beside.scatter, Moments(X.astype(np.float32), y).scatter) < 1e-12
    first = Moments.scan(tmp_path / "both.npy", "0")
    assert first.p == 4 and first.targets == ["column 0"]


@pytest.mark.parametrize("kind", ["npy", "parquet", "csv"])
def test_a_scan_that_was_interrupted_goes_on_with_the_same_bits(
    tmp_path: Path, frame: pd.DataFrame, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "READ_BYTES", 1 << 14)
    monkeypatch.setattr(comma, "CSV_BYTES", 1 << 15)
    monkeypatch.setattr(files, "BATCH_ROWS", 300)
    path, state = tmp_path / f"data.{kind}", tmp_path / "state"
    if kind == "npy":
        np.save(path, np.ascontiguousarray(frame[["a", "b", "c", "y"]].to_numpy()))
    elif kind == "parquet":
        frame.to_parquet(path, row_group_size=700)
    else:
        frame.to_csv(path, index=False)
    target = None if kind == "npy" else "y"
    whole = Moments.scan(path, target, folds=3)
    blocks = 0
    real = Moments._add_block

    def dies(self: Moments, *args: object) -> None:
        nonlocal blocks
        blocks += 1
        if blocks == 4:
            raise KeyboardInterrupt
        real(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Moments, "_add_block", dies)
    with pytest.raises(KeyboardInterrupt):
        Moments.scan(path, target, folds=3, checkpoint=state, every=0)
    assert state.exists()
    monkeypatch.setattr(Moments, "_add_block", real)
    again = Moments.scan(path, target, folds=3, checkpoint=state, every=0)
    assert not state.exists()
    assert np.array_equal(again.parts.scatter, whole.parts.scatter)
    assert np.array_equal(again.parts.mean, whole.parts.mean)


SLOW_SCAN = """
import sys, time
from hasten.solve import Moments, files
files.READ_BYTES = 1 << 14
real = Moments._add_block
def slowly(self, *args):
    time.sleep(0.05)
    real(self, *args)
Moments._add_block = slowly
Moments.scan(sys.argv[1], checkpoint=sys.argv[2], every=0)
"""


def test_kill_9_and_on(tmp_path: Path) -> None:
    path, state = tmp_path / "data.npy", tmp_path / "state"
    X, y = table(20_000, 3)
    np.save(path, np.column_stack([X, y]))
    child = subprocess.Popen([sys.executable, "-c", SLOW_SCAN, str(path), str(state)])
    while not state.exists() and child.poll() is None:
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert state.exists()
    first = files.READ_BYTES
    files.READ_BYTES = 1 << 14
    try:
        whole, again = Moments.scan(path), Moments.scan(path, checkpoint=state)
    finally:
        files.READ_BYTES = first
    assert np.array_equal(again.scatter, whole.scatter)


def test_a_checkpoint_of_another_file_or_setting_is_refused(tmp_path: Path) -> None:
    path, state = tmp_path / "data.npy", tmp_path / "state"
    np.save(path, np.ones((10, 3)))
    Moments(np.ones((2, 2)), np.ones(2)).save(state, fingerprint="other", next_row="2")
    with pytest.raises(BadData, match="another file"):
        Moments.scan(path, checkpoint=state)


@pytest.mark.parametrize("name", ["x.npy", "x.parquet", "x.csv", "x.xlsx"])
def test_torn_and_unknown_files_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x00\x01\x02 nothing that could be read \xff")
    with pytest.raises(BadData):
        Moments.scan(tmp_path / name, "y")


def test_a_npy_that_is_shorter_than_it_says(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((1000, 3)))
    raw = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(raw[:-100])
    with pytest.raises(BadData, match="shorter"):
        Moments.scan(tmp_path / "a.npy")


def test_a_missing_column_names_a_near_one(tmp_path: Path, frame: pd.DataFrame) -> None:
    frame.to_parquet(tmp_path / "d.parquet")
    with pytest.raises(BadData, match="no column 'yy'"):
        Moments.scan(tmp_path / "d.parquet", "yy")


def test_an_error_of_the_reader_thread_arrives(tmp_path: Path) -> None:
    def read():  # type: ignore[no-untyped-def]
        yield 1
        raise OSError("disk on fire")

    items = files.ahead(read)
    assert next(items) == 1
    with pytest.raises(OSError, match="fire"):
        next(items)


@pytest.mark.parametrize("text", ["0,5", "-1,25", "1,234,567", "1,234.5"])
def test_numbers_with_commas_are_no_categories(tmp_path: Path, text: str) -> None:
    path = tmp_path / "d.csv"
    path.write_text(f'a,b,y\n"{text}",1,2\n"{text}",2,3\n3,3,4\n')
    with pytest.raises(BadData, match=f"such as '{text}'"):
        Moments.scan(path, "y")
    assert Moments.scan(path, "y", features=["b"]).p == 1
    path.write_text('a,y\n"u, 1",2\n"0,5",3\n')
    assert Moments.scan(path, "y").p == 2


def test_a_file_of_targets_may_lie_beside_anything(tmp_path: Path) -> None:
    X, y = table(300, 3)
    np.save(tmp_path / "y.npy", y)
    np.save(tmp_path / "x.npy", X)
    frame = pd.DataFrame(X, columns=list("abc"))
    frame.to_parquet(tmp_path / "x.parquet")
    for rows in (X, frame, tmp_path / "x.npy", tmp_path / "x.parquet"):
        assert apart(Moments(rows, str(tmp_path / "y.npy")).scatter, Moments(X, y).scatter) < 1e-12
        with pytest.raises(BadData, match=r"y cannot be read from .*none\.npy"):
            Moments(rows, str(tmp_path / "none.npy"))


def test_a_save_is_not_swept_while_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process that begins with the same checkpoint took the file away."""
    X, y = table(300, 3)
    real = os.fsync

    def swept(handle: int) -> None:
        storage.sweep(tmp_path / "m")
        real(handle)

    monkeypatch.setattr("os.fsync", swept)
    Moments(X, y).save(tmp_path / "m")
    assert [p.name for p in tmp_path.iterdir()] == ["m"] and Moments.load(tmp_path / "m").n == 300
    opened = os.open

    def between(path: Any, *rest: Any, **options: Any) -> int:
        handle = opened(path, *rest, **options)
        if Path(path).name.startswith(".m.") and len(list(tmp_path.glob(".m.*"))) == 1 and not sweeps:
            sweeps.append(path)
            storage.sweep(tmp_path / "m")
        return handle

    sweeps: list[Any] = []
    monkeypatch.setattr("os.open", between)
    Moments(X).save(tmp_path / "m")
    assert len(sweeps) == 1 and [p.name for p in tmp_path.iterdir()] == ["m"] and Moments.load(tmp_path / "m").q == 0
