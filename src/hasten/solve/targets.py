"""Every target with an alpha of its own: the targets of one alpha are solved together, one alpha after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from hasten.solve.source import Block, Source

if TYPE_CHECKING:
    from hasten.solve.accuracy import Answer


class SomeTargets(Source):
    """The rows of a source with some of its targets."""

    def __init__(self, source: Source, at: Sequence[int]) -> None:
        self.source, self.at = source, list(at)
        self.rows, self.again, self.file, self.named = source.rows, source.again, source.file, source.named

    def blocks(self, first: int = 0) -> Iterator[Block]:
        for block in self.source.blocks(first):
            yield replace(block, y=block.y[:, self.at], targets=[block.targets[j] for j in self.at])


def by_alpha(alphas: Sequence[float], solve: Callable[[float, list[int]], Answer], passes: int) -> Answer:
    """The answers of all targets as one; condition, rank and bound are the worst ones.

    Args:
        alphas: (targets,).
        solve: the answer for one alpha and the targets at these places.
        passes: over the data, in every answer's ``passes_``, that were made once for all.
    """
    found: list[Answer] = []
    places: list[int] = []
    for alpha in sorted(set(alphas)):
        own = [j for j, a in enumerate(alphas) if a == alpha]
        found.append(solve(alpha, own))
        places += own
    back = np.argsort(places)
    return replace(
        max(found, key=lambda answer: answer.condition_),
        coef_=np.concatenate([answer.coef_ for answer in found], axis=1)[:, back],
        intercept_=np.concatenate([answer.intercept_ for answer in found])[back],
        rank_=min(answer.rank_ for answer in found),
        error_bound_=max(answer.error_bound_ for answer in found),
        passes_=passes + sum(answer.passes_ - passes for answer in found),
    )
