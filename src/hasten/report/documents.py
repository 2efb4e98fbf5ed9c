"""The JSON schemas of what ``hasten fleet`` and ``hasten solve`` write."""

from __future__ import annotations

from typing import Any

Fields = dict[str, tuple[Any, str]]

_NUMBER = {"type": ["number", "null"]}
_TEXT, _COUNT, _TRUTH = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}
_TEXTS = {"type": "array", "items": _TEXT}
_SECONDS = {**_NUMBER, "x-unit": "s"}
_PLAIN = {**_NUMBER, "x-unit": "1"}
_NUMBERS = {"type": "array", "items": _NUMBER}


def _map(of: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": of}


def _rows(name: str) -> dict[str, Any]:
    return {"type": "array", "items": {"$ref": f"#/$defs/{name}"}}


ROW: Fields = {
    "key": (_TEXT, "its key"),
    "rows": (_COUNT, "trained on; of a key that failed, all it has"),
    "kind": (_TEXT, "form of its model; keys of one kind have networks of one form"),
    "engine": (_TEXT, "native, stacked or loop; empty where it failed before training"),
    "loss": (_PLAIN, "training loss of the epoch whose weights were kept"),
    "held": (_PLAIN, "held-out loss of the weights kept; null where nothing is held out"),
    "epochs": (_COUNT, "trained"),
    "best_epoch": (_COUNT, "whose weights were kept; 0 for the last"),
    "stopped": (_TRUTH, "whether it was stopped early"),
    "seconds": (_SECONDS, "of one core"),
    "cause": (_TEXT, "why it failed; empty if it did not"),
    "source": ({"enum": ["own", "global", "naive"]}, "what predicts for this key"),
}
PROOF: Fields = {
    "key": (_TEXT, "its key"),
    "engine": (_TEXT, "what trained it"),
    "holds": (_TRUTH, "whether it is the plain loop's"),
    "loss": (_PLAIN, "its last training loss"),
    "loop_loss": (_PLAIN, "the plain loop's"),
    "weights_differ_by": (_PLAIN, "the largest difference of a weight from the plain loop's"),
    "identical": (_TRUTH, "whether all weights are the same bits"),
    "gradients": (_COUNT, "gradients that were compared on the way; 0 where all bits are the same"),
    "gradient_error": (_PLAIN, "of the worst of them: the engine's distance from the gradient in float64"),
    "torch_gradient_error": (_PLAIN, "torch's own float32 distance from it"),
    "step_error": (_PLAIN, "the worst optimizer step's distance from torch's"),
    "cause": (_TEXT, "why it does not hold, where that is no gradient"),
}
UPDATE: Fields = {
    "rows": (_COUNT, "new rows that were learned"),
    "visits": (_COUNT, "rows visited for each key and share"),
    "seconds": (_SECONDS, "wall time of it"),
    "error": (_PLAIN, "mean loss of the new rows before they were learned"),
    "shares": (_map(_COUNT), "keys now predicted for, by the newest rows' share of the visits"),
    "predicted": (_map(_SECONDS), "of a full retraining: seconds of the next 1, 10 and 100 iterations"),
    "failed": (_map(_TEXT), "cause by key that was not learned"),
    "remarks": (_TEXTS, "what was learned and may not be what was meant"),
}
WORTH: Fields = {
    "own": (_COUNT, "keys whose own network is best on held-out rows"),
    "global": (_COUNT, "keys for which one network of all is"),
    "naive": (_COUNT, "keys for which the naive forecast is"),
    "losses": (_map(_map(_PLAIN)), "held-out loss of each, by key"),
    "share": (_PLAIN, "of the rows that the global network has seen"),
    "seconds": (_SECONDS, "that the comparison took"),
    "kept": (_TRUTH, "whether the best of them predicts"),
}
FORECAST: Fields = {
    "key": (_TEXT, "its key"),
    "group": ({"enum": ["best", "median", "worst"]}, "among all keys, by the loss that is given"),
    "held": (_PLAIN, "its held-out loss; absent where nothing is held out"),
    "loss": (_PLAIN, "its training loss, where nothing is held out"),
    "seen": (_NUMBERS, "the last held-out window, or the last one, in the data's unit"),
    "came": (_NUMBERS, "what came after it"),
    "predicted": (_NUMBERS, "what the fleet predicts for the key, by whatever stands in for its own network"),
}
FLEET: Fields = {
    "models": (_COUNT, "keys that were given"),
    "trained": (_COUNT, "of them, keys with a network"),
    "stopped_early": (_COUNT, "of them, keys stopped early"),
    "failed": (_COUNT, "keys without a network"),
    "rows": (_rows("Row"), "one for each key"),
    "engines": (_map(_TEXT), "engine and reason, by kind of model"),
    "recipe": ({"type": "object"}, "settings of the training"),
    "workers": (_COUNT, "models that were trained side by side"),
    "seconds": (_SECONDS, "wall time of training"),
    "bound": (_SECONDS, "no order of the same work takes less"),
    "work": (_SECONDS, "of one core, of all models"),
    "loop_seconds": (_SECONDS, "of one core, expected of the plain loop; 0 where unknown"),
    "worth": ({"anyOf": [{"$ref": "#/$defs/Worth"}, {"type": "null"}]}, "the baselines; null where not asked for"),
    "proof": (_rows("Proof"), "comparisons with the plain loop"),
    "remarks": (_TEXTS, "sentences on the data and the training"),
    "updates": (_rows("Update"), "one for each update; the figures above are of the training before them"),
    "forecasts": (_rows("Forecast"), "of the best, median and worst keys; empty where the data are no series"),
    "before": (_COUNT, "models that a run before this one has finished; no time counts them"),
}
OPTIONAL = {  # present only where it is known
    "Proof": set(PROOF) - {"key", "engine", "holds"},
    "Worth": set[str](),
    "Forecast": {"held", "loss"},
}


def fleet(version: int) -> dict[str, Any]:
    """What ``hasten fleet --json`` writes."""
    parts = {"Row": ROW, "Proof": PROOF, "Update": UPDATE, "Worth": WORTH, "Forecast": FORECAST}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "hasten fleet report",
        "description": "What `hasten fleet` writes with --json. Unknown numbers are null.",
        **_object({**head("fleet", version), **_described(FLEET)}),
        "$defs": {name: _object(_described(fields), OPTIONAL.get(name, set())) for name, fields in parts.items()},
    }


def head(kind: str, version: int) -> dict[str, Any]:
    """The fields with which such a document begins."""
    return {
        "schema": {"const": version, "description": "version of this schema"},
        "kind": {"const": kind, "description": "which command wrote it"},
        "hasten": {"type": "string", "description": "version of hasten"},
    }


def _described(fields: Fields) -> dict[str, Any]:
    return {name: {**form, "description": text} for name, (form, text) in fields.items()}


def _object(properties: dict[str, Any], optional: set[str] = frozenset()) -> dict[str, Any]:  # type: ignore[assignment]
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }
