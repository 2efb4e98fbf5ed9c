"""The user's script is sacred: with and without hasten it writes the same bytes."""

from __future__ import annotations

from typing import Any

from tests.scripts.lab import assert_tried, assert_untouched


def test_files_are_the_same_byte_for_byte(lab: Any) -> None:
    plain, explained, ran = lab("writes_everything.py").all()
    assert plain.code == 0 and "model.pt" in plain.tree
    assert_untouched(plain, explained)
    assert_untouched(plain, ran)
    assert_tried(ran)
