"""How many steps the script will take, read from the loops that it is in."""

from __future__ import annotations

import ast
import functools
import linecache
import operator
import sys
from types import FrameType
from typing import Any

from hasten.seams.locate import is_users, locals_of, shown

_LENGTHS = {
    "range",
    "trange",
    "tqdm",
    "enumerate",
    "zip",
    "reversed",
    "list",
    "tuple",
    "iter",
    "track",
    "tqdm_notebook",
}
_OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Div: operator.truediv,
}


class Unknown(Exception):
    """A loop's length cannot be read without running the user's code."""


def predict(frame: FrameType | None) -> tuple[int, str]:
    """(steps, where from) for the loops around ``frame``; (-1, reason) where a loop's length is not known.

    Only names, attributes, numbers, sums and products, ``range`` and ``len`` are evaluated: nothing of the user's runs.
    """
    total, sources = 1, []
    while frame is not None:
        found = _framework(frame)
        if found:
            return found, "the Trainer's max_steps"
        if is_users(frame.f_code.co_filename):
            for loop in _loops(frame.f_code.co_filename, frame.f_lineno):
                if isinstance(loop, ast.While):
                    return -1, f"a while loop at {shown(frame.f_code.co_filename)}:{loop.lineno}"
                try:
                    total *= max(1, _length(loop.iter, frame))
                except Unknown:
                    return -1, f"the loop at {shown(frame.f_code.co_filename)}:{loop.lineno}"
                sources.append(str(loop.lineno))
        frame = frame.f_back
    return (total, "the loops in lines " + ", ".join(sources)) if sources else (-1, "no loop was found")


def _framework(frame: FrameType) -> int:
    """Hugging Face's Trainer keeps the number of steps in a local of its training loop."""
    if frame.f_code.co_name == "_inner_training_loop" and "transformers" in frame.f_code.co_filename:
        value = locals_of(frame).get("max_steps")
        return value if isinstance(value, int) else 0
    return 0


@functools.cache
def _tree(filename: str) -> ast.Module | None:
    try:
        return ast.parse("".join(linecache.getlines(filename)))
    except (SyntaxError, ValueError):
        return None


def _loops(filename: str, line: int) -> list[ast.For | ast.While]:
    """The loops of the same function whose body holds ``line``, innermost first."""
    tree = _tree(filename)
    if tree is None:
        return []
    holding = [
        n for n in ast.walk(tree) if isinstance(n, (ast.stmt, ast.expr)) and n.lineno <= line <= (n.end_lineno or 0)
    ]
    functions = [n for n in holding if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))]
    inner = max((n.lineno for n in functions), default=0)
    loops = [n for n in holding if isinstance(n, (ast.For, ast.While)) and n.lineno > inner and _in_body(n, line)]
    return sorted(loops, key=lambda n: -n.lineno)


def _in_body(loop: ast.For | ast.While, line: int) -> bool:
    return bool(loop.body) and loop.body[0].lineno <= line <= (loop.body[-1].end_lineno or 0)


def _length(node: ast.expr, frame: FrameType) -> int:
    if isinstance(node, ast.Call) and _name(node.func) in _LENGTHS and node.args:
        name = _name(node.func)
        if name in ("range", "trange"):
            values = [_value(a, frame) for a in node.args]
            if not all(isinstance(v, int) for v in values):
                raise Unknown
            return len(range(*values))
        if name == "zip":
            return min(_length(a, frame) for a in node.args)
        return _length(node.args[0], frame)
    value = _value(node, frame)
    if isinstance(value, (str, bytes)) or not hasattr(type(value), "__len__"):
        raise Unknown
    try:
        return len(value)
    except Exception:
        raise Unknown from None


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _value(node: ast.expr, frame: FrameType) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        for scope in (locals_of(frame), frame.f_globals):
            if node.id in scope:
                return scope[node.id]
        raise Unknown
    if isinstance(node, ast.Attribute):
        owner = _value(node.value, frame)
        fields = getattr(owner, "__dict__", {})
        if node.attr in fields:
            return fields[node.attr]
        raise Unknown
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = _value(node.left, frame), _value(node.right, frame)
        if isinstance(left, (int, float)) and isinstance(right, (int, float)):
            return _OPERATORS[type(node.op)](left, right)
        raise Unknown
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        owner = _value(node.value, frame)
        if isinstance(owner, dict) and node.slice.value in owner:
            return owner[node.slice.value]
        raise Unknown
    if isinstance(node, ast.Call) and _name(node.func) == "len" and len(node.args) == 1:
        return _length(node.args[0], frame)
    if isinstance(node, ast.Call) and _name(node.func) == "int" and len(node.args) == 1:
        return int(_value(node.args[0], frame))
    raise Unknown


def expected(watch: Any) -> tuple[int, str]:
    """:func:`predict` for the code that called hasten, in steps of ``watch``: where optimizers take turns in one line,
    all of them make one step."""
    steps, source = predict(sys._getframe(1))
    record = watch.optimizers.get(watch.clock_key)
    if steps < 0 or record is None or record.place is None:
        return steps, source
    alive = [r for r in watch.optimizers.values() if r.optimizer is not None and r.place == record.place]
    turns = sum(abs(r.steps - record.steps) <= 1 for r in alive)
    return max(1, steps // max(1, turns)), source
