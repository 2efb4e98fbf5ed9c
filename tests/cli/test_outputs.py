"""What is written never takes the place of what is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hasten import fleet
from hasten.cli.main import main
from tests.fleet.common import mlp, ragged

pd = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")

FLEET = ["--by", "k", "--target", "y", "--features", "x", "--epochs", "1", "--baseline", "none", "--quiet"]


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Rows, a folder of them, moments and a fleet of them, and a script."""
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).normal(size=60)
    frame = pd.DataFrame(
        {"k": np.repeat(["a", "b"], 30), "x": x, "y": 3 * x + np.random.default_rng(1).normal(size=60)}
    )
    Path("parts").mkdir()
    for path in ("rows.csv", "new.csv", "parts/a.csv"):
        frame.to_csv(path, index=False)
    Path("train.py").write_text("print('trained')\n")
    assert main(["fleet", "rows.csv", *FLEET, "--out", "f.safetensors"]) == 0
    assert main(["solve", "rows.csv", "--target", "y", "--features", "x", "--save", "m.safetensors", "--quiet"]) == 0
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        ["fleet", "rows.csv", *FLEET, "--json", "rows.csv"],
        ["fleet", "rows.csv", *FLEET, "--html", "../{}/rows.csv"],
        ["fleet", "f.safetensors", "--update", "new.csv", "--json", "f.safetensors", "--quiet"],
        ["fleet", "f.safetensors", "--update", "new.csv", "--html", "new.csv", "--quiet"],
        ["solve", "rows.csv", "--target", "y", "--save", "rows.csv", "--quiet"],
        ["solve", "rows.csv", "--target", "y", "--json", "rows.csv", "--quiet"],
        ["solve", "parts", "--target", "y", "--json", "parts/a.csv", "--quiet"],
        ["solve", "par*/*.csv", "--target", "y", "--checkpoint", "parts/a.csv", "--quiet"],
        ["solve", "new.csv", "--update", "m.safetensors", "--json", "m.safetensors", "--quiet"],
        ["explain", "--json", "train.py", "train.py"],
        ["run", "--save-plan", "train.py", "train.py"],
    ],
)
def test_what_is_read_is_not_written_over(words: list[str], rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in rows.rglob("*") if path.is_file()}
    assert main([word.format(rows.name) for word in words]) == 2
    assert "would be written over what is read there" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in rows.rglob("*") if path.is_file()} == before


def test_moments_may_be_saved_where_they_were(rows: Path) -> None:
    pd.read_csv("new.csv").assign(x=1.5).to_csv("new.csv", index=False)
    words = ["solve", "new.csv", "--update", "m.safetensors", "--save", "m.safetensors", "--quiet"]
    assert main(words) == 0


def test_a_fleet_of_arrays_knows_no_columns(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fleet.fit(mlp, ragged(2), epochs=1).save("g.safetensors")
    Path("mine.py").write_text("from tests.fleet.common import mlp\n")
    assert main(["fleet", "g.safetensors", "--update", "new.csv", "--model", "mine:mlp"]) == 2
    assert "this fleet was trained on arrays" in capsys.readouterr().err
