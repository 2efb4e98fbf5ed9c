"""Which of the user's variables keeps the graphs of many steps alive? A running sum of losses, or a list of them."""

from __future__ import annotations

import ast
import itertools
import sys
import weakref
from collections.abc import Iterator
from types import FrameType
from typing import Any, NamedTuple

from hasten.core.facts import Place
from hasten.seams.locate import is_users, locals_of, shown
from hasten.seams.source import place_in, tree_of

LONG_GRAPH = 20  # a value whose graph is deeper than this many sums may have been accumulated …
MOST_SUMS = 20_000  # … one this deep was: no network adds so often in a row; a chain is followed no further
LOOKS = 3  # steps in a row in which variables are looked at
MOST_MEMBERS = 64  # entries of a dictionary or attributes of an object that are looked at
LONGEST = 200  # values of a list that are looked at, from its end


class Keeper(NamedTuple):
    """A variable that holds graphs.

    Attributes:
        name: as the user writes it: ``total``, ``self.total``, ``meters['loss']``.
        place: the line that adds to it.
        length: how many graphs it was seen to hold.
        oldest: of a list, a weak reference to its first value.
    """

    name: str
    place: Place | None
    length: int
    oldest: weakref.ref[Any] | None


class KeeperWatch:
    """Looks for keepers between two steps, in :data:`LOOKS` steps in a row at a time. Believes a list that has grown
    and begins as it did, a sum that grows by as much from each step to the next, and a very long one. What is made anew
    in every step (the losses of an episode, of the words of a sentence) is longer or shorter by chance.

    Attributes:
        found: name and place of the last one believed.
        undecided: whether the next step is to be looked at, too.
        longest: graphs that a variable was seen to hold, of those that were begun anew since.
    """

    def __init__(self) -> None:
        self.found: tuple[str, Place | None] | None = None
        self.longest: dict[str, int] = {}
        self.undecided = False
        self._looks = 0
        self._seen: dict[str, list[Keeper]] = {}

    def look(self, frame: FrameType | None) -> None:
        self._looks += 1
        if not self.undecided:
            self._looks = 1
            self._seen = {name: seen[-1:] for name, seen in self._seen.items() if seen[-1].oldest is not None}
        for name, keeper in {k.name: k for k in keepers(frame)}.items():
            seen = self._seen.setdefault(name, [])
            if seen and keeper.length < seen[-1].length:
                self.longest[name] = max(self.longest.get(name, 0), seen[-1].length)
            seen.append(keeper)
            if _grows(seen):
                self.found = (name, keeper.place)
        self.undecided = bool(self._seen) and self._looks < LOOKS


def _grows(seen: list[Keeper]) -> bool:
    """Whether a variable that was seen so holds more and more."""
    *before, now = seen
    if now.oldest is not None:
        oldest = now.oldest()
        return any(k.oldest is not None and k.oldest() is oldest and k.length < now.length for k in before)
    if now.length >= MOST_SUMS:
        return True
    steps = [b.length - a.length for a, b in itertools.pairwise(seen)]
    return len(steps) == LOOKS - 1 and steps[0] > 0 and len(set(steps)) == 1


def keepers(frame: FrameType | None) -> Iterator[Keeper]:
    """Variables of the user's frames at and outside ``frame`` that may keep many steps' graphs alive."""
    while frame is not None:
        file = frame.f_code.co_filename
        if is_users(file):
            for scope in (locals_of(frame), frame.f_globals):
                for name, value in list(scope.items()):
                    for member, held, length in _held(name, value):
                        oldest = weakref.ref(held[0]) if issubclass(type(held), list) else None
                        yield Keeper(member, assignment(file, member, frame.f_code.co_name), length, oldest)
        frame = frame.f_back


def _held(name: str, value: Any) -> Iterator[tuple[str, Any, int]]:
    """Name, value and length of a value that keeps graphs, or of its members that do."""
    length = graphs_kept(value)
    if length:
        yield name, value, length
    elif issubclass(type(value), dict):
        yield from _held_in(name, value)
    elif _of_users_class(value):
        for key, inner in list(vars(value).items())[:MOST_MEMBERS]:
            if length := graphs_kept(inner):
                yield f"{name}.{key}", inner, length
            elif issubclass(type(inner), dict):
                yield from _held_in(f"{name}.{key}", inner)


def _held_in(name: str, value: dict[Any, Any]) -> Iterator[tuple[str, Any, int]]:
    for key, inner in list(dict.items(value))[:MOST_MEMBERS]:
        if isinstance(key, str) and (length := graphs_kept(inner)):
            yield f"{name}[{key!r}]", inner, length


def _of_users_class(value: Any) -> bool:
    module = sys.modules.get(type(value).__module__)
    file = getattr(module, "__file__", None)
    return isinstance(file, str) and is_users(file) and isinstance(getattr(value, "__dict__", None), dict)


def graphs_kept(value: Any) -> int:
    """How many graphs a tensor (a sum) or a list holds; 0 where they are too few to tell."""
    import torch

    length = 0
    kind = type(value)  # isinstance would ask objects that stand in for others, and may fail to
    if issubclass(kind, torch.Tensor):
        length = _sums(value.grad_fn)
    elif issubclass(kind, list) and len(value) >= LONG_GRAPH:
        last = value[-LONGEST:]
        if all(issubclass(type(v), torch.Tensor) and v.grad_fn is not None for v in last):
            length = len(value)
    return length if length >= LONG_GRAPH else 0


def _sums(node: Any) -> int:
    """Length of the chain of additions that ends in ``node``: ``total = total + loss``, and running means, as in
    ``mean = 0.9 * mean + 0.1 * loss``."""
    length = 0
    while node is not None and _does(node, "Add") and length < MOST_SUMS:
        length += 1
        following = [_scaled(f) for f, _ in node.next_functions if f is not None]
        node = next((f for f in following if _does(f, "Add")), None)
    return length


def _scaled(node: Any) -> Any:
    """What is multiplied by numbers that are not differentiated."""
    while _does(node, "Mul", "Div"):
        behind = [f for f, _ in node.next_functions if f is not None]
        if len(behind) != 1:
            break
        node = behind[0]
    return node


def _does(node: Any, *operations: str) -> bool:
    return type(node).__name__.startswith(operations)


def assignment(file: str, name: str, function: str = "") -> Place | None:
    """The line that adds to a variable: ``name += …``, ``name = name + …``, ``name.append(…)``; of an entry of a
    dictionary also one whose key is computed, where none names it."""
    nodes = list(ast.walk(tree_of(file) or ast.Module([], [])))
    for any_key in (False, True) if "[" in name else (False,):
        node = next((n for n in nodes if _adds_to(n, name, any_key)), None)
        if node is not None:
            assert isinstance(node, (ast.stmt, ast.expr))
            place = place_in(file, node, function)
            return Place(shown(file), place.line, function, place.text, place.column, place.end_column)
    return None


def _adds_to(node: ast.AST, name: str, any_key: bool) -> bool:
    if isinstance(node, ast.AugAssign):
        return _is(node.target, name, any_key)
    if isinstance(node, ast.Assign):
        again = any(_is(n, name, any_key) for n in ast.walk(node.value))
        return again and any(_is(t, name, any_key) for t in node.targets)
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "append"
        and _is(node.func.value, name, any_key)
    )


def _is(node: ast.AST, name: str, any_key: bool = False) -> bool:
    """Whether an expression is the variable; of an attribute only its own name counts (``self`` elsewhere), of an entry
    its dictionary and its key, be it asked for by ``[…]`` or by ``setdefault``."""
    if name.endswith("]"):
        held, _, key = name[:-1].partition("[")
        if isinstance(node, ast.Subscript):
            asked: ast.expr = node.slice
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "setdefault" and node.args:
            asked, node = node.args[0], node.func
        else:
            return False
        same = not isinstance(asked, ast.Constant) if any_key else ast.unparse(asked) == key
        return same and isinstance(node, (ast.Subscript, ast.Attribute)) and _is(node.value, held)
    if isinstance(node, ast.Attribute):
        return "." in name and node.attr == name.rsplit(".", 1)[1]
    return isinstance(node, ast.Name) and node.id == name
