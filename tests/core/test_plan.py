"""Plans: refused where they do not fit, never torn."""

from __future__ import annotations

import dataclasses
import json
import os
import threading
from pathlib import Path

import pytest

from hasten.core import plan as plan_module
from hasten.core.errors import PlanRefused, UsageError
from hasten.core.plan import Plan, sha256_of_file, write_atomically
from tests import samples


def test_a_saved_plan_is_loaded_again(tmp_path: Path) -> None:
    plan = samples.plan()
    plan.save(tmp_path / "p.json")
    assert Plan.load(tmp_path / "p.json") == plan


def test_a_plan_that_fits_is_not_refused() -> None:
    plan = samples.plan()
    assert plan.refusals(plan.script_sha256, plan.versions, plan.machine) == []
    plan.check(plan.script_sha256, plan.versions, plan.machine)


@pytest.mark.parametrize(
    ("sha", "versions", "machine", "reason"),
    [
        ("cd" * 32, {}, {}, "the script changed: abababababab when planned, cdcdcdcdcdcd now"),
        ("", {"torch": "2.14.0"}, {}, "the version of torch changed: 2.13.0 when planned, 2.14.0 now"),
        ("", {"numpy": "2.0"}, {}, "the version of numpy changed: None when planned, 2.0 now"),
        ("", {}, {"cores": 2}, "the machine's cores changed: 8 when planned, 2 now"),
        ("", {}, {"OMP_NUM_THREADS": "1"}, "the machine's OMP_NUM_THREADS changed: None when planned, 1 now"),
    ],
)
def test_every_difference_is_a_reason(sha: str, versions: dict, machine: dict, reason: str) -> None:
    plan = samples.plan()
    now = (sha or plan.script_sha256, plan.versions | versions, plan.machine | machine)
    assert plan.refusals(*now) == [reason]
    with pytest.raises(PlanRefused, match="without --plan"):
        plan.check(*now)


@pytest.mark.parametrize("kept", [0, 1, 40, 300])
def test_a_torn_file_is_said_to_be_torn(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "p.json"
    samples.plan().save(path)
    path.write_text(path.read_text()[:kept])
    with pytest.raises(UsageError, match="cut short"):
        Plan.load(path)


@pytest.mark.parametrize(
    "text",
    [
        *("[]", '"plan"', '{"schema": 1}', '{"schema": 1, "script": "t.py", "surprise": 1}'),
        *('{"schema": 1, "steps": 5}', '{"schema": 1, "steps": {}}', '{"schema": 1, "versions": []}'),
        '{"schema": 1, "steps": [{"remedy": "A", "settings": {}, "fidelity": "", "ratio": {"value": "2"}}]}',
        '{"schema": 1, "script": "t.py", "script_sha256": null, "versions": {}, "machine": {}}',
        '{"schema": 1, "script": "t.py", "script_sha256": "", "versions": {}, "machine": {}, "sources": {"a.py": 1}}',
    ],
)
def test_json_that_is_no_plan_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(UsageError, match="cannot read the plan"):
        Plan.load(tmp_path / "p.json")


@pytest.mark.parametrize("text", ["{}", '{"name": "app"}', '{"schema": 5, "rows": []}', '{"schema": "v2"}', "[]"])
def test_json_of_something_else_is_not_said_to_be_of_another_version(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(UsageError, match=r"of something else.*\n.*not written by `hasten run`") as caught:
        Plan.load(tmp_path / "p.json")
    assert "None" not in str(caught.value) and not isinstance(caught.value, PlanRefused)


def test_a_plan_of_another_schema_is_refused(tmp_path: Path) -> None:
    dataclasses.replace(samples.plan(), schema=99).save(tmp_path / "p.json")
    with pytest.raises(PlanRefused, match="schema 99"):
        Plan.load(tmp_path / "p.json")


def test_a_missing_plan_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="missing"):
        Plan.load(tmp_path / "none.json")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p.json"
    write_atomically(path, "old")

    def broken(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(plan_module.os, "fsync", broken)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, "new" * 1000)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["p.json"]


def test_the_umask_holds_and_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the whole process's: whoever sets it to read it makes files of other threads private."""
    before = os.umask(0o027)
    try:
        monkeypatch.setattr(plan_module.os, "umask", lambda _: pytest.fail("set"))
        write_atomically(tmp_path / "p.json", "new")
    finally:
        monkeypatch.undo()
        os.umask(before)
    assert (tmp_path / "p.json").stat().st_mode & 0o777 == 0o640


def test_folders_on_the_way_are_made(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a" / "b.json", json.dumps({"ä": 1}))
    assert json.loads((tmp_path / "a" / "b.json").read_text(encoding="utf-8")) == {"ä": 1}


def test_the_hash_of_what_cannot_be_read_is_empty(tmp_path: Path) -> None:
    assert sha256_of_file(tmp_path / "none") == ""


def test_a_plan_is_refused_where_a_module_of_the_script_changed(tmp_path: Path) -> None:
    (tmp_path / "data.py").write_text("x = 1\n")
    (tmp_path / "model.py").write_text("y = 1\n")
    sources = {name: sha256_of_file(tmp_path / name) for name in ("data.py", "model.py")}
    plan = Plan("train.py", "ab", {}, {}, sources=sources)
    plan.check("ab", {}, {}, str(tmp_path))
    (tmp_path / "data.py").write_text("x = 2\n")
    (tmp_path / "model.py").unlink()
    with pytest.raises(PlanRefused, match=r"data\.py changed; model\.py is gone"):
        plan.check("ab", {}, {}, str(tmp_path))


def test_a_device_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    thread = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    thread.start()
    write_atomically(pipe, "told")
    thread.join(20)
    assert read == ["told"] and pipe.is_fifo() and os.listdir(tmp_path) == ["pipe"]
