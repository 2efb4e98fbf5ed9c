"""When do two runs of a script print the same?

The rule. Output is cut into lines at newlines and carriage returns; a line is its text with every number taken out
(its *shape*) and the numbers in order. Two plain runs come first: where they differ from each other, the script itself
varies.

A progress bar is one sign, however long it is, and so is a time of a clock (0:00:02, 00:02): two plain runs may show
the same by chance.

1. If both plain runs print the same shapes in the same order, so must the other run. Otherwise (progress bars drawn by
   the clock) the shapes are compared as a sequence in which a repeated shape counts once, and if the plain runs differ
   even so, only as a set.
2. A number must be equal, unless the two plain runs differ in that place of some line of that shape: such a place holds
   a time, a rate or an unseeded result, and is not compared anywhere.
"""

from __future__ import annotations

import itertools
import re

_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_BAR = re.compile(r"\|[█▉▊▋▌▍▎▏#\s]*\||[█▉▊▋▌▍▎▏▐░━╸╺#=>\-]{2,}")
_CLOCK = re.compile(r"\b\d+:\d\d:\d\d\b|\b\d\d:\d\d\b")

Line = tuple[str, tuple[str, ...]]


def lines(text: str) -> list[Line]:
    """Shape and numbers of every line that holds anything."""
    found = []
    for line in re.split(r"[\r\n]+", text):
        bare = _CLOCK.sub("⌚", _BAR.sub("▬", line)).strip()
        if bare:
            found.append((re.sub(r"\s+", " ", _NUMBER.sub("#", bare)), tuple(_NUMBER.findall(bare))))
    return found


def varying(a: list[Line], b: list[Line]) -> set[tuple[str, int]]:
    """Places (shape, index of the number) where two plain runs differ."""
    return {
        (shape, place)
        for (shape, x), (other, y) in zip(a, b, strict=False)
        if shape == other
        for place, (u, v) in enumerate(zip(x, y, strict=False))
        if u != v
    }


def difference(plain: str, again: str, other: str, numbers: bool = True) -> str:
    """What differs between a plain run and another, by the rule above; empty where nothing does.

    Args:
        again: a second plain run.
        numbers: False compares the shapes only.
    """
    a, b, c = lines(plain), lines(again), lines(other)
    for view in (_whole, _once, _set):
        if view(a) == view(b):
            if view(a) == view(c):
                break
            return f"shapes differ: {_first(view(a), view(c))}"
    if not numbers or _whole(a) != _whole(b):
        return ""
    free = varying(a, b)
    for (shape, x), (_, z) in zip(a, c, strict=True):
        for place, (u, v) in enumerate(zip(x, z, strict=True)):
            if u != v and (shape, place) not in free:
                return f"{u} became {v} in {shape!r}"
    return ""


def _whole(found: list[Line]) -> list[str]:
    return [shape for shape, _ in found]


def _once(found: list[Line]) -> list[str]:
    return [shape for shape, _ in itertools.groupby(_whole(found))]


def _set(found: list[Line]) -> list[str]:
    return sorted(set(_whole(found)))


def _first(a: list[str], b: list[str]) -> str:
    pair = next(((x, y) for x, y in itertools.zip_longest(a, b) if x != y), ("", ""))
    return f"{pair[0]!r} became {pair[1]!r}"
