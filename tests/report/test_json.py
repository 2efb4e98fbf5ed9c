"""The JSON document: complete, strict, described, and readable again."""

from __future__ import annotations

import json
import math
import re

import pytest

from hasten.core.codec import decode, encode
from hasten.core.report import Outcome, Report, Result
from hasten.core.trace import Trace
from hasten.report import documents
from hasten.report.html import page
from hasten.report.json import SCHEMA, document
from hasten.report.schema import schema, solve
from tests import samples
from tests.report.forms import faults, stored, undescribed

STORED = stored("schema.json")
DOCUMENTS = {
    "explain": document(samples.report()),
    "run": document(samples.result(report=samples.report(trace=samples.growing()))),
    "nothing": document(Report(None, message="torch was never imported")),
    "no trials": document(Result(report=samples.report())),
}


def test_the_stored_schema_is_the_one_of_these_classes() -> None:
    assert schema() == STORED, (
        "a dataclass changed: say in hasten/report/fields.py what a new field means, then run "
        "`python -m hasten.report.schema > src/hasten/report/schema.json`"
    )


@pytest.mark.parametrize("name", ["schema.json", "schema_fleet.json", "schema_solve.json"])
def test_every_field_is_described_and_every_number_has_a_unit(name: str) -> None:
    assert undescribed(stored(name)) == []


def test_the_stored_schemas_of_the_other_commands_are_those_of_today() -> None:
    assert documents.fleet(SCHEMA) == stored("schema_fleet.json"), "python -m hasten.report.schema fleet"
    assert solve() == stored("schema_solve.json"), "python -m hasten.report.schema solve"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_fit_the_schema(name: str) -> None:
    written = json.loads(json.dumps(DOCUMENTS[name], allow_nan=False))
    assert faults(written, STORED, STORED) == []


def test_the_validator_finds_faults() -> None:
    broken = json.loads(json.dumps(DOCUMENTS["explain"]))
    broken["trace"]["step"]["value"] = "fast"
    del broken["next"]
    broken["surprise"] = 1
    assert len(faults(broken, STORED, STORED)) == 3


def test_figures_carry_low_high_and_unit() -> None:
    step = DOCUMENTS["explain"]["trace"]["step"]
    assert (step["value"], step["unit"], step["level"], step["n"]) == (0.0992, "s", 0.95, 600)
    assert (step["low"], step["high"]) == pytest.approx((0.0985, 0.0999))
    trial = DOCUMENTS["run"]["run"]["trials"][0]
    assert (trial["ratio"]["low"], trial["ratio"]["level"], trial["ratio"]["unit"]) == (2.27, 0.99, "ratio")


def test_remedies_keep_their_names() -> None:
    assert DOCUMENTS["explain"]["findings"][0]["remedies"][0] == {
        "text": "LoaderWorkers(7)", "name": "LoaderWorkers", "settings": {"workers": 7}, "fidelity": "identical",
    }  # fmt: skip


def test_the_trace_and_the_outcome_can_be_read_again() -> None:
    written = json.loads(json.dumps(DOCUMENTS["run"]))
    assert encode(decode(Trace, written["trace"])) == written["trace"]
    outcome = written["run"]
    for own in ("plan_path", "options"):
        outcome.pop(own)
    assert decode(Outcome, outcome).trials == samples.TRIALS


def test_unknown_is_null() -> None:
    nothing = document(Result(report=samples.report(trace=samples.trace(step=None, unaccounted=math.nan))))
    assert nothing["trace"]["step"] is None and nothing["trace"]["unaccounted"] is None
    assert nothing["run"]["payback_seconds"] is None


def test_every_figure_of_the_page_is_in_the_document() -> None:
    """Of where the time goes, and of the ceilings with their speed-ups: rows in the page's order, rounded as there."""
    trace = samples.growing()
    drawn = page(samples.report(trace=trace))
    found = document(samples.report(trace=trace))["shown"]

    def rows(table: str) -> list[list[str]]:
        body = drawn.partition(f'<table class="{table}">')[2].partition("<tbody>")[2].partition("</table>")[0]
        return [
            [re.sub(r"<[^>]+>", "", cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", row)]
            for row in re.findall(r"<tr>(.*?)</tr>", body)
        ]

    for cells, part in zip(rows("tree"), found["parts"], strict=True):
        assert cells[0] == part["name"]
        assert float(cells[1]) == pytest.approx(part["seconds"]["value"] * 1e3, abs=0.06)
        assert float(cells[3].strip(" %")) == pytest.approx(part["share"] * 100, abs=0.06)
    for cells, ceiling in zip(rows("ceilings"), found["ceilings"], strict=True):
        assert cells[0] == ceiling["name"]
        assert float(cells[1]) == pytest.approx(ceiling["seconds"]["value"] * 1e3, abs=0.06)
        assert float(cells[3].strip("×")) == pytest.approx(ceiling["speedup"]["value"], abs=0.006)
        if cells[4]:
            ends = [float(end) for end in cells[4].split("–")]
            assert ends == pytest.approx([ceiling["speedup"]["low"], ceiling["speedup"]["high"]], abs=0.006)
    assert found["other_cores"] == 0.0
