"""Reading the user's source: which loop stands around a line, where a call is written. Nothing is run."""

from __future__ import annotations

import ast
import functools
import linecache
import re
from collections.abc import Callable, Iterator

from hasten.core.facts import Place

Loop = ast.For | ast.AsyncFor | ast.While | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
_LOOPS = (ast.For, ast.AsyncFor, ast.While, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_LOGGING = re.compile(
    r"\b(add_(scalar|scalars|histogram|image|images|figure|text|embedding)|histc|histogram|savefig|writerow"
    r"|log_metrics?|log_dict|json\.dumps?|wandb\.log|print)\s*\("
)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_GUARDS = (*_FUNCTIONS, ast.With)
_SCOPES = (*_FUNCTIONS, ast.ClassDef)


@functools.lru_cache(maxsize=64)
def tree_of(file: str) -> ast.Module | None:
    """The parsed file; None where it cannot be read or parsed."""
    lines = linecache.getlines(file)
    if not lines:
        return None
    try:
        return ast.parse("".join(lines))
    except (SyntaxError, ValueError):
        return None


def place_in(file: str, node: ast.stmt | ast.expr, function: str = "") -> Place:
    """The place of a node; of a compound statement only its first line."""
    text = linecache.getline(file, node.lineno).rstrip("\n")
    one_line = node.end_lineno == node.lineno
    end = (node.end_col_offset or 0) if one_line else len(text.split("  #")[0].rstrip())
    return Place(file, node.lineno, function, text, node.col_offset + 1, end + 1)


def loops_around(file: str, line: int) -> list[Loop]:
    """The loops of the innermost function that a line lies in, innermost first; their header lines count."""
    scope = _scope(file, line)
    found = [n for n in _within(scope) if isinstance(n, _LOOPS) and _holds(n, line)] if scope is not None else []
    return found[::-1]


def function_around(file: str, line: int) -> str:
    """Name of the innermost function that a line lies in; empty at module level."""
    scope = _scope(file, line)
    return scope.name if isinstance(scope, _FUNCTIONS) else ""


def _scope(file: str, line: int) -> ast.AST | None:
    """The innermost function that a line lies in, or the module."""
    inner: ast.AST | None = tree_of(file)
    scope = inner
    while inner is not None:
        inner = next((n for n in _within(inner) if isinstance(n, _SCOPES) and _holds(n, line)), None)
        scope = inner or scope
    return scope


def _within(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes inside a node, outer ones first; functions and classes inside it are not entered."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, _SCOPES):
            yield from _within(child)


def _holds(node: ast.AST, line: int) -> bool:
    first, last = getattr(node, "lineno", 0), getattr(node, "end_lineno", 0) or 0
    if isinstance(node, _SCOPES):
        first = min([first, *(d.lineno for d in node.decorator_list)])
    return bool(first <= line <= last)


def loop_at(file: str, line: int) -> Loop | None:
    """The loop whose header stands on a line."""
    return next((n for n in loops_around(file, line) if n.lineno == line), None)


def without_graph(file: str, line: int) -> bool:
    """Whether a line stands below ``torch.no_grad()`` or its like, in a ``with`` or a decorator."""
    tree = tree_of(file)
    around = [n for n in ast.walk(tree) if isinstance(n, _GUARDS) and _holds(n, line)] if tree is not None else []
    said = [
        e
        for n in around
        for e in (n.decorator_list if isinstance(n, _FUNCTIONS) else [item.context_expr for item in n.items])
    ]
    return any(word in ast.unparse(e) for e in said for word in ("no_grad", "inference_mode"))


def iterations_are_alike(loop: Loop) -> bool:
    """False where every iteration calls another object (``for layer in layers: x = layer(x)``): nothing to batch."""
    names = targets(loop)
    for call in (n for n in ast.walk(loop) if isinstance(n, ast.Call)):
        called = call.func
        if isinstance(called, ast.Name) and called.id in names:
            return False
        if isinstance(called, ast.Subscript) and names & _names(called.slice):
            return False
        if isinstance(called, ast.Call) and names & _names(called):  # getattr(self, f"layer{i}")(x)
            return False
    return True


def carried(loop: Loop) -> str:
    """A variable that an iteration takes over from the one before; empty where there is none but running sums."""
    set_so_far: set[str] = set()
    read_before: set[str] = set()
    set_anew: set[str] = set()
    body = loop.body if isinstance(loop, (ast.For, ast.AsyncFor, ast.While)) else []
    for statement in (n for part in body for n in _statements(part)):
        inside = (n for t in getattr(statement, "targets", ()) for n in ast.walk(t) if isinstance(n, ast.Name))
        names = {n.id for n in inside if isinstance(n.ctx, ast.Store)}
        value = getattr(statement, "value", None)
        summed: set[str] = set()
        if isinstance(value, ast.BinOp) and isinstance(value.op, (ast.Add, ast.Sub)):
            summed = {n.id for n in (value.left, value.right) if isinstance(n, ast.Name)} & names
        read_before |= _read(statement) - set_so_far - summed - targets(loop)
        set_anew |= names - summed
        set_so_far |= names
    return min(read_before & set_anew, default="")


def _statements(node: ast.stmt) -> Iterator[ast.stmt]:
    """A statement and those inside it, in their order; functions and classes are not entered."""
    yield node
    if not isinstance(node, _SCOPES):
        for child in (n for part in ("body", "orelse", "finalbody") for n in getattr(node, part, ())):
            yield from _statements(child)


def _read(statement: ast.stmt) -> set[str]:
    """Names that a statement itself reads, not those in its body; ``x += 1`` only adds."""
    parts = [v for k, v in ast.iter_fields(statement) if k not in ("body", "orelse", "finalbody", "handlers")]
    nodes = [n for v in parts for n in (v if isinstance(v, list) else [v]) if isinstance(n, ast.AST)]
    return {m.id for n in nodes for m in ast.walk(n) if isinstance(m, ast.Name) and isinstance(m.ctx, ast.Load)}


def differentiates(loop: Loop) -> bool:
    """Whether a loop calls ``backward`` or an optimizer's ``step``: it is the training loop, or accumulates."""
    names = {n.func.attr for n in ast.walk(loop) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)}
    return bool(names & {"backward", "step"})


def in_every_round(file: str, line: int, depth: int = 3) -> bool:
    """Whether a line runs in every round of the loop that trains: under no condition inside of it, or in a function
    that is called there, and nowhere else in a loop. A loop over epochs does not train, the loop in it does."""
    training = next((n for n in loops_around(file, line) if _differentiates_itself(n)), None)
    scope: ast.AST | None = training or _scope(file, line)
    if scope is None or any(isinstance(n, ast.Continue) or _decides(n, line) for n in _within(scope)):
        return False
    if training is not None:
        return True
    function = function_around(file, line)
    found = callers(file, function) if function and depth else []
    return len(found) == 1 and in_every_round(file, found[0].line, depth - 1)


def _differentiates_itself(loop: Loop) -> bool:
    """Whether a loop calls ``backward`` in its own rounds, not in those of a loop inside."""
    inner = {id(n) for other in _within(loop) if isinstance(other, _LOOPS) for n in ast.walk(other)}
    called = (n.func for n in _within(loop) if isinstance(n, ast.Call) and id(n) not in inner)
    return any(isinstance(f, ast.Attribute) and f.attr == "backward" for f in called)


def _decides(node: ast.AST, line: int) -> bool:
    """Whether a line stands under a condition."""
    return isinstance(node, ast.If) and any(_holds(n, line) for n in (*node.body, *node.orelse))


def logs(text: str) -> bool:
    """Whether a line writes a log, a histogram or a figure; its comment does not."""
    return _LOGGING.search(text.partition(" #")[0]) is not None


def source_of(file: str, node: ast.AST) -> str:
    """The text of a node."""
    return ast.get_source_segment("".join(linecache.getlines(file)), node) or ""


def iterated(loop: Loop) -> ast.expr:
    """What a loop runs over; of ``while`` its condition."""
    if isinstance(loop, ast.While):
        return loop.test
    return loop.iter if isinstance(loop, (ast.For, ast.AsyncFor)) else loop.generators[0].iter


def targets(loop: Loop) -> set[str]:
    """The variables that a loop sets in every iteration."""
    if isinstance(loop, ast.While):
        return set()
    if isinstance(loop, (ast.For, ast.AsyncFor)):
        return _names(loop.target)
    return set().union(*(_names(g.target) for g in loop.generators))


def _names(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


def calls(file: str, wanted: Callable[[ast.Call], bool]) -> list[Place]:
    """Where a file calls what is wanted, in the order of the text."""
    tree = tree_of(file)
    if tree is None:
        return []
    found = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and wanted(n)]
    return [place_in(file, n) for n in sorted(found, key=lambda n: (n.lineno, n.col_offset))]


def calls_on(file: str, line: int) -> list[ast.Call]:
    """All calls that a line's text makes, or begins to make."""
    tree = tree_of(file)
    return [n for n in ast.walk(tree) if isinstance(n, ast.Call) and n.lineno == line] if tree is not None else []


def callers(file: str, function: str) -> list[Place]:
    """Where a file calls a function or method of that name, inside a loop."""

    def wanted(call: ast.Call) -> bool:
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        return name == function

    return [p for p in calls(file, wanted) if loops_around(file, p.line)]
