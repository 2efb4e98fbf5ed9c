"""What is written as JSON comes back the same."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten.core.codec import decode, encode
from hasten.core.facts import Place
from hasten.core.interval import Interval
from hasten.core.plan import Plan, Step
from hasten.core.report import Outcome, Trial
from hasten.core.trace import Ceilings, Epoch, Growth, Phase, Trace
from tests import samples

numbers = st.floats(allow_nan=False, allow_infinity=False)
counts = st.integers(-1, 10**9)
words = st.text(max_size=12)
settings = st.dictionaries(words, st.one_of(st.booleans(), counts, words, st.none()), max_size=3)


@st.composite
def intervals(draw: st.DrawFn) -> Interval:
    low, value, high = sorted(draw(st.tuples(numbers, numbers, numbers)))
    return Interval(value, low, high, draw(words), draw(numbers), draw(counts))


places = st.builds(Place, words, counts, words, words, counts, counts)
leaves = st.builds(Phase, words, intervals(), st.none() | places, numbers)
phases = st.builds(Phase, words, intervals(), st.none() | places, numbers, st.lists(leaves, max_size=2).map(tuple))
ceilings = st.builds(Ceilings, *[st.none() | intervals()] * 4, words, words)
growths = st.builds(Growth, st.none() | intervals(), st.none(), numbers, st.booleans(), st.booleans(), places, numbers)
trials = st.builds(
    Trial, words, words, settings, words, words, st.none() | intervals(), intervals(), st.none(), counts, words
)
steps = st.builds(Step, words, settings, words, words, st.none() | intervals(), words)
plans = st.builds(Plan, words, words, st.dictionaries(words, words), settings, st.lists(steps, max_size=3).map(tuple))
traces = st.builds(
    Trace,
    words,
    counts,
    counts,
    *[numbers] * 4,
    st.none() | intervals(),
    numbers,
    st.lists(phases, max_size=3).map(tuple),
    numbers,
    ceilings,
    growths,
    st.lists(st.builds(Epoch, counts, numbers, numbers, numbers), max_size=3).map(tuple),
    curve=st.lists(numbers, max_size=4).map(tuple),
    notes=st.lists(words, max_size=2).map(tuple),
)


def there_and_back(value: Any) -> Any:
    return decode(type(value), json.loads(json.dumps(encode(value), allow_nan=False)))


@given(st.one_of(intervals(), phases, ceilings, trials, plans))
def test_values_come_back_equal(value: Any) -> None:
    assert there_and_back(value) == value


@given(traces)
def test_a_trace_comes_back_with_the_same_json(trace: Trace) -> None:
    assert encode(there_and_back(trace)) == encode(trace)  # NaN differs from itself, its JSON does not


def test_unknown_numbers_travel_as_null() -> None:
    data = encode(Outcome(cost_seconds=1.0, payback_seconds=math.inf))
    assert data["payback_seconds"] is None and data["budget_seconds"] is None
    assert math.isnan(decode(Outcome, data).budget_seconds)


def test_the_whole_sample_survives() -> None:
    trace = samples.growing()
    assert encode(there_and_back(trace)) == encode(trace)


@pytest.mark.parametrize(
    ("data", "words_in_error"),
    [
        ({"file": "a.py"}, "line"),
        ({"file": "a.py", "line": 1, "colour": "red"}, "unknown field 'colour'"),
        ([1, 2], "expected an object"),
    ],
)
def test_a_misshapen_object_is_refused_by_name(data: Any, words_in_error: str) -> None:
    with pytest.raises(ValueError, match="Place") as caught:
        decode(Place, data)
    assert words_in_error in str(caught.value)


def test_a_text_is_no_number() -> None:
    with pytest.raises(ValueError, match="expected a number, got str"):
        decode(Interval, {"value": "1.5", "low": 1.0, "high": 2.0})
