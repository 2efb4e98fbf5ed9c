"""How findings say what they have measured."""

from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from hasten.core.finding import ms, worth_telling
from tests import samples


def test_milliseconds_have_two_digits() -> None:
    said = {0.000004: "0.00 ms", 0.00038: "0.38 ms", 0.0053: "5.3 ms", 0.083: "83 ms", 0.1887: "190 ms"}
    assert {seconds: ms(seconds) for seconds in said} == said
    assert ms(1.4919) == "1500 ms" and ms(13.4) == "13000 ms"


@given(st.floats(1e-3, 1e4))
def test_what_is_said_is_near_what_was_measured(seconds: float) -> None:
    said = float(ms(seconds).removesuffix(" ms"))
    assert abs(said / 1000 / seconds - 1) <= 0.051


def test_small_promises_are_told_only_where_there_are_no_others() -> None:
    small = dataclasses.replace(samples.FINDINGS[1], predicted=samples.ratio(1.01, 1.0, 1.02))
    assert worth_telling((small, samples.FINDINGS[0])) == (samples.FINDINGS[0],)
    assert worth_telling((small, small)) == (small, small)
