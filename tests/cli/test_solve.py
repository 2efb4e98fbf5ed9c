"""``hasten solve``: what it prints and writes, and how it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import RidgeCV

from hasten.cli.main import main
from tests.solve.data import table


@pytest.fixture
def data(tmp_path: Path) -> Path:
    X, y = table(600, 3)
    frame = pd.DataFrame(X, columns=list("abc")).assign(town=np.where(X[:, 0] > 0, "u", "v"), y=y)
    frame["kind"] = np.where(y > 3, "high", "low")
    frame.loc[::17, "b"] = np.nan
    frame.to_parquet(tmp_path / "data.parquet")
    return tmp_path / "data.parquet"


def solve(*words: object, into: Path) -> dict[str, object]:
    assert main(["solve", *map(str, words), "--json", str(into), "--quiet"]) == 0
    found: dict[str, object] = json.loads(into.read_text(encoding="utf-8"))
    return found


def test_the_report(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["solve", str(data), "--target", "y", "--features", "a", "b", "c"]) == 0
    told = capsys.readouterr()
    assert not told.out
    for word in ("600 rows", "passes", "flops", "predicted s", "error ≤", "TSQR", "leave-one-out R²", "next: hasten"):
        assert word in told.err


def test_the_score_is_leave_one_out(data: Path, tmp_path: Path) -> None:
    found = solve(data, "--target", "y", "--features", "a", "c", into=tmp_path / "o.json")
    frame = pd.read_parquet(data)
    X = frame[["a", "c"]].to_numpy()
    Z = X / X.std(axis=0, ddof=1)
    theirs = RidgeCV([a["alpha"] for a in found["alphas"]], store_cv_results=True).fit(Z, frame["y"])  # type: ignore[attr-defined,index]
    best = theirs.cv_results_.mean(axis=0).min()
    assert found["score"] == pytest.approx(1 - best / frame["y"].var(ddof=0), abs=1e-9)


def test_classes(data: Path, tmp_path: Path) -> None:
    found = solve(data, "--target", "kind", "--features", "a", "b", "c", into=tmp_path / "o.json")
    assert found["task"] == "classification" and found["metric"] == "accuracy"
    assert float(found["score"]) > 0.8  # type: ignore[arg-type]


def test_a_row_without_a_label_is_refused(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = pd.read_parquet(data)
    frame.loc[7, "kind"] = None
    frame.to_parquet(data)
    assert main(["solve", str(data), "--target", "kind"]) == 2
    assert "y contains NaN: row 7" in capsys.readouterr().err


def test_update_adds_rows(data: Path, tmp_path: Path) -> None:
    frame = pd.read_parquet(data)
    for k in range(2):
        frame.iloc[k::2].to_parquet(tmp_path / f"half{k}.parquet")
    model = tmp_path / "model.safetensors"
    solve(
        tmp_path / "half0.parquet", "--target", "y", "--features", "a", "c", "--save", model, into=tmp_path / "a.json"
    )
    whole = solve(data, "--target", "y", "--features", "a", "c", into=tmp_path / "c.json")
    both = solve(tmp_path / "half1.parquet", "--update", model, into=tmp_path / "b.json")
    assert both["rows"] == whole["rows"] == 600
    assert both["score"] == pytest.approx(whole["score"], abs=0.01)


@pytest.mark.parametrize(
    "words",
    [
        ["--target", "nothing"],
        [],
        ["--target", "y", "--budget", "0"],
        ["--target", "kind", "--task", "regression"],
        ["--update", "no-such-file"],
        ["--target", "y", "--update", "m", "--features", "a"],
    ],
)
def test_refusals_say_what_to_change(data: Path, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["solve", str(data), *words]) == 2
    assert "try:" in capsys.readouterr().err
