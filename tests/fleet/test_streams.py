"""Random numbers are functions of seed, key and moment; the kernel draws the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten.fleet import streams
from hasten.fleet.native.build import TARGETS, NoCompiler, kernel
from hasten.measure import machine


def test_known_answers_of_philox() -> None:
    """The vectors of Random123 for philox4x32-10: all zeros, and all ones."""
    zeros = streams._philox(0, np.zeros(1, np.uint64), 0, 0, 0)
    assert [int(w[0]) for w in zeros] == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    ones = streams._philox(2**64 - 1, np.full(1, 2**32 - 1, np.uint64), 2**32 - 1, 2**32 - 1, 2**32 - 1)
    assert [int(w[0]) for w in ones] == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]


@given(st.integers(0, 2**64 - 1), st.integers(1, 300), st.integers(0, 50))
def test_a_permutation_holds_every_row_once(stream: int, count: int, epoch: int) -> None:
    assert sorted(streams.permutation(stream, count, epoch)) == list(range(count))


@given(st.integers(0, 2**32), st.text(max_size=8), st.text(max_size=8))
def test_streams_differ_where_keys_do(seed: int, a: str, b: str) -> None:
    assert (streams.stream_of(seed, a) == streams.stream_of(seed, b)) == (a == b)


def test_the_beginning_does_not_depend_on_how_much_is_drawn() -> None:
    assert (streams.words(7, 1000, 2, 3, 4)[:13] == streams.words(7, 13, 2, 3, 4)).all()


@given(st.integers(0, 2**64 - 1), st.integers(1, 500), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_the_kernel_draws_the_same(stream: int, count: int, epoch: int, step: int) -> None:
    try:
        lib = kernel()
    except NoCompiler:
        pytest.skip("no C++ compiler here")
    found = np.empty(count, np.uint32)
    lib.hasten_words(stream, count, 2 | 5 << 8, epoch, step, found.ctypes.data)
    known = streams.by_numpy(stream, count, 2, epoch, step, 5)
    assert (found == known).all() and (streams.words(stream, count, 2, epoch, step, 5) == known).all()
    order = np.empty(count, np.int64)
    lib.hasten_permutation(stream, count, epoch, order.ctypes.data)
    assert (order == np.argsort(streams.by_numpy(stream, count, 1, epoch, 0, 0), kind="stable")).all()


@pytest.mark.parametrize("isa", [isa for isa, (needs, _) in TARGETS.items() if needs <= machine.cpu_flags()])
@given(st.integers(0, 2**64 - 1), st.integers(1, 5000), st.integers(0, 2**32 - 1))
def test_every_kernel_puts_rows_in_the_same_order(isa: str, stream: int, count: int, epoch: int) -> None:
    """Vectors of each width, and what they leave over at the end; nothing is written beyond it."""
    try:
        lib = kernel(isa)
    except NoCompiler:
        pytest.skip("no C++ compiler here")
    order = np.full(count + 16, -1, np.int64)
    lib.hasten_permutation(stream, count, epoch, order.ctypes.data)
    assert (order[:count] == streams.permutation(stream, count, epoch)).all() and (order[count:] == -1).all()


@given(st.integers(0, 2**64 - 1), st.integers(0, 5), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_a_seed_is_two_words(stream: int, purpose: int, epoch: int, step: int) -> None:
    low, high = map(int, streams.words(stream, 2, purpose, epoch, step))
    assert streams.torch_seed(stream, purpose, epoch, step) == low | high << 32


def test_dropout_keeps_about_what_it_should() -> None:
    assert abs(streams.keep(1, 20_000, 0.3, 0, 0, 0).mean() - 0.7) < 0.02
    assert not streams.keep(1, 100, 1.0, 0, 0, 0).any()


@given(st.lists(st.integers(0, 2**32 - 1) | st.integers(0, 3), max_size=200))
def test_an_order_is_that_of_a_stable_sort(keys: list[int]) -> None:
    words = np.array(keys, np.uint32)
    assert (streams.order_of(words) == np.argsort(words, kind="stable")).all()
