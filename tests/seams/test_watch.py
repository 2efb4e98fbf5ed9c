"""The heartbeat by a clock that is turned by hand: where the first step begins, and whose steps are counted."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from hasten.measure.clock import INDEX, PhaseClock
from hasten.seams.known import MOST_EPOCHS, LoaderRecord, OptimizerRecord
from hasten.seams.watch import Watch

SECOND = 1_000_000_000


class Hand:
    """A clock's hand, and a watch that reads it."""

    def __init__(self) -> None:
        self.time = 0
        self.watch = Watch(clock=PhaseClock(lambda: self.time))

    def step(self, optimizer: Any, seconds: float = 1.0, raises: bool = False) -> None:
        self.watch.optimizer_entered(optimizer)
        self.time += int(seconds * SECOND)
        if not raises:
            self.watch.optimizer_left(optimizer)

    def seconds(self, phase: str) -> list[float]:
        return [row[INDEX[phase] + 1] / SECOND for row in self.watch.records()]

    @property
    def walls(self) -> list[float]:
        return [row[0] / SECOND for row in self.watch.records()]


def made() -> Any:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(2))], lr=1.0)


def test_start_up_is_no_part_of_the_first_step() -> None:
    hand, optimizer = Hand(), made()
    hand.time += 90 * SECOND  # data are read, a model is made
    hand.watch.begins()
    hand.step(optimizer)
    hand.watch.begins()  # another loader: this is training
    hand.step(optimizer)
    assert hand.walls == [1.0, 1.0] and hand.watch.first_fetch == 90 * SECOND
    assert hand.seconds("python") == [0.0, 0.0]


def test_the_first_batch_or_the_first_call_of_a_model_begins_the_first_step() -> None:
    hand = Hand()
    hand.time += SECOND
    hand.watch.module_called(torch.nn.Linear(1, 1), True)
    hand.time += SECOND
    hand.watch.module_called(torch.nn.Linear(1, 1), True)
    assert hand.watch.first_fetch == SECOND


def test_models_that_are_kept_are_counted_one_after_the_other() -> None:
    hand, kept = Hand(), [made() for _ in range(10)]
    for optimizer in kept:
        for _ in range(30):
            hand.step(optimizer)
    assert hand.walls == [1.0] * 30 + 9 * ([2.0] + [1.0] * 28)


def test_optimizers_that_take_turns_make_one_step() -> None:
    hand, critic, maker = Hand(), made(), made()
    for _ in range(30):
        for _ in range(5):
            hand.step(critic)
        hand.step(maker)
    assert hand.watch.steps == 150
    hand, a, b, c = Hand(), made(), made(), made()
    for _ in range(30):
        hand.step(a), hand.step(b), hand.step(c)
    assert hand.watch.steps == 30


def test_a_step_that_raises_is_over_when_the_next_one_begins() -> None:
    hand, optimizer = Hand(), made()
    for raises in (False, True, False, False):
        hand.step(optimizer, raises=raises)
        hand.time += 2 * SECOND
    hand.step(optimizer)
    assert hand.seconds("optimizer")[-2:] == [1.0, 1.0]
    assert hand.seconds("python")[-2:] == [2.0, 2.0]
    assert not hand.watch.clock.stack


class Rows(torch.utils.data.Dataset[int]):
    def __len__(self) -> int:
        return 8


def feed(watch: Watch, *records: LoaderRecord) -> None:
    for record in records:
        record.asked_at = watch.backwards
        record.batches += 1
        if watch.feeding is not record:
            watch.feeds(record)


def test_loaders_whose_batches_go_into_one_step_feed_it_both() -> None:
    watch = Watch()
    first, second, held_out = (LoaderRecord(torch.utils.data.DataLoader(Rows())) for _ in range(3))
    feed(watch, held_out)  # a look at the model before training begins
    for _ in range(3):
        for _ in range(10):
            feed(watch, first, second)
            watch.backward_left()
        feed(watch, *[held_out] * 5)
    assert second.role == "training" and second.feeds
    assert first.feeds and first.feeds_beside
    assert not held_out.feeds


def test_passes_are_remembered_up_to_a_number() -> None:
    """``next(iter(loader))`` begins one for every batch, for as long as the training lasts."""
    record = LoaderRecord(torch.utils.data.DataLoader(Rows()))
    for step in range(2 * MOST_EPOCHS):
        record.begins_pass(step)
    assert record.starts == 2 * MOST_EPOCHS and len(record.epochs) == MOST_EPOCHS + 1


def test_batches_that_go_into_a_step_are_counted() -> None:
    """Four whose gradients are accumulated, beside some of an evaluation; then one for three backward passes."""
    watch = Watch()
    train, held_out = (LoaderRecord(torch.utils.data.DataLoader(Rows())) for _ in range(2))
    assert watch.batches == 1.0
    watch.optimizers[0] = OptimizerRecord(made)
    for _ in range(5):
        for _ in range(4):
            feed(watch, train)
            watch.backward_left()
        watch.steps += 1
        feed(watch, held_out, held_out, train)
        feed(watch, train)
    assert watch.batches == 4.0
    alone, train = Watch(), LoaderRecord(torch.utils.data.DataLoader(Rows()))
    alone.optimizers[0] = OptimizerRecord(made)
    for _ in range(6):
        feed(alone, train)
        for _ in range(3):
            alone.backward_left()
        alone.steps += 1
    assert alone.batches == 1.0
    at_once = Watch()
    at_once.optimizers[0] = OptimizerRecord(made)
    for _ in range(5):
        feed(at_once, *[train] * 30)  # what is trained on is evaluated, too
        feed(at_once, train, train)  # as Hugging Face's Trainer asks: all batches of a step, then their gradients
        for _ in range(2):
            at_once.backward_left()
        at_once.steps += 1
    assert at_once.batches == 2.0


def differentiate(hand: Hand, seconds: float) -> None:
    hand.watch.clock.enter(INDEX["backward"])
    hand.time += int(seconds * SECOND)
    hand.watch.clock.leave()
    hand.watch.backward_left()


def test_where_backward_is_the_clock_the_first_steps_count_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hasten.seams.watch.optimizer_exists", lambda: False)  # other tests leave some
    hand = Hand()
    hand.watch.begins()
    for number in range(1, 13):
        hand.time += SECOND  # the model is called, and after that weights are moved by hand
        differentiate(hand, number / 2)
    assert hand.watch.clock_name == "backward"
    assert hand.watch.steps == 12 == hand.watch.backwards
    assert hand.walls == [1 + number / 2 for number in range(1, 13)]
    assert hand.seconds("backward") == [number / 2 for number in range(1, 13)]
    assert hand.seconds("python") == [1.0] * 12


def test_backward_passes_before_the_first_step_of_an_optimizer_are_part_of_it() -> None:
    hand, optimizer = Hand(), made()
    hand.watch.begins()
    for _ in range(5):
        differentiate(hand, 2.0)
    hand.step(optimizer)
    differentiate(hand, 2.0)
    hand.step(optimizer)
    assert hand.walls == [11.0, 3.0] and hand.seconds("backward") == [10.0, 2.0]
