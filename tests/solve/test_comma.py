"""CSV files: columns that begin empty, encodings, numbers that no integer holds."""

from __future__ import annotations

import gzip
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hasten.cli.main import main
from hasten.solve import BadData, Moments, StreamingRidge, comma
from hasten.solve.arrays import RoundedIntegers
from tests.solve.data import apart

ROWS = 3000
FRAME = pd.DataFrame({"a": np.arange(ROWS) % 7, "y": np.arange(ROWS) % 11})


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([1.5, 2.5], ["late", "late is missing"]),
        ([3, 4], ["late", "late is missing"]),
        (["u", "v"], ["late=u", "late=v", "late is missing"]),
        (["u, w", 'v "x"'], ["late=u, w", 'late=v "x"', "late is missing"]),
        (["2024-01-01", "2024-01-02"], ["late", "late is missing"]),
        ([True, False], ["late", "late is missing"]),
    ],
)
def test_a_column_may_begin_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: list[object], names: list[str]
) -> None:
    """Beyond the first megabytes: it was refused as one that holds no value."""
    monkeypatch.setattr(comma, "CSV_BYTES", 1 << 10)
    late = [None] * (ROWS - 200) + values * 100
    frame = FRAME.assign(late=late)
    frame.to_csv(tmp_path / "d.csv", index=False)
    m = Moments(tmp_path / "d.csv", "y", missing="mean")
    assert m.n == ROWS and sorted(m.names) == sorted(["a", *names])
    assert m.mean[m.names.index("late is missing")] == pytest.approx(1 - 200 / ROWS)
    if len(names) == 2:
        days = isinstance(values[0], str)
        there = np.array(late[ROWS - 200 :], dtype="datetime64[s]" if days else None)
        wanted = there.astype(np.int64 if days else float).mean()
        assert m.imputed[m.encoder.numeric.index("late")] == pytest.approx(wanted, rel=1e-12)


def test_a_column_that_stays_empty_is_refused_unless_nobody_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comma, "CSV_BYTES", 1 << 10)
    path = tmp_path / "d.csv"
    FRAME.assign(none=None).to_csv(path, index=False)
    with pytest.raises(BadData, match="'none' holds no value at all"):
        Moments(path, "y")
    assert main(["solve", str(path), "--target", "y", "--features", "a", "--quiet"]) == 0


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
@pytest.mark.parametrize("packed", [False, True])
def test_files_that_spreadsheets_write(tmp_path: Path, encoding: str, packed: bool) -> None:
    frame = FRAME.assign(town=np.where(FRAME["a"] > 3, "Zürich", "Łódź"))
    content = frame.to_csv(index=False).encode(encoding)
    path = tmp_path / ("d.csv.gz" if packed else "d.csv")
    path.write_bytes(gzip.compress(content) if packed else content)
    m = Moments(path, "y")
    wanted = Moments(frame, "y")
    assert m.names == wanted.names and apart(m.scatter, wanted.scatter) < 1e-12


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (FRAME.to_csv(index=False).encode("utf-16-le"), "zero bytes between its letters"),
        (FRAME.to_csv(index=False).encode("utf-32"), "zero bytes between its letters"),
        (FRAME.to_csv(index=False).encode("utf-16")[:-1], "cannot be read"),
        (
            FRAME.rename(columns={"a": "Größe"}).to_csv(index=False).encode("latin-1"),
            r"first line .* not UTF-8\n.*\n.*iconv",
        ),
    ],
)
def test_other_encodings_are_told(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "d.csv").write_bytes(content)
    with pytest.raises(BadData, match=says):
        Moments(tmp_path / "d.csv", "y")


@pytest.mark.parametrize("decimal", [".", ","])
def test_semicolons_are_told_whatever_the_numbers_hold(tmp_path: Path, decimal: str) -> None:
    """With decimal commas a parser's count of fields was told."""
    (FRAME * 1.25).to_csv(tmp_path / "d.csv", sep=";", decimal=decimal, index=False)
    with pytest.raises(BadData, match=r"one column.*\n.*semicolons between fields\n.*sep=';'.*decimal"):
        Moments(tmp_path / "d.csv", "y")


def test_a_target_with_decimal_commas_holds_no_classes(tmp_path: Path) -> None:
    (FRAME * 1.25).to_csv(tmp_path / "d.csv", decimal=",", index=False)
    with pytest.raises(BadData, match="numbers with commas"):
        Moments(tmp_path / "d.csv", "y")


def test_whole_numbers_that_no_integer_holds_are_told(tmp_path: Path) -> None:
    """Arrow takes them for float64."""
    path = tmp_path / "d.csv"
    FRAME.assign(a=[str(2**63 + 4096 * i) for i in range(ROWS)]).to_csv(path, index=False)
    with pytest.warns(RoundedIntegers, match="column 'a' holds whole numbers beyond"):
        Moments(path, "y")
    FRAME.assign(a=FRAME["a"] * 1.5e19).to_csv(path, index=False)  # measurements
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Moments(path, "y")
    with pytest.warns(RoundedIntegers, match="column 0 of X"):
        Moments(np.array([[2**64 + 1], [3]], dtype=object))


@pytest.mark.parametrize("first", [True, False])
def test_texts_of_several_lines_may_lie_anywhere(tmp_path: Path, first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks end with a row, not with a line inside of a text: files of more than one were told to be torn."""
    monkeypatch.setattr(comma, "CSV_BYTES", 1 << 12)
    rows = 2000
    towns = np.where(np.arange(rows) % 2, 'by the "sea",\nfar away', "k\n")
    towns[: 0 if first else rows // 2] = ""
    frame = pd.DataFrame({"x": np.arange(rows) * 0.5, "town": towns, "y": np.arange(rows) ** 2.0})
    frame.to_csv(tmp_path / "d.csv", index=False)
    m = Moments(tmp_path / "d.csv", "y")
    wanted = Moments(frame.assign(town=frame.town.replace("", None)), "y")
    assert m.n == rows and m.names == wanted.names and apart(m.scatter, wanted.scatter) < 1e-12


def test_a_name_twice_is_told_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("a,a,y\n,,1\n1,2,3\n")
    with pytest.raises(BadData, match="2 columns are called 'a'"):
        StreamingRidge().fit(tmp_path / "d.csv", "y")


@pytest.mark.parametrize("name", ["d.npy.gz", "d.parquet.gz", "d.feather"])
def test_what_is_no_csv_is_not_unpacked(tmp_path: Path, name: str) -> None:
    """It was told to be torn."""
    (tmp_path / name).write_bytes(gzip.compress(b"1"))
    with pytest.raises(BadData, match="files of this kind cannot be read"):
        Moments(tmp_path / name, "y")
