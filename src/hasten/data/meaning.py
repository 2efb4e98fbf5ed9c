"""From a method's code to its source, and from its source to what it does with the rows of a whole batch."""

from __future__ import annotations

import ast
import functools
import inspect
import linecache
import types
from collections.abc import Callable
from typing import Any

import numpy as np

from hasten.data.picked import CONVERSIONS, METHODS, Numbers, Picked, picked, window

SETTINGS = (int, float, str, bool, type(None))
Meaning = Callable[[dict[str, Any]], Any]  # of an expression, given the names known so far
OTHER_KINDS = inspect.CO_VARARGS | inspect.CO_VARKEYWORDS | inspect.CO_GENERATOR  # of functions
OTHER_KINDS |= inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


class Unreadable(Exception):
    """Why a method, or this call of it, is not of the kind that can be read."""


@functools.lru_cache(maxsize=64)
def statements_of(method: types.FunctionType) -> tuple[list[Any], tuple[str, str]]:
    """What a method does, statement by statement, and its names for self and the index."""
    body, names = _body(method.__code__)
    reader = _Reader(method, names[0])
    return [reader.later(s) for s in body], names


def _body(code: types.CodeType) -> tuple[list[ast.stmt], tuple[str, str]]:
    """The statements of a method of self and an index, and these two's names.

    Raises:
        Unreadable: its source is not to be had, or is not what runs.
    """
    if code.co_argcount != 2 or code.co_kwonlyargcount or code.co_flags & OTHER_KINDS or code.co_freevars:
        raise Unreadable("__getitem__ takes more than an index")
    linecache.checkcache(code.co_filename)
    text = "".join(linecache.getlines(code.co_filename))
    try:
        tree, whole = ast.parse(text), compile(text, code.co_filename, "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        raise Unreadable("its source cannot be read") from None
    if not any(c == code for c in _codes(whole)):
        raise Unreadable("its source is not what runs")
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.lineno == code.co_firstlineno and node.name == code.co_name:
            return node.body, (code.co_varnames[0], code.co_varnames[1])
    raise Unreadable("its source is not found")


def _codes(code: types.CodeType) -> list[types.CodeType]:
    inner = [c for c in code.co_consts if isinstance(c, types.CodeType)]
    return [code, *(c for i in inner for c in _codes(i))]


class _Reader:
    """Turns statements and expressions into functions of the names known so far."""

    def __init__(self, method: types.FunctionType, self_name: str) -> None:
        self.globals = method.__globals__
        self.locals = method.__code__.co_varnames
        self.self_name = self_name

    def statement(self, node: ast.stmt) -> Callable[[dict[str, Any]], tuple[Any] | None]:
        """What the statement does; it gives what it returns, in a tuple."""
        if isinstance(node, ast.Return) and node.value is not None:
            value = self.value(node.value)
            return lambda known: (value(known),)
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            value, bind = self.value(node.value), self._binding(node.targets[0])
            return lambda known: bind(known, value(known))
        if isinstance(node, ast.If):
            return self._if(node)
        if isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            return lambda known: None
        raise Unreadable(f"line {node.lineno} does more than pick rows")

    def _if(self, node: ast.If) -> Callable[[dict[str, Any]], tuple[Any] | None]:
        test = self.value(node.test)
        yes, no = ([self.later(s) for s in part] for part in (node.body, node.orelse))

        def choose(known: dict[str, Any]) -> tuple[Any] | None:
            chosen = test(known)
            if not isinstance(chosen, SETTINGS):
                raise Unreadable("what it does depends on the sample")
            for statement in yes if chosen else no:
                found = statement(known)
                if found is not None:
                    return found
            return None

        return choose

    def later(self, node: ast.stmt) -> Callable[[dict[str, Any]], tuple[Any] | None]:
        """A statement that may never be come to; only then is it to be of the kind that can be read."""
        try:
            return self.statement(node)
        except Unreadable as error:
            why = str(error)

            def give_up(known: dict[str, Any]) -> None:
                raise Unreadable(why)

            return give_up

    def _binding(self, target: ast.expr) -> Callable[[dict[str, Any], Any], None]:
        if isinstance(target, ast.Name) and target.id != self.self_name:
            return lambda known, value: known.update({target.id: value})
        if isinstance(target, ast.Tuple) and all(isinstance(t, ast.Name) for t in target.elts):
            names = [t.id for t in target.elts if isinstance(t, ast.Name) and t.id != self.self_name]

            def bind(known: dict[str, Any], value: Any) -> None:
                if not isinstance(value, tuple) or len(value) != len(names):
                    raise Unreadable("it takes a value apart")
                known.update(zip(names, value, strict=True))

            return bind
        raise Unreadable(f"line {target.lineno} changes something")

    def value(self, node: ast.expr) -> Meaning:
        """What an expression stands for.

        Raises:
            Unreadable: an expression of another kind.
        """
        read = getattr(self, f"_{type(node).__name__.lower()}", None)
        if read is None:
            raise Unreadable(f"line {node.lineno} does more than pick rows")
        return read(node)  # type: ignore[no-any-return]

    def _constant(self, node: ast.Constant) -> Meaning:
        return lambda known: node.value

    def _name(self, node: ast.Name) -> Meaning:
        def look(known: dict[str, Any]) -> Any:
            if node.id in known:
                return known[node.id]
            raise Unreadable(f"it uses {node.id}")

        return look

    def _tuple(self, node: ast.Tuple) -> Meaning:
        parts = [self.value(e) for e in node.elts]
        return lambda known: tuple(p(known) for p in parts)

    def _list(self, node: ast.List) -> Meaning:
        parts = [self.value(e) for e in node.elts]
        return lambda known: [p(known) for p in parts]

    def _dict(self, node: ast.Dict) -> Meaning:
        keys = [k.value for k in node.keys if isinstance(k, ast.Constant) and isinstance(k.value, str)]
        if len(keys) != len(node.keys):
            raise Unreadable("the keys of what it returns are made")
        parts = [self.value(v) for v in node.values]
        return lambda known: {k: p(known) for k, p in zip(keys, parts, strict=True)}

    def _attribute(self, node: ast.Attribute) -> Meaning:
        whole, name = self.value(node.value), node.attr
        return lambda known: _plain(whole(known), name)

    def _binop(self, node: ast.BinOp) -> Meaning:
        ways: dict[type, Any] = {ast.Add: np.add, ast.Sub: np.subtract, ast.Mult: np.multiply}
        way = ways.get(type(node.op))
        if way is None:
            raise Unreadable(f"line {node.lineno} computes something")
        left, right = self.value(node.left), self.value(node.right)

        def compute(known: dict[str, Any]) -> Any:
            a, b = left(known), right(known)
            if type(a) is int and type(b) is int:
                return int(way(a, b))
            if isinstance(a, Numbers) or isinstance(b, Numbers):
                return Numbers(way(_number(a), _number(b)))
            raise Unreadable(f"line {node.lineno} computes something")

        return compute

    def _unaryop(self, node: ast.UnaryOp) -> Meaning:
        operand = self.value(node.operand)

        def compute(known: dict[str, Any]) -> Any:
            value = operand(known)
            if isinstance(node.op, ast.Not) and isinstance(value, SETTINGS):
                return not value
            if isinstance(node.op, ast.USub) and type(value) is int:
                return -value
            raise Unreadable(f"line {node.lineno} computes something")

        return compute

    def _compare(self, node: ast.Compare) -> Meaning:
        if len(node.ops) != 1 or not isinstance(node.ops[0], (ast.Is, ast.IsNot, ast.Eq, ast.NotEq)):
            raise Unreadable(f"line {node.lineno} compares something")
        left, right = self.value(node.left), self.value(node.comparators[0])
        same, differ = isinstance(node.ops[0], (ast.Is, ast.Eq)), isinstance(node.ops[0], (ast.IsNot, ast.NotEq))

        def compare(known: dict[str, Any]) -> bool:
            a, b = left(known), right(known)
            by_identity = isinstance(node.ops[0], (ast.Is, ast.IsNot))
            if (by_identity and b is not None) or not isinstance(b, SETTINGS):
                raise Unreadable("it compares other things than settings")
            if not by_identity and not isinstance(a, SETTINGS):
                raise Unreadable("it compares other things than settings")
            equal = a is b if by_identity else a == b
            return equal if same else differ and not equal

        return compare

    def _boolop(self, node: ast.BoolOp) -> Meaning:
        parts = [self.value(v) for v in node.values]
        both = isinstance(node.op, ast.And)

        def decide(known: dict[str, Any]) -> bool:
            for part in parts:
                value = part(known)
                if not isinstance(value, SETTINGS):
                    raise Unreadable("it compares other things than settings")
                if bool(value) is not both:
                    return not both
            return both

        return decide

    def _subscript(self, node: ast.Subscript) -> Meaning:
        base, place = self.value(node.value), node.slice
        first = place.elts[0] if isinstance(place, ast.Tuple) and place.elts else place
        if isinstance(place, ast.Tuple) and not all(_everything(e) for e in place.elts[1:]):
            raise Unreadable(f"line {node.lineno} picks more than rows")
        if not isinstance(first, ast.Slice):
            row = self.value(first)
            return lambda known: _row(base(known), row(known))
        if first.step is not None:
            raise Unreadable(f"line {node.lineno} picks rows in steps")
        ends = [self.value(e) if e is not None else (lambda known: None) for e in (first.lower, first.upper)]

        def cut(known: dict[str, Any]) -> Any:
            whole, low, high = base(known), ends[0](known), ends[1](known)
            if isinstance(whole, Picked) and not isinstance(low, Numbers) and not isinstance(high, Numbers):
                found = whole.part(slice(low, high))
            elif isinstance(low, Numbers) and isinstance(high, Numbers):
                found = window(whole, low, high)
            else:
                raise Unreadable("it cuts something that is the same for all samples")
            if found is None:
                raise Unreadable("it cuts something else than whole windows of arrays")
            return found

        return cut

    def _call(self, node: ast.Call) -> Meaning:
        """Conversions of dtype: ``torch.tensor(x, dtype=…)``, ``x.float()``, ``x.astype(…)``, ``np.float32(x)``, …"""
        if not isinstance(node.func, ast.Attribute) or any(k.arg != "dtype" for k in node.keywords):
            raise Unreadable(f"line {node.lineno} calls something")
        given = [self._member(a) or self.value(a) for a in [*node.args, *(k.value for k in node.keywords)]]
        module = self._module(node.func.value)
        if module is not None:
            call = CONVERSIONS.get(f"{module.__name__}.{node.func.attr}")
        else:
            call, given = METHODS.get(node.func.attr), [self.value(node.func.value), *given]
        if call is None or len(given) > 2:
            raise Unreadable(f"line {node.lineno} calls something")

        def convert(known: dict[str, Any]) -> Any:
            found = call(*(g(known) for g in given))
            if found is None:
                raise Unreadable(f"line {node.lineno} converts something else than rows")
            return found

        return convert

    def _module(self, node: ast.expr) -> types.ModuleType | None:
        """The module that a name of the script's stands for: torch or NumPy, or none."""
        import torch

        named = isinstance(node, ast.Name) and node.id not in self.locals
        found = self.globals.get(node.id) if named else None  # type: ignore[attr-defined]
        return found if found is torch or found is np else None

    def _member(self, node: ast.expr) -> Meaning | None:
        """A dtype by its name, ``torch.float32`` or ``np.float32``; None for anything else."""
        module = self._module(node.value) if isinstance(node, ast.Attribute) else None
        return (lambda known: getattr(module, node.attr, None)) if module is not None else None  # type: ignore[attr-defined]


def _everything(node: ast.expr) -> bool:
    return isinstance(node, ast.Slice) and node.lower is None and node.upper is None and node.step is None


def looks_up_plainly(whole: Any) -> bool:
    own: Any = type(whole).__getattribute__
    return own is object.__getattribute__


def _plain(whole: Any, name: str) -> Any:
    """An attribute that lies in the object itself, or is a setting of its class: looking at it calls nothing."""
    if isinstance(whole, (Numbers, Picked)) or not looks_up_plainly(whole):
        raise Unreadable(f"it asks for .{name}")
    of_class = next((vars(c)[name] for c in type(whole).__mro__ if name in vars(c)), None)
    fields = getattr(whole, "__dict__", {})
    if name in fields and not hasattr(type(of_class), "__set__"):
        return fields[name]
    if of_class is not None and isinstance(of_class, SETTINGS) and name not in fields:
        return of_class
    raise Unreadable(f"it asks for .{name}")


def _number(value: Any) -> Any:
    if isinstance(value, Numbers):
        return value.each
    if type(value) is int:
        return value
    raise Unreadable("it computes with something else than numbers")


def _row(whole: Any, place: Any) -> Any:
    if isinstance(whole, Picked):
        found = whole.part(place) if type(place) is int else None
    else:
        found = picked(whole, place) if isinstance(place, Numbers) else None
    if found is None:
        raise Unreadable("it picks from something else than arrays")
    return found
