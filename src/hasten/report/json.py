"""A report as one JSON document: every figure with its low, high and unit, every other number in seconds or bytes.

The document's form is described by ``schema.json`` beside this file, which :mod:`hasten.report.schema` writes.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from hasten.core.codec import encode
from hasten.core.finding import Finding
from hasten.core.remedy import Remedy
from hasten.core.report import Outcome, Report, Result
from hasten.report import view
from hasten.report.shown import shown

SCHEMA = 1  # of the document; raised when a field changes its meaning or goes


def document(outcome: Report | Result) -> dict[str, Any]:
    """A JSON-ready copy; unknown numbers are null. ``document["run"]`` is null for an explanation."""
    result = outcome if isinstance(outcome, Result) else None
    report = outcome.report if isinstance(outcome, Result) else outcome
    return {
        "schema": SCHEMA,
        "kind": "run" if result is not None else "explain",
        "hasten": report.version,
        "command": list(report.command),
        "exit_code": report.exit_code,
        "message": report.message,
        "other_processes": report.other_processes,
        "trace": encode(report.trace),
        "shown": encode(shown(report.trace)) if report.trace is not None else None,
        "findings": [finding(f) for f in report.findings],
        "run": run(result) if result is not None else None,
        "next": view.next_command(outcome),
    }


def headed(kind: str, version: str, fields: dict[str, Any]) -> dict[str, Any]:
    """The document of a command that watches no script."""
    return {"schema": SCHEMA, "kind": kind, "hasten": version, **fields}


def finding(found: Finding) -> dict[str, Any]:
    """A finding with its remedies by name."""
    return {**encode(found), "remedies": [remedy(r) for r in found.remedies]}


def remedy(cure: Remedy) -> dict[str, Any]:
    """A remedy as it is written, taken apart."""
    return {
        "text": str(cure),
        "name": cure.name,
        "settings": encode(cure.settings()),
        "fidelity": cure.fidelity.value,
    }


def run(result: Result) -> dict[str, Any]:
    """What the trials led to."""
    outcome = {f.name: encode(getattr(result, f.name)) for f in dataclasses.fields(Outcome)}
    return {**outcome, "plan_path": result.plan_path, "options": list(result.options)}
