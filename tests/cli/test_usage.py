"""Wrong usage: what is said, and that nothing is run."""

from __future__ import annotations

from pathlib import Path

import pytest

from hasten.cli import main as cli
from hasten.core.errors import UsageError
from tests import samples
from tests.cli.test_main import script


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["explain"], "`explain` needs the script to run"),
        (["explain", "-m"], "no module is named after -m"),
        (["explain", "folder"], "folder is a folder without a __main__.py"),
        (["explain", "--json", "", "t.py"], "argument --json: the file's name is empty"),
        (["run", "--html=", "t.py"], "argument --html: the file's name is empty"),
        (["explain", "--jsno", "x", "t.py"], "try: hasten explain --help"),
        (["run", "--only", "LoaderWorker", "t.py"], "try: LoaderWorkers\n"),
        (["run", "--plan", "none.json", "t.py"], "the plan none.json: No such file or directory"),
        (["run", "--plan", "folder", "t.py"], "the plan folder: Is a directory"),
        (["run", "--plan", "foreign.json", "t.py"], "the plan foreign.json: its JSON is of something else"),
        (["run", "--plan", "part.json", "t.py"], "the plan part.json: it is no plan, or was edited: script is missing"),
        (["t.py", "--epochs", "2"], "try: hasten explain t.py"),
        (["--quiet", "explain", "t.py"], "try: hasten explain --quiet t.py"),
        (["fleet", "rows.csv", "--epochs", "-1"], "argument --epochs: '-1' is no whole number from 1 on"),
        (["fleet", "rows.csv", "--hold-out", "3"], "argument --hold-out: '3' is no share"),
        (["fleet", "rows.csv", "--lr", "fast"], "argument --lr: 'fast' is no number above 0"),
        (["explain", "none.py"], "there is no file 'none.py'"),
        (["explain", "--jsno", "x", "t.py"], "unrecognized arguments: --jsno"),
        (["explain", "--steps", "0", "t.py"], "is no number of steps"),
        (["explain", "--json", "no/folder/x.json", "t.py"], "there is no folder"),
        (["explain", "--html", ".", "t.py"], "it is a folder"),
        (["run", "--save-plan", "no/p.json", "t.py"], "there is no folder"),
        (["run", "--save-plan", "/dev/null", "t.py"], "it is no plain file"),
        (["run", "--allow", "anything", "t.py"], "invalid choice"),
        (["run", "--budget", "-1", "t.py"], "is no number of seconds"),
        (["run", "--only", "Magic", "t.py"], "there is no remedy 'Magic'"),
        (["run", "--plan", "torn.json", "t.py"], "cannot read the plan torn.json: it is no JSON, or cut short"),
        (["run", "--plan", "other.json", "t.py"], "the plan no longer applies: the script changed"),
        (["run", "--plan", "p.json", "--save-plan", "q.json", "t.py"], "--save-plan is for trials"),
        (["run", "--plan", "p.json", "--allow", "identical", "t.py"], "--allow is for trials"),
        (["run", "--budget", "0", "--plan", "p.json", "t.py"], "--budget is for trials"),
        (["explain", "--json", "-", "--html", "-", "t.py"], "go to -"),
        (["run", "--json", "x", "--save-plan", "x", "t.py"], "go to x"),
        (["exlpain", "t.py"], "there is no command 'exlpain'"),
        (["rule", "D999"], "there is no rule 'D999'"),
    ],
)
def test_wrong_usage_is_said_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    script(tmp_path, "open('ran', 'w')")
    (tmp_path / "folder").mkdir()
    (tmp_path / "part.json").write_text('{"schema": 1, "steps": []}')
    (tmp_path / "foreign.json").write_text('{"a": 1}')
    (tmp_path / "torn.json").write_text('{"schema": 1, "script"')
    samples.plan().save(tmp_path / "other.json")
    assert cli.main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("hasten: ") and said in error and "\n  try: " in error
    assert not (tmp_path / "ran").exists()


def test_an_unwritable_folder_is_found_before_the_script_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("hasten.cli.output.tempfile.TemporaryFile", full)
    with pytest.raises(UsageError, match="Read-only file system"):
        cli.output.check(str(tmp_path / "r.json"))


def test_a_device_is_written_and_not_replaced() -> None:
    cli.output.check("/dev/null")
    cli.output.write("/dev/null", "x")
    assert not Path("/dev/null").is_file()


def test_a_link_is_followed_and_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text("old")
    (tmp_path / "link.json").symlink_to("real.json")
    cli.output.write(str(tmp_path / "link.json"), "new")
    assert (tmp_path / "link.json").is_symlink() and (tmp_path / "real.json").read_text() == "new"
