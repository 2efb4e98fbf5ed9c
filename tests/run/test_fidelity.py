"""When do two runs count as the same mathematics? Each tensor is measured by what rounding alone does to it."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten.run import fidelity
from hasten.run.fidelity import Comparison, Judge, Numbers, compare, curves
from hasten.seams.state import Layout

LAYOUT = Layout([300, 200], [100], "float32")
EPS = 2.0**-23


def case(seed: int) -> tuple[Numbers, Numbers, Numbers]:
    """Start, plain run, and a run whose weights were moved: its update differs by some units in the last place."""
    random = np.random.default_rng(seed)
    start = random.standard_normal(LAYOUT.total).astype(np.float32)
    base = (start + 0.1 * random.standard_normal(LAYOUT.total)).astype(np.float32)
    signs = random.choice([-1, 1], LAYOUT.total)
    return start, base, (base * (1 + 12 * EPS * signs)).astype(np.float32)


def found(start: Numbers, base: Numbers, other: Numbers, yardstick: Numbers) -> Comparison:
    return compare(start, base, other, [(start, yardstick)], LAYOUT, 4)


@given(st.integers(0, 999), st.floats(0, 8))
def test_other_rounding_is_no_difference(seed: int, units: float) -> None:
    start, base, yardstick = case(seed)
    noise = np.random.default_rng(seed + 1).choice([-1, 1], LAYOUT.total)
    answer = found(start, base, (base * (1 + units * EPS * noise)).astype(np.float32), yardstick)
    assert answer.kept and answer.judged == 1


@given(st.integers(0, 999), st.sampled_from([0.999, 1.001, 1.01, 2.0, 0.0]), st.sampled_from([0, 300]))
def test_another_update_of_one_tensor_is_found(seed: int, factor: float, at: int) -> None:
    start, base, yardstick = case(seed)
    other = base.copy()
    other[at : at + 200] = start[at : at + 200] + factor * (base - start)[at : at + 200]
    assert not found(start, base, other, yardstick).kept


@given(st.integers(0, 999), st.sampled_from([math.nan, math.inf, 1e30]))
def test_a_number_lost_is_found(seed: int, lost: float) -> None:
    start, base, yardstick = case(seed)
    other = base.copy()
    other[seed % LAYOUT.total] = lost
    assert not found(start, base, other, yardstick).kept


@given(st.integers(0, 999), st.floats(1e-6, 1.0))
def test_what_the_script_leaves_alone_must_be_left_alone(seed: int, by: float) -> None:
    start, base, yardstick = case(seed)
    base[:300] = start[:300]
    yardstick[:300] = start[:300] * np.float32(1 + EPS)
    answer = found(start, base, base, yardstick)
    assert answer.kept and answer.judged == 1  # of the weights that move
    other = base.copy()
    other[seed % 300] += np.float32(by) + abs(other[seed % 300]) * np.float32(1e-6)
    answer = found(start, base, other, yardstick)
    assert not answer.kept and "leaves alone" in answer.words()


@given(st.integers(0, 999))
def test_what_rounding_alone_moves_is_not_judged(seed: int) -> None:
    start, base, yardstick = case(seed)
    random = np.random.default_rng(seed)
    other = base.copy()
    for run in (other, yardstick):
        run[:300] = start[:300] + 0.1 * random.standard_normal(300).astype(np.float32)
    answer = found(start, base, other, yardstick)
    assert answer.kept and answer.judged == 0.4


def test_what_the_weights_were_moved_by_is_no_update() -> None:
    """With a small learning rate it would be as long as one."""
    start, base, _ = case(0)
    base = (start + 1e-4 * (base - start)).astype(np.float32)
    moved = (start * (1 + 32 * EPS)).astype(np.float32)
    after = (moved.astype(np.float64) + (base.astype(np.float64) - start)).astype(np.float32)
    other = start + np.float32(1.2) * (base - start)
    assert not compare(start, base, other, [(moved, after)], LAYOUT, 4).kept


def test_the_largest_of_some_yardsticks_counts() -> None:
    start, base, yardstick = case(0)
    other = base.copy()
    other[:300] = start[:300] + np.float32(1.001) * (base - start)[:300]
    jumped = base.copy()
    jumped[:300] = start[:300] + np.float32(1.0005) * (base - start)[:300]
    assert not compare(start, base, other, [(start, yardstick)], LAYOUT, 4).kept
    assert compare(start, base, other, [(start, yardstick), (start, jumped)], LAYOUT, 4).kept


def test_buffers_may_lose_digits_but_not_count_twice() -> None:
    start, base, yardstick = case(0)
    other = base.copy()
    other[500:] = start[500:] + np.float32(1.001) * (base - start)[500:]
    assert found(start, base, other, yardstick).kept
    other[500:] = start[500:] + np.float32(1.9) * (base - start)[500:]
    assert not found(start, base, other, yardstick).kept


def test_nothing_that_moves_proves_nothing() -> None:
    start, _, yardstick = case(0)
    assert found(start, start, start, yardstick).judged == 0


def test_losses_are_judged_by_those_of_other_seeds() -> None:
    base = [1.0, 0.9, 0.8]
    near, far = [x + 0.01 for x in base], [x + 0.5 for x in base]
    assert curves(base, near, [[x - 0.02 for x in base], base, base]).kept is True
    assert curves(base, far, [[x - 0.02 for x in base], base, base]).kept is False
    assert curves(base, [*near[:2], float("nan")], [[x - 0.02 for x in base], base, base]).kept is False


def test_without_noise_between_seeds_nothing_is_said_of_an_approximate_remedy() -> None:
    """Losses that no seed moves, or of runs that ended early, are no yardstick: no promise is broken by them."""
    base = [1.0, 0.9, 0.8]
    assert curves(base, [x + 0.01 for x in base], [base, base, base]).kept is None
    assert curves(base, base, [base[:1], base, base]).kept is None


@pytest.mark.parametrize("error", ["ValueError: cache is full", ""])
def test_why_a_child_ended_before_the_comparison_is_told(
    error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Child:
        """Has ended; its folder, and with it what its error was, goes when it is killed."""

        ended = True

        def __init__(self) -> None:
            self.error = error

        def kill(self) -> None:
            self.error = ""

    weights = SimpleNamespace(parameters=lambda: [1])
    monkeypatch.setattr(fidelity, "Snapshot", SimpleNamespace(of=lambda watch: weights))
    monkeypatch.setattr(fidelity, "fork", SimpleNamespace(go=lambda *a, **k: Child(), DONE=-1))
    room: Any = SimpleNamespace(watch=None, renewable=False, renews=lambda remedies: False)
    found = Judge(room, str(tmp_path), 0.01).judge([])
    assert found.kept is None
    assert found.words == "a child ended before the comparison" + (f": {error}" if error else "")
