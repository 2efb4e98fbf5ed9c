"""What is handed to users reads well where a notebook shows it."""

from __future__ import annotations

from hasten.core.interval import Interval
from hasten.core.plan import Plan, Step
from hasten.core.report import Report, Result
from tests.samples import FINDINGS, trace


def test_a_report_and_a_result_are_shown_in_a_line() -> None:
    report = Report(trace(), FINDINGS)
    assert repr(report) == "Report(640 steps; findings: D101, S501, O402; exit code 0)"
    assert repr(Report(None, message="torch was never imported")) == (
        "Report(torch was never imported; findings: none; exit code 0)"
    )
    steps = (Step("LoaderWorkers", {"workers": 2, "of": "0a1b"}, "identical"), Step("FusedOptimizer", {}, "equivalent"))
    plan = Plan("train.py", "", {}, {}, steps)
    found = Result(plan=plan, overall=Interval(2.31, 2.27, 2.35, "ratio"), report=report)
    assert repr(found) == "Result(kept: LoaderWorkers(2), FusedOptimizer(), 2.31× (2.27–2.35); 0 trials; exit code 0)"
    assert repr(Result(report=report)) == "Result(kept: none; 0 trials; exit code 0)"
