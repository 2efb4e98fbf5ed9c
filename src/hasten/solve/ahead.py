"""A thread that decodes and shifts a file's blocks while the caller multiplies the ones before.

Three threads then work on a file: one waits for the disk, this one makes of its bytes what BLAS wants, the caller
multiplies. None of them keeps Python's lock while it works. The shift is known once the first block was added, so the
first few are shifted by the caller; so are those after a change of the shift. Who shifts changes no bit. The compiled
kernel shifts in passing, so for it blocks are only decoded.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from hasten.solve.files import HELD, ahead
from hasten.solve.kernel import Array
from hasten.solve.source import Block, Source

if TYPE_CHECKING:
    from hasten.solve.moments import Moments


def blocks_ahead(source: Source, first: int, moments: Moments) -> Iterator[Block]:
    """As ``source.blocks(first)``, shifted as ``moments`` will want them; the thread is for files only."""
    if not source.file:
        return source.blocks(first)

    def work() -> Generator[Block, None, None]:
        buffers: list[Array] = [np.empty((0, 0))] * HELD
        for k, block in enumerate(source.blocks(first)):
            yield _shifted(block, moments, buffers, k % HELD)

    return ahead(work)


def _shifted(block: Block, moments: Moments, buffers: list[Array], at: int) -> Block:
    """The block with ``ready`` where all its rows go into one cell and around a shift that is known."""
    sums = moments._sums
    if sums is None or block.categories or block.weight is not None or moments.folds or len(moments.cells) > 1:
        return block
    if (len(block.x), sums.dense + 1) > buffers[at].shape or buffers[at].shape[1] != sums.dense + 1:
        buffers[at] = np.empty((len(block.x), sums.dense + 1), sums.dtype)
    return replace(block, ready=sums.ready(block.x, block.y, buffers[at]))
