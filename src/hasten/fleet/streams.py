"""Random numbers that belong to a model and a moment, not to a process.

Every number is a function of (seed, key, purpose, epoch, step, index): Philox4x32-10, the counter-based generator of
Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011. So a model draws the same numbers
whatever its neighbours, its place in a chunk, the number of threads, and after a resume; and the compiled kernel draws
the same as Python does.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

from hasten.fleet.native.build import loaded

INIT, SHUFFLE, DROPOUT, SPLIT, SAMPLE, REPLAY, UPDATE = range(7)  # purposes

Words = npt.NDArray[np.uint32]

_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)


def stream_of(seed: int, key: str) -> int:
    """The 64-bit Philox key of one model: blake2b of seed and key."""
    digest = hashlib.blake2b(f"{seed}\0{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def words(stream: int, count: int, purpose: int, epoch: int = 0, step: int = 0, layer: int = 0) -> Words:
    """``count`` random words.

    Args:
        stream: the model's, from ``stream_of``.
        layer: tells several draws of one purpose and step apart.

    Returns:
        (count,), uint32, uniform.
    """
    if (kernel := loaded()) is not None:  # the same, in a tenth of the time
        drawn: Words = np.empty(count, np.uint32)
        kernel.hasten_words(stream, count, purpose | layer << 8, epoch, step, drawn.ctypes.data)
        return drawn
    return by_numpy(stream, count, purpose, epoch, step, layer)


def by_numpy(stream: int, count: int, purpose: int, epoch: int, step: int, layer: int) -> Words:
    """The same where there is no kernel."""
    blocks = np.arange((count + 3) // 4, dtype=np.uint64)
    four = _philox(stream, blocks, step, epoch, purpose | layer << 8)
    return np.stack(four, axis=1).astype(np.uint32).reshape(-1)[:count]


def permutation(stream: int, count: int, epoch: int, purpose: int = SHUFFLE) -> npt.NDArray[np.int64]:
    """The order of ``count`` rows in one epoch: a stable sort by random words. (count,), int64."""
    return order_of(words(stream, count, purpose, epoch))


def order_of(keys: npt.NDArray[np.uint32]) -> npt.NDArray[np.int64]:
    """What a stable sort by ``keys``, (count,), makes of the numbers from 0 on.

    Each key goes together with its number, so that no two are equal and NumPy's quickest sort, which is not stable,
    gives the same on every processor.
    """
    both = (keys.astype(np.uint64) << np.uint64(32)) | np.arange(len(keys), dtype=np.uint64)
    both.sort()
    return (both & np.uint64(0xFFFFFFFF)).astype(np.int64)


def of_update(stream: int, iteration: int, share: int) -> int:
    """The stream that a model of stream ``stream`` draws by in one update, for the candidate of one share.

    An update is one epoch, whose steps count from nought: by the model's own stream each would draw the same numbers.
    """
    return torch_seed(stream, UPDATE, iteration, share)


def torch_seed(stream: int, purpose: int, epoch: int = 0, step: int = 0) -> int:
    """A seed for torch's own generator: initialisation, and modules that draw random numbers by themselves."""
    low, high, _, _ = _block(stream, 0, step, epoch, purpose)
    return low | high << 32


def keep(stream: int, count: int, p: float, epoch: int, step: int, layer: int) -> npt.NDArray[np.bool_]:
    """Which of ``count`` values a dropout of probability ``p`` keeps. (count,), bool."""
    return words(stream, count, DROPOUT, epoch, step, layer) >= np.uint64(below(p))


def below(p: float) -> int:
    """The word from which on a dropout of probability ``p`` keeps a value."""
    return int(float(np.float32(p)) * 2.0**32)


def _block(stream: int, block: int, step: int, epoch: int, purpose: int) -> tuple[int, int, int, int]:
    """One block in plain numbers, which for so few is ten times faster than arrays."""
    k0, k1 = stream & 0xFFFFFFFF, stream >> 32
    c0, c1, c2, c3 = block, step, epoch, purpose
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & 0xFFFFFFFF, (p0 >> 32) ^ c3 ^ k1, p0 & 0xFFFFFFFF
        k0, k1 = (k0 + _W0) & 0xFFFFFFFF, (k1 + _W1) & 0xFFFFFFFF
    return c0, c1, c2, c3


def _philox(stream: int, blocks: npt.NDArray[np.uint64], step: int, epoch: int, purpose: int) -> tuple[Any, ...]:
    k0, k1 = stream & 0xFFFFFFFF, stream >> 32
    c0, c1 = blocks, np.full_like(blocks, step)
    c2, c3 = np.full_like(blocks, epoch), np.full_like(blocks, purpose)
    for _ in range(10):
        p0, p1 = _M0 * c0, _M1 * c2
        c0, c1, c2, c3 = (p1 >> _32) ^ c1 ^ np.uint64(k0), p1 & _LOW, (p0 >> _32) ^ c3 ^ np.uint64(k1), p0 & _LOW
        k0, k1 = (k0 + _W0) & 0xFFFFFFFF, (k1 + _W1) & 0xFFFFFFFF
    return c0, c1, c2, c3
