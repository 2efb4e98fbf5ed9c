"""Device times with events that are faked: a stream is a list of work, an event passes when the device reaches it."""

from __future__ import annotations

from hasten.measure.clock import INDEX, PhaseClock
from hasten.measure.device import DeviceClock, DeviceTimes


class Stream:
    """Work of a device: the host adds to ``queued``, the device follows later."""

    def __init__(self) -> None:
        self.queued = 0.0
        self.done = 0.0
        self.events = 0

    def event(self) -> Event:
        self.events += 1
        return Event(self)


class Event:
    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.at = 0.0

    def record(self) -> None:
        self.at = self.stream.queued

    def query(self) -> bool:
        return self.stream.done >= self.at

    def elapsed_time(self, later: Event) -> float:
        return later.at - self.at


def watched() -> tuple[Stream, PhaseClock, DeviceTimes]:
    stream = Stream()
    times = DeviceTimes(stream.event)
    clock = PhaseClock(lambda: 0)
    DeviceClock.take_over(clock, times)
    return stream, clock, times


def step(stream: Stream, clock: PhaseClock, forward: float, backward: float, optimizer: float) -> None:
    for name, work in (("forward", forward), ("backward", backward), ("optimizer", optimizer)):
        clock.enter(INDEX[name])
        stream.queued += work
        clock.leave()


def test_device_time_is_charged_to_the_phase_that_queued_it() -> None:
    stream, clock, times = watched()
    for _ in range(3):
        step(stream, clock, 2.0, 5.0, 1.0)
    stream.done = stream.queued
    times.read()
    found = {name: times.milliseconds[INDEX[name]] for name in ("forward", "backward", "optimizer")}
    assert found == {"forward": 6.0, "backward": 15.0, "optimizer": 3.0}


def test_nothing_is_read_before_the_device_has_passed_it() -> None:
    stream, clock, times = watched()
    step(stream, clock, 2.0, 5.0, 1.0)
    times.read()
    assert sum(times.milliseconds) == 0.0
    stream.done = 2.0
    times.read()
    assert times.milliseconds[INDEX["forward"]] == 2.0
    assert times.milliseconds[INDEX["backward"]] == 0.0


def test_events_are_used_again_and_release_stops_marking() -> None:
    stream, clock, times = watched()
    for _ in range(50):
        step(stream, clock, 1.0, 1.0, 1.0)
        stream.done = stream.queued
        times.read()
    assert stream.events <= 8
    assert isinstance(clock, DeviceClock)
    clock.release()
    made = stream.events + len(times.pool)
    step(stream, clock, 1.0, 1.0, 1.0)
    assert type(clock) is PhaseClock
    assert stream.events + len(times.pool) == made


def test_host_phases_stay_as_they_were() -> None:
    now = [0]
    clock = PhaseClock(lambda: now[0])
    DeviceClock.take_over(clock, DeviceTimes(Stream().event))
    clock.enter(INDEX["forward"])
    now[0] = 7
    clock.leave()
    now[0] = 10
    spent = clock.cut(now[0])
    assert (spent[INDEX["forward"]], spent[INDEX["python"]]) == (7, 3)
