"""Scripts whose process must not be forked: trials and ceilings in throw-away processes, through the command line."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from hasten.explain import inside
from hasten.explain.ceilings import NO_LOADER
from hasten.run.processes import STEPWISE
from hasten.seams.watch import Watch
from tests.scripts.lab import assert_untouched

BESIDE = ("unseeded_thread_beside",)


@pytest.mark.slow
def test_a_script_without_a_seed_is_tried_and_compared(lab: Any) -> None:
    ran = lab("beside.py", args=BESIDE, budget=600.0, hooks={"remedies": ["step", "one_bit", "stale"]}).run()
    nothing, *wrong = ran.trials
    assert nothing["method"] == STEPWISE and nothing["verdict"] == "kept", ran.why
    assert nothing["fidelity_found"] == "identical after the first 20 steps, to the bit"
    for trial in wrong:
        assert trial["verdict"] == "broken promise" and "promised the same bits" in trial["why"]
    assert "a thread of its own" in ran.document["run"]["message"]


def test_ceilings_and_datasets_are_asked_in_a_process_of_their_own(lab: Any) -> None:
    laboratory = lab("beside.py", args=("long_thread_beside",), hooks=None)
    plain, explained = laboratory.all(("plain", "explain"))
    assert_untouched(plain, explained)
    trace = explained.document["trace"]
    ceilings = trace["ceilings"]
    assert ceilings["method"].startswith("a throw-away process"), explained.why
    assert all(ceilings[name] is not None for name in ("as_is", "data_free", "model_free", "data_free_ratio"))
    (loader,) = trace["loaders"]
    assert loader["probe"]["deterministic"] and loader["probe"]["gatherable"]


def test_a_script_without_a_loader_is_not_begun_anew_for_ceilings(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It took as long as the whole start-up, to find that there was nothing to ask."""

    def begun(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(inside, "aside", begun)
    explainer: Any = SimpleNamespace(watch=Watch(), session=SimpleNamespace(cwd="."), ceilings=None)
    inside.Explainer._measure_aside(explainer, "the script runs a thread of its own")
    assert explainer.ceilings.why_not == NO_LOADER
    laboratory = lab("beside.py", args=("made_by_a_thread",), hooks=None)
    plain, explained = laboratory.all(("plain", "explain"))
    assert_untouched(plain, explained)
    assert explained.document["trace"]["ceilings"]["why_not"].startswith("no DataLoader feeds"), explained.why


@pytest.mark.parametrize("kind", ["alone", pytest.param("long_thread_beside", marks=pytest.mark.slow)])
def test_an_approximate_remedy_is_judged_by_other_seeds(lab: Any, kind: str) -> None:
    """In forked children, which begin a new pass for that, and in processes: the script sets a seed of its own."""
    ran = lab("beside.py", args=(kind,), budget=600.0, allow="approximate", hooks={"remedies": ["rough"]}).run()
    (trial,) = ran.trials
    assert trial["verdict"] == "kept" and "between seeds it differs by" in trial["fidelity_found"], ran.why
