"""The command line through its own door: the script behaves as without hasten, whatever happens."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import hasten
from hasten.cli import main as cli
from hasten.cli.arguments import Asked, parse
from hasten.core.codec import encode
from tests import samples
from tests.report.forms import faults, stored

SOURCE = str(Path(hasten.__file__).parent.parent)
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [SOURCE, os.environ.get("PYTHONPATH")]))}
TRAINING = """
import sys, torch
torch.manual_seed(0)
torch.set_num_threads(1)
model = torch.nn.Linear(8, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for step in range(40):
    optimizer.zero_grad()
    loss = model(torch.ones(4, 8)).square().mean()
    loss.backward()
    optimizer.step()
print("loss", loss.item(), sys.argv[1:])
sys.exit(7)
"""
Done = subprocess.CompletedProcess[str]


def python(*words: str, cwd: Path, **options: Any) -> Done:
    return subprocess.run(
        [sys.executable, *words], cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=120, **options
    )


def ours(*words: str, cwd: Path, **options: Any) -> Done:
    return python("-m", "hasten", *words, cwd=cwd, **options)


def script(folder: Path, text: str, name: str = "t.py") -> str:
    (folder / name).write_text(text)
    return name


# -- the script stays as it is --------------------------------------------------------------------------------------


def test_everything_behind_the_script_is_the_scripts(tmp_path: Path) -> None:
    name = script(tmp_path, "import sys; print(sys.argv, __name__, __file__)")
    words = [name, "--json", "x", "--help", "-m", "--", "run", ""]
    done = ours("explain", *words, cwd=tmp_path)
    assert done.stdout == python(*words, cwd=tmp_path).stdout
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize(
    "text", ["import sys; sys.exit(7)", "import sys; sys.exit('no')", "import os; os._exit(3)", "1"]
)
def test_the_exit_code_is_the_scripts(tmp_path: Path, text: str) -> None:
    name = script(tmp_path, text)
    assert ours("explain", name, cwd=tmp_path).returncode == python(name, cwd=tmp_path).returncode


def test_a_traceback_is_shown_as_python_shows_it(tmp_path: Path) -> None:
    name = script(
        tmp_path,
        "def f():\n    return {}['a']\ntry:\n    f()\nexcept KeyError as e:\n    raise ValueError('é') from e\n",
    )
    plain, done = python(name, cwd=tmp_path), ours("explain", name, cwd=tmp_path)
    assert done.stderr.startswith(plain.stderr) and "ValueError" in plain.stderr
    assert done.returncode == plain.returncode == 1


INTERRUPTS = """
import os, signal, sys
class Interrupts:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "hasten.boot.agent":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupts)
def f():
    import torch
f()
"""


@pytest.mark.parametrize("text", ["raise KeyboardInterrupt", "import nothing_like_it", "raise ValueError(1)", "1 +"])
def test_an_import_of_torch_that_fails_shows_no_frame_of_ours(tmp_path: Path, text: str) -> None:
    script(tmp_path, text, "torch.py")
    name = script(tmp_path, "def f():\n    import torch\nf()")
    plain, done = python(name, cwd=tmp_path), ours("explain", name, cwd=tmp_path)
    assert done.stderr.startswith(plain.stderr) and "Traceback" in plain.stderr


def test_an_interrupt_while_hasten_starts_shows_no_frame_of_ours(tmp_path: Path) -> None:
    script(tmp_path, "", "torch.py")
    done = ours("explain", script(tmp_path, INTERRUPTS), cwd=tmp_path)
    shown = done.stderr[done.stderr.index("Traceback") : done.stderr.index("KeyboardInterrupt")]
    assert [line.split('"')[1].rpartition("/")[2] for line in shown.splitlines() if "File" in line] == ["t.py", "t.py"]


def test_stdin_reaches_the_script(tmp_path: Path) -> None:
    name = script(tmp_path, "print(input()[::-1])")
    assert ours("explain", name, cwd=tmp_path, input="abc\n").stdout == "cba\n"


def test_a_module_is_run_as_python_does(tmp_path: Path) -> None:
    (tmp_path / "pkg").mkdir()
    script(tmp_path / "pkg", "import sys; print(sys.argv[1:], __name__, __package__)", "__main__.py")
    done = ours("explain", "--quiet", "-m", "pkg", "--steps", "3", cwd=tmp_path)
    assert done.stdout == "['--steps', '3'] __main__ pkg\n"
    assert done.stderr == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGABRT])
def test_a_script_ended_by_a_signal_ends_hasten_by_the_same(tmp_path: Path, number: int) -> None:
    name = script(tmp_path, f"import os; os.kill(os.getpid(), {int(number)})")
    done = ours("explain", name, cwd=tmp_path)
    assert done.returncode == -number
    assert f"the script was ended by {signal.Signals(number).name}" in done.stderr


@pytest.mark.parametrize(("number", "whole_group"), [(signal.SIGINT, True), (signal.SIGTERM, False)])
def test_an_interrupted_script_says_goodbye_itself(tmp_path: Path, number: int, whole_group: bool) -> None:
    text = "import time, signal\n" + (
        "signal.signal(signal.SIGTERM, lambda *a: (print('goodbye', flush=True), exit(5)))\n"
        "try:\n    print('ready', flush=True)\n    time.sleep(60)\n"
        "except KeyboardInterrupt:\n    print('goodbye', flush=True)\n    raise\n"
    )
    name = script(tmp_path, text)
    process = subprocess.Popen(
        [sys.executable, "-m", "hasten", "explain", name],
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    time.sleep(0.2)
    os.killpg(process.pid, number) if whole_group else process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert out == "goodbye\n"
    assert process.returncode == (-signal.SIGINT if whole_group else 5)
    assert "\nnext    " in err


# -- what is said ---------------------------------------------------------------------------------------------------


def test_of_a_short_job_half_is_looked_at_and_optimizers_of_one_line_make_one_step(tmp_path: Path) -> None:
    turns = TRAINING.replace(
        "optimizer = torch.optim.SGD(model.parameters(), lr=0.01)",
        "optimizers = [torch.optim.SGD(model.parameters(), lr=0.01 * i) for i in range(1, 5)]",
    ).replace("    optimizer.step()", "    for optimizer in optimizers:\n        optimizer.step()")
    turns = turns.replace("    optimizer.zero_grad()\n", "    model.zero_grad()\n")
    for text in (TRAINING, turns):
        name = script(tmp_path, text)
        done = ours("explain", "--no-ceilings", "--json", "r.json", name, cwd=tmp_path)
        assert "enough was seen after 20 steps" in done.stderr, done.stderr
        assert json.loads((tmp_path / "r.json").read_text())["trace"]["predicted_steps"] == 40
        form = stored("schema.json")
        assert faults(json.loads((tmp_path / "r.json").read_text()), form, form) == []


def test_a_script_that_never_trains_gets_a_clear_message(tmp_path: Path) -> None:
    done = ours("explain", script(tmp_path, "print('hello')"), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "hello\n")
    assert "torch was never imported, so there was no training to explain" in done.stderr


def test_a_disk_that_is_full_is_not_taken_for_a_script_without_torch(tmp_path: Path) -> None:
    full = TRAINING.replace("sys.exit(7)", "").replace("torch.manual_seed(0)", "import resource")
    full = full.replace("for step", "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\nfor step")
    done = ours("explain", script(tmp_path, full), cwd=tmp_path)
    assert done.returncode == 0 and "never imported" not in done.stderr
    assert "nothing of what was seen could be written" in done.stderr


def test_a_script_that_fails_before_it_trains_gets_its_own_command_back(tmp_path: Path) -> None:
    done = ours("explain", script(tmp_path, "raise SystemExit(4)"), "--lr", "1", cwd=tmp_path)
    assert "the script failed before it trained" in done.stderr
    assert done.stderr.rstrip().endswith("next    python t.py --lr 1")


def test_a_script_that_a_signal_ends_during_trials_is_not_said_to_have_failed_before_it_trained(tmp_path: Path) -> None:
    from hasten import api

    assert "SIGTERM ended the script before enough was seen" in api._nothing(tmp_path, -signal.SIGTERM)
    (tmp_path / "trial-x").mkdir()
    assert "SIGKILL ended the script while copies of it were tried" in api._nothing(tmp_path, -signal.SIGKILL)


@pytest.mark.parametrize("where", ["hasten.rules.d101_single_process_loader.RULE", "hasten.report.text.render"])
@pytest.mark.parametrize("debug", ["", "1"])
def test_a_failure_of_ours_after_the_script_has_ended_leaves_its_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], where: str, debug: str
) -> None:
    import importlib

    from hasten import api

    def fails(*_: Any, **__: Any) -> Any:
        raise KeyError("core")

    module, _, name = where.rpartition(".")
    owner = importlib.import_module(module)
    broken = dataclasses.replace(owner.RULE, detect=fails) if name == "RULE" else fails
    monkeypatch.setattr(owner, name, broken)
    monkeypatch.setattr("hasten.rules.all_rules", lambda: (owner.RULE,) if name == "RULE" else ())
    read = api._read
    monkeypatch.setattr(api, "_read", lambda *a: [encode(samples.trace())] if "trace" in a[1] else read(*a))
    monkeypatch.setenv("HASTEN_DEBUG", debug)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["explain", script(tmp_path, "raise SystemExit(7)")]) == 7
    error = capsys.readouterr().err
    said = "the rule D101 failed" if name == "RULE" else "could not write the report"
    assert f"hasten: {said} (KeyError: 'core')" in error
    assert ("Traceback" in error) == bool(debug)
    assert ("where the time goes" in error) == (name == "RULE")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    folder = tmp_path_factory.mktemp("trained")
    name = script(folder, TRAINING)
    words = ["explain", "--no-ceilings", "--json", "r.json", "--html", "r.html", name, "--all"]
    return folder, ours(*words, cwd=folder)


def test_a_training_script_is_explained_on_stderr(trained: tuple[Path, Done]) -> None:
    folder, done = trained
    assert done.returncode == 7
    assert done.stdout == python("t.py", "--all", cwd=folder).stdout
    for words in ("where the time goes", "of 40 steps watched", "ended with exit code 7", "hasten run t.py --all"):
        assert words in done.stderr


def test_the_files_asked_for_are_written(trained: tuple[Path, Done]) -> None:
    folder, _ = trained
    document = json.loads((folder / "r.json").read_text())
    assert (document["kind"], document["exit_code"], document["trace"]["steps"]) == ("explain", 7, 40)
    assert "Where the time goes" in (folder / "r.html").read_text(encoding="utf-8")
    assert sorted(os.listdir(folder)) == ["r.html", "r.json", "t.py"]


def test_quiet_tells_no_progress(tmp_path: Path) -> None:
    name = script(tmp_path, TRAINING.replace("range(40)", "range(400)"))
    words = ["--budget", "1", "--allow", "identical", "--only", "ZeroGradToNone", "--no-save-plan", name]
    told, quiet = (ours("run", *more, *words, cwd=tmp_path) for more in ((), ("--quiet",)))
    assert "hasten: trials took" in told.stderr
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (7, told.stdout, "")


def test_json_on_stdout_follows_the_scripts_own(tmp_path: Path) -> None:
    done = ours("explain", "--quiet", "--json", "-", script(tmp_path, "print('hello')"), cwd=tmp_path)
    first, rest = done.stdout.split("\n", 1)
    assert first == "hello" and json.loads(rest)["trace"] is None and done.stderr == ""


# -- run ------------------------------------------------------------------------------------------------------------


def run_with(monkeypatch: pytest.MonkeyPatch, folder: Path, *words: str, **outcome: Any) -> tuple[int, dict[str, Any]]:
    """`hasten run` whose trials are invented; the arguments they were asked for."""
    asked: dict[str, Any] = {}

    def invented(script: str, args: Any, **options: Any) -> Any:
        asked.update(options, script=script, args=args)
        return samples.result(plan_path="", **outcome)

    monkeypatch.setattr("hasten.api.run", invented)
    monkeypatch.chdir(folder)
    return cli.main(["run", *words]), asked


def test_options_of_run_arrive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [
        "--budget",
        "9.5",
        "--allow",
        "identical",
        "--only",
        "A",
        "--only",
        "B",
        "--skip",
        "C",
        "-m",
        "pkg.train",
        "--plan",
    ]
    _, asked = run_with(monkeypatch, tmp_path, "--quiet", *words)
    assert asked == {
        "script": "pkg.train", "args": ("--plan",), "module": True, "budget": 9.5, "allow": "identical", "plan": None,
        "only": ("A", "B"), "skip": ("C",), "quiet": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "written"),
    [
        ([], ["train.hasten.json"]),
        (["--no-save-plan"], []),
        (["--save-plan", "p.json"], ["p.json"]),
        (["--plan", "given.json"], []),
    ],
)
def test_the_plan_is_saved_where_it_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], written: list[str]
) -> None:
    code, _ = run_with(monkeypatch, tmp_path, *words, "some/train.py")
    assert code == 0
    assert os.listdir(tmp_path) == written


def test_a_plan_without_remedies_is_saved_only_if_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = dataclasses.replace(samples.plan(), steps=())
    run_with(monkeypatch, tmp_path, "train.py", plan=empty)
    assert os.listdir(tmp_path) == []
    run_with(monkeypatch, tmp_path, "--save-plan", "p.json", "train.py", plan=empty)
    assert os.listdir(tmp_path) == ["p.json"]


@pytest.mark.parametrize(("words", "said"), [(["--save-plan", "p.json"], True), ([], False)])
def test_a_plan_that_was_asked_for_and_cannot_be_written_is_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], said: bool
) -> None:
    run_with(monkeypatch, tmp_path, "--quiet", *words, "train.py", plan=None, trials=(), message="too short")
    assert os.listdir(tmp_path) == []
    assert capsys.readouterr().err == ("hasten: no plan was written to p.json: too short\n" if said else "")


def test_a_run_that_is_too_short_for_trials_says_so(tmp_path: Path) -> None:
    name = script(tmp_path, TRAINING.replace("range(40)", "range(3)"))
    done = ours("run", "--save-plan", "p.json", name, cwd=tmp_path)
    assert done.returncode == 7
    why = r"no trials: the script ended after 3 steps, (about )?\d+ too few for a trial; give it more epochs or data"
    assert re.search(f"no plan was written to p.json: {why}", done.stderr)
    done = ours("explain", name, cwd=tmp_path)
    why = r"ended after 3 steps, (about )?\d+ too few to measure them and to ask the data twice"
    assert re.search(f"ceilings – the script {why}", " ".join(done.stderr.split()))


@pytest.mark.parametrize(
    ("strict", "broken", "own", "code"),
    [(True, True, 0, 3), (False, True, 0, 0), (True, False, 0, 0), (True, True, 5, 5)],
)
def test_a_broken_promise_counts_with_strict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strict: bool, broken: bool, own: int, code: int
) -> None:
    words = ["--strict"] if strict else []
    said = ("LoaderWorkers(7) gave other weights",) if broken else ()
    outcome = {"broken": said, "report": samples.report(exit_code=own)}
    assert run_with(monkeypatch, tmp_path, *words, "train.py", **outcome)[0] == code


def test_a_report_that_cannot_be_written_any_more_does_not_lose_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hasten.cli.output.write_atomically", full)
    code, _ = run_with(monkeypatch, tmp_path, "--html", "r.html", "train.py")
    error = capsys.readouterr().err
    assert code == 1
    assert "hasten: could not write r.html: No space left on device" in error
    assert "LoaderWorkers(7)" in error and (tmp_path / "train.hasten.json").exists()


# -- help, version, rules -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "heavy"),
    [
        (["--help"], ("torch", "rich", "numpy")),
        (["run", "--help"], ("torch", "rich", "numpy")),
        (["--version"], ("torch", "rich", "numpy")),
        (["explain", "none.py"], ("torch", "rich", "numpy")),
        (["rule"], ("torch", "rich")),
    ],
)
def test_little_is_loaded_before_it_is_needed(tmp_path: Path, words: list[str], heavy: tuple[str, ...]) -> None:
    code = (
        "import sys\nfrom hasten.cli.main import main\n"
        f"try:\n    main({words!r})\nexcept SystemExit:\n    pass\n"
        f"print('loaded', [m for m in {heavy!r} if m in sys.modules])"
    )
    done = python("-c", code, cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == "loaded []", done.stderr


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in ((["--version"], hasten.__version__), (["--help"], "hasten run"), ([], "examples:")):
        with pytest.raises(SystemExit) as left:
            sys.exit(cli.main(words))
        assert not left.value.code and said in capsys.readouterr().out


def test_rules_are_listed_in_order_and_documented_one_by_one(capsys: pytest.CaptureFixture[str]) -> None:
    from hasten.rules import all_rules

    assert cli.main(["rule"]) == 0
    listed = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[0] for line in listed] == [rule.code for rule in all_rules()]
    assert cli.main(["rule", "m308"]) == cli.main(["rule", "anomaly-mode"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("M308 anomaly-mode\n\nAnomaly detection was left on.") == 2


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["explain", "--steps", "5", "t.py", "--steps", "6"], Asked("explain", "t.py", ("--steps", "6"), steps=5)),
        (["explain", "--json=-", "--", "-t.py", "--"], Asked("explain", "-t.py", ("--",), json="-")),
        (["explain", "--all", "-m", "a.b", "-m"], Asked("explain", "a.b", ("-m",), True, every=True)),
        (["run", "--no-save-plan", "t.py"], Asked("run", "t.py")),
        (["run", "-m", "a.b"], Asked("run", "a.b", (), True, save_plan="b.hasten.json")),
        (["rule", "D101"], Asked("rule", code="D101")),
    ],
)
def test_command_lines(words: list[str], expected: Asked) -> None:
    assert parse(words) == expected
