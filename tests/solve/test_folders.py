"""Columns that folders tell: as pyarrow's datasets with ``partitioning="hive"`` read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.dataset
import pytest

from hasten.cli.main import main
from hasten.solve import BadData, Moments, StreamingRidge
from tests.solve.data import apart


def laid_out(folder: Path, frame: pd.DataFrame, *keys: str, kind: str = "parquet") -> Path:
    """Each value of the keys in folders of its own, as ``town=x/day=1/part-0.parquet``."""
    for values, part in frame.groupby([*keys], sort=False, dropna=False):
        told = ["__HIVE_DEFAULT_PARTITION__" if value != value else value for value in values]
        names = [f"{key}={value}" for key, value in zip(keys, told, strict=True)]
        inner = folder.joinpath(*names)
        inner.mkdir(parents=True)
        rest = part.drop(columns=[*keys])
        (rest.to_parquet if kind == "parquet" else rest.to_csv)(inner / f"part-0.{kind}", index=False)
    (folder / "_SUCCESS").touch()
    return folder


def rows(n: int = 400) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.standard_normal(n), "b": rng.standard_normal(n)})
    frame["day"], frame["town"] = rng.integers(1, 12, n), rng.choice(["x", "y z", "%"], n)
    frame["price"] = frame["a"] + frame["day"] + (frame["town"] == "x") + rng.standard_normal(n)
    return frame


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_they_are_read_like_columns_of_the_files(tmp_path: Path, kind: str) -> None:
    frame = rows()
    folder = laid_out(tmp_path / "rows", frame.replace("%", "%25"), "town", "day", kind=kind)
    wanted = Moments(frame[["a", "b", "day", "town", "price"]], "price")
    files = sorted(folder.rglob(f"*.{kind}"))
    dataset = pyarrow.dataset.dataset(files, format=kind, partitioning="hive", partition_base_dir=str(folder))
    for given in (folder, f"{folder}/*/*/*.{kind}", f"{folder}/town=*/*/*", files, dataset):
        for m in (Moments(given, "price"), *([Moments.scan(given, "price")] if given is not dataset else [])):
            assert m.n == 400 and set(m.names) == set(wanted.names)
            order = [m.names.index(name) for name in wanted.names] + [m.p]
            assert apart(m.scatter[np.ix_(order, order)], wanted.scatter) < 1e-13
    one = Moments(folder / "town=x", "price")  # below what was given only
    assert one.names == ["a", "b", "day"]


@pytest.mark.parametrize(
    ("values", "numbers"),
    [
        (["2024-02-28", "2024-03-01"], [1709078400.0, 1709251200.0]),
        (["007", "-1"], [7.0, -1.0]),
        (["0.5", "2"], [0.5, 2.0]),
        (["2024-13-01", "2024-01-01"], None),
        (["1", "x"], None),
        (["nan", "1"], None),
    ],
)
def test_numbers_and_dates_are_numbers(tmp_path: Path, values: Any, numbers: Any) -> None:
    frame = pd.DataFrame({"when": np.repeat(values, 20), "a": np.arange(40.0), "y": np.arange(40.0) ** 2})
    m = Moments(laid_out(tmp_path / "rows", frame, "when"), "y")
    assert m.n == 40
    if numbers is None:
        assert m.names == ["a", *(f"when={value}" for value in sorted(values))]
    else:
        assert m.names == ["a", "when"] and m.mean[1] == pytest.approx(np.mean(numbers), rel=1e-15)


def test_missing_values_own_columns_and_copies(tmp_path: Path) -> None:
    frame = pd.DataFrame({"day": np.repeat([1.0, np.nan], 20), "a": np.tile(np.arange(20.0), 2), "y": 1.0})
    folder = laid_out(tmp_path / "rows", frame, "day")  # whose two files hold the same bytes
    m = Moments(missing="mean").update(folder, "y")
    assert m.names == ["a", "day", "day is missing"] and m.n == 40
    with pytest.raises(BadData, match="column 'day'"):
        Moments(folder, "y")
    for file in folder.rglob("*.parquet"):
        pd.read_parquet(file).assign(day=3.0).to_parquet(file)
    assert Moments(folder, "y").mean[1] == 3.0  # of the files themselves
    (folder / "part.parquet").write_bytes(next(folder.rglob("*.parquet")).read_bytes())
    assert Moments(folder, "y").n == 20  # the folder's own files are the table
    with pytest.raises(BadData, match=r"part.parquet tell the columns \[\], those of .* \['day'\]"):
        Moments([*folder.glob("*/*.parquet"), folder / "part.parquet"], "y")


def test_features_targets_estimators_and_the_command(tmp_path: Path) -> None:
    frame = rows()
    folder = laid_out(tmp_path / "rows", frame.drop(columns="town"), "day")
    model = StreamingRidge(1.0).fit(folder, "price")
    wanted = StreamingRidge(1.0).fit(frame[["a", "b", "day"]], frame["price"])
    assert list(model.feature_names_in_) == ["a", "b", "day"] and apart(model.coef_, wanted.coef_) < 1e-11
    assert Moments.scan(folder, "price", features=["day", "b"]).names == ["b", "day"]
    assert Moments.scan(folder, "price", features=["b"]).names == ["b"]
    saved = tmp_path / "m.safetensors"
    assert main(["solve", str(folder), "--target", "price", "--save", str(saved), "--quiet"]) == 0
    assert Moments.load(saved).names == ["a", "b", "day"]
    later = laid_out(tmp_path / "later", rows(90).drop(columns="town"), "day")
    assert main(["solve", str(later), "--update", str(saved), "--quiet"]) == 0
    assert Moments.load(saved).n == 490


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_folders_column_is_a_target(tmp_path: Path, kind: str) -> None:
    frame = rows().drop(columns="town")
    folder = laid_out(tmp_path / "rows", frame, "day", kind=kind)
    for target in (["day"], ["day", "price"], ["price", "day"]):
        names = [name for name in ("a", "b", "price") if name not in target]
        wanted = Moments(frame[names].to_numpy(), frame[target].to_numpy())
        for m in (Moments.scan(folder, target), Moments.scan(folder, target, features=names)):
            assert m.n == 400 and m.names == names and m.targets == target
            assert apart(m.scatter, wanted.scatter) < 1e-13
    only = Moments.scan(folder, "price", features=["day"])  # no column of the files themselves
    assert only.names == ["day"] and apart(only.scatter, Moments(frame[["day", "price"]], "price").scatter) < 1e-13
    with pytest.raises(BadData, match="'day' is to be predicted, and is among the features"):
        Moments.scan(folder, "day", features=["a", "day"])
    with pytest.raises(BadData, match="no column 'dey'"):
        Moments(folder, "dey")
    for file in folder.rglob(f"*.{kind}"):  # a column of their own goes before
        table = (pd.read_parquet if kind == "parquet" else pd.read_csv)(file).assign(day=lambda each: each["a"] * 2)
        (table.to_parquet if kind == "parquet" else table.to_csv)(file, index=False)
    own = StreamingRidge(1e-9).fit(folder, "day")
    assert own.predict(frame[["a", "b", "price"]]) == pytest.approx(2 * frame["a"].to_numpy(), abs=1e-6)


def test_a_folders_column_of_arrays_is_a_target(tmp_path: Path) -> None:
    random = np.random.default_rng(0).standard_normal((40, 3))
    for day in (1, 2):
        (tmp_path / f"day={day}").mkdir()
        np.save(tmp_path / f"day={day}" / "part.npy", random[day - 1 :: 2])
    m = Moments(tmp_path, "day")
    assert (m.n, m.p, m.targets) == (40, 3, ["day"])  # no column of the files is a target
    some = Moments.scan(tmp_path, "day", features=["0", "2"])
    assert some.names == ["x0", "x2"] and apart(some.scatter, m.scatter[np.ix_([0, 2, 3], [0, 2, 3])]) < 1e-15
    beside = Moments.scan(tmp_path, y=np.arange(40.0), features=["0", "day"])
    assert beside.names == ["x0", "day"]


def test_the_classes_of_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = rows().drop(columns="day")
    frame["a"] += 5 * (frame["town"] == "x")
    folder = laid_out(tmp_path / "rows", frame.replace("%", "z"), "town")
    flat, saved = tmp_path / "rows.parquet", [tmp_path / "f.safetensors", tmp_path / "t.safetensors"]
    pd.concat(
        pd.read_parquet(file).assign(town=file.parent.name.partition("=")[2])
        for file in sorted(folder.rglob("*.parquet"))
    ).to_parquet(flat, index=False)
    for path, to in zip((folder, flat), saved, strict=True):
        assert main(["solve", str(path), "--target", "town", "--save", str(to)]) == 0
    told, wanted = (Moments.load(path) for path in saved)
    assert told.targets == wanted.targets == ["town=x", "town=y z", "town=z"] and told.names == ["a", "b", "price"]
    assert apart(told.scatter, wanted.scatter) < 1e-13
    capsys.readouterr()
    with pytest.raises(BadData, match="the target 'town' holds texts"):
        Moments(folder, "town")
    (folder / "town=w").mkdir()
    later = frame.assign(town="w")[:9]
    assert main(["solve", str(laid_out(tmp_path / "later", later, "town")), "--update", str(saved[0])]) == 2
    assert "the label 'w' of 'town' is none of the classes x, y z, z" in capsys.readouterr().err
    none = laid_out(tmp_path / "none", pd.DataFrame({"day": [1.0, np.nan], "a": [1.0, 2.0]}), "day")
    with pytest.raises(BadData, match="y contains NaN: row 1, column 'day'"):
        Moments(none, "day")
