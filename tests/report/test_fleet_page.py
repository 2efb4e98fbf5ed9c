"""The page of a fleet: its figures as elements, whatever names the keys have, and what went wrong in sight."""

from __future__ import annotations

from typing import Any

from hasten.report.fleet import proved, text
from hasten.report.fleet_page import page
from tests.report.test_html import EVIL, Reader


def row(key: str, held: float | None = 0.5, cause: str = "") -> dict[str, Any]:
    return {"key": key, "rows": 175, "epochs": 6, "loss": 0.25, "held": held, "seconds": 0.0123, "cause": cause}


def document(**changes: Any) -> dict[str, Any]:
    rows = [row(f"store {i}", 0.01 * i) for i in range(12)]
    proof = {"loss": 0.25, "loop_loss": 0.25, "weights_differ_by": 2e-7, "gradient_error": 7e-7, "holds": True}
    proof |= {"key": "store 3", "identical": False, "torch_gradient_error": 4e-7, "step_error": 2e-7}
    values = {
        "models": 12, "trained": 12, "stopped_early": 3, "failed": 0, "rows": rows, "workers": 1, "seconds": 90.0,
        "bound": 80.0, "loop_seconds": 900.0, "before": 0, "engines": {"k0": "native: 30 µs a step"}, "remarks": [],
        "updates": [], "proof": [proof], "forecasts": [],
    }  # fmt: skip
    return values | changes


def test_figures_are_elements_and_not_a_text() -> None:
    reader = Reader(page(document()))
    assert reader.open == [] and "pre" not in reader.tags
    for words in ("12 of 12", "1 min 30 s", "on 1 worker", "10×", "expected 15 min", "0.055", "1 of 1", "30 µs a step"):
        assert words in reader.text
    assert [value for name, value in reader.attributes if name == "data-label"][:6] == [
        "key", "rows", "epochs", "loss", "held out", "s",
    ]  # fmt: skip


def test_what_went_wrong_is_in_sight() -> None:
    broken = {"key": "store 4", "holds": False, "cause": "the loop fails"}
    rows = [*(row(f"bad {i}", None, "too short") for i in range(13)), row("good")]
    found = document(failed=13, rows=rows, proof=[*document()["proof"], broken])
    drawn = page(found)
    for words in ("1 of 2", "no: the loop fails", "bad 9", "too short", "3 more; --json names them all"):
        assert words in Reader(drawn).text and words in drawn + text(found)
    assert drawn.count('class="tile bad"') == 2 and "bad 11" not in drawn


def test_an_update_is_told_in_words() -> None:
    last = {"rows": 280, "seconds": 1.25, "visits": 30, "error": 0.31, "shares": {"0.5": 28}, "predicted": {"1": 0.2}}
    found = document(updates=[{**last, "failed": {"store 7": "no rows"}, "remarks": ["a remark"]}])
    for words in ("update 1: 280 new rows learned in 1.25 s", "28 by 50%", "a remark", "not learned, store 7: no rows"):
        assert words in Reader(page(found)).text and words in text(found)


def test_figures_older_than_an_update_are_told_so() -> None:
    last = {"rows": 280, "seconds": 1.25, "visits": 30, "error": 0.31, "shares": {}, "predicted": {}, "failed": {}}
    for updates, words in (([last], "before the update"), ([last, last], "before the updates")):
        found = document(updates=updates)
        assert f"the training {words}:" in text(found) and f"held-out loss {words}: median" in text(found)
        assert f"on 1 worker {words}" in Reader(page(found)).text
    assert "before the update" not in text(document()) + page(document())


def test_a_fleet_that_took_longer_says_so() -> None:
    slow = document(loop_seconds=40.0)
    assert ": 0.44×" in text(slow) and "0.44×" in page(slow)


def test_names_of_keys_are_escaped() -> None:
    forecast = {"key": EVIL, "group": "best", "held": 0.5, "seen": [1.0, 2.0], "came": [3.0], "predicted": [2.5]}
    found = document(
        rows=[row(EVIL), row(EVIL, None, EVIL)], remarks=[EVIL], engines={EVIL: EVIL}, forecasts=[forecast]
    )
    drawn = page(found)
    assert "<script" not in drawn and Reader(drawn).open == []
    assert "drawn from 1 to 3" in drawn


def test_a_loss_that_leaves_the_picture_is_told() -> None:
    rows = [row(f"{i}", 0.1) for i in range(99)] + [row("diverged", 1e6)]
    assert "1 of 100 keys lie higher, the highest at 1e+06" in page(document(rows=rows))


def test_a_fleet_of_which_nothing_was_trained_has_a_page() -> None:
    found = document(trained=0, failed=1, rows=[row("a", None, "too short")], proof=[], loop_seconds=0.0, bound=0.0)
    assert "0 of 12 models trained" in page(found)


def test_a_proof_that_does_not_hold_is_in_sight() -> None:
    found = document()["proof"][0]
    assert proved(found)[-1] == "yes" and proved({**found, "holds": False})[-1] == "NO"
    failed = document(proof=({**found, "holds": False},))
    assert " NO" in text(failed) and "0 of 1" in Reader(page(failed)).text
