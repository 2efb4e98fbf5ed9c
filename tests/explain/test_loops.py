"""A line that runs often in one step is told from one that runs once, with the loop that repeats it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from hasten.core.codec import decode
from hasten.core.facts import Event, Hot, Place
from hasten.explain.loops import LEAST_RUNS, STEPS, LineCounter, Repeats, loop_events
from hasten.measure.clock import INDEX
from hasten.seams.watch import Watch

PAIRS = 20


def distance(a: float, b: float) -> float:
    return abs(a - b)  # in a called function


def pair_loss() -> float:
    total = 0.0
    for i in range(PAIRS):  # the loop
        total += distance(i, 2 * i)  # its body
    return total


def few() -> int:
    total = 0
    for i in range(int(LEAST_RUNS) - 2):  # a short loop
        total += i  # a short body
    return total


def comprehended() -> list[int]:
    return [i * i for i in range(PAIRS)]  # a comprehension


def generated() -> int:
    return sum(i * i for i in range(PAIRS))  # a generator


# fmt: off
def on_one_line() -> None:
    for i in range(PAIRS): distance(i, 2 * i)  # noqa: E701  # one line


def of_several_rows() -> None:
    for _ in range(2):
        for i in range(PAIRS): distance(i, 2 * i)  # noqa: E701  # one line of a row


def counted_on_one_line() -> None:
    i = 0
    while i < PAIRS: i += 1  # noqa: E701  # one line that counts
# fmt: on


def slow_header() -> None:
    for _ in map(abs, range(PAIRS)):  # a header that works
        pass


BLOCKS = [torch.nn.Linear(1, 1) for _ in range(PAIRS)]


def through_blocks() -> torch.Tensor:
    x = torch.zeros(1, 1)
    for block in BLOCKS:
        x = x + block.forward(x)  # part of a block
    return x


class Accumulates:
    """Gradients of several parts of a batch."""

    def backward(self) -> None:
        self.done = True

    def step(self) -> None:
        for _ in range(PAIRS):  # an accumulating loop
            self.backward()  # accumulates


class Sender:
    def __init__(self) -> None:
        self.rows: list[int] = []

    def row(self, kind: int) -> None:
        self.rows.append(kind)

    def leave(self) -> None:
        self.rows.append(0)


def line_of(comment: str) -> int:
    return next(i for i, text in enumerate(Path(__file__).read_text().splitlines(), 1) if text.endswith(f"# {comment}"))


def counted(step: Callable[[], Any], tmp_path: Path) -> tuple[Repeats, Sender]:
    """The repeats of a step that is run as often as the counter wants it."""
    sender, before = Sender(), sys.gettrace()
    frame = sys._getframe()
    try:
        counter = LineCounter(sender, Watch(), str(tmp_path / "loops.json"))  # type: ignore[arg-type]
        for _ in range(STEPS):
            step()
            counter.beat()
    finally:
        sys.settrace(before)
        while frame is not None:
            frame.f_trace = None
            frame = frame.f_back  # type: ignore[assignment]
    return counter.repeats(), sender


def headers(repeats: Repeats) -> dict[int, tuple[int, float]]:
    return {line: (event.place.line, event.calls) for (_, line), event in repeats.items()}


def test_lines_of_a_loop_and_of_what_it_calls_are_repeated(tmp_path: Path) -> None:
    repeats, sender = counted(pair_loss, tmp_path)
    loop = line_of("the loop")
    found = headers(repeats)
    assert found[line_of("its body")] == (loop, PAIRS)
    assert found[line_of("in a called function")] == (loop, PAIRS)
    assert sender.rows[-1] == 0
    assert (tmp_path / "loops.json").exists()


def test_a_short_loop_and_lines_outside_are_not(tmp_path: Path) -> None:
    assert headers(counted(few, tmp_path)[0]) == {}


@pytest.mark.parametrize(
    ("step", "comment", "runs"),
    [
        (comprehended, "a comprehension", PAIRS),
        (generated, "a generator", PAIRS),
        (on_one_line, "one line", PAIRS),
        (of_several_rows, "one line of a row", 2 * PAIRS),
        (counted_on_one_line, "one line that counts", PAIRS),
        (slow_header, "a header that works", PAIRS),
    ],
)
def test_a_loop_on_one_line_runs_as_often_as_its_body(
    step: Callable[[], Any], comment: str, runs: int, tmp_path: Path
) -> None:
    line = line_of(comment)
    assert headers(counted(step, tmp_path)[0])[line] == (line, runs)


def test_a_loop_over_the_blocks_of_a_model_is_not_a_loop_to_vectorise(tmp_path: Path) -> None:
    assert line_of("part of a block") not in headers(counted(through_blocks, tmp_path)[0])


def test_accumulating_gradients_is_not_a_loop_to_vectorise(tmp_path: Path) -> None:
    found = headers(counted(Accumulates().step, tmp_path)[0])
    assert line_of("accumulates") not in found


class Rows:
    """Texts, of which the dataset counts the words, and the collate function turns values into numbers."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, i: int) -> list[str]:
        found = []
        for value in range(PAIRS):  # of the dataset
            found.append(str(value))
        return found


def to_numbers(batch: list[list[str]]) -> list[list[float]]:
    return [[float(value) for value in row] for row in batch]  # of the collate function


def test_loops_of_a_collate_function_are_told_and_those_of_its_dataset_are_not(tmp_path: Path) -> None:
    watch = Watch()
    watch.clock.enter(INDEX["fetch"])
    loader = iter(DataLoader(Rows(), batch_size=2, collate_fn=to_numbers))  # type: ignore[arg-type]
    sender, before = Sender(), sys.gettrace()
    try:
        counter = LineCounter(sender, watch, str(tmp_path / "loops.json"))  # type: ignore[arg-type]
        for _ in range(STEPS):
            next(loader)
            counter.beat()
    finally:
        sys.settrace(before)
    line = line_of("of the collate function")
    ((at, event),) = counter.repeats().items()
    assert at[1] == line and event.kind == "loop in collate" and event.calls >= 2 * PAIRS


def test_phases_that_are_not_the_models_are_not_counted(tmp_path: Path) -> None:
    watch = Watch()
    watch.clock.enter(INDEX["fetch"])
    sender, before = Sender(), sys.gettrace()
    try:
        counter = LineCounter(sender, watch, str(tmp_path / "loops.json"))  # type: ignore[arg-type]
        pair_loss()
    finally:
        sys.settrace(before)
        sys._getframe().f_trace = None
    assert counter.counts == {}


LOOP = Place("train.py", 5, "pair_loss", "    for i in range(64):", 5, 24)


def hot(line: int, seconds: float, phase: str = "python", text: str = "x = y") -> Hot:
    return Hot(phase, Place("train.py", line, "pair_loss", text), seconds, 0.1)


def test_seconds_of_a_loops_lines_are_added_up() -> None:
    repeats = {("train.py", n): Event("loop", LOOP, calls, 0.0) for n, calls in ((6, 64.0), (7, 32.0))}
    lines = (hot(6, 0.002), hot(7, 0.001), hot(7, 0.001, "forward"), hot(8, 0.5), hot(6, 0.5, "fetch"))
    assert loop_events(repeats, lines) == (Event("loop", LOOP, 64.0, pytest.approx(0.004)),)


def test_lines_that_log_do_not_count() -> None:
    repeats = {("train.py", 6): Event("loop", LOOP, 64.0, 0.0)}
    assert loop_events(repeats, (hot(6, 0.002, text="writer.add_scalar('x', x)"),)) == ()


def test_events_travel_as_json() -> None:
    from hasten.core.codec import encode

    event = Event("loop", LOOP, 64.0, 0.002)
    assert decode(Event, encode(event)) == event
