"""Listening to a child: why there is no claim is said as it is."""

from __future__ import annotations

from typing import Any, cast

from hasten.measure.interleave import Pairs
from hasten.run import stepwise
from hasten.seams import fork
from hasten.seams.child import WITH, WITHOUT


class Ends:
    """A child that sends so many pairs and is gone, as where the script has ended in it."""

    def __init__(self, pairs: int) -> None:
        self.left, self.ended = pairs, False

    def rows(self, _timeout: float) -> list[tuple[int, float, float, float, float]]:
        self.left -= 1
        self.ended = self.left < 0
        return [] if self.ended else [(kind, 0.01, 0.01, 0.0, 0.0) for kind in (WITHOUT, WITH)]

    def kill(self) -> None:
        self.ended = True


def test_a_child_that_ends_after_a_pair_is_no_noise() -> None:
    """A tutorial of 60 steps was over after one pair; "the noise is larger than the difference" was said of it."""
    for pairs, why in ((0, stepwise.TOO_EARLY), (1, stepwise.OVER), (272, "")):
        child = cast(fork.Child, cast(Any, Ends(pairs)))
        assert stepwise.listen(child, Pairs(), 100.0, 20.0) == why
