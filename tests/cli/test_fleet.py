"""``hasten fleet``: a file of rows in, reports and weights out."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from hasten import fleet
from hasten.cli.arguments import parse
from hasten.cli.fleet import factory
from hasten.cli.main import main
from hasten.fleet import files, whole
from hasten.report import fleet as report
from tests.fleet.common import weights
from tests.report.forms import faults, stored

pd = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")


@pytest.fixture
def sales(tmp_path: Path) -> Path:
    """Three stores; one is too short."""
    random, t = np.random.default_rng(0), np.arange(120)
    frames = [pd.DataFrame({"store": i, "day": t[: 120 if i < 3 else 9], "sales": 0.0}) for i in range(1, 4)]
    for i, frame in enumerate(frames):
        frame["sales"] = 30 * i + 10 * np.sin(frame["day"] / 3) + random.normal(size=len(frame))
        frame["price"] = random.normal(size=len(frame))
    path = tmp_path / "sales.parquet"
    pd.concat(frames).to_parquet(path)
    return path


ROOT = Path(__file__).parents[2]
WORDS = ["--by", "store", "--target", "sales", "--epochs", "2"]
SERIES = ["--window", "12", "--horizon", "4", "--season", "12", "--hold-out", "0.3"]


def test_series_from_parquet(sales: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, page, figures = tmp_path / "f.safetensors", tmp_path / "f.html", tmp_path / "f.json"
    words = [*WORDS, *SERIES, "--prove", "1", "--html", str(page), "--json", str(figures), "--out", str(out)]
    assert main(["fleet", str(sales), *words]) == 0
    said = capsys.readouterr().out
    assert "2 of 3 models trained" in said and "failed 3: too short: 9 rows" in said
    assert "best on held-out rows, of 2 keys" in said and "proof" in said and "yes" in said
    document = json.loads(figures.read_text())
    form = stored("schema_fleet.json")
    assert faults(document, form, form) == [] and document["proof"] and document["worth"]
    assert document["models"] == 3 and document["failed"] == 1 and len(document["rows"]) == 3
    drawn = document["forecasts"]
    assert {one["key"] for one in drawn} == {"1", "2"} and {one["group"] for one in drawn} == {
        "best",
        "median",
        "worst",
    }
    assert all((len(f["seen"]), len(f["came"]), len(f["predicted"])) == (12, 4, 4) for f in drawn)
    assert "<svg" in page.read_text() and "best keys" in page.read_text()
    assert out.exists() and len(pd.read_parquet(f"{out}.parquet")) == 3


def test_rows_from_csv_and_json_on_stdout(
    sales: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    path = tmp_path / "sales.csv"
    pd.read_parquet(sales).to_csv(path, index=False)
    assert main(["fleet", str(path), *WORDS, "--features", "price,day", "--baseline", "none", "--json", "-"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["trained"] == 3 and document["worth"] is None


def test_a_model_of_ones_own(
    sales: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    own = "from torch import nn\ndef make(i, o): return nn.Linear(i, o)\ndef bare(): return make(2, 1)\n"
    (tmp_path / "ownmodel.py").write_text(own)
    monkeypatch.chdir(tmp_path)
    assert main(["fleet", str(sales), *WORDS, *SERIES, "--model", "ownmodel:make", "--quiet"]) == 0
    assert main(["fleet", str(sales), *WORDS, *SERIES, "--model", "ownmodel:none"]) == 2
    capsys.readouterr()
    assert main(["fleet", str(sales), *WORDS, *SERIES, "--model", "ownmodel:bare"]) == 2  # told to call make_model()
    assert "called with the numbers of inputs and outputs, (12, 4)" in (said := capsys.readouterr().err)
    assert "def bare(inputs, outputs)" in said


def test_new_rows_are_learned_once(sales: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame, out, new = pd.read_parquet(sales), tmp_path / "f.safetensors", tmp_path / "new.parquet"
    frame[frame["day"] < 90].to_parquet(sales)
    frame[frame["day"] >= 90].to_parquet(new)
    assert main(["fleet", str(sales), *WORDS, *SERIES, "--out", str(out), "--quiet"]) == 0
    assert main(["fleet", str(out), "--update", str(new)]) == 0
    said = capsys.readouterr().out
    assert "update 1: 60 new rows learned" in said and "before they were learned" in said
    learned = weights(fleet.Fleet.load(out, factory(files.notes(out))))
    assert main(["fleet", str(out), "--update", str(new), "--quiet"]) == 0
    assert "nothing was done" in capsys.readouterr().err
    at_once = tmp_path / "g.safetensors"  # rows of before and after in one call
    words = ["--out", str(at_once), "--update", str(new), "--quiet", "--json", str(tmp_path / "g.json")]
    assert main(["fleet", str(sales), *WORDS, *SERIES, *words]) == 0
    document, form = json.loads((tmp_path / "g.json").read_text()), stored("schema_fleet.json")
    assert document["updates"] and faults(document, form, form) == []
    load = lambda path: fleet.Fleet.load(path, factory(files.notes(path)))  # noqa: E731
    assert weights(load(out)) == weights(load(at_once)) == learned
    assert main(["fleet", str(out)]) == 2 and "--update" in capsys.readouterr().err
    assert main(["fleet", str(out), "--update", str(new), "--prove", "2"]) == 2
    assert "--prove" in capsys.readouterr().err
    assert main(["fleet", str(out), "--update", str(new), "--shortest-first", "--epochs", "9"]) == 2
    assert "--epochs, --shortest-first are for training" in capsys.readouterr().err
    for words in (["--epochs", "20"], ["--seed", "0"], ["--baseline", "report"], ["--hold-out", "0.2"]):  # the defaults
        assert main(["fleet", str(out), "--update", str(new), *words]) == 2
        assert f"{words[0]} is for training" in capsys.readouterr().err


def test_keys_of_csv_are_text(sales: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = pd.read_parquet(sales)
    frame["store"] = frame["store"].map("{:04d}".format)
    csv, new, parquet = tmp_path / "sales.csv", tmp_path / "new.csv", tmp_path / "s.parquet"
    frame[frame["day"] < 90].to_csv(csv, index=False)
    frame[frame["day"] < 90].to_parquet(parquet)
    frame[frame["day"] >= 90].to_csv(new, index=False)
    for number, file in enumerate((csv, parquet)):
        out = tmp_path / f"{number}.safetensors"
        assert main(["fleet", str(file), *WORDS, *SERIES, "--out", str(out), "--quiet"]) == 0
        assert set(bits(out)) == {"0001", "0002"}
        assert main(["fleet", str(out), "--update", str(new)]) == 0
        assert "60 new rows learned" in capsys.readouterr().out


@pytest.mark.parametrize(("mark", "ending"), [(";", "csv"), ("\t", "csv"), (";", "csv.gz")])
def test_columns_may_stand_apart_by_other_marks(mark: str, ending: str, sales: Path, tmp_path: Path) -> None:
    path, out = tmp_path / f"sales.{ending}", tmp_path / "f.safetensors"
    pd.read_parquet(sales).to_csv(path, index=False, sep=mark)
    assert main(["fleet", str(path), *WORDS, *SERIES, "--baseline", "none", "--out", str(out), "--quiet"]) == 0
    assert set(bits(out)) == {"1", "2"}


def test_a_full_disk_loses_no_update(
    sales: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    """Beside a fleet's file there is no journal that could be advised."""
    out = tmp_path / "f.safetensors"
    assert main(["fleet", str(sales), *WORDS, *SERIES, "--out", str(out), "--quiet"]) == 0
    before = out.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert main(["fleet", str(out), "--update", str(sales), "--quiet"]) == 1
    said = capsys.readouterr().err
    assert "No space left" in said and "call it again" in said and "--journal" not in said
    assert out.read_bytes() == before


def test_two_updates_at_once_lose_nothing(
    sales: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    """The second one is refused while the first is at work, and may write what it learned to another file."""
    out, other = tmp_path / "f.safetensors", tmp_path / "g.safetensors"
    assert main(["fleet", str(sales), *WORDS, *SERIES, "--out", str(out), "--quiet"]) == 0
    before = out.read_bytes()
    monkeypatch.setattr(whole, "PATIENCE", 0.0)
    with whole.alone(out):
        for words in ([], ["--out", str(out)]):
            assert main(["fleet", str(out), "--update", str(sales), "--quiet", *words]) == 2
            said = capsys.readouterr().err
            assert f"another process is at work on {out}" in said and "nothing was done" in said
        assert main(["fleet", str(out), "--update", str(sales), "--quiet", "--out", str(other)]) == 0
    assert out.read_bytes() == before and other.exists()


def test_a_full_disk_loses_no_report(
    sales: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    calls = itertools.count()

    def full(*_: object) -> None:
        if not next(calls):  # the weights; there is room for the report
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    out, figures = tmp_path / "f.safetensors", tmp_path / "f.json"
    words = ["fleet", str(sales), *WORDS, *SERIES, "--out", str(out), "--json", str(figures)]
    assert main(words) == 1
    said = capsys.readouterr()
    assert "2 of 3 models trained" in said.out and json.loads(figures.read_text())["trained"] == 2
    assert "No space left" in said.err and "lost with this process" in said.err and "in memory" not in said.err
    assert not out.exists()


def test_what_a_journal_keeps_is_not_lost(
    sales: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    right = os.replace
    monkeypatch.setattr(os, "replace", lambda *paths: right(*paths) if "fleet.json" in str(paths[1]) else full())

    def full() -> None:
        raise OSError(28, "No space left on device")

    words = [*WORDS, *SERIES, "--out", str(tmp_path / "f.safetensors"), "--journal", str(tmp_path / "j"), "--quiet"]
    assert main(["fleet", str(sales), *words]) == 1
    said = capsys.readouterr().err
    assert f"what was trained is kept in {tmp_path / 'j'}" in said and "lost" not in said
    monkeypatch.undo()
    assert main(["fleet", str(sales), *words]) == 0


def test_a_full_disk_under_the_journal_is_told(
    sales: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    words = ["fleet", str(sales), *WORDS, *SERIES, "--quiet", "--baseline", "none", "--journal", str(tmp_path / "j")]
    for name in ("posix_fallocate", "fsync"):  # of the state; of its head
        monkeypatch.setattr(os, name, full)
        assert main(words) == 1
        said = capsys.readouterr().err
        assert "of training state" in said and "No space left" in said and "nothing was lost" in said
        assert list((tmp_path / "j").iterdir()) == []
        monkeypatch.undo()
    assert main(words) == 0


def test_a_proof_beside_json_on_stdout(sales: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--prove", "1", "--baseline", "keep", "--json", "-"]
    assert main(["fleet", str(sales), *WORDS, *SERIES, *words]) == 0
    (found,) = json.loads(capsys.readouterr().out)["proof"]
    assert found["holds"]


class Killed(BaseException):
    """What nothing catches."""


@pytest.mark.parametrize("met", [1, 2, 3])
def test_an_update_that_is_killed_while_it_is_written(
    met: int, sales: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """Before the fleet is replaced, between it and its table, or not at all: called again, it ends in the same bits."""
    frame, out, new = pd.read_parquet(sales), tmp_path / "f.safetensors", tmp_path / "new.parquet"
    frame[frame["day"] < 90].to_parquet(sales)
    frame[frame["day"] >= 90].to_parquet(new)
    assert main(["fleet", str(sales), *WORDS, *SERIES, "--out", str(out), "--quiet"]) == 0
    whole, calls, replace = tmp_path / "g.safetensors", itertools.count(1), os.replace
    whole.write_bytes(out.read_bytes())

    def killed(*paths: object) -> None:
        if next(calls) == met:
            raise Killed
        replace(*paths)

    monkeypatch.setattr(os, "replace", killed)
    with contextlib.suppress(Killed):
        main(["fleet", str(out), "--update", str(new), "--quiet"])
    monkeypatch.undo()
    for path in (out, whole):
        assert main(["fleet", str(path), "--update", str(new), "--quiet"]) == 0
    first, second = (fleet.Fleet.load(path, factory(files.notes(path))) for path in (out, whole))
    assert weights(first) == weights(second) and len(first.summary().updates) == 1
    assert len(pd.read_parquet(f"{out}.parquet")) == 3


def bits(path: Path) -> dict[str, bytes]:
    return weights(fleet.Fleet.load(path, factory(files.notes(path))))


def update(out: Path, new: Path) -> subprocess.Popen[bytes]:
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.Popen(
        [sys.executable, "-m", "hasten", "fleet", str(out), "--update", str(new), "--quiet"], env=env
    )


def killed_for_good(sales: Path, folder: Path, moments: Sequence[float | None]) -> None:
    """Kill updates by SIGKILL: at a share of the seconds that a whole one takes, or, None, while the fleet is written.

    After each the file is the fleet of before or the fleet of after; called again at the end, it is the one of after.
    """
    frame, new = pd.read_parquet(sales), folder / "new.parquet"
    out, whole = folder / "f.safetensors", folder / "g.safetensors"
    frame[frame["day"] < 90].to_parquet(sales)
    frame[frame["day"] >= 90].to_parquet(new)
    assert main(["fleet", str(sales), *WORDS, *SERIES, "--out", str(out), "--quiet"]) == 0
    whole.write_bytes(out.read_bytes())
    begun = time.monotonic()
    assert update(whole, new).wait() == 0
    seconds, before, after = time.monotonic() - begun, bits(out), bits(whole)
    assert before != after
    original = out.read_bytes()
    for moment in moments:
        out.write_bytes(original)
        written, process = parts(out), update(out, new)
        end = time.monotonic() + (100 if moment is None else moment * seconds)
        while process.poll() is None and time.monotonic() < end and (moment is not None or not parts(out) - written):
            time.sleep(0.0005)
        process.kill()
        process.wait()
        assert bits(out) in (before, after)
    assert update(out, new).wait() == 0
    assert bits(out) == after and len(pd.read_parquet(f"{out}.parquet")) == 3 and not parts(out)


def parts(path: Path) -> set[Path]:
    """What is being written to take the place of ``path``, or was when its process was killed."""
    return set(path.parent.glob(f".{path.name}.*.part"))


def test_an_update_killed_while_the_fleet_is_written(sales: Path, tmp_path: Path) -> None:
    killed_for_good(sales, tmp_path, [None])


@pytest.mark.slow
@pytest.mark.timeout(1200)  # thirteen processes begin anew, each of which loads torch
def test_an_update_killed_at_ten_random_moments(sales: Path, tmp_path: Path) -> None:
    draw = random.Random(0)
    killed_for_good(sales, tmp_path, [None, *(0.5 + draw.random() / 2 for _ in range(9)), None])


@pytest.mark.parametrize("model", ["conv", "gru"])
def test_models_that_are_stacked(sales: Path, model: str) -> None:
    assert main(["fleet", str(sales), *WORDS, *SERIES, "--model", model, "--quiet", "--baseline", "none"]) == 0


@pytest.mark.parametrize("words", [
    ["nowhere.parquet", *WORDS, *SERIES], ["FILE", "--by", "shop", "--target", "sales", *SERIES],
    ["FILE", *WORDS], ["FILE", *WORDS, "--window", "3"], ["FILE", *WORDS, *SERIES, "--loss", "hinge"],
    ["FILE", *WORDS, *SERIES, "--html", "nowhere/f.html"], ["FILE", "--by", "store"],
    ["FILE", *WORDS, *SERIES, "--features", "price"], ["FILE", *WORDS, *SERIES, "--workers", "-1"],
    ["FILE", *WORDS, *SERIES, "--prove", "-3"], ["FILE", *WORDS, *SERIES, "--hold-out", "0", "--patience", "3"],
    ["FILE", *WORDS, *SERIES, "--hold-out", "0", "--baseline", "keep"],
    ["FILE", *WORDS, *SERIES, "--out", "model.bin"],
])  # fmt: skip
def test_wrong_usage_is_two(words: list[str], sales: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fleet", *(str(sales) if w == "FILE" else w for w in words)]) == 2
    assert "try: " in capsys.readouterr().err


def test_classes_get_an_output_each(sales: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = pd.read_parquet(sales)
    frame["kind"] = frame["day"] % 3
    frame.to_parquet(sales)
    words = ["--by", "store", "--target", "kind", "--features", "price,day", "--loss", "cross_entropy", "--epochs", "1"]
    assert main(["fleet", str(sales), *words, "--out", str(tmp_path / "f.safetensors")]) == 0
    assert "3 of 3 models trained" in capsys.readouterr().out
    made = fleet.Fleet.load(tmp_path / "f.safetensors", factory(files.notes(tmp_path / "f.safetensors")))
    assert made.predict("1", np.zeros((2, 2))).shape == (2, 3)


def test_forecasts_without_rows_held_out_are_ordered_by_the_training_loss(sales: Path, tmp_path: Path) -> None:
    page, figures = tmp_path / "f.html", tmp_path / "f.json"
    frame = pd.read_parquet(sales)
    t = frame["day"].to_numpy()
    worst = frame.assign(store=0, sales=np.where(t % 2, 50.0, -50.0) * (t % 7))[:120]
    pd.concat([worst, frame]).to_parquet(sales)
    words = [*WORDS, *SERIES[:-2], "--hold-out", "0", "--html", str(page), "--json", str(figures), "--quiet"]
    assert main(["fleet", str(sales), *words]) == 0
    losses = {row["key"]: row["loss"] for row in json.loads(figures.read_text())["rows"] if not row["cause"]}
    said = page.read_text()
    assert "training loss" in said and "nan" not in said
    order = sorted(losses, key=lambda key: losses[key])
    drawn = said[said.index("best keys") :]
    places = [drawn.index(f">{key}<") for key in order]
    assert order != list(losses) and places == sorted(places)


def test_windows_over_gaps(sales: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = pd.read_parquet(sales)
    frame[frame["day"] != 60].to_parquet(sales)
    for gaps, said in (("skip", "left out"), ("join", "like others")):
        assert main(["fleet", str(sales), *WORDS, *SERIES, "--time", "day", "--gaps", gaps]) == 0
        assert said in " ".join(capsys.readouterr().out.split())


def test_new_rows_of_which_none_is_learned_are_a_failure(
    sales: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    out = tmp_path / "f.safetensors"
    words = [*WORDS, *SERIES, "--time", "day", "--out", str(out), "--quiet"]
    assert main(["fleet", str(sales), *words]) == 0
    frame = pd.read_parquet(sales)
    other, same = tmp_path / "other.parquet", tmp_path / "same.parquet"
    frame.assign(sales=frame["sales"] + 1).to_parquet(other)
    frame[frame["store"] < 3].to_parquet(same)
    for _ in range(2):  # the second time as well: they were not learned
        assert main(["fleet", str(out), "--update", str(other)]) == 1
        assert "not learned, 1: 120 of its 120 new rows" in " ".join(capsys.readouterr().out.split())
    assert main(["fleet", str(out), "--update", str(same)]) == 0
    assert "are not learned again: 240 rows (1: 120)" in " ".join(capsys.readouterr().out.split())


def test_a_file_without_rows_is_no_failure_and_leaves_no_mark(sales: Path, tmp_path: Path) -> None:
    frame, out, new, none = (pd.read_parquet(sales), *(tmp_path / n for n in ("f.safetensors", "new.csv", "none.csv")))
    frame[frame["day"] < 90].to_parquet(sales)
    frame[frame["day"] >= 90].to_csv(new, index=False)
    frame[:0].to_csv(none, index=False)
    assert main(["fleet", str(sales), *WORDS, *SERIES, "--out", str(out), "--quiet"]) == 0
    for path in (new, none, new):
        assert main(["fleet", str(out), "--update", str(path), "--quiet"]) == 0
    assert [update["rows"] for update in fleet.Fleet.load(out).summary().updates] == [60, 0]


def test_rows_in_a_folder_and_a_name_in_capitals(sales: Path, tmp_path: Path) -> None:
    frame = pd.read_parquet(sales)
    folder, new, out = tmp_path / "old.parquet", tmp_path / "new.parquet", tmp_path / "f.safetensors"
    for part, days in ((folder, frame["day"] < 90), (new, frame["day"] >= 90)):
        part.mkdir()
        frame[days].to_parquet(part / "part-0.parquet")
    assert main(["fleet", str(folder), *WORDS, *SERIES, "--out", str(out), "--quiet"]) == 0
    for _ in range(2):
        assert main(["fleet", str(out), "--update", str(new), "--quiet"]) == 0
    assert len(fleet.Fleet.load(out, factory(files.notes(out))).summary().updates) == 1
    assert main(["fleet", str(sales.rename(tmp_path / "SALES.PARQUET")), *WORDS, *SERIES, "--quiet"]) == 0


def test_a_fleet_of_the_commands_own_models_is_loaded_without_a_factory(sales: Path, tmp_path: Path) -> None:
    out = tmp_path / "f.safetensors"
    for words in ([*SERIES, "--model", "gru"], ["--features", "price,day"]):
        assert main(["fleet", str(sales), *WORDS, *words, "--out", str(out), "--quiet"]) == 0
        assert weights(fleet.Fleet.load(out)) == bits(out)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "README.md",
            b"# sales, and more\n\nstore\n",
            "there is no column 'store' in its first line, '# sales, and more'",
        ),
        ("sales.xlsx", b"PK\x03\x04\0\0", "it is no text"),
        ("sales.parquet", b"store,day,sales\n", "it does not begin as Parquet does"),
        ("sales.csv.gz", b"store,day,sales\n", "Not a gzipped file"),
        ("empty.csv", b"", "there is no column 'store' in its first line, ''"),
    ],
)
def test_what_is_no_file_of_rows_is_told_before_anything_is_needed_to_read_it(
    name: str, content: bytes, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for module in ("pyarrow", "pyarrow.csv", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    (tmp_path / name).write_bytes(content)
    words = ["--by", "store", "--target", "sales", "--window", "8", "--horizon", "2"]
    assert main(["fleet", str(tmp_path / name), *words]) == 2
    told = capsys.readouterr().err
    assert f"cannot read {tmp_path / name}" in told and said in told and "pyarrow" not in told
    (tmp_path / "good.csv").write_text('"day","store","sales"\n1,a,2\n')
    assert main(["fleet", str(tmp_path / "good.csv"), *words]) == 2
    assert "pyarrow, which is not installed" in capsys.readouterr().err


def test_arguments_are_read() -> None:
    asked = parse(["fleet", "f.csv", "--by", "a", "--target", "b", "--features", "x, y", "--shortest-first"])
    assert asked.command == "fleet" and asked.options is not None
    assert asked.options.features == ["x", "y"] and asked.options.shortest_first


def test_the_line_of_progress() -> None:
    from hasten.fleet import Progress

    line = report.progress_line(Progress(10, 4, 2, 1, 1, 2.0, 3.5, 6.0, 80.0))
    assert "4 of 10 done" in line and "4 waiting" in line and "40× one at a time" in line and "6 s left" in line
