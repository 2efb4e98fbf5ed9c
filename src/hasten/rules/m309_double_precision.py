"""The model computes in float64.

Why it is slow
    Twice the bytes, half the numbers a vector instruction, and on GPUs a small part of the float32 speed. It mostly
    comes from NumPy, whose arrays are float64, and from a ``.double()`` that made the error message go away.

Remedy
    None from outside, for the number of digits is the experiment's business. By hand: delete ``.double()`` or
    ``set_default_dtype(torch.float64)``, and convert the data once by ``.float()``.

Fidelity
    approximate: 7 digits instead of 16.

When it does not help
    Ill-conditioned problems that need the digits: matrix inversions, Gaussian processes, small differences of large
    numbers.

References
    https://docs.pytorch.org/docs/stable/tensor_attributes.html#torch.dtype
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from hasten.core.facts import ModelFacts, Place
from hasten.core.finding import Finding, Rule, ms
from hasten.core.trace import Trace
from hasten.seams.source import calls, source_of

LEAST_GAIN = 1.03  # speed-up of a step at best, below which nothing is said
SAVED = (0.15, 0.7)  # part of forward, backward and optimizer; measured 1.95x and 3.0x for steps of matrix products
_CALLED = re.compile(r"(\w+)\s*\(")


def detect(trace: Trace) -> Iterator[Finding]:
    cost = sum(trace.phase(name) for name in ("forward", "backward", "optimizer"))
    best = trace.amdahl(SAVED[1] * cost)
    if not best >= LEAST_GAIN:
        return
    dtypes = {dtype for model in trace.models for dtype in model.dtypes}
    wide = [model for model in trace.models if "float64" in model.dtypes]
    if not wide or any(d.startswith(("float", "bfloat", "complex")) for d in dtypes - {"float64"}):
        return  # of models in both, nobody knows which has taken how much of a step
    yield RULE.finding(
        f"the {wide[0].elements:,} parameters of {wide[0].kind} are float64; {ms(cost)} of a step compute with them",
        widened(trace, wide[0]),
        (trace.amdahl(SAVED[0] * cost), best),
        label="makes it float64",
        advice="compute in float32: drop this, and convert the data once with .float()",
    )


def widened(trace: Trace, model: ModelFacts) -> Place | None:
    """The line that makes the model float64, as far as the source tells; else the line that calls the model."""
    names = {model.kind, *(_CALLED.findall(model.place.text) if model.place else ())}
    files = dict.fromkeys(f for f in (model.place.file if model.place else "", trace.script) if f)
    for wanted in (lambda f, c: _widens_model(f, c, names), lambda _f, c: _is_default(c)):
        for file in files:
            found = calls(file, lambda c, f=file, w=wanted: w(f, c))  # type: ignore[misc]
            if found:
                return found[0]
    return model.place


def _widens_model(file: str, call: ast.Call, names: set[str]) -> bool:
    if not isinstance(call.func, ast.Attribute) or call.func.attr not in ("double", "to", "type"):
        return False
    if call.func.attr != "double" and not any(_is_float64(a) for a in (*call.args, *(k.value for k in call.keywords))):
        return False
    return bool(set(re.findall(r"\w+", source_of(file, call.func.value))) & names)


def _is_default(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    return name in ("set_default_dtype", "set_default_tensor_type") and any(_is_float64(a) for a in call.args)


def _is_float64(node: ast.expr) -> bool:
    return isinstance(node, ast.Attribute) and node.attr in ("float64", "double", "DoubleTensor")


RULE = Rule("M309", "double-precision", detect, __doc__)
