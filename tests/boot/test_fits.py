"""Loops over scikit-learn's perceptrons: counted by the line that asks for them, and left as they are."""

from __future__ import annotations

from typing import Any

import pytest

from tests.scripts.lab import assert_untouched

pytest.importorskip("sklearn")

LINES = {
    "loop": "for number, (X, y) in enumerate(shops):",
    "classes": "return [MLPClassifier((4,), max_iter=3, random_state=0).fit(X, y > 0) for X, y in shops]",
    "workers": "",
    "lbfgs": None,
    "search": None,
    "few": None,
    "fails": "for number, (X, y) in enumerate(shops):",
}
QUICK = ("loop", "classes", "fails")  # tried in every run of the tests


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[] if kind in QUICK else [pytest.mark.slow]) for kind in LINES]
)
def test_many_fits_of_one_line_are_found(kind: str, lab: Any) -> None:
    plain, explained = lab("perceptrons.py", args=(kind,), hooks=None).all(("plain", "explain"))
    assert_untouched(plain, explained)
    assert (plain.code != 0) == (kind == "fails")
    found = [(f["code"], f["message"], f["place"]) for f in explained.document["findings"]]
    line = LINES[kind]
    if line is None:
        assert not found and "torch was never imported" in explained.document["message"]
        return
    ((code, message, place),) = found
    assert code == "W801" and message.startswith(
        "14 models of one shape, one after the other: 3 epochs of 40 rows each"
    )
    assert not line or place["text"].strip() == line
