"""The JSON document: complete, strict, described, and readable again."""

from __future__ import annotations

import json
import math
from importlib import resources
from typing import Any

import pytest

from hasten.core.codec import decode, encode
from hasten.core.report import Outcome, Report, Result
from hasten.core.trace import Trace
from hasten.report.json import document
from hasten.report.schema import schema
from tests import samples

STORED = json.loads(resources.files("hasten.report").joinpath("schema.json").read_text(encoding="utf-8"))
TYPES = {
    "string": str,
    "integer": int,
    "boolean": bool,
    "number": (int, float),
    "null": type(None),
    "object": dict,
    "array": list,
}
DOCUMENTS = {
    "explain": document(samples.report()),
    "run": document(samples.result(report=samples.report(trace=samples.growing()))),
    "nothing": document(Report(None, message="torch was never imported")),
    "no trials": document(Result(report=samples.report())),
}


def faults(value: Any, form: dict[str, Any], where: str = "$") -> list[str]:
    """Where ``value`` departs from ``form``: the part of JSON Schema that ours uses."""
    if "$ref" in form:
        return faults(value, STORED["$defs"][form["$ref"].rpartition("/")[2]], where)
    if "anyOf" in form:
        tries = [faults(value, arm, where) for arm in form["anyOf"]]
        return [] if [] in tries else min(tries, key=len)
    if "const" in form or "enum" in form:
        return [] if value in form.get("enum", [form.get("const")]) else [f"{where}: {value!r}"]
    kinds = form.get("type", list(TYPES))
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if not any(isinstance(value, TYPES[k]) and (k == "boolean" or value is not True) for k in kinds):
        return [f"{where}: {value!r} is no {kinds}"]
    if isinstance(value, list):
        return [f for i, v in enumerate(value) for f in faults(v, form["items"], f"{where}[{i}]")]
    if isinstance(value, dict) and "properties" in form:
        names = form["properties"]
        missing = [f"{where}: {n} is missing" for n in form["required"] if n not in value]
        unknown = [f"{where}: {n} is unknown" for n in value if n not in names]
        inside = [f for n in names if n in value for f in faults(value[n], names[n], f"{where}.{n}")]
        return missing + unknown + inside
    return []


def test_the_stored_schema_is_the_one_of_these_classes() -> None:
    assert schema() == STORED, (
        "a dataclass changed: say in hasten/report/fields.py what a new field means, then run "
        "`python -m hasten.report.schema > src/hasten/report/schema.json`"
    )


def test_every_field_is_described() -> None:
    blank = [
        f"{name}.{field}"
        for name, form in {**STORED["$defs"], "": STORED}.items()
        for field, inside in form["properties"].items()
        if not inside.get("description")
    ]
    assert blank == []


def test_every_plain_number_has_a_unit() -> None:
    for name, form in STORED["$defs"].items():
        for field, inside in form["properties"].items():
            assert name == "Interval" or inside.get("type") != ["number", "null"] or inside["x-unit"], field


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_fit_the_schema(name: str) -> None:
    written = json.loads(json.dumps(DOCUMENTS[name], allow_nan=False))
    assert faults(written, STORED) == []


def test_the_validator_finds_faults() -> None:
    broken = json.loads(json.dumps(DOCUMENTS["explain"]))
    broken["trace"]["step"]["value"] = "fast"
    del broken["next"]
    broken["surprise"] = 1
    assert len(faults(broken, STORED)) == 3


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
    outcome.pop("plan_path")
    assert decode(Outcome, outcome).trials == samples.TRIALS


def test_unknown_is_null() -> None:
    nothing = document(Result(report=samples.report(trace=samples.trace(step=None, unaccounted=math.nan))))
    assert nothing["trace"]["step"] is None and nothing["trace"]["unaccounted"] is None
    assert nothing["run"]["payback_seconds"] is None
