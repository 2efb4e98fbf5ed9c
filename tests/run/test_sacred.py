"""The user's script is sacred: with and without hasten it writes the same bytes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.scripts.lab import assert_tried, assert_untouched


def test_files_are_the_same_byte_for_byte(lab: Any) -> None:
    plain, explained, ran = lab("writes_everything.py").all()
    assert plain.code == 0 and "model.pt" in plain.tree
    assert_untouched(plain, explained)
    assert_untouched(plain, ran)
    assert_tried(ran)


@pytest.mark.parametrize(
    "fault",
    ["optimizer", "search", *(pytest.param(at, marks=pytest.mark.slow) for at in ("window", "boundary", "forward"))],
)
def test_a_failure_of_hastens_own_is_one_line(lab: Any, fault: str) -> None:
    hooks = {"remedies": ["step"], "patches": [f"{fault}_fails"]}
    plain, ran = lab("trains.py", args=("clipped",), hooks=hooks).all(("plain", "run"))
    assert_untouched(plain, ran)
    said = [line for line in ran.said if "planted" in line]
    assert said == ["hasten: stopped watching (RuntimeError: planted); the script goes on without it\n"]


@pytest.mark.parametrize("way", [pytest.param("explain", marks=pytest.mark.slow), "run"])
def test_modules_of_the_script_may_be_called_like_the_standard_librarys(lab: Any, way: str) -> None:
    """They are imported when the script asks for them, and hasten gets the standard library's."""
    env = {"PYTHONDONTWRITEBYTECODE": "1"}  # what is compiled of them holds their paths, and they lie in two folders
    laboratory = lab("trains.py", args=("namesakes",), env=env, hooks=None)  # its hooks import hasten early
    for home in map(laboratory.home, ("plain", way)):
        home.mkdir(parents=True)
        (home / "more").mkdir()
        for name, folder in (("resource", home), ("statistics", home / "more")):  # hasten imports them, torch does not
            (folder / f"{name}.py").write_text(f"OWN = 'my own {name}'\nprint(OWN)\n")
    plain, other = laboratory.all(("plain", way))
    assert_untouched(plain, other)
    assert other.document is not None and other.document["trace"]["steps"] > 10


def test_no_warning_is_added_and_none_is_lost(lab: Any) -> None:
    """Also those that are usually hidden, such as Python's own about forks of a process with threads."""
    plain, explained, ran = lab("trains.py", args=("clipped",), env={"PYTHONWARNINGS": "always"}).all()
    assert "UserWarning" in plain.err  # the scheduler's
    assert_untouched(plain, explained)
    assert_untouched(plain, ran)
    assert_tried(ran)
