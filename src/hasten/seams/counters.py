"""Where a loop ends that has no length of its own: a counter goes up by a constant, and the loop ends at a limit.

``while step < limit:``, ``while True: … if step >= limit: break``, and the same inside a ``for`` that would go on for
longer. Other ways out (a loss that is NaN, an early stop) are not foreseen: what is found is the most that will come.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator
from types import FrameType

from hasten.seams.evaluate import Unknown, name_of, number, truth

Loop = ast.For | ast.While

# counter OP limit ends a loop (or, in a while's own test, keeps it going) once the counter has gone so far past it
_PAST = {ast.Gt: 1, ast.GtE: 0, ast.Eq: 0}
_TURNED = {ast.Lt: ast.Gt, ast.LtE: ast.GtE, ast.Gt: ast.Lt, ast.GtE: ast.LtE, ast.Eq: ast.Eq, ast.NotEq: ast.NotEq}
_EXITS = ("exit", "quit", "_exit", "SystemExit")
_OPPOSITE = {ast.Lt: ast.GtE, ast.LtE: ast.Gt, ast.Gt: ast.LtE, ast.GtE: ast.Lt, ast.NotEq: ast.Eq, ast.Eq: ast.NotEq}


def iterations(loop: Loop, frame: FrameType, taken: int) -> int:
    """Iterations of ``loop`` from its first to its last.

    Args:
        frame: where it runs.
        taken: steps so far; a counter that is further on has begun somewhere else (a resumed job).

    Raises:
        Unknown: no counter with a limit was found.
    """
    steps = _increments(loop, frame)
    found = [
        _between(steps[ast.dump(counter)], number(counter, frame), number(limit, frame) + past, taken)
        for counter, limit, past in _ends(loop, frame, steps)
    ]
    if not found:
        raise Unknown
    return min(found)


def ends(loop: Loop, frame: FrameType) -> bool:
    """Whether a condition ends the loop that can be read."""
    return next(_ends(loop, frame, _increments(loop, frame)), None) is not None


def _between(step: float, now: float, end: float, taken: int) -> int:
    """Iterations until a counter that goes up by ``step`` is at ``end``, and those behind it."""
    return max(0, math.ceil((end - now) / step)) + max(0, min(taken, int(now // step)))


def _ends(loop: Loop, frame: FrameType, steps: dict[str, float]) -> Iterator[tuple[ast.expr, ast.expr, int]]:
    """(counter, limit, how far past it) for every condition that ends the loop."""
    if isinstance(loop, ast.While):
        yield from _limits(loop.test, frame, steps, going_on=True)
    for node in _own(loop):
        if isinstance(node, ast.If) and any(map(_leaves, node.body)):
            yield from _limits(node.test, frame, steps, going_on=False)


def _leaves(node: ast.stmt) -> bool:
    """Whether a statement ends the loop: ``break``, ``return``, ``sys.exit()``, ``raise SystemExit``."""
    call = node.value if isinstance(node, ast.Expr) else node.exc if isinstance(node, ast.Raise) else None
    named = name_of(call.func if isinstance(call, ast.Call) else call) if isinstance(call, ast.expr) else ""
    return isinstance(node, (ast.Break, ast.Return)) or named in _EXITS


def _limits(
    test: ast.expr, frame: FrameType, steps: dict[str, float], going_on: bool
) -> Iterator[tuple[ast.expr, ast.expr, int]]:
    if isinstance(test, ast.BoolOp):
        # «a and b» keeps a loop going until one of them fails, and ends it once both hold; «or» the other way round
        alone = isinstance(test.op, ast.And) == going_on
        for part in test.values:
            others = (other for other in test.values if other is not part)
            if alone or all(_known(other, frame) is (not going_on) for other in others):
                yield from _limits(part, frame, steps, going_on)
        return
    if not isinstance(test, ast.Compare) or len(test.ops) != 1:
        return
    left, op, right = test.left, type(test.ops[0]), test.comparators[0]
    if ast.dump(right) in steps:
        left, op, right = right, _TURNED.get(op, op), left
    if going_on:
        op = _OPPOSITE.get(op, op)
    if ast.dump(left) in steps and op in _PAST and _readable(left, right, frame):
        yield left, right, _PAST[op]


def _known(test: ast.expr, frame: FrameType) -> bool | None:
    try:
        return truth(test, frame)
    except Unknown:
        return None


def _readable(counter: ast.expr, limit: ast.expr, frame: FrameType) -> bool:
    try:
        number(counter, frame)
        return math.isfinite(number(limit, frame))
    except Unknown:
        return False


def _increments(loop: Loop, frame: FrameType) -> dict[str, float]:
    """What goes up by a constant in every iteration: the dumped expression, as it is read, and by how much."""
    found: dict[str, float] = {}
    for node in loop.body:
        target, added = _increment(node)
        if target is not None and added is not None and (by := _known_number(added, frame)) > 0:
            found[_read(target)] = by
    target = counted(loop) if isinstance(loop, ast.For) else None
    if target is not None:
        found[_read(target)] = 1
    return found


def _increment(node: ast.stmt) -> tuple[ast.expr | None, ast.expr | None]:
    """What a statement adds to, and what it adds."""
    if isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Add):
        return node.target, node.value
    if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.value, ast.BinOp):
        target, value = node.targets[0], node.value
        if isinstance(value.op, ast.Add) and ast.dump(value.left) == _read(target):
            return target, value.right
    return None, None


def counted(loop: ast.For) -> ast.expr | None:
    """The variable that ``enumerate``, ``range`` or ``count`` let go up by one from nought."""
    call, target = loop.iter, loop.target
    if not isinstance(call, ast.Call) or call.keywords:
        return None
    name, arguments = name_of(call.func), len(call.args)
    if name == "enumerate" and arguments == 1 and isinstance(target, ast.Tuple):
        return target.elts[0]
    if (name == "range" and arguments == 1) or (name == "count" and arguments == 0):
        return target
    return None


def _known_number(node: ast.expr, frame: FrameType) -> float:
    try:
        found = number(node, frame)
    except Unknown:
        return 0
    return found if math.isfinite(found) else 0


def _read(target: ast.expr) -> str:
    """How an expression that is assigned to looks where it is read."""
    return ast.dump(target).replace("Store()", "Load()")


def _own(loop: Loop) -> Iterator[ast.stmt]:
    """Statements of the loop's body whose ``break`` is the loop's: not those of loops and functions inside it."""
    waiting = list(loop.body)
    while waiting:
        node = waiting.pop(0)
        yield node
        if isinstance(node, (ast.If, ast.With, ast.Try)):
            for part in ("body", "orelse", "finalbody"):
                waiting.extend(getattr(node, part, []))
            for handler in getattr(node, "handlers", []):
                waiting.extend(handler.body)
