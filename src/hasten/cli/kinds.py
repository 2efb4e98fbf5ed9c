"""What options take: each kind reads one word, or says what it should have been."""

from __future__ import annotations

import math
from argparse import ArgumentTypeError
from collections.abc import Callable


def path(text: str) -> str:
    """A file's path: an empty one (a shell variable that is not set) is not taken for none."""
    if not text:
        raise ArgumentTypeError("the file's name is empty")
    return text


def steps(text: str) -> int:
    """A number of steps, from 1 on."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is no number of steps: 1, 2, …")
    return int(text)


def seconds(text: str) -> float:
    """Seconds, from 0 on."""
    value = _number(text)
    if not value >= 0:
        raise ArgumentTypeError(f"{text!r} is no number of seconds: 0, 60, 0.5 …")
    return value


def count(least: int) -> Callable[[str], int]:
    """A whole number from ``least`` on."""

    def kind(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise ArgumentTypeError(f"{text!r} is no whole number from {least} on")
        return value

    return kind


def positive(text: str) -> float:
    """A number above 0."""
    value = _number(text)
    if not value > 0:
        raise ArgumentTypeError(f"{text!r} is no number above 0")
    return value


def share(text: str) -> float:
    """A share, from 0 to below 1."""
    value = _number(text)
    if not 0 <= value < 1:
        raise ArgumentTypeError(f"{text!r} is no share: 0, 0.2 … below 1")
    return value


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan
