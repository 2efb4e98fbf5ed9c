"""Kinds of columns: what holds no value is what it was, and whole numbers that float64 does not hold are told."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from hasten.cli.main import main
from hasten.solve import BadData, Moments, StreamingLogistic, StreamingRidge, comma, open_source
from hasten.solve.arrays import RoundedIntegers
from tests.solve.data import apart

FRAME = pd.DataFrame({"a": np.arange(20.0), "t": ["u", "v"] * 10, "y": np.arange(20.0) ** 2})
EMPTY = {
    "none": lambda frame: frame,
    "nan": lambda frame: frame.fillna(np.nan).infer_objects(),
    "polars": pl.from_pandas,
    "arrow": pa.Table.from_pandas,
}


@pytest.mark.parametrize("column", ["a", "t"])
@pytest.mark.parametrize("kind", EMPTY)
def test_a_column_without_a_value_is_what_it_was(column: str, kind: str) -> None:
    empty = FRAME.assign(**{column: None})
    for rows in (EMPTY[kind](empty), iter([EMPTY[kind](empty)])):  # type: ignore[operator]
        m = Moments(FRAME, "y", missing="mean").update(rows, "y")
        assert m.n == 40 and m.names == ["a", "t=u", "t=v", f"{column} is missing"]
        assert m.mean[3] == 0.5
    with pytest.raises(BadData, match="'a' holds texts in these rows, and numbers in earlier ones"):
        Moments(FRAME, "y").update(EMPTY["polars"](FRAME.assign(a="x")), "y")  # type: ignore[operator]


def test_a_batch_of_a_stream_may_lack_a_column() -> None:
    m = Moments(iter([FRAME, FRAME.assign(t=None), FRAME.assign(t=np.nan)]), "y")
    assert m.names == ["a", "t=u", "t=v", "t is missing"] and m.n == 60


@pytest.mark.parametrize("column", ["a", "t"])
def test_an_update_may_lack_a_column(tmp_path: Path, column: str) -> None:
    first, more, model = (str(tmp_path / name) for name in ("a.parquet", "b.parquet", "m"))
    FRAME.to_parquet(first)
    FRAME.assign(**{column: None}).to_parquet(more)  # of Arrow's type null
    assert main(["solve", first, "--target", "y", "--save", model, "--quiet"]) == 0
    assert main(["solve", more, "--update", model, "--quiet"]) == 0
    m = Moments.load(model)
    assert m.n == 40 and m.names[-1] == f"{column} is missing" and m.mean[3] == 0.5


LARGE = 2**53 + np.arange(20)


@pytest.mark.parametrize(
    "given",
    [
        lambda: (FRAME[["a", "y"]].assign(i=LARGE), "y"),
        lambda: (FRAME[["a", "y"]].assign(i=pd.array([None, *LARGE[1:]], dtype="Int64")), "y"),
        lambda: (FRAME[["a", "y"]].assign(i=[Decimal(int(v)) for v in LARGE]), "y"),
        lambda: (FRAME[["a", "y"]].assign(i=LARGE.astype(object)), "y"),
        lambda: (pl.DataFrame({"i": LARGE.astype(np.uint64), "y": FRAME["y"].to_numpy()}), "y"),
        lambda: (np.column_stack([np.arange(20), LARGE]), np.arange(20)),
    ],
)
def test_numbers_that_float64_rounds_are_told(given: Any) -> None:
    with pytest.warns(RoundedIntegers, match=r"column ('i'|1 of X) holds whole numbers beyond"):
        Moments(*given(), missing="mean")


def test_numbers_that_float64_holds_are_not_told() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Moments(FRAME[["y"]].assign(i=LARGE - 20, j=np.int32(7), k=1e300 ** (1 / 3), b=True), "y")
        Moments(np.arange(20)[:, None], np.arange(20))


def test_the_command_tells_it_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "d.parquet")
    FRAME.assign(i=LARGE).to_parquet(path, row_group_size=5)
    with warnings.catch_warnings():
        warnings.simplefilter("always")  # as it is once some library has changed the filters meanwhile
        assert main(["solve", path, "--target", "y"]) == 0
    told = capsys.readouterr().err
    assert told.startswith("hasten: column 'i' holds whole numbers beyond 2**53") and told.count("2**53") == 1


def test_what_is_advised_for_infinity_helps() -> None:
    """``nan_to_num`` was, which makes numbers of it that cannot be squared."""
    frame = FRAME.assign(a=np.where(np.arange(20) == 3, np.inf, FRAME["a"]))
    with pytest.raises(BadData, match=r"infinity: row 3, column 'a'") as told:
        Moments(frame, "y", missing="mean")
    assert "frame.replace([numpy.inf, -numpy.inf], numpy.nan)" in str(told.value)
    m = Moments(frame.replace([np.inf, -np.inf], np.nan), "y", missing="mean")
    assert "a is missing" in m.names
    with pytest.raises(BadData, match="Input y contains infinity: row 3") as told:
        Moments(FRAME[["a"]], frame["a"])
    assert "drop such rows" in str(told.value)


def test_the_numbers_of_pandas_rows_are_no_feature(tmp_path: Path) -> None:
    """A selection of rows is written with them, and ``read_parquet`` hides them again."""
    path = tmp_path / "d.parquet"
    part = FRAME.sample(frac=0.7, random_state=0)
    part.to_parquet(path)
    m = Moments(path, "y")
    assert m.names == Moments(part, "y").names == ["a", "t=u", "t=v"]
    assert np.array_equal(m.scatter, Moments(part, "y").scatter)
    asked = Moments(open_source(path, target="y", features=["__index_level_0__"]))
    assert asked.mean[0] == part.index.to_numpy().mean()
    part.rename_axis("day").to_parquet(path)  # with a name it is a column
    assert "day" in Moments(path, "y").names


def test_an_ending_in_capitals_is_one(tmp_path: Path) -> None:
    FRAME.to_csv(tmp_path / "D.CSV", index=False)
    np.save(tmp_path / "d.npy", np.ascontiguousarray(FRAME[["a", "y"]].to_numpy()))
    (tmp_path / "d.npy").rename(tmp_path / "D.NPY")
    assert main(["solve", str(tmp_path / "D.CSV"), "--target", "y", "--quiet"]) == 0
    assert main(["solve", str(tmp_path / "D.NPY"), "--quiet"]) == 0
    with pytest.raises(BadData, match=r"is a folder(.|\n)*--update"):
        Moments(tmp_path)


def test_a_feature_is_named_once(tmp_path: Path) -> None:
    FRAME.to_csv(tmp_path / "d.csv", index=False)
    with pytest.raises(BadData, match="'a' is named twice"):
        Moments.scan(tmp_path / "d.csv", "y", features=["a", "t", "a"])


@pytest.mark.parametrize(("text", "option"), [("1,234", {"thousands": ","}), ("1,5", {"decimal": ","})])
def test_what_is_advised_for_commas_reads_them(tmp_path: Path, text: str, option: Any) -> None:
    """One call for both took the thousand out of 1,234."""
    path = tmp_path / "d.csv"
    path.write_text(f'a,y\n3,1\n"{text}",2\n7,4\n')
    with pytest.raises(BadData, match=f"such as '{text}'") as told:
        Moments(path, "y")
    name, mark = next(iter(option.items()))
    assert f'{name}="{mark}"' in str(told.value)
    assert pd.read_csv(path, **option)["a"][1] == {"1,234": 1234, "1,5": 1.5}[text]


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_names_of_a_file_are_kept(tmp_path: Path, kind: str) -> None:
    frame = FRAME[["a", "y"]].assign(b=np.arange(20.0) % 3)
    path = str(tmp_path / f"d.{kind}")
    frame.to_parquet(path) if kind == "parquet" else frame.to_csv(path, index=False)
    model = StreamingRidge().fit(path, "y")
    assert list(model.feature_names_in_) == ["a", "b"] and np.isfinite(model.predict(frame[["a", "b"]])).all()
    with pytest.raises(ValueError, match="same order"):
        model.predict(frame[["b", "a"]])
    frame.assign(y=frame["y"] > 50).astype(float).to_parquet(tmp_path / "c.parquet")
    assert list(StreamingLogistic().fit(str(tmp_path / "c.parquet"), "y").feature_names_in_) == ["a", "b"]
    model.fit([(np.eye(3), np.arange(3))])  # a stream without names
    assert not hasattr(model, "feature_names_in_") and model.predict(np.eye(3)).shape == (3,)


def test_a_sign_for_missing_values_among_numbers_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It makes one category of every number."""
    path = tmp_path / "d.csv"
    FRAME.assign(a=[*FRAME["a"][:-1].astype(str), "?"]).to_csv(path, index=False)
    assert main(["solve", str(path), "--target", "y"]) == 0
    assert capsys.readouterr().err.startswith("hasten: column 'a' holds numbers and a few texts, such as '?', so each")
    FRAME.assign(a=["1a", "2b", "3", "4", "5"] * 4).to_csv(path, index=False)  # codes
    assert main(["solve", str(path), "--target", "y", "--quiet"]) == 0
    assert not capsys.readouterr().err


def test_times_in_arrays_are_seconds_as_in_tables() -> None:
    """They were in their own unit, and a missing one was the year -292277022657."""
    times = np.array(["2024-01-01", "NaT", "2024-01-03"], dtype="datetime64[ns]")
    for unit in ("D", "ms", "ns"):
        array = times.astype(f"datetime64[{unit}]")
        m = Moments(array[:, None], array[[0, 0, 2]], missing="mean")
        table = Moments(pd.DataFrame({"x0": array}), pd.Series(array[[0, 0, 2]]), missing="mean")
        assert m.names == table.names == ["x0", "x0 is missing"]
        assert np.array_equal(m.mean, table.mean) and m.mean[0] == 1704153600
    spans = np.array([[3000, "NaT"]], dtype="timedelta64[ms]").T
    assert Moments(spans, missing="mean").mean[0] == 3.0
    with pytest.raises(BadData, match="y contains NaN: row 1"):
        Moments(np.ones((3, 1)), times)


def test_a_csv_column_may_begin_with_whole_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the first megabytes any other number was refused."""
    monkeypatch.setattr(comma, "CSV_BYTES", 1 << 10)
    path = tmp_path / "d.csv"
    frame = pd.DataFrame({"a": [*range(1000), 0.5], "y": [*range(1000), 1e-3]})
    path.write_text("a,y\n" + "".join(f"{a:g},{y:g}\n" for a, y in frame.itertuples(index=False)))
    assert apart(Moments(path, "y").scatter, Moments(frame, "y").scatter) < 1e-12
    path.write_text("i,y\n" + "".join(f"{v},1\n" for v in LARGE))
    with pytest.warns(RoundedIntegers, match="column 'i' holds whole numbers beyond"):
        Moments(path, "y")


@pytest.mark.parametrize(
    ("column", "says"),
    [
        (lambda: pd.arrays.SparseArray([0.0, 1.0] * 150), "Sparse"),
        (lambda: pd.interval_range(0, 300), "interval"),
        (lambda: pd.period_range("2024-01", periods=300, freq="D"), "period"),
    ],
)
def test_a_kind_that_is_not_known_is_called_by_its_own_name(column: Callable[[], Any], says: str) -> None:
    with pytest.raises(BadData, match=f"column 'c' is of the kind {says}"):
        Moments(pd.DataFrame({"c": column()}), np.arange(300.0))


def test_whole_numbers_that_numpy_has_not_are_numbers() -> None:
    frame = pl.DataFrame({"c": pl.Series(np.arange(300) - 7).cast(pl.Int128)})
    assert Moments(frame, np.arange(300.0)).mean[0] == np.mean(np.arange(300) - 7)
