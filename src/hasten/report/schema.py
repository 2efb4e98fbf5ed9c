"""The JSON schema of :mod:`hasten.report.json`, made from the dataclasses it is made of.

``python -m hasten.report.schema`` prints it, ``… fleet`` and ``… solve`` those of the other commands; tests
compare them with ``schema.json``, ``schema_fleet.json`` and ``schema_solve.json``.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import sys
import types
import typing
from typing import Any

from hasten.core.finding import Finding
from hasten.core.interval import Interval
from hasten.core.plan import Plan
from hasten.core.report import Outcome, Report, Trial
from hasten.core.solution import Alpha, Coefficient, Solution
from hasten.core.trace import Trace
from hasten.report import documents
from hasten.report.fields import FIELDS
from hasten.report.json import SCHEMA
from hasten.report.shown import Shown

_SCALARS = {str: "string", int: "integer", bool: "boolean", float: "number"}
_REMEDY = {
    "type": "object",
    "description": "A remedy: as written, its class, its settings, and what it may change.",
    "properties": {
        "text": {"type": "string", "description": "as written: LoaderWorkers(2)"},
        "name": {"type": "string", "description": "its class"},
        "settings": {"type": "object", "description": "its fields"},
        "fidelity": {"enum": ["identical", "equivalent", "approximate"], "description": "what it may change"},
    },
    "required": ["text", "name", "settings", "fidelity"],
    "additionalProperties": False,
}


def schema() -> dict[str, Any]:
    """The whole schema (JSON Schema 2020-12); every field has a description, numbers their unit in ``x-unit``."""
    defs: dict[str, Any] = {"Remedy": _REMEDY}
    for kind in (Interval, Trace, Finding, Trial, Plan, Shown):
        _define(kind, defs)
    defs["Finding"]["properties"]["remedies"] = _array({"$ref": "#/$defs/Remedy"}, "what cures it, best guess first")
    _define(Outcome, defs)
    defs["Run"] = defs.pop("Outcome")
    defs["Run"]["properties"]["plan_path"] = {"type": "string", "description": "where the plan was written, or empty"}
    defs["Run"]["properties"]["options"] = _array({"type": "string"}, "what bounded the trials, or the plan, as typed")
    defs["Run"]["required"] += ["plan_path", "options"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "hasten report",
        "description": "What `hasten explain` and `hasten run` write with --json. Times are seconds, sizes are bytes.",
        **_object(_top(defs)),
        "$defs": dict(sorted(defs.items())),
    }


def _top(defs: dict[str, Any]) -> dict[str, Any]:
    own: dict[str, Any] = {}
    hints, docs = typing.get_type_hints(Report), descriptions(Report)
    for field in dataclasses.fields(Report):
        if field.name != "version":
            own[field.name] = {**_kind(hints[field.name], defs), "description": docs[field.name]}
    return {
        "schema": {"const": SCHEMA, "description": "version of this schema"},
        "kind": {"enum": ["explain", "run"], "description": "which command wrote it"},
        "hasten": {"type": "string", "description": "version of hasten"},
        **own,
        "shown": {
            "anyOf": [{"$ref": "#/$defs/Shown"}, {"type": "null"}],
            "description": "what the report shows that is computed from the trace; null without one",
        },
        "run": {
            "anyOf": [{"$ref": "#/$defs/Run"}, {"type": "null"}],
            "description": "what the trials led to; null for `hasten explain`",
        },
        "next": {"type": "string", "description": "the next command to type"},
    }


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _array(items: dict[str, Any], description: str) -> dict[str, Any]:
    return {"type": "array", "items": items, "description": description}


def _define(kind: type, defs: dict[str, Any]) -> None:
    if kind.__name__ in defs:
        return
    defs[kind.__name__] = {}  # stands in while its own fields are defined
    hints, docs = typing.get_type_hints(kind), descriptions(kind)
    properties = {}
    for field in dataclasses.fields(kind):
        properties[field.name] = {**_kind(hints[field.name], defs), "description": docs.get(field.name, "")}
        unit = unit_of(kind, field.name)
        if hints[field.name] is float and unit:
            properties[field.name]["x-unit"] = unit
    summary = (inspect.getdoc(kind) or "").split("\n\n")[0].replace("\n", " ")
    defs[kind.__name__] = {**_object(properties), "description": summary}


def _kind(hint: Any, defs: dict[str, Any]) -> dict[str, Any]:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        inner = [_kind(a, defs) for a in args if a is not type(None)]
        return {"anyOf": [*inner, {"type": "null"}]}
    if origin is tuple:
        return {"type": "array", "items": _kind(args[0], defs)}
    if origin is dict or hint is dict:
        return {"type": "object"}
    if hint is float:
        return {"type": ["number", "null"]}
    if hint in _SCALARS:
        return {"type": _SCALARS[hint]}
    if dataclasses.is_dataclass(hint):
        _define(typing.cast(type, hint), defs)
        return {"$ref": f"#/$defs/{typing.cast(type, hint).__name__}"}
    return {}


def descriptions(kind: type) -> dict[str, str]:
    """What each field means: from the class's own ``Attributes:`` section, else from the table of the rest."""
    out = dict(FIELDS.get(kind.__name__, {}))
    section = (inspect.getdoc(kind) or "").partition("Attributes:")[2]
    for names, text in re.findall(r"^    (\w[\w, ]*): (.*(?:\n {8}.*)*)", section, re.M):
        for name in names.split(", "):
            out[name] = re.sub(r"\s+", " ", text)
    return out


def unit_of(kind: type, name: str) -> str:
    """The unit of a plain number, told by its name; empty for an interval's parts, which carry their own."""
    if kind is Interval:
        return ""
    if name == "seconds" or name.endswith("_seconds") or name in ("step_median", "unaccounted", "curve", "predicted"):
        return "s"
    if name.endswith("_bytes"):
        return "B"
    if kind in (Alpha, Coefficient):
        return {"error": "outcome²", "value": "outcome"}.get(name, "1")
    return "1"


def solve() -> dict[str, Any]:
    """The schema of what ``hasten solve --json`` writes."""
    defs: dict[str, Any] = {}
    _define(Solution, defs)
    form = defs.pop("Solution")
    form["properties"] = {**documents.head("solve", SCHEMA), **form["properties"]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "hasten solve report",
        **form,
        "description": "What `hasten solve` writes with --json. Unknown numbers are null.",
        "required": list(form["properties"]),
        "$defs": defs,
    }


def main() -> None:
    """Print a schema."""
    forms = {"": schema, "fleet": lambda: documents.fleet(SCHEMA), "solve": solve}
    form = forms["".join(sys.argv[1:2])]()
    sys.stdout.write(json.dumps(form, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
