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


@pytest.mark.parametrize("fault", ["window", "optimizer", "boundary", "forward", "search"])
def test_a_failure_of_hastens_own_is_one_line(lab: Any, fault: str) -> None:
    hooks = {"remedies": ["step"], "patches": [f"{fault}_fails"]}
    plain, ran = lab("trains.py", args=("clipped",), hooks=hooks).all(("plain", "run"))
    assert_untouched(plain, ran)
    said = [line for line in ran.said if "planted" in line]
    assert said == ["hasten: stopped watching (RuntimeError: planted); the script goes on without it\n"]
