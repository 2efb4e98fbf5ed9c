"""Values of expressions of the user's, read from where they lie; nothing of the user's runs but a ``__len__``.

Names, attributes that instances keep in their ``__dict__``, numbers, sums and products, ``range``, ``len``, comparisons
and ``and``/``or``/``not`` of these. Whatever else an expression holds could have an effect, and is :class:`Unknown`.
"""

from __future__ import annotations

import ast
import operator
from types import FrameType
from typing import Any

from hasten.seams.locate import locals_of

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
_NUMBERS = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


class Unknown(Exception):
    """A value cannot be read without running the user's code."""


def length(node: ast.expr, frame: FrameType) -> int:
    """How many items a loop over ``node`` sees."""
    if isinstance(node, ast.Call) and name_of(node.func) in _LENGTHS and node.args:
        name = name_of(node.func)
        if name in ("range", "trange"):
            values = [value(a, frame) for a in node.args]
            if not all(isinstance(v, int) for v in values):
                raise Unknown
            try:
                return len(range(*values))
            except (TypeError, ValueError, OverflowError):
                raise Unknown from None
        if name == "zip":
            return min(length(a, frame) for a in node.args)
        return length(node.args[0], frame)
    if isinstance(node, (ast.List, ast.Tuple)) and not any(isinstance(e, ast.Starred) for e in node.elts):
        return len(node.elts)
    found = value(node, frame)
    if isinstance(found, (str, bytes)) or not hasattr(type(found), "__len__"):
        raise Unknown
    try:
        return len(found)
    except Exception:
        raise Unknown from None


def value(node: ast.expr, frame: FrameType) -> Any:
    """What ``node`` is worth in ``frame``."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        for scope in (locals_of(frame), frame.f_globals):
            if node.id in scope:
                return scope[node.id]
        raise Unknown
    if isinstance(node, ast.Attribute):
        fields = getattr(value(node.value, frame), "__dict__", {})
        if node.attr in fields:
            return fields[node.attr]
        raise Unknown
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -number(node.operand, frame)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = number(node.left, frame), number(node.right, frame)
        try:
            return _OPERATORS[type(node.op)](left, right)
        except (ArithmeticError, ValueError):
            raise Unknown from None
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        owner = value(node.value, frame)
        if type(owner) is dict and node.slice.value in owner:
            return owner[node.slice.value]
        raise Unknown
    if isinstance(node, ast.Call) and name_of(node.func) == "len" and len(node.args) == 1:
        return length(node.args[0], frame)
    if isinstance(node, ast.Call) and name_of(node.func) == "int" and len(node.args) == 1:
        return int(number(node.args[0], frame))
    raise Unknown


def number(node: ast.expr, frame: FrameType) -> int | float:
    """A number of Python's own, which has no code of the user's behind its operators."""
    found = value(node, frame)
    if type(found) in (int, float, bool):
        return found  # type: ignore[no-any-return]
    raise Unknown


def truth(node: ast.expr, frame: FrameType) -> bool:
    """Whether a condition holds now."""
    if isinstance(node, ast.BoolOp):
        parts = [truth(part, frame) for part in node.values]
        return all(parts) if isinstance(node.op, ast.And) else any(parts)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return not truth(node.operand, frame)
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        left, op, right = node.left, node.ops[0], node.comparators[0]
        if isinstance(op, (ast.Is, ast.IsNot)):
            return (value(left, frame) is value(right, frame)) == isinstance(op, ast.Is)
        if type(op) in _NUMBERS:
            return bool(_NUMBERS[type(op)](number(left, frame), number(right, frame)))
        raise Unknown
    found = value(node, frame)
    if found is None or type(found) in (bool, int, float, str):
        return bool(found)
    raise Unknown


def name_of(node: ast.expr) -> str:
    """The last name of what is called."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
