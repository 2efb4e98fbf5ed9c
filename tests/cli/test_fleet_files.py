"""``hasten fleet``: files of rows as people have them, and what is said where nothing came of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hasten import fleet
from hasten.cli.main import main
from tests.fleet.common import weights

pd = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")

WORDS = ["--by", "store", "--target", "sales", "--epochs", "2", "--baseline", "none"]
TABLE = ["--features", "price,day", "--quiet"]


def sales(days: int = 40) -> Any:
    random, t = np.random.default_rng(0), np.arange(days)
    frames = [pd.DataFrame({"store": key, "year": 2023 + t % 2, "day": t % 7}) for key in ("0001", "0412")]
    for frame in frames:
        frame["price"] = random.normal(size=days)
        frame["sales"] = 3 * frame["price"] + random.normal(size=days)
        frame["town"] = "Ulm, alt"
    return pd.concat(frames, ignore_index=True)


def bits(path: Path) -> dict[str, bytes]:
    return weights(fleet.Fleet.load(path))


def trained(file: Path, out: Path) -> dict[str, bytes]:
    assert main(["fleet", str(file), *WORDS, *TABLE, "--out", str(out)]) == 0
    return bits(out)


@pytest.mark.parametrize("folders", [["store"], ["year", "store"]])
def test_keys_that_names_of_folders_tell_are_text(folders: list[str], tmp_path: Path) -> None:
    """As pandas and Spark write them: ``store=0412/`` was read as the number 412."""
    data, whole, parts = sales(), tmp_path / "whole.parquet", tmp_path / "parts"
    data.sort_values(folders, kind="stable").to_parquet(whole)
    data.to_parquet(parts, partition_cols=folders)
    expected, out = trained(whole, tmp_path / "w.safetensors"), tmp_path / "p.safetensors"
    assert expected.keys() == {"0001", "0412"} and trained(parts, out) == expected
    assert main(["fleet", str(out), "--update", str(parts), "--quiet"]) == 0
    assert {update["rows"] for update in fleet.Fleet.load(out).summary().updates} == {80}


def test_a_column_that_names_of_folders_tell_is_a_feature_like_others(tmp_path: Path) -> None:
    data, parts, whole = sales(), tmp_path / "parts", tmp_path / "whole.parquet"
    data.to_parquet(parts, partition_cols=["year", "store"])
    data.sort_values(["year", "store"], kind="stable").to_parquet(whole)
    found = []
    for file in (parts, whole):
        out = tmp_path / f"{file.name}.safetensors"
        assert main(["fleet", str(file), *WORDS, "--features", "price,year", "--quiet", "--out", str(out)]) == 0
        found.append(bits(out))
    assert found[0] == found[1]


def test_a_folder_without_parquet_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sales().to_csv(tmp_path / "a.csv", index=False)
    assert main(["fleet", str(tmp_path), *WORDS, *TABLE]) == 2
    assert "is a folder without Parquet files" in capsys.readouterr().err


def test_parts_of_unlike_columns_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "parts.parquet"
    folder.mkdir()
    sales().to_parquet(folder / "a.parquet")
    sales().assign(sales=[[1.0]] * 80).to_parquet(folder / "b.parquet")
    assert main(["fleet", str(folder), *WORDS, *TABLE]) == 2
    assert f"cannot read {folder}: Unsupported cast" in capsys.readouterr().err
    sales().to_parquet(tmp_path / "hive", partition_cols=["store"])
    assert main(["fleet", str(tmp_path / "hive"), *WORDS, *TABLE, "--by", "stoer"]) == 2
    assert "try: 'store'" in capsys.readouterr().err


def test_numbers_with_commas_between_semicolons(tmp_path: Path) -> None:
    """As spreadsheets write them where a comma stands before decimals; texts with commas stay texts."""
    data, found = sales(), []
    for number, (mark, point) in enumerate([(",", "."), (";", "."), (";", ","), ("\t", ",")]):
        file = tmp_path / f"{number}.csv"
        data.to_csv(file, index=False, sep=mark, decimal=point)
        found.append(trained(file, tmp_path / f"{number}.safetensors"))
    assert found[0].keys() == {"0001", "0412"} and all(each == found[0] for each in found)


@pytest.mark.parametrize("ending", ["parquet", "csv"])
@pytest.mark.parametrize(
    ("words", "meant"),
    [(["--by", "stroe"], "store"), (["--target", "slaes"], "sales"), (["--features", "price,dya"], "day")],
)
def test_the_column_that_was_meant_is_named(
    words: list[str], meant: str, ending: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / f"sales.{ending}"
    sales().to_csv(file, index=False) if ending == "csv" else sales().to_parquet(file)
    assert main(["fleet", str(file), *WORDS, *TABLE, *words]) == 2
    assert f"try: {meant!r}" in capsys.readouterr().err


@pytest.mark.parametrize("told", [["--quiet"], ["--json", "-"]])
def test_what_leaves_with_1_is_said_where_no_report_is(
    told: list[str], tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    file, out, new = tmp_path / "sales.parquet", tmp_path / "f.safetensors", tmp_path / "new.parquet"
    sales().to_parquet(file)
    trained(file, out)
    assert main(["fleet", str(file), *WORDS, "--window", "90", "--horizon", "9", *told]) == 1
    assert b"no model could be trained; 0001: too short: 40 rows" in capfdbinary.readouterr().err
    sales().assign(price=np.nan).to_parquet(new)
    assert main(["fleet", str(out), "--update", str(new), *told]) == 1
    assert b"no new row could be learned; 0001: its new rows hold NaN" in capfdbinary.readouterr().err


@pytest.mark.parametrize("mark", ["utf-16-le", "utf-16-be"])
def test_utf16_is_named_with_its_way_out(mark: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sales.csv").write_bytes(("\ufeff" + sales().to_csv(index=False)).encode(mark))
    assert main(["fleet", str(tmp_path / "sales.csv"), *WORDS, *TABLE]) == 2
    told = capsys.readouterr().err
    assert "text in UTF-16" in told and f"iconv -f UTF-16 -t UTF-8 {tmp_path / 'sales.csv'} > rows.csv" in told
