"""The same doors from Python: what is wrong is said before anything runs, and by hand as well."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import hasten
from hasten import api
from hasten.core.codec import encode
from hasten.core.errors import Unsuited, UsageError
from tests import samples


@pytest.mark.parametrize(
    ("door", "arguments", "said"),
    [
        (hasten.run, {"only": "Threads"}, r"try: only=\['Threads'\]"),
        (hasten.run, {"skip": "Threads"}, r"try: skip=\['Threads'\]"),
        (hasten.run, {"only": ["Thread"]}, "try: Threads"),
        (hasten.run, {"budget": -1}, "budget=-1 is no number of seconds"),
        (hasten.run, {"budget": "60"}, "budget='60' is no number of seconds"),
        (hasten.run, {"budget": float("nan")}, "budget=nan is no number of seconds"),
        (hasten.run, {"allow": "any"}, "is no fidelity"),
        (hasten.explain, {"steps": -3}, "steps=-3 is no number of steps"),
        (hasten.explain, {"args": "--epochs 2"}, r"args=\['--epochs', '2'\]"),
    ],
)
def test_a_wrong_argument_is_said_before_the_script_runs(
    tmp_path: Path, door: Any, arguments: dict[str, Any], said: str
) -> None:
    script = tmp_path / "train.py"
    script.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(UsageError, match=said):
        door(script, **arguments)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("remedy", "said"),
    [
        (hasten.LoaderWorkers(2), r"LoaderWorkers\(2\) takes a DataLoader"),
        (hasten.CacheSamples(), r"CacheSamples\(\) takes a DataLoader"),
        (hasten.FusedOptimizer(), r"FusedOptimizer\(\) takes an optimizer"),
        (hasten.ChannelsLast(), r"ChannelsLast\(\) takes a module"),
    ],
)
def test_a_remedy_on_the_wrong_object_says_what_it_takes(remedy: Any, said: str) -> None:
    for target, given in ((3, "was given a int"), (None, "was given nothing")):
        with pytest.raises(Unsuited, match=f"{said}, and {given}"):
            remedy(target)


def test_of_too_few_steps_no_reason_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps after the first one say nothing; a prediction made of them would be a claim without a ground."""
    monkeypatch.setattr(api, "_found", lambda trace: list(samples.FINDINGS))
    for steps, found in ((3, False), (640, True)):
        monkeypatch.setattr(
            api, "_read", lambda *a, n=steps: [encode(samples.trace(steps=n))] if "trace" in a[1] else []
        )
        report = api._report(tmp_path, ["python", "train.py"], 0)
        assert bool(report.findings) == found == (not report.message)
