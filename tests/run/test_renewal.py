"""What takes hold of new passes only is tried in new passes, also where worker processes make the batches."""

from __future__ import annotations

from typing import Any

import pytest

from tests.scripts.lab import assert_untouched

CACHE = {"remedies": ["cache"], "seconds": 20}
HELD = "takes hold when the plan is replayed: the loader's workers were started without it, and outlive its passes"


@pytest.mark.parametrize("outlive", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_samples_are_kept_for_the_workers_that_the_script_has(lab: Any, outlive: bool) -> None:
    plain, ran = lab("caches.py", args=("2", *["persistent"] * outlive), hooks=CACHE, budget=20.0).all(("plain", "run"))
    assert_untouched(plain, ran)
    (trial,) = ran.trials
    assert (trial["remedy"], trial["method"]) == ("CacheSamples()", "fork, two children in turns"), ran.why
    assert (trial["verdict"], trial["why"]) == ("kept", HELD if outlive else ""), ran.why
    assert trial["ratio"]["value"] > 1 and "to the bit" in trial["fidelity_found"]
    assert ran.document is not None and not ran.document["run"]["broken"]
    said = [line for line in ran.said if "trials took" in line]
    assert ("CacheSamples() takes hold with the plan" in said[0]) is outlive
