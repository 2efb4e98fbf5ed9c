"""What surrounds a script: descriptors, streams, processes of its own, libraries that look for torch, full disks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import hasten
from hasten.cli import main as cli
from hasten.cli.arguments import parse
from hasten.core.errors import UsageError
from tests.cli.test_main import ENVIRONMENT, TRAINING, ours, python, script


def test_torch_is_watched_where_a_library_has_looked_for_it_before(tmp_path: Path) -> None:
    looks = "import importlib.util\nassert importlib.util.find_spec('torch') is not None\n"
    done = ours("explain", "--no-ceilings", script(tmp_path, looks + TRAINING), cwd=tmp_path)
    assert "of 40 steps watched" in done.stderr


@pytest.mark.parametrize("ends", ["", " 2>&-", " >&- 2>&-", " <&-"])
def test_streams_may_be_closed(tmp_path: Path, ends: str) -> None:
    name = script(tmp_path, "import os, sys\nos.open(os.devnull, 0)\nsys.exit(7)")
    line = f"{sys.executable} -m hasten explain {name}{ends}"
    assert subprocess.run(line, shell=True, cwd=tmp_path, env=ENVIRONMENT, capture_output=True).returncode == 7


def test_descriptors_that_the_shell_has_opened_reach_the_script(tmp_path: Path) -> None:
    name = script(tmp_path, "import sys; print(open(sys.argv[1]).read())")
    near, far = os.pipe()
    os.write(far, b"lr: 0.1")
    os.close(far)
    try:
        done = ours("explain", "--quiet", name, f"/dev/fd/{near}", cwd=tmp_path, pass_fds=(near,))
    finally:
        os.close(near)
    assert (done.stdout, done.stderr) == ("lr: 0.1\n", "")


def test_a_process_that_the_script_has_forked_is_watched(tmp_path: Path) -> None:
    body = "".join(f"    {line}\n" for line in TRAINING.splitlines())
    forks = (
        "import multiprocessing, sys, torch\ndef train():\n" + body + "process = multiprocessing.get_context('fork')"
        ".Process(target=train)\nprocess.start()\nprocess.join()\nprint(process.exitcode)"
    )
    done = ours("explain", "--no-ceilings", script(tmp_path, forks), cwd=tmp_path)
    assert "of 40 steps watched" in done.stderr
    assert done.stdout == python("t.py", cwd=tmp_path).stdout


def test_nothing_is_said_where_the_script_would_read_it(tmp_path: Path) -> None:
    """A program that it starts, with an stderr of its own."""
    script(tmp_path, TRAINING)
    starts = "import subprocess, sys\nprint(subprocess.run([sys.executable, 't.py'], capture_output=True, text=True))\n"
    name = script(tmp_path, starts, "starts.py")
    done = ours("explain", "--no-ceilings", name, cwd=tmp_path)
    assert done.stdout == python(name, cwd=tmp_path).stdout
    assert "of 40 steps watched" in done.stderr


def test_a_program_that_outlives_the_command_is_left_alone(tmp_path: Path) -> None:
    from hasten.boot.agent import Session
    from hasten.seams.launch import environment

    gone = tmp_path / "gone"
    script(tmp_path, "print('torch')", "torch.py")
    done = subprocess.run(
        [sys.executable, script(tmp_path, "import torch")],
        cwd=tmp_path,
        env=environment(gone, ENVIRONMENT),
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "torch\n", "")
    Session(gone, {}, 0).write("trace", {})
    assert not gone.exists()


def test_the_script_is_begun_anew_where_it_was_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In throw-away processes, also where the script has changed its folder before it imports torch."""
    from hasten.boot.agent import Session

    monkeypatch.chdir(tmp_path)
    assert Session(tmp_path, {"cwd": "/where/it/was/typed"}, 0).cwd == "/where/it/was/typed"


@pytest.mark.parametrize("steps", [7, pytest.param(30, marks=pytest.mark.slow)])
def test_the_script_is_stopped_after_as_many_steps_as_asked_for(tmp_path: Path, steps: int) -> None:
    text = TRAINING.replace("range(40)", "range(100_000)").replace(
        "    optimizer.step()\n", "    optimizer.step(TAKEN())\n"
    )
    taken = "import atexit\ntaken = []\ndef TAKEN():\n    taken.append(1)\natexit.register(lambda: print(len(taken)))\n"
    done = ours("explain", "--no-ceilings", "--steps", str(steps), script(tmp_path, taken + text), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"{steps}\n")
    assert f"stopped after {steps} steps as asked" in done.stderr


def test_descriptors_are_written_and_not_replaced(tmp_path: Path) -> None:
    """``--json >(command)``, and ``/dev/stdout`` where that is a file with the script's words."""
    near, far = os.pipe()
    cli.output.check(f"/dev/fd/{far}")
    cli.output.write(f"/dev/fd/{far}", "x")
    os.close(far)
    assert os.read(near, 9) == b"x"
    os.close(near)
    with open(tmp_path / "out", "w") as out:
        out.write("the script's\n")
        out.flush()
        cli.output.write(f"/dev/fd/{out.fileno()}", "ours\n")
    assert (tmp_path / "out").read_text() == "the script's\nours\n"


def test_without_room_for_what_is_measured_nothing_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any) -> str:
        raise OSError(28, "No space left on device", "/tmp/hasten-x")

    monkeypatch.setattr("hasten.seams.launch.folder_in", full)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["explain", script(tmp_path, "open('ran', 'w')")]) == 2
    assert "No space left on device (/tmp/hasten-x)" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()


def ascii_only(*words: str, cwd: Path) -> subprocess.CompletedProcess[bytes]:
    env = {**ENVIRONMENT, "PYTHONIOENCODING": "ascii"}
    return subprocess.run([sys.executable, "-m", "hasten", *words], cwd=cwd, env=env, capture_output=True)


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["rule"], ["rule", "D103"], ["rule", "S502"]])
def test_help_can_be_read_in_any_encoding(tmp_path: Path, words: list[str]) -> None:
    done = ascii_only(*words, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"") and len(done.stdout) > 200


def test_a_page_on_stdout_is_in_the_encoding_that_it_names(tmp_path: Path) -> None:
    done = ascii_only("explain", "--quiet", "--html", "-", script(tmp_path, "print('hello')"), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    first, page = done.stdout.decode("utf-8").split("\n", 1)
    assert first == "hello" and 'charset="utf-8"' in page and "t.py · hasten</title>" in page


def test_nothing_is_said_where_nobody_reads_any_more(tmp_path: Path) -> None:
    near, far = os.pipe()
    os.close(near)
    words = [sys.executable, "-m", "hasten", "rule"]
    env = {name: value for name, value in ENVIRONMENT.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(words, cwd=tmp_path, env=env, stdout=far, stderr=subprocess.PIPE)
    os.close(far)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_script_that_is_a_pipe_is_run_whole(tmp_path: Path) -> None:
    for command in ("explain", "run --no-save-plan"):
        line = f"{sys.executable} -m hasten {command} <(echo 'print(6 * 7)')"
        done = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, "42\n"), command


def test_a_script_whose_name_begins_with_a_dash(tmp_path: Path) -> None:
    name = script(tmp_path, "import sys; print(sys.argv)", "-t.py")
    done = ours("explain", "--", name, "-x", cwd=tmp_path)
    assert done.stdout == python("--", name, "-x", cwd=tmp_path).stdout == "['-t.py', '-x']\n"


def test_a_plan_of_the_folder_itself_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse(["run", "."]).save_plan == f"{tmp_path.name}.hasten.json"


def test_arguments_in_one_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / script(tmp_path, "open('ran', 'w')")
    with pytest.raises(UsageError, match=r"args=\['--epochs', '2'\]"):
        hasten.explain(path, "--epochs 2")


def test_two_results_of_one_command_are_two_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, here = str(tmp_path / "d.csv"), str(tmp_path / "x.safetensors")
    assert cli.main(["fleet", data, "--by", "a", "--target", "b", "--html", here, "--out", here]) == 2
    assert f"--html and --out go to {here}" in capsys.readouterr().err
    assert cli.main(["solve", data, "--target", "b", "--json", here, "--save", f"{tmp_path}/./x.safetensors"]) == 2
    assert "--json and --save go to" in capsys.readouterr().err
