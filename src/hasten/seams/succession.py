"""Which models follow each other: counted when an optimizer takes its first step, so that what is gone still counts."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass
class Line:
    """Models of one class and size that were trained one after the other.

    Attributes:
        model, optimizer: names of their classes.
        elements: numbers in one model's parameters.
        models: how many have begun, the running one included.
        steps: steps of all whose successor has begun.
    """

    model: str
    optimizer: str
    elements: int
    models: int = 0
    steps: int = 0


class Succession:
    """Every line of models so far; its size grows with the kinds of models, not with their number.

    Attributes:
        newest: the record of the optimizer that began last; began_at: the clock's steps before.
        returns: steps of an optimizer after another one had begun, and models that were given another optimizer.
    """

    def __init__(self) -> None:
        self.newest: Any = None
        self.began_at = 0
        self.returns = 0
        self.lines: dict[tuple[str, str, int], Line] = {}
        self._line: Line | None = None
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()

    def begin(self, record: Any, optimizer: Any, models: Iterable[Any], steps: int) -> None:
        """An optimizer takes its first step.

        Args:
            record: what the watch keeps of it; ``record.steps`` counts on.
            models: records of the modules called so far, the latest first.
            steps: of the clock so far.
        """
        if self._line is not None:
            self._line.steps += self.newest.steps
        self.newest, self.began_at, self._line = record, steps, None
        module, elements = _trained_by(optimizer, models)
        if module is None:
            return
        if module in self._seen:
            self.returns += 1
            return
        self._seen.add(module)
        key = (type(module).__name__, type(optimizer).__name__, elements)
        self._line = self.lines.setdefault(key, Line(*key))
        self._line.models += 1

    def counted(self) -> Iterator[tuple[Line, int]]:
        """Every line, and the steps that its running model has taken so far."""
        for line in self.lines.values():
            yield line, self.newest.steps if line is self._line else 0


def _trained_by(optimizer: Any, models: Iterable[Any]) -> tuple[Any, int]:
    """The module whose parameters are those of an optimizer, all of them and no others, and their numbers."""
    parameters = {id(p): p for group in optimizer.param_groups for p in group["params"]}
    for record in models:
        module = record.module()
        first = next(module.parameters(), None) if module is not None else None
        if first is not None and id(first) in parameters and {id(p) for p in module.parameters()} == set(parameters):
            return module, sum(p.numel() for p in parameters.values())
    return None, 0
