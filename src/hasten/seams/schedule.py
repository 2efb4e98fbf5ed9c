"""How many steps the script will take, read from the loops that it is in."""

from __future__ import annotations

import ast
import contextlib
import functools
import itertools
import linecache
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

from hasten.seams import counters
from hasten.seams.evaluate import Unknown, length, number
from hasten.seams.locate import is_users, locals_of, shown

ACCUMULATED = 1.1  # batches a step, from which on gradients are accumulated

_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.For, ast.While)


def predict(frame: FrameType | None, taken: int = 0, batches: float = 1.0, backwards: float = 1.0) -> tuple[int, str]:
    """(steps, where from) for the loops around ``frame``; (-1, reason) where a loop's length is not known.

    Nothing of the user's runs: see :mod:`hasten.seams.evaluate`.

    Args:
        taken: steps so far.
        batches, backwards: how many of loaders' batches, and calls of ``backward``, a step takes. Where it is more, and
            the step is taken under a condition, that is what becomes of so many rounds of the innermost loop: gradients
            are accumulated.
    """
    total, rounds = 1, 1.0
    sources: list[str] = []
    while frame is not None:
        found = _framework(frame)
        if found:
            return found, "the Trainer's max_steps"
        if is_users(frame.f_code.co_filename):
            if not sources and rounds == 1:
                rounds = _rounds(frame.f_code.co_filename, frame.f_lineno, batches, backwards)
            for loop in _loops(frame.f_code.co_filename, frame.f_lineno):
                try:
                    total *= max(1, _iterations(loop, frame, round(taken * rounds)))
                except Unknown:
                    kind = "a while loop" if isinstance(loop, ast.While) else "the loop"
                    return -1, f"{kind} at {shown(frame.f_code.co_filename)}:{loop.lineno}"
                sources.append(str(loop.lineno))
        frame = frame.f_back
    total = max(1, round(total / rounds))
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
    holding = list(_around(_tree(filename), line))
    functions = [n for n in holding if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))]
    inner = max((n.lineno for n in functions), default=0)
    loops = [n for n in holding if isinstance(n, (ast.For, ast.While)) and n.lineno > inner and _in_body(n, line)]
    return sorted(loops, key=lambda n: -n.lineno)


def _rounds(filename: str, line: int, batches: float, backwards: float) -> float:
    """Rounds of the innermost loop around a line, or of its function, that a step takes there: more than one where the
    line is under an ``if`` that the batches are not under, or the calls of ``backward``."""
    tree = _tree(filename)
    around = [n for n in _around(tree, line) if isinstance(n, ast.stmt)]
    inner = max((n for n in around if isinstance(n, _SCOPES)), key=lambda n: n.lineno, default=tree)
    condition = next((n for n in around if isinstance(n, ast.If) and n.lineno >= getattr(inner, "lineno", 0)), None)
    if condition is None or inner is None:
        return 1.0
    if batches > ACCUMULATED:
        return batches
    under = _differentiations([condition])
    rounds = (backwards - under) / max(1, _differentiations(inner.body) - under)
    return rounds if _differentiations(inner.body) > under and rounds > ACCUMULATED else 1.0


def _differentiations(body: list[ast.stmt]) -> int:
    """Calls of ``backward`` when statements are run once, without those in loops and functions inside."""
    count = 0
    for node in body:
        if isinstance(node, ast.If):
            count += max(_differentiations(node.body), _differentiations(node.orelse))
        elif isinstance(node, (ast.With, ast.Try)):
            count += _differentiations(node.body)
        elif not isinstance(node, _SCOPES):
            calls = (n.func for n in ast.walk(node) if isinstance(n, ast.Call))
            count += sum(isinstance(f, ast.Attribute) and f.attr == "backward" for f in calls)
    return count


def _around(tree: ast.AST | None, line: int) -> Iterator[ast.stmt | ast.expr]:
    """Statements and expressions that hold a line, outermost first. What does not is not gone into: the script waits
    meanwhile, and its frames may lie in files of thousands of lines."""
    todo = [tree] if tree is not None else []
    while todo:
        within: list[ast.AST] = []
        for node in itertools.chain.from_iterable(map(ast.iter_child_nodes, todo)):
            if not isinstance(node, (ast.stmt, ast.expr)):
                within.append(node)
            elif node.lineno <= line <= (node.end_lineno or 0):
                within.append(node)
                yield node
            else:  # a definition begins below its decorators
                within += [d for d in getattr(node, "decorator_list", ()) if d.lineno <= line <= (d.end_lineno or 0)]
        todo = within


def _in_body(loop: counters.Loop, line: int) -> bool:
    return bool(loop.body) and loop.body[0].lineno <= line <= (loop.body[-1].end_lineno or 0)


def rounds(frame: FrameType | None) -> tuple[int, int]:
    """Rounds of the innermost loop around ``frame`` so far, and in all; (0, 0) where one of the loops has no counter
    that can be read, or ends sooner than what it goes through."""
    done, total = 1, 1
    while frame is not None:
        if is_users(frame.f_code.co_filename):
            for loop in _loops(frame.f_code.co_filename, frame.f_lineno):
                try:
                    at, count = _counts(loop, frame)
                except Unknown:
                    return 0, 0
                done += at * total
                total *= count
        frame = frame.f_back
    return done, total


def _counts(loop: counters.Loop, frame: FrameType) -> tuple[int, int]:
    """Where the counter of a loop stands, from nought, and the loop's length."""
    counter = counters.counted(loop) if isinstance(loop, ast.For) else None
    if not isinstance(loop, ast.For) or counter is None or counters.ends(loop, frame):
        raise Unknown
    at, count = number(counter, frame), length(loop.iter, frame)
    if type(at) is not int or not 0 <= at < count or ast.unparse(counter) == "_":  # that name is used for anything
        raise Unknown
    return at, count


def expected(watch: Any) -> tuple[int, str]:
    """:func:`predict` for the code that called hasten, in steps of ``watch``: where optimizers take turns in one line,
    all of them make one step. Where rounds are counted and not each is a step (a buffer is filled first, every fourth
    trains), the rest is expected to go on as it did since the first step."""
    frame = sys._getframe(1)
    steps, source = predict(frame, watch.steps, watch.batches, watch.backwards / max(1, watch.steps))
    (done, total), (first, at) = rounds(frame), watch.first_round
    if steps > 0 and first and done - first >= watch.steps - at > 0:
        return watch.steps + round((total - done) * (watch.steps - at) / (done - first)), source
    record = watch.optimizers.get(watch.clock_key)
    if steps < 0 or record is None or record.place is None:
        return steps, source
    alive = [r for r in watch.optimizers.values() if r.optimizer is not None and r.place == record.place]
    turns = sum(abs(r.steps - record.steps) <= 1 for r in alive)
    return max(1, steps // max(1, turns)), source
