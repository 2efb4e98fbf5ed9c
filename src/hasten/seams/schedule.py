"""How many steps the script will take, read from the loops that it is in."""

from __future__ import annotations

import ast
import contextlib
import functools
import linecache
import sys
from types import FrameType
from typing import Any

from hasten.seams import counters
from hasten.seams.evaluate import Unknown, length
from hasten.seams.locate import is_users, locals_of, shown

ACCUMULATED = 1.1  # batches a step, from which on gradients are accumulated


def predict(frame: FrameType | None, taken: int = 0, batches: float = 1.0) -> tuple[int, str]:
    """(steps, where from) for the loops around ``frame``; (-1, reason) where a loop's length is not known.

    Nothing of the user's runs: see :mod:`hasten.seams.evaluate`.

    Args:
        taken: steps so far.
        batches: how many a step takes. Where it is more, and the step is taken under a condition, that is what becomes
            of so many rounds of the innermost loop: gradients are accumulated.
    """
    total, accumulates = 1, False
    sources: list[str] = []
    while frame is not None:
        found = _framework(frame)
        if found:
            return found, "the Trainer's max_steps"
        if is_users(frame.f_code.co_filename):
            if not sources and batches > ACCUMULATED:
                accumulates |= _under_condition(frame.f_code.co_filename, frame.f_lineno)
            for loop in _loops(frame.f_code.co_filename, frame.f_lineno):
                try:
                    total *= max(1, _iterations(loop, frame, round(taken * (batches if accumulates else 1))))
                except Unknown:
                    kind = "a while loop" if isinstance(loop, ast.While) else "the loop"
                    return -1, f"{kind} at {shown(frame.f_code.co_filename)}:{loop.lineno}"
                sources.append(str(loop.lineno))
        frame = frame.f_back
    total = max(1, round(total / batches)) if accumulates else total
    return (total, "the loops in lines " + ", ".join(sources)) if sources else (-1, "no loop was found")


def _iterations(loop: counters.Loop, frame: FrameType, taken: int) -> int:
    """By what a ``for`` goes through, or by a counter and its limit, whichever ends first."""
    found = []
    if isinstance(loop, ast.For):
        with contextlib.suppress(Unknown):
            found.append(length(loop.iter, frame))
    with contextlib.suppress(Unknown):
        found.append(counters.iterations(loop, frame, taken))
    if not found:
        raise Unknown
    return min(found)


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


def _loops(filename: str, line: int) -> list[counters.Loop]:
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


def _under_condition(filename: str, line: int) -> bool:
    """Whether a line is under an ``if``, inside of the innermost loop around it, or of its function."""
    tree = _tree(filename)
    around = [n for n in ast.walk(tree) if isinstance(n, ast.stmt) and _holds(n, line)] if tree is not None else []
    inner = max((n.lineno for n in around if isinstance(n, (ast.FunctionDef, ast.For, ast.While))), default=0)
    return any(isinstance(n, ast.If) and n.lineno >= inner for n in around)


def _holds(node: ast.stmt, line: int) -> bool:
    return node.lineno <= line <= (node.end_lineno or 0)


def _in_body(loop: counters.Loop, line: int) -> bool:
    return bool(loop.body) and loop.body[0].lineno <= line <= (loop.body[-1].end_lineno or 0)


def expected(watch: Any) -> tuple[int, str]:
    """:func:`predict` for the code that called hasten, in steps of ``watch``: where optimizers take turns in one line,
    all of them make one step."""
    steps, source = predict(sys._getframe(1), watch.steps, watch.batches)
    record = watch.optimizers.get(watch.clock_key)
    if steps < 0 or record is None or record.place is None:
        return steps, source
    alive = [r for r in watch.optimizers.values() if r.optimizer is not None and r.place == record.place]
    turns = sum(abs(r.steps - record.steps) <= 1 for r in alive)
    return max(1, steps // max(1, turns)), source
