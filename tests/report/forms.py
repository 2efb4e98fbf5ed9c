"""Does a value have the form that a JSON schema of ours describes?"""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

TYPES = {
    "string": str,
    "integer": int,
    "boolean": bool,
    "number": (int, float),
    "null": type(None),
    "object": dict,
    "array": list,
}


def stored(name: str) -> dict[str, Any]:
    """A schema of the package."""
    text = resources.files("hasten.report").joinpath(name).read_text(encoding="utf-8")
    return json.loads(text)  # type: ignore[no-any-return]


def faults(value: Any, form: dict[str, Any], whole: dict[str, Any], where: str = "$") -> list[str]:
    """Where ``value`` departs from ``form``, a part of ``whole``: what of JSON Schema ours use."""
    if "$ref" in form:
        return faults(value, whole["$defs"][form["$ref"].rpartition("/")[2]], whole, where)
    if "anyOf" in form:
        tries = [faults(value, arm, whole, where) for arm in form["anyOf"]]
        return [] if [] in tries else min(tries, key=len)
    if "const" in form or "enum" in form:
        return [] if value in form.get("enum", [form.get("const")]) else [f"{where}: {value!r}"]
    kinds = form.get("type", list(TYPES))
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if not any(isinstance(value, TYPES[k]) and (k == "boolean" or value is not True) for k in kinds):
        return [f"{where}: {value!r} is no {kinds}"]
    if isinstance(value, list):
        return [f for i, v in enumerate(value) for f in faults(v, form["items"], whole, f"{where}[{i}]")]
    if isinstance(value, dict) and isinstance(form.get("additionalProperties"), dict):
        return [f for n, v in value.items() for f in faults(v, form["additionalProperties"], whole, f"{where}.{n}")]
    if isinstance(value, dict) and "properties" in form:
        names = form["properties"]
        missing = [f"{where}: {n} is missing" for n in form["required"] if n not in value]
        unknown = [f"{where}: {n} is unknown" for n in value if n not in names]
        inside = [f for n in names if n in value for f in faults(value[n], names[n], whole, f"{where}.{n}")]
        return missing + unknown + inside
    return []


def undescribed(whole: dict[str, Any]) -> list[str]:
    """Fields without a description, and numbers without a unit."""
    found = []
    for name, form in {**whole["$defs"], "": whole}.items():
        for field, inside in form["properties"].items():
            if not inside.get("description"):
                found.append(f"{name}.{field}: no description")
            if name != "Interval" and inside.get("type") == ["number", "null"] and not inside.get("x-unit"):
                found.append(f"{name}.{field}: no unit")
    return found
