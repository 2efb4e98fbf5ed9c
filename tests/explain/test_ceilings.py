"""Ceilings: times and speed-ups say the same, whatever a busy machine does to some steps."""

from __future__ import annotations

from collections import deque

import pytest
import torch

from hasten.core.interval import Interval
from hasten.core.trace import PHASES
from hasten.explain import ceilings
from hasten.explain.ceilings import TOO_FEW, paired
from hasten.seams.child import WITH, WITHOUT, PullOnly
from hasten.seams.watch import Watch


def test_times_and_speedup_agree_where_some_steps_are_slow() -> None:
    without = [0.016 + i * 1e-5 for i in range(20)]
    with_ = [0.0005] * 18 + [0.006, 0.009]  # means would say 16.1 / 1.2
    found = paired(without, with_, [0.014 + i * 1e-5 for i in range(20)])
    assert found.as_is is not None and found.data_free is not None and found.data_free_ratio is not None
    assert found.as_is.value / found.data_free.value == pytest.approx(found.data_free_ratio.value)
    assert found.data_free_ratio.value == pytest.approx(32, rel=0.05)
    assert found.data_free.low < found.data_free.value < found.data_free.high
    assert "medians" in found.method


def test_both_ceilings_are_paired_with_the_step_that_they_are_of() -> None:
    """Other work came half-way and made every step twice as long: neither speed-up may change by it."""
    slow = [1.0] * 8 + [2.0] * 12
    found = paired([0.1 * x for x in slow], [0.02 * x for x in slow], [0.08 * x for x in slow])
    assert found.data_free_ratio is not None and found.data_free_ratio.value == pytest.approx(5)
    assert found.model_free_ratio is not None and found.model_free_ratio.value == pytest.approx(1.25)
    assert found.as_is is not None and found.model_free is not None
    assert found.as_is.value / found.model_free.value == pytest.approx(1.25)


def test_a_data_free_step_saves_what_the_step_waited_or_the_interval_says_so() -> None:
    """A step of 5 ms waits 0.6 ms for its batch; the machine had other work in most steps as they are."""
    found = paired([0.005 + i * 1e-5 for i in range(24)], [0.0024 + i * 1e-5 for i in range(24)], [0.0006] * 24)
    ratio = found.data_free_ratio
    assert ratio is not None and ratio.value == pytest.approx(2.1, rel=0.05)
    assert ratio.low < 1.15 and ratio.high > 2.0
    assert found.data_free is not None and found.data_free.high > 0.0043


def test_too_few_steps_tell_nothing_but_why() -> None:
    found = paired([0.1, 0.1], [0.1], [], TOO_FEW)
    assert (found.as_is, found.data_free, found.model_free) == (None, None, None)
    assert "fewer than 3 such steps were taken in 8 s" in found.why_not
    assert isinstance(paired([0.1] * 3, [0.1] * 3, [0.1] * 3).model_free, Interval)


class Rows(torch.utils.data.Dataset[int]):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> int:
        return index


def fed() -> tuple[Watch, torch.utils.data.DataLoader[int]]:
    watch, loader = Watch(), torch.utils.data.DataLoader(Rows())
    watch.trained_from = watch.record_of(loader)
    watch.trained_from.role = "training"
    return watch, loader


def test_a_loader_that_is_asked_no_more_is_told() -> None:
    """``itertools.cycle(loader)`` keeps the batches of the first pass, and hands them out for ever."""
    watch, loader = fed()
    assert watch.trained_from is not None
    watch.trained_from.asked_at, watch.backwards = 8, 100
    assert ceilings.measure(watch).why_not == ceilings.KEPT and len(loader) == 8


def test_a_step_that_accumulates_gradients_fetches_several_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where workers make the batches ahead, they are asked for alone, one by one."""

    class Child:
        def drain(self, _seconds: float) -> list[tuple[float, ...]]:
            return [(0, 0.01, 0.01, 0.0, 0.0)] * 5

    watch, loader = fed()
    assert watch.trained_from is not None
    watch.trained_from.iterator = iterator = iter(loader)
    watch.steps, watch.differentiated = 10, 40
    monkeypatch.setattr(ceilings.fork, "go", lambda *_, **__: Child())
    monkeypatch.setattr(ceilings, "record_batches", lambda _: deque([1, 2, 3]))
    found = ceilings.measure(watch).model_free
    assert found is not None and found.value == pytest.approx(0.04) and iterator is not None


@pytest.mark.parametrize(("workers", "fetched", "paired"), [(0, 0.008, True), (0, 0.0, False), (2, 0.008, False)])
def test_what_a_step_waits_for_is_what_its_batches_take_only_where_it_makes_them(
    workers: int, fetched: float, paired: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers make them ahead, and where two steps share a batch one of them waits for none."""

    class Child:
        def __init__(self, alone: bool) -> None:
            self.alone = alone

        def drain(self, _seconds: float) -> list[tuple[float, ...]]:
            ways = (0,) if self.alone else (WITHOUT, WITH)
            return [(way, 0.004 if self.alone else 0.01, 0.01, 0.0, fetched) for way in ways] * 10

    watch, loader = fed()
    assert watch.trained_from is not None
    watch.trained_from.iterator = iterator = iter(loader)
    loader.__dict__["num_workers"] = workers
    watch.steps = watch.differentiated = 10
    monkeypatch.setattr(ceilings.fork, "go", lambda *_, processes=True: Child(alone=not processes))
    found = ceilings.measure(watch)
    assert found.model_free is not None and iterator is not None
    assert found.model_free.value == pytest.approx(fetched if paired else 0.004)
    assert (found.model_free_ratio is not None) == paired


def test_what_is_done_once_a_pass_is_no_gain_of_free_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """With workers as it is are the parent's steps, some of which evaluate or draw figures; the child's do not."""

    class Child:
        def drain(self, _seconds: float) -> list[tuple[float, ...]]:
            return [(way, 0.01, 0.01, 0.0, 0.0) for way in (WITHOUT, WITH)] * 10

    watch, loader = fed()
    assert watch.trained_from is not None
    watch.trained_from.iterator = iterator = iter(loader)
    for step in range(24):
        spent = dict.fromkeys(PHASES, 0) | {"forward": 9_000_000, "python": 1_000_000, "fetch": 2_000_000}
        if step % 8 == 7:
            spent |= {"evaluation": 500_000_000, "python": 300_000_000, "loader start": 8_000_000}
        watch.add(sum(spent.values()), list(spent.values()))
    monkeypatch.setattr(ceilings.fork, "go", lambda *_, **__: Child())
    monkeypatch.setattr(ceilings, "record_batches", lambda _: deque([1, 2, 3]))
    found = ceilings.measure(watch)
    assert found.as_is is not None and found.data_free is not None and iterator is not None
    assert found.as_is.value == pytest.approx(0.012 + 0.008 * 3 / 21)  # starts of passes are waiting for data, too
    assert found.data_free.value == pytest.approx(0.01)


def test_a_loader_whose_iterator_is_gone_is_asked_anew() -> None:
    """As after ``next(iter(loader))``."""
    rows: list[tuple[float, ...]] = []

    class Sender:
        def row(self, *values: float) -> None:
            rows.append(values)

        def leave(self) -> None:
            rows.append((-1,))

    watch, loader = fed()
    PullOnly(Sender(), watch, 4, 10.0)  # type: ignore[arg-type]
    assert [r[0] for r in rows].count(0) == 4 + 1 and rows[-1] == (-1,) and len(loader) == 8
