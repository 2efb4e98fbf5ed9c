"""``hasten solve``: what it prints and writes, and how it refuses."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import RidgeCV

from hasten.cli.main import main
from hasten.solve import Moments, command
from hasten.solve.command import Spent
from hasten.solve.source import Block
from tests.report.forms import faults, stored
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
    form = stored("schema_solve.json")
    assert faults(found, form, form) == []
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
    for kind in ("object", "category"):
        frame.astype({"kind": kind}).to_parquet(data)
        assert main(["solve", str(data), "--target", "kind"]) == 2
        assert "y contains NaN: row 7, column 'kind'" in capsys.readouterr().err
    frame.drop(index=7).to_parquet(data)
    model, more = data.with_name("m"), data.with_name("more.parquet")
    assert main(["solve", str(data), "--target", "kind", "--save", str(model), "--quiet"]) == 0
    frame.to_parquet(more, row_group_size=5)
    assert main(["solve", str(more), "--update", str(model)]) == 2
    assert "y contains NaN: row 7, column 'kind'" in capsys.readouterr().err


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


def test_a_file_is_learned_once(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "model.safetensors"
    solve(data, "--target", "y", "--features", "a", "c", "--save", model, into=tmp_path / "a.json")
    more = tmp_path / "more.parquet"
    pd.read_parquet(data).iloc[:100].to_parquet(more)
    assert solve(more, "--update", model, into=tmp_path / "b.json")["rows"] == 700
    before = model.read_bytes()
    for again in (more, data, more.rename(tmp_path / "other-name.parquet")):
        if again.exists():
            assert main(["solve", str(again), "--update", str(model), "--quiet"]) == 2
            assert "learned before" in capsys.readouterr().err and model.read_bytes() == before


def test_update_takes_the_same_columns_of_a_npy(tmp_path: Path) -> None:
    X, y = table(200, 3)
    for k in range(2):
        np.save(tmp_path / f"{k}.npy", np.column_stack([X, y])[k::2])
    solve(tmp_path / "0.npy", "--features", "2,0", "--save", tmp_path / "m", into=tmp_path / "a.json")
    both = solve(tmp_path / "1.npy", "--update", tmp_path / "m", into=tmp_path / "b.json")
    assert both["rows"] == 200 and both["features"] == 2


@pytest.mark.parametrize("rows", [1, 2, 5, 9])
def test_few_rows_are_enough(data: Path, tmp_path: Path, rows: int, capsys: pytest.CaptureFixture[str]) -> None:
    few, model = tmp_path / "few.parquet", tmp_path / "m"
    pd.read_parquet(data).iloc[-rows:].to_parquet(few)
    assert main(["solve", str(few), "--target", "y", "--features", "a", "c", "--save", str(model)]) == 0
    assert "nan" not in capsys.readouterr().err
    assert solve(data, "--update", model, into=tmp_path / "b.json")["rows"] == 600 + rows


def test_no_rows_are_refused(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pd.read_parquet(data).iloc[:0].to_parquet(data)
    assert main(["solve", str(data), "--target", "y"]) == 2
    assert "there are no rows" in capsys.readouterr().err


def test_a_target_alone_is_refused(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pd.read_parquet(data)[["y"]].to_parquet(data)
    assert main(["solve", str(data), "--target", "y"]) == 2
    assert "no column to predict from" in capsys.readouterr().err


@pytest.mark.parametrize("words", ["DATA --features a,c", "--features a c DATA", "--features a, c DATA"])
def test_features_in_a_list_and_before_the_file(data: Path, tmp_path: Path, words: str) -> None:
    given = [str(data) if word == "DATA" else word for word in words.split()]
    assert solve("--target", "y", *given, into=tmp_path / "o.json")["features"] == 2


def test_a_full_disk_costs_the_file_and_not_the_answer(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    model = tmp_path / "model"
    monkeypatch.setattr("hasten.solve.storage._write", full)
    words = ["solve", str(data), "--target", "y", "--save", str(model), "--json", str(tmp_path / "o.json")]
    assert main(words) == 1
    told = capsys.readouterr().err
    assert "leave-one-out R²" in told and "saved to" not in told
    assert "No space left on device" in told and "usual cause: the disk is full" in told
    assert json.loads((tmp_path / "o.json").read_text(encoding="utf-8"))["saved"] == ""


@pytest.mark.parametrize("option", ["--save", "--json", "--checkpoint"])
def test_ways_out_are_those_of_the_command(data: Path, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["solve", str(data), "--target", "y", option, "/proc/no/x"]) == 2
    assert main(["solve", str(data), "--target", "y", option, "/proc/x"]) == 2
    told = capsys.readouterr().err
    assert told.count("cannot write") == 2 and "plan" not in told


SLOW = """
import time
from hasten.cli.main import main
from hasten.solve import Moments
from hasten.solve import Moments
real = Moments._add_block
def slowly(self, *args):
    time.sleep(0.2)
    real(self, *args)
Moments._add_block = slowly
raise SystemExit(main())
"""


@pytest.mark.parametrize("stop", ["budget", "interrupt"])
def test_what_was_read_is_kept_when_the_pass_is_stopped(tmp_path: Path, stop: str) -> None:
    X, y = table(60_000, 3)
    data, state = tmp_path / "data.parquet", tmp_path / "state"
    pd.DataFrame(X, columns=list("abc")).assign(y=y).to_parquet(data)
    (tmp_path / ".state.0a1b2c3d").write_text("of a save that was killed")
    words = [sys.executable, "-c", SLOW, "solve", str(data), "--target", "y", "--checkpoint", str(state)]
    more = ["--budget", "0.3"] if stop == "budget" else []
    child = subprocess.Popen([*words, *more], stderr=subprocess.PIPE, text=True, preexec_fn=_python_hears_interrupts)
    if stop == "interrupt":
        while (tmp_path / ".state.0a1b2c3d").exists() and child.poll() is None:
            time.sleep(0.01)
        time.sleep(0.2)
        child.send_signal(signal.SIGINT)
    told = child.communicate()[1]
    assert child.returncode == (2 if stop == "budget" else -signal.SIGINT), told
    assert str(state) in told and state.exists()
    assert Moments.load(state).n < 60_000
    assert main(["solve", str(data), "--target", "y", "--checkpoint", str(state), "--save", str(tmp_path / "m")]) == 0
    assert Moments.load(tmp_path / "m").n == 60_000 and not list(tmp_path.glob("*state*"))


def _python_hears_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where pytest runs in the background


def test_the_table_and_the_text_tell_the_same_error(data: Path, tmp_path: Path) -> None:
    """What was done looked worse than what was not, which did not count the residual."""
    found = solve(data, "--target", "y", into=tmp_path / "o.json")
    errors = {method["name"]: method["error"] for method in found["methods"]}  # type: ignore[attr-defined]
    assert found["method"] == "Gram in float64, refined" and errors[str(found["method"])] == found["error"]
    assert errors["TSQR stream"] == pytest.approx(found["error"])
    assert min(errors.values()) >= float(found["error"]) * (1 - 1e-9)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "words",
    [
        ["--target", "nothing"],
        [],
        ["--target", "y", "--budget", "-1"],
        ["--target", "kind", "--task", "regression"],
        ["--update", "no-such-file"],
        ["--target", "y", "--update", "m", "--features", "a"],
        ["--target", "y", "--features", "a", "y"],
    ],
)
def test_refusals_say_what_to_change(data: Path, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["solve", str(data), *words]) == 2
    told = capsys.readouterr().err
    assert "try:" in told and "script" not in told


@pytest.mark.parametrize(
    "labels",
    [
        lambda y: y > 3,
        lambda y: np.where(y > 3, "found", "missing"),
        lambda y: pd.array(np.where(y > 3, 1, 0), dtype="Int64"),
        lambda y: np.where(y > 3, 1.0, 0.5),
        lambda y: np.where(y > 3, "two\nlines", ""),
    ],
)
def test_classes_of_any_kind(data: Path, tmp_path: Path, labels: Callable[[object], object]) -> None:
    frame = pd.read_parquet(data)[["a", "c", "y"]]
    frame.assign(y=labels(frame["y"].to_numpy())).to_parquet(data)
    words = ["--target", "y", "--task", "classification", "--save", tmp_path / "m"]
    assert solve(data, *words, into=tmp_path / "o.json")["metric"] == "accuracy"
    more = tmp_path / "more.parquet"
    pd.read_parquet(data).iloc[:99].to_parquet(more)
    assert solve(more, "--update", tmp_path / "m", into=tmp_path / "o.json")["rows"] == 699


def test_what_does_not_fit_the_saved_task_is_told(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame, model = pd.read_parquet(data)[["a", "kind"]], tmp_path / "m"
    frame.to_parquet(data)
    solve(data, "--target", "kind", "--save", model, into=tmp_path / "o.json")
    frame.assign(kind=frame["kind"].replace("low", "none")).to_parquet(data)
    assert main(["solve", str(data), "--update", str(model)]) == 2
    assert "the label 'none' of 'kind' is none of the classes high, low" in capsys.readouterr().err
    frame.assign(kind=2**60).to_parquet(data)
    assert main(["solve", str(data), "--target", "kind", "--task", "classification"]) == 2
    assert "cannot tell apart" in capsys.readouterr().err
    frame.to_parquet(data)
    assert main(["solve", str(data), "--update", str(model), "--task", "regression"]) == 2
    np.save(tmp_path / "d.npy", np.eye(5))
    assert main(["solve", str(tmp_path / "d.npy"), "--task", "classification"]) == 2
    told = capsys.readouterr().err
    assert "of another task" in told and "without names of classes" in told


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "there are no rows"),
        (b"a,b,y\n", "there are no rows"),
        (b"a,y\n1,u\n2,u\n", "'y' holds one class only: 'u'"),
        (b"a;y\n1;2\n2;3\n", "semicolons between fields"),
        (b"a,t,y\n1,s\xfcd,2\n2,s\xfcd,3\n", "not UTF-8"),
        (b"a,t,y\n1,,2\n2,,3\n", "column 't' holds no value at all"),
        (b"a,y\n1,1e-200\n2,2e-200\n3,0\n", "the target 'y' varies by less"),
    ],
)
def test_files_that_cannot_be_learned_from(
    tmp_path: Path, content: bytes, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "d.csv").write_bytes(content)
    assert main(["solve", str(tmp_path / "d.csv"), "--target", "y"]) == 2
    assert words in capsys.readouterr().err


def test_an_update_reads_categories_as_texts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, more, model = tmp_path / "a.csv", tmp_path / "b.csv", tmp_path / "m"
    first.write_text("a,t,y\n1,x,1\n2,3,2\n3,x,4\n5,1,1\n")
    solve(first, "--target", "y", "--save", model, into=tmp_path / "o.json")
    more.write_text("a,t,y\n1,3,1\n2,1,2\n")  # numbers only
    assert solve(more, "--update", model, into=tmp_path / "o.json")["rows"] == 6
    assert Moments.load(model).names == ["a", "t=x", "t=3", "t=1"]
    more.write_text("a,t,y\n,3,1\n,1,2\n")  # nothing but gaps
    assert solve(more, "--update", model, into=tmp_path / "o.json")["rows"] == 8
    assert Moments.load(model).names[-1] == "a is missing"
    more.write_text("a,t,y\nfoo,3,1\n2,1,2\n")
    assert main(["solve", str(more), "--update", str(model)]) == 2
    assert "column 'a' holds texts in these rows, and numbers in earlier ones" in capsys.readouterr().err


def test_a_score_that_is_not_known_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pd.DataFrame({"a": np.arange(9.0), "y": 5.0}).to_csv(tmp_path / "d.csv", index=False)
    assert main(["solve", str(tmp_path / "d.csv"), "--target", "y"]) == 0
    assert "R²  –   the target does not vary" in capsys.readouterr().err


def test_names_with_commas_and_blanks(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named = tmp_path / "my data.parquet"
    frame = pd.read_parquet(data)[["a", "b", "c", "y"]].rename(columns={"a": "a, net", "b": 'b "x"', "y": "y in €"})
    frame.to_parquet(named)
    assert main(["solve", str(named), "--target", "y in €", "--features", '"a, net",c', 'b "x"']) == 0
    told = capsys.readouterr().err
    assert "4 features" in told and f"hasten solve '{named}' --target 'y in €'" in told


def test_the_budget_holds_after_the_pass(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hasten.solve.command.Timed.blocks", spent)
    found = solve(data, "--target", "y", "--features", "a", "c", "--budget", "60", into=tmp_path / "o.json")
    assert found["validation"] == "10-fold" and found["rows"] == 600 and float(found["score"]) > 0.5  # type: ignore[arg-type]


def spent(*_: object) -> Iterator[Block]:
    raise Spent
    yield


def test_an_interrupt_after_the_pass_keeps_it(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    state = tmp_path / "state"
    words = ["solve", str(data), "--target", "y", "--features", "a", "c", "--checkpoint", str(state)]
    with monkeypatch.context() as patch:
        patch.setattr("hasten.solve.command._fitted", stopped)
        with pytest.raises(KeyboardInterrupt, match="all rows are kept"):
            command.solve(str(data), "y", features=["a", "c"], checkpoint=str(state))
    assert Moments.load(state).n == 600
    assert main([*words[:-2], "b", "--checkpoint", str(state)]) == 2  # other columns
    assert "other settings" in capsys.readouterr().err and state.exists()
    with monkeypatch.context() as patch:
        patch.setattr(Moments, "_add_block", stopped)  # no row is read again
        assert main(words) == 0
    assert not state.exists()


def test_a_full_disk_costs_the_checkpoint_and_not_the_pass(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("hasten.solve.storage._write", full)
    assert main(["solve", str(data), "--target", "y", "--checkpoint", str(data.parent / "state"), "--quiet"]) == 0
    assert capsys.readouterr().err.startswith("hasten: the pass goes on")


def test_coefficients_say_which_class_they_speak_for(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those of two classes were of the first one, unsaid: signs were the other way round."""
    frame = pd.read_parquet(data)[["a", "y"]]
    frame.assign(y=np.where(frame["a"] > 0, "yes", "no")).to_parquet(data)
    assert main(["solve", str(data), "--target", "y", "--json", str(tmp_path / "o.json")]) == 0
    assert "largest coefficients of y=yes" in capsys.readouterr().err
    found = json.loads((tmp_path / "o.json").read_text(encoding="utf-8"))
    assert found["outcome"] == "y=yes" and found["coefficients"][0]["value"] > 0
    frame.to_parquet(data)
    assert solve(data, "--target", "y", into=tmp_path / "o.json")["outcome"] == "y"


def test_a_budget_that_is_spent_with_the_last_row_gives_nothing_up(data: Path, tmp_path: Path) -> None:
    pd.read_parquet(data).to_csv(tmp_path / "d.csv", index=False)  # whose rows are not counted before
    for path in (data, tmp_path / "d.csv"):
        found = solve(path, "--target", "y", "--budget", "1e-9", into=tmp_path / "o.json")
        assert found["rows"] == 600 and found["validation"] == "10-fold"


def test_an_update_predicts_what_was_saved(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, more = tmp_path / "m", tmp_path / "more.parquet"
    solve(data, "--target", "y", "--features", "a", "c", "--save", model, into=tmp_path / "o.json")
    pd.read_parquet(data).iloc[:50].to_parquet(more)
    assert main(["solve", str(more), "--update", str(model), "--target", "a"]) == 2
    assert "--target a\n" in (told := capsys.readouterr().err) and "predict 'y'" in told
    assert solve(more, "--update", model, "--target", "y", into=tmp_path / "o.json")["rows"] == 650


def test_one_row_more_is_one_of_the_first_fold(data: Path, tmp_path: Path) -> None:
    model, one = tmp_path / "m", tmp_path / "one.parquet"
    solve(data, "--target", "y", "--features", "a", "c", "--save", model, into=tmp_path / "o.json")
    pd.read_parquet(data)[:1].assign(a=5.0).to_parquet(one)
    assert solve(one, "--update", model, into=tmp_path / "o.json")["rows"] == 601
    assert Moments.load(model).parts.rows.tolist() == [61, *[60] * 9]
