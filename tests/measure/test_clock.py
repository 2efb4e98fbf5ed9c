"""Whatever happens, every nanosecond is booked once."""

from __future__ import annotations

import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten.core.trace import PHASES
from hasten.measure.clock import CHECKPOINT, EVALUATION, INDEX, PYTHON, PhaseClock, timed

FETCH, FORWARD, BACKWARD = INDEX["fetch"], INDEX["forward"], INDEX["backward"]


class Time:
    """A clock that moves only when told to."""

    def __init__(self) -> None:
        self.t = 1_000

    def __call__(self) -> int:
        return self.t

    def passes(self, nanoseconds: int) -> None:
        self.t += nanoseconds


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def clock(time: Time) -> PhaseClock:
    return PhaseClock(time)


def booked(spent: list[int]) -> dict[str, int]:
    return {name: ns for name, ns in zip(PHASES, spent, strict=True) if ns}


def test_time_outside_of_any_phase_is_pythons(clock: PhaseClock, time: Time) -> None:
    time.passes(7)
    assert booked(clock.cut(time())) == {"python": 7}


def test_inner_phases_are_taken_out_of_outer_ones(clock: PhaseClock, time: Time) -> None:
    time.passes(1)
    clock.enter(FORWARD)
    time.passes(10)
    clock.enter(FETCH)
    time.passes(100)
    clock.leave()
    time.passes(1_000)
    clock.leave()
    time.passes(10_000)
    assert booked(clock.cut(time())) == {"python": 10_001, "forward": 1_010, "fetch": 100}
    assert clock.calls[FORWARD] == clock.calls[FETCH] == 1


def test_a_phase_that_runs_on_is_shared_between_two_steps(clock: PhaseClock, time: Time) -> None:
    clock.enter(BACKWARD)
    time.passes(3)
    assert booked(clock.cut(time())) == {"backward": 3}
    time.passes(4)
    clock.leave()
    assert booked(clock.cut(time())) == {"backward": 4}


def test_during_an_evaluation_everything_but_saving_is_evaluation(clock: PhaseClock, time: Time) -> None:
    clock.evaluation(True)
    time.passes(1)
    for phase in (FETCH, FORWARD, CHECKPOINT):
        clock.enter(phase)
        time.passes(10)
        clock.leave()
    clock.evaluated()
    clock.evaluation(False)
    time.passes(100)
    assert booked(clock.cut(time())) == {"evaluation": 21, "checkpoint": 10, "python": 100}
    assert clock.calls[FORWARD] == 0


def test_what_follows_the_last_sign_of_an_evaluation_is_not_its(clock: PhaseClock, time: Time) -> None:
    clock.evaluation(True)
    clock.enter(FORWARD)
    time.passes(1)
    clock.leave()
    clock.evaluated()
    for phase, seconds in ((INDEX["log"], 10), (FETCH, 100)):
        clock.enter(phase)
        time.passes(seconds)
        clock.leave()
    time.passes(1_000)
    clock.evaluation(False)
    assert booked(clock.cut(time())) == {"evaluation": 1, "log": 10, "fetch": 100, "python": 1_000}


def test_training_that_goes_on_inside_a_phase_finds_it_running(clock: PhaseClock, time: Time) -> None:
    optimizer = INDEX["optimizer"]
    clock.evaluation(True)
    clock.evaluated()
    clock.enter(optimizer)  # whose closure trains
    time.passes(1)
    clock.evaluation(False)
    assert clock.current == optimizer
    time.passes(10)
    clock.leave()
    assert booked(clock.cut(time())) == {"optimizer": 11}


def test_an_evaluation_that_begins_inside_a_phase_goes_on_after_it(clock: PhaseClock, time: Time) -> None:
    clock.enter(FETCH)
    time.passes(1)
    clock.evaluation(True)
    time.passes(10)
    clock.leave()
    clock.evaluated()
    time.passes(100)
    assert clock.booked_as == EVALUATION
    clock.evaluation(False)
    assert clock.booked_as == PYTHON
    assert booked(clock.cut(time())) == {"fetch": 1, "evaluation": 10, "python": 100}


def test_moving_never_takes_more_than_there_is(clock: PhaseClock, time: Time) -> None:
    clock.enter(FETCH)
    time.passes(30)
    clock.leave()
    clock.move(20, FETCH, EVALUATION)
    clock.move(20, FETCH, EVALUATION)
    assert booked(clock.cut(time())) == {"evaluation": 30}


def test_what_hasten_spends_on_itself_is_booked_nowhere(clock: PhaseClock, time: Time) -> None:
    time.passes(5)
    clock.cut(time())
    time.passes(1_000)
    clock.pause_until(time())
    time.passes(6)
    assert booked(clock.cut(time())) == {"python": 6}


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("enter"), st.integers(0, len(PHASES) - 1)),
        st.tuples(st.sampled_from(["leave", "cut", "evaluated"]), st.just(0)),
        st.tuples(st.just("evaluation"), st.integers(0, 1)),
        st.tuples(st.just("move"), st.integers(0, 10**6)),
    ),
    max_size=60,
)


@given(ACTIONS, st.data())
def test_phases_sum_to_the_time_that_has_passed(actions: list[tuple[str, int]], data: st.DataObject) -> None:
    time = Time()
    clock = PhaseClock(time)
    start, total = time(), 0
    for action, argument in actions:
        time.passes(data.draw(st.integers(0, 10**9)))
        if action == "enter":
            clock.enter(argument)
        elif action == "leave":
            clock.leave()
        elif action == "evaluation":
            clock.evaluation(bool(argument))
        elif action == "evaluated":
            clock.evaluated()
        elif action == "move":
            clock.move(argument, PYTHON, FETCH)
        else:
            total += sum(clock.cut(time()))
    spent = clock.cut(time())
    assert min(spent) >= 0
    assert total + sum(spent) == time() - start


def test_a_timed_call_is_booked_to_its_phase_and_line(clock: PhaseClock, time: Time) -> None:
    save = timed(clock, "checkpoint", time.passes)
    save(3)
    assert not clock.places
    clock.locate = lambda frame: frame
    save(4)
    here = sys._getframe().f_code
    assert [(phase, code, *entry) for (phase, code, _), entry in clock.places.items()] == [(CHECKPOINT, here, 1, 4)]
    assert booked(clock.cut(time())) == {"checkpoint": 7}


def test_a_timed_call_that_fails_leaves_its_phase(clock: PhaseClock, time: Time) -> None:
    def fails() -> None:
        time.passes(2)
        raise ValueError("of the user's own")

    with pytest.raises(ValueError, match="own"):
        timed(clock, "log", fails)()
    assert clock.current == PYTHON
    assert booked(clock.cut(time())) == {"log": 2}


def test_calls_of_other_threads_pass_unbooked(clock: PhaseClock, time: Time) -> None:
    thread = threading.Thread(target=timed(clock, "log", time.passes), args=(9,))
    thread.start()
    thread.join()
    assert clock.calls[INDEX["log"]] == 0
    assert booked(clock.cut(time())) == {"python": 9}


def test_a_timed_call_keeps_its_name_and_result(clock: PhaseClock) -> None:
    def save(path: str) -> str:
        """Saves."""
        return path + "!"

    watched = timed(clock, "checkpoint", save)
    assert (watched("a"), watched.__name__, watched.__doc__) == ("a!", "save", "Saves.")
