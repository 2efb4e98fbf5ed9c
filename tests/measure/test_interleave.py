"""The sequential test keeps its promise: exact under any noise, at most one false claim in 200 trials."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hasten.measure.interleave import (
    FALSE_CLAIMS,
    FALSE_CLAIMS_IN_TURNS,
    FASTER_AT_LOOK,
    LOOKS,
    SLOWER_AT_LOOK,
    Outcome,
    Pairs,
    _critical_rank,
    _rank_counts,
    coin_flips,
    hodges_lehmann,
    without,
)

CLAIMS = (Outcome.FASTER, Outcome.SLOWER)
PROMISE = 1 / 200  # of all A/A trials may claim a difference


# -- the signed-rank test ----------------------------------------------------------------------------------------------


def patterns(n: int) -> Counter[int]:
    """How many of all sign patterns of the ranks 1..n have each sum of positive ranks, by writing them all down."""
    ranks = range(1, n + 1)
    return Counter(sum(itertools.compress(ranks, signs)) for signs in itertools.product((0, 1), repeat=n))


@pytest.mark.parametrize("n", range(1, 13))
def test_rank_sums_are_counted_as_by_brute_force(n: int) -> None:
    assert dict(enumerate(_rank_counts(n))) == dict(patterns(n))


@given(st.integers(1, 11), st.floats(1e-4, 0.9))
def test_critical_ranks_are_exact(n: int, alpha: float) -> None:
    counts, k = patterns(n), _critical_rank(n, alpha)
    below = sum(count for rank, count in counts.items() if rank <= k) / 2**n
    with_next = sum(count for rank, count in counts.items() if rank <= k + 1) / 2**n
    assert below <= alpha / 2 < with_next


@pytest.mark.parametrize("n", [17, 34, 60])
def test_ranks_of_few_pairs_are_not_approximated(n: int) -> None:
    counts, alpha = _rank_counts(n), 2 * FASTER_AT_LOOK
    k = _critical_rank(n, alpha)
    assert sum(counts[: k + 1]) / 2**n <= alpha / 2 < sum(counts[: k + 2]) / 2**n


@pytest.mark.parametrize("alpha", [2 * FASTER_AT_LOOK, 2 * SLOWER_AT_LOOK, 0.01, 0.05])
@pytest.mark.parametrize("n", [61, 68, 96, 136])
def test_the_normal_approximation_errs_on_the_safe_side(n: int, alpha: float) -> None:
    counts, k = _rank_counts(n), _critical_rank(n, alpha)
    true = sum(counts[: k + 1]) / 2**n
    assert 0.5 * alpha / 2 <= true <= alpha / 2


# -- estimate and interval ---------------------------------------------------------------------------------------------

logs = st.lists(st.floats(-2, 2), min_size=1, max_size=40)


@given(logs, st.floats(-1, 1))
def test_a_shift_shifts_and_a_sign_mirrors(x: list[float], shift: float) -> None:
    centre, low, high = hodges_lehmann(x, 0.95)
    assert low <= centre <= high
    assert hodges_lehmann([v + shift for v in x], 0.95) == pytest.approx((centre + shift, low + shift, high + shift))
    assert hodges_lehmann([-v for v in x], 0.95) == pytest.approx((-centre, -high, -low))


@given(logs)
def test_the_interval_is_the_test_turned_inside_out(x: list[float]) -> None:
    """0 lies in the interval exactly when the signed-rank test does not reject it (without ties and zeros)."""
    x = [v + 1e-6 * (i + 1) * math.sqrt(2) for i, v in enumerate(x)]
    sizes = sorted(abs(v) for v in x)
    if 0.0 in x or any(b - a < 1e-9 for a, b in itertools.pairwise(sizes)):
        return
    _, low, high = hodges_lehmann(x, 0.95)
    order = sorted(range(len(x)), key=lambda i: abs(x[i]))
    positive = sum(rank for rank, i in enumerate(order, 1) if x[i] > 0)
    negative = len(x) * (len(x) + 1) // 2 - positive
    k = _critical_rank(len(x), 0.05)
    assert (low > 0) == (negative <= k)
    assert (high < 0) == (positive <= k)


def test_few_pairs_say_nothing() -> None:
    assert hodges_lehmann([0.3, 0.4], 0.99)[1:] == (-math.inf, math.inf)
    assert Pairs().ratio() is None


# -- trials ------------------------------------------------------------------------------------------------------------


class Machine:
    """Step times with the moods of a shared machine: drift that lasts, bursts that are long-tailed."""

    def __init__(self, seed: int, busy: float) -> None:
        self.draw = random.Random(seed)
        self.busy = busy
        self.mood = 0.0

    def step(self, seconds: float) -> float:
        self.mood = 0.95 * self.mood + 0.05 * self.draw.gauss(0, 1)
        burst = self.draw.paretovariate(1.2) if self.draw.random() < self.busy else 0.0
        return seconds * (math.exp(self.mood) + burst)


def trial(machine: Machine, speedup: float) -> Pairs:
    """One trial as it is run: coin-flip order, looked at after every pair."""
    pairs = Pairs()
    while not pairs.exhausted:
        if machine.draw.random() < 0.5:
            without = machine.step(0.01 * speedup)
            with_ = machine.step(0.01)
        else:
            with_ = machine.step(0.01)
            without = machine.step(0.01 * speedup)
        pairs.add(without, with_)
        pairs.look()
    return pairs


def false_claims(trials: int, busy: float) -> int:
    return sum(trial(Machine(seed, busy), 1.0).outcome in CLAIMS for seed in range(trials))


@pytest.mark.parametrize("busy", [0.0, 0.3])
def test_equal_ways_are_not_told_apart(busy: float) -> None:
    assert false_claims(200, busy) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("busy", [0.0, 0.3])
def test_equal_ways_are_told_apart_at_most_once_in_200(busy: float) -> None:
    assert false_claims(3000, busy) / 3000 <= PROMISE


@pytest.mark.parametrize("busy", [0.0, 0.1])
def test_a_gain_of_three_percent_is_found(busy: float) -> None:
    outcomes = Counter(trial(Machine(seed, busy), 1.03).outcome for seed in range(40))
    assert outcomes[Outcome.FASTER] >= 36
    assert not outcomes[Outcome.SLOWER]


def test_a_loss_is_never_taken_for_a_gain() -> None:
    outcomes = {trial(Machine(seed, 0.1), 0.95).outcome for seed in range(30)}
    assert outcomes <= {Outcome.SLOWER, Outcome.NO_GAIN}


def test_what_is_slower_is_said_to_be() -> None:
    """Where some of the first pairs fell out otherwise; where none did, it is given up early, as no gain."""
    for lucky, outcome in ((8, Outcome.SLOWER), (0, Outcome.NO_GAIN)):
        pairs = Pairs()
        for i in range(LOOKS[-1]):
            pairs.add(1.0, 0.5 if i < lucky else 1.05 + 0.001 * i)
            pairs.look()
        assert pairs.outcome is outcome


def test_the_ratio_covers_the_truth() -> None:
    ratios = [trial(Machine(seed, 0.0), 1.2).ratio() for seed in range(40)]
    assert sum(r is None or r.excludes(1.2) for r in ratios) <= 2


def test_the_error_budget_is_kept() -> None:
    assert FALSE_CLAIMS <= PROMISE * 0.55 and FALSE_CLAIMS_IN_TURNS <= PROMISE


def test_ten_wins_of_ten_are_enough_and_nine_are_not() -> None:
    for last, outcome in ((1.5, Outcome.FASTER), (0.5, Outcome.OPEN)):
        pairs = Pairs()
        for i in range(9):
            pairs.add(2.0 + 0.001 * i, 1.0)
            assert pairs.look() is Outcome.OPEN
        pairs.add(last, 1.0)
        assert pairs.look() is outcome


def test_a_difference_within_the_margin_is_no_claim() -> None:
    for gain, margin, claims in ((1.005, 0.0, True), (1.005, 0.01, False), (1.02, 0.01, True)):
        pairs = Pairs(margin=margin)
        for i in range(LOOKS[-1]):
            pairs.add(gain + 1e-6 * i, 1.0)
            pairs.look()
        assert (pairs.outcome is Outcome.FASTER) == claims


def noisy(spread: float, gain: float, count: int, hoped: float = 1.05) -> Pairs:
    draw, pairs = random.Random(3), Pairs(hoped=hoped)
    for _ in range(count):
        pairs.add(gain * math.exp(draw.gauss(0, spread)), 1.0)
        pairs.look()
    return pairs


def test_noise_that_hides_all_that_is_hoped_for_ends_a_trial() -> None:
    look = LOOKS[3]
    assert noisy(0.5, 1.0, look).hopeless(0.1)
    assert not noisy(0.5, 1.0, look, hoped=3.0).hopeless(0.1)
    assert not noisy(0.5, 1.5, look).hopeless(0.1)  # more is seen than was hoped for
    assert not noisy(0.1, 1.0, look).hopeless(0.1)
    assert noisy(0.1, 1.0, look).hopeless(0.9)  # no time is left to see so little
    assert not noisy(0.5, 1.0, look + 1).hopeless(0.1)  # at looks only
    assert not noisy(0.5, 1.0, LOOKS[2]).hopeless(0.1)  # few pairs tell noise badly
    told = noisy(0.01, 2.0, LOOKS[0])
    assert told.outcome is Outcome.FASTER and not told.hopeless(1.0)


def test_a_verdict_is_final() -> None:
    pairs = Pairs()
    for i in range(LOOKS[0]):
        pairs.add(2.0 + 0.001 * i, 1.0)
    assert pairs.look() is Outcome.FASTER
    for _ in range(LOOKS[-1]):
        pairs.add(1.0, 2.0)
    assert pairs.look() is Outcome.FASTER
    assert pairs.exhausted


@settings(max_examples=30)
@given(st.lists(st.booleans(), min_size=1, max_size=LOOKS[2]))
def test_looks_are_taken_only_where_planned(signs: list[bool]) -> None:
    """Between two looks no pair changes the outcome, so a trial cannot be stopped when it happens to look good."""
    pairs = Pairs()
    for n, sign in enumerate(signs, 1):
        pairs.add(1.1 if sign else 1.0, 1.0 if sign else 1.1)
        before = pairs.outcome
        pairs.look()
        assert n in LOOKS or pairs.outcome not in CLAIMS or before in CLAIMS


def test_cpu_time_is_a_second_witness() -> None:
    pairs = Pairs()
    for i in range(20):
        pairs.add(1.0 + 0.01 * i, 0.5, 2.0 + 0.01 * i, 2.0)
    wall, cpu = pairs.ratio(), pairs.cpu_ratio()
    assert wall is not None and cpu is not None
    assert wall.low > 1.9 > cpu.high


def test_coins_leave_the_users_random_state_alone() -> None:
    random.seed(5)
    state = random.getstate()
    flips = list(itertools.islice(coin_flips(), 200))
    assert random.getstate() == state
    assert 50 < sum(flips) < 150


def test_what_a_part_of_a_step_costs_is_told_as_a_trial_would() -> None:
    """Some steps wait for a core: the part, half of a usual step, is a tenth of the mean."""
    source = random.Random(1)
    steps = [(2e-3 * (1 + source.random() / 20), 1e-3) for _ in range(120)]
    steps[::6] = [(50e-3, 1e-3)] * len(steps[::6])
    mean = sum(a for a, _ in steps) / sum(a - b for a, b in steps)
    found = without(steps)
    assert mean < 1.15 and found is not None
    assert 1.85 < found.low <= found.high < 2.05
    assert without(steps[:10]) is None


@given(st.lists(st.tuples(st.floats(1e-6, 10.0), st.floats(0.0, 1.0)), min_size=12, max_size=60))
def test_what_vanishes_is_never_more_than_the_step(steps: list[tuple[float, float]]) -> None:
    found = without([(seconds, seconds * share) for seconds, share in steps])
    assert found is not None and 0 < found.low <= found.value <= found.high < math.inf
