"""Compiled code is kept for the next runs with the plan: whole or not at all, and only where nobody else may write."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hasten.core.plan import Plan, Step, sha256_of_file
from hasten.measure import machine
from hasten.run import compiled
from tests.scripts.lab import LIMIT, SOURCE

PLAN = Plan("train.py", "ab" * 32, {"torch": "2"}, {"cpu": "x"}, (Step("Compile", {}, "equivalent"),))
SCRIPT = """\
import torch
from torch import nn
net = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
for _ in range(8):
    optimizer.zero_grad()
    net(torch.ones(4, 8)).sum().backward()
    optimizer.step()
counts = torch._dynamo.utils.counters["inductor"]
print("found", counts["fxgraph_cache_hit"], "made", counts["fxgraph_cache_miss"])
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("HASTEN_CACHE_DIR", str(folder))
    monkeypatch.delenv(compiled.VARIABLE, raising=False)
    return folder


@pytest.fixture
def made(tmp_path: Path) -> Path:
    folder = tmp_path / "made"
    (folder / "ab").mkdir(parents=True)
    (folder / "ab" / "kernel.so").write_bytes(b"code")
    return folder


def files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_code_is_kept_for_the_plan(made: Path, cache: Path) -> None:
    kept = Path(compiled.keep(str(made), PLAN))
    assert cache in kept.parents
    assert (kept / "ab" / "kernel.so").read_bytes() == b"code"
    assert kept == compiled.folder_of(PLAN)
    assert [p.name for p in kept.parent.iterdir()] == [kept.name]  # nothing half copied is left
    assert kept.stat().st_mode & 0o777 == 0o700


def test_trials_that_compiled_nothing_leave_what_was_kept(made: Path, tmp_path: Path) -> None:
    kept = Path(compiled.keep(str(made), PLAN))
    (tmp_path / "empty").mkdir()
    assert compiled.keep(str(tmp_path / "empty"), PLAN) == str(kept)
    assert files(kept) == ["ab/kernel.so"]


def test_other_scripts_versions_and_machines_have_other_folders(cache: Path) -> None:
    plans = [PLAN, Plan("train.py", "cd" * 32, PLAN.versions, PLAN.machine)]
    plans += [Plan("train.py", PLAN.script_sha256, {"torch": "3"}, PLAN.machine)]
    plans += [Plan("train.py", PLAN.script_sha256, PLAN.versions, {"cpu": "y"})]
    assert len({compiled.folder_of(p) for p in plans}) == 4


def test_a_folder_that_others_may_write_to_is_not_used(made: Path) -> None:
    folder = compiled.folder_of(PLAN)
    assert folder is not None
    folder.chmod(0o777)
    assert compiled.folder_of(PLAN) is None
    assert compiled.keep(str(made), PLAN) == str(made)


def test_a_link_is_not_followed(made: Path, tmp_path: Path) -> None:
    folder = compiled.folder_of(PLAN)
    assert folder is not None
    folder.rmdir()
    (tmp_path / "elsewhere").mkdir()
    folder.symlink_to(tmp_path / "elsewhere")
    assert compiled.folder_of(PLAN) is None
    assert compiled.keep(str(made), PLAN) == str(made)
    assert files(tmp_path / "elsewhere") == []


def test_a_failed_copy_leaves_what_was_there(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Path(compiled.keep(str(made), PLAN))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copytree", full)
    assert compiled.keep(str(made), PLAN) == str(made)
    assert files(kept) == ["ab/kernel.so"]
    assert [p.name for p in kept.parent.iterdir()] == [kept.name]


def test_what_was_not_used_for_longest_goes(made: Path) -> None:
    others = [Plan("train.py", f"{n:064d}", {}, {}) for n in range(compiled.MOST_FOLDERS + 3)]
    for age, plan in enumerate(others):
        folder = compiled.folder_of(plan)
        assert folder is not None
        os.utime(folder, (1e9 + age, 1e9 + age))
    kept = Path(compiled.keep(str(made), PLAN))
    left = {p.name for p in kept.parent.iterdir()}
    assert len(left) == compiled.MOST_FOLDERS
    assert kept.name in left
    newest = compiled.folder_of(others[-1])
    assert newest is not None
    assert newest.name in left


def test_a_folder_of_the_users_stays_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(compiled.VARIABLE, "mine")
    compiled.use(tmp_path)
    assert os.path.basename(os.environ[compiled.VARIABLE]) == "mine"  # torch makes it absolute


def test_what_torch_has_noted_itself_is_no_folder_of_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    noted = cache_dir()  # as making an optimizer does
    assert os.environ[compiled.VARIABLE] == noted
    compiled.use(tmp_path)
    assert os.environ[compiled.VARIABLE] == str(tmp_path)


def test_what_the_last_start_has_taken_is_known_for_the_next(made: Path) -> None:
    assert compiled.started(PLAN) is None
    compiled.note_start(PLAN, 6.25)
    assert compiled.started(PLAN) == 6.25
    assert not compiled.found(PLAN)  # that is no code
    compiled.keep(str(made), PLAN)  # of new trials
    assert compiled.found(PLAN) and compiled.started(PLAN) is None
    (compiled.folder_of(PLAN) or made).joinpath(compiled.STARTED).write_text("torn", encoding="ascii")
    assert compiled.started(PLAN) is None


@pytest.mark.slow
def test_a_plan_finds_what_its_last_run_compiled(tmp_path: Path) -> None:
    if not machine.has_compiler():
        pytest.skip("torch.compile needs a C++ compiler")
    script = tmp_path / "train.py"
    script.write_text(SCRIPT, encoding="utf-8")
    plan = Plan(str(script), sha256_of_file(script), machine.versions(), machine.machine(), PLAN.steps)
    plan.save(tmp_path / "plan.json")
    command = [sys.executable, "-m", "hasten", "run", "--plan", str(tmp_path / "plan.json"), str(script)]
    env = {**os.environ, "PYTHONPATH": str(SOURCE)}
    printed = []
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, env=env)
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout.split())
    first, second = ({words[0]: int(words[1]), words[2]: int(words[3])} for words in printed)
    assert first["made"] > 0 and first["found"] == 0
    assert second["found"] == first["made"] and second["made"] == 0
