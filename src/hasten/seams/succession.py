"""Which models follow each other: counted when an optimizer takes its first step, so that what is gone still counts."""

from __future__ import annotations

import math
import statistics
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

COMPARED = 256  # numbers of a weight
CHANCE = 5.0  # standard deviations by which two weights must be more alike than independent ones
MOST_KEPT = 1 << 16  # in a weight that is kept until the next model begins
ROUNDED = 1e-5  # of a number, to which a mean may be rounded


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
        returns: steps of an optimizer after another one had begun, models that were given another optimizer, and models
            that began with what others had ended with.
    """

    def __init__(self) -> None:
        self.newest: Any = None
        self.began_at = 0
        self.returns = 0
        self.lines: dict[tuple[str, str, int], Line] = {}
        self._ends = Ends()
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

    def about_to_begin(self, optimizer: Any) -> None:
        """An optimizer is about to take its first step: its weights are what they begin with."""
        self.returns += self._ends.follow(optimizer)

    def counted(self) -> Iterator[tuple[Line, int]]:
        """Every line, and the steps that its running model has taken so far."""
        for line in self.lines.values():
            yield line, self.newest.steps if line is self._line else 0


class Ends:
    """What models begin and end with, as some numbers of their first weight: one that begins between what those before
    it have ended with has their mean (rounds of federated averaging), or goes on from the last one. Where several have
    begun with the same, and now one begins with something like it, a server has made a step of its own (with momentum,
    or adaptively); folds inside of seeds begin with something else."""

    def __init__(self) -> None:
        self._weight: Any = None  # of the model that runs; its numbers outlive it
        self._begun: list[float] = []  # with this have the last models begun, all of them, …
        self._alike = 0  # … so many, …
        self._ended: list[tuple[float, float]] = []  # … and ended between these

    def follow(self, optimizer: Any) -> bool:
        """Whether what an optimizer is about to train for the first time begins with what others have ended with."""
        end = _some(self._weight)
        limits = self._ended if len(self._ended) == len(end) else [(x, x) for x in end]
        self._ended = [(min(low, x), max(high, x)) for (low, high), x in zip(limits, end, strict=True)]
        self._weight = _first(optimizer)
        begun = _some(self._weight)
        if begun == self._begun:
            self._alike += 1
            return False
        follows = 0 < len(begun) == len(self._ended) and (
            _between(begun, self._ended) or (self._alike > 1 and _alike(begun, self._begun))
        )
        self._begun, self._alike, self._ended = begun, 1, []
        return follows


def _between(numbers: list[float], limits: list[tuple[float, float]]) -> bool:
    between = zip(limits, numbers, strict=True)
    return all(low - ROUNDED * abs(low) <= x <= high + ROUNDED * abs(high) for (low, high), x in between)


def _alike(numbers: list[float], others: list[float]) -> bool:
    """Whether they are correlated by more than chance (Fisher's z)."""
    if not 3 < len(numbers) == len(others):
        return False
    try:
        found = math.atanh(0.999999 * statistics.correlation(numbers, others))
    except (ValueError, OverflowError):  # all the same, or not finite
        return False
    return found * math.sqrt(len(numbers) - 3) > CHANCE


def _first(optimizer: Any) -> Any:
    """An optimizer's first weight, without its graph; None where it is large, or no plain tensor of this process."""
    import torch

    weight: Any = next((p for group in optimizer.param_groups for p in group["params"]), None)
    if type(weight) not in (torch.Tensor, torch.nn.Parameter) or weight.layout is not torch.strided:
        return None
    plain = weight.is_floating_point() and weight.device.type == "cpu"
    return weight.detach() if plain and 0 < weight.numel() <= MOST_KEPT else None


def _some(weight: Any) -> list[float]:
    if weight is None:
        return []
    found: list[float] = weight.reshape(-1)[:: max(1, weight.numel() // COMPARED)][:COMPARED].double().tolist()
    return found


def _trained_by(optimizer: Any, models: Iterable[Any]) -> tuple[Any, int]:
    """The module whose parameters are those of an optimizer, all of them and no others, and their numbers."""
    parameters = {id(p): p for group in optimizer.param_groups for p in group["params"]}
    for record in models:
        module = record.module()
        first = next(module.parameters(), None) if module is not None else None
        if first is not None and id(first) in parameters and {id(p) for p in module.parameters()} == set(parameters):
            return module, sum(p.numel() for p in parameters.values())
    return None, 0
