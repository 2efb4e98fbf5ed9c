"""Intervals of the benches."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from bench.common import centre, clopper_pearson, ratio, save, span

from hasten.measure import machine

# Exact limits of the binomial, from their beta quantiles at 95 %.
CLOSED_FORM = [
    (0, 200, 0.0, 1 - 0.025 ** (1 / 200)),
    (200, 200, 0.025 ** (1 / 200), 1.0),
    (1, 10, 1 - 0.975 ** (1 / 10), 0.4450161),
    (5, 10, 0.1870860, 0.8129140),
]


@pytest.mark.parametrize(("hits", "n", "low", "high"), CLOSED_FORM)
def test_clopper_pearson(hits: int, n: int, low: float, high: float) -> None:
    found = clopper_pearson(hits, n)
    assert found.value == hits / n
    assert found.low == pytest.approx(low, abs=1e-6)
    assert found.high == pytest.approx(high, abs=1e-6)


def test_a_single_pair_has_no_interval() -> None:
    found = ratio([math.log(2.0)])
    assert found.value == pytest.approx(2.0)
    assert (found.low, found.high, span(found)) == (0.0, math.inf, "–")


def test_centre_of_many_differences_is_robust() -> None:
    found = centre([1e-6 * (10 + 0.1 * (i % 7)) for i in range(60)] + [1.0], "s")
    assert found.low < 10.3e-6 < found.high < 11e-6


def test_a_result_replaces_one_of_the_same_processor_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for cpu, summary in (("one", "a"), ("other", "b"), ("one", "c"), ("other", "d")):
        monkeypatch.setattr(machine, "cpu_model", lambda cpu=cpu: cpu)
        save("x", summary, {}, [], tmp_path)
    found = {p.name[11:]: json.loads(p.read_text(encoding="utf-8"))["summary"] for p in tmp_path.iterdir()}
    assert found == {"x.json": "c", "x.2.json": "d"}
