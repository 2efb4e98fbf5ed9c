"""Which remedies are tried, on top of what, and what is kept: with a room that knows every speed-up beforehand."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from hasten.core.facts import LoaderFacts, ModelFacts, OptimizerFacts, Place, Process, Usage
from hasten.core.interval import Interval
from hasten.core.remedy import Fidelity, Remedy
from hasten.core.trace import Phase, Trace
from hasten.measure.interleave import Pairs, TurnPairs
from hasten.run.fidelity import Finding
from hasten.run.room import Measured
from hasten.run.search import BY_PROCESSES, LONG_STEPS, NEXT_START, TOO_DEAR, Search
from hasten.run.trial import SPARED, TIME_UP, TOO_NOISY
from hasten.run.verdict import ALMOST, UNCLEAR

PLACE = Place("train.py", 12, "main", "loss = model(x).mean()", 0, 4)


class Room:
    """Pairs without noise, for remedies whose speed-up is given; 1 for all others.

    Attributes:
        tried: what was compared: without, with.
        allowed: seconds that each trial might have taken.
    """

    def __init__(self, gains: dict[str, float], counted: tuple[float, float, float] | None = None, least: float = 0.1):
        self.gains = gains
        self.counted = counted
        self.least = least
        self.step_seconds = 0.1
        self.tried: list[tuple[list[str], list[str]]] = []
        self.asked: list[list[str]] = []
        self.allowed: list[float] = []

    def least_seconds(self, remedy: Remedy, base: Sequence[Remedy] = ()) -> float:
        return self.least + remedy.one_off_seconds

    def unsuited(self, remedy: Remedy, base: list[Remedy]) -> str:
        return ""

    def again(self, trace: Trace, remedies: list[Remedy], seconds: float) -> Trace | None:
        self.asked.append([r.name for r in remedies])
        if self.counted is None:
            return None
        wall, system, faults = self.counted
        usage = dataclasses.replace(trace.usage, system_seconds=system, minor_faults=faults)
        return dataclasses.replace(trace, step=Interval.exact(wall), usage=usage)

    def compare(
        self, without: list[Remedy], with_: list[Remedy], seconds: float, hoped: float = math.inf, before: Any = None
    ) -> Measured:
        self.tried.append(([r.name for r in without], [r.name for r in with_]))
        self.allowed.append(seconds)
        pairs = Pairs()
        for i in range(272):
            noise = 1 + 0.001 * (i % 7 - 3)
            pairs.add(self._seconds(without) * noise, self._seconds(with_), 1.0, 1.0)
            pairs.look()
            if pairs.exhausted:
                break
        return Measured(pairs, "by hand", 0.0)

    def _seconds(self, remedies: list[Remedy]) -> float:
        out = 1.0
        for remedy in remedies:
            out /= self.gains.get(remedy.name, 1.0)
        return out


class Judge:
    def __init__(self, broken: tuple[str, ...] = ()) -> None:
        self.broken = broken

    def least_seconds(self, remedy: Remedy, base: Sequence[Remedy] = ()) -> float:
        return 0.0

    def judge(self, remedies: list[Remedy], until: float = math.inf) -> Finding:
        return Finding(not any(r.name in self.broken for r in remedies), "by hand", 0.0)


def trace(faults: float = 0.0, **phases: float) -> Trace:
    seconds = {"forward": 0.05, "backward": 0.04, **phases}
    step = sum(seconds.values())
    return Trace(
        "train.py",
        steps=50,
        step=Interval.exact(step),
        phases=tuple(Phase(name, Interval.exact(s), PLACE, 1.0) for name, s in seconds.items()),
        loaders=(
            LoaderFacts("training", "TensorDataset", PLACE, 10_000, 64, default_collate=True, tensor_backed=True),
        ),
        models=(ModelFacts("ResNet", PLACE, 11_000_000, 60, ("float32",), conv2d=20),),
        optimizers=(OptimizerFacts("Adam", PLACE, 60, 11_000_000, "loop", can_foreach=True, can_fuse=True),),
        process=Process(threads=2, cores=2),
        usage=Usage(cpu_seconds=2 * step, system_seconds=faults * 1e-6, minor_faults=faults),
    )


def search(room: Any, seen: Trace, budget: float = 60.0, judge: Any = None, **options: Any) -> Search:
    out = Search(room, judge or Judge(), seen, budget, **options)
    out.run()
    return out


def names(kept: Any) -> list[str]:
    return [k.remedy.name for k in kept]


def test_each_remedy_is_tried_on_top_of_those_kept() -> None:
    room = Room({"BatchedFetch": 2.0, "ChannelsLast": 1.5})
    found = search(room, trace(fetch=0.1))
    assert names(found.kept) == ["BatchedFetch", "ChannelsLast"]
    for without, with_ in room.tried:
        assert without == with_[:-1]
    assert (["BatchedFetch"], ["BatchedFetch", "ChannelsLast"]) in room.tried


def test_threads_come_before_what_they_make_noisy() -> None:
    """On one thread a fused optimizer is judged without the teams that it would start for every tensor."""
    room = Room({"Threads": 1.5, "FusedOptimizer": 1.1})
    seen = dataclasses.replace(trace(optimizer=0.02), usage=Usage(cpu_seconds=0.05, other_load=1.0))
    assert names(search(room, seen).kept) == ["Threads", "FusedOptimizer"]
    assert (["Threads"], ["Threads", "FusedOptimizer"]) in room.tried


def test_what_a_kept_remedy_brings_about_is_looked_at() -> None:
    """Few page faults before; in the other memory layout there are many, so the allocator gets a trial after all."""
    gains = {"ChannelsLast": 1.5, "Allocator": 1.3}
    room = Room(gains, counted=(0.06, 0.012, 12_000.0))
    found = search(room, trace())
    assert room.asked == [["ChannelsLast"], ["ChannelsLast", "Allocator"]]
    assert names(found.kept) == ["ChannelsLast", "Allocator"]
    assert names(search(Room(gains, counted=(0.06, 0.0, 10.0)), trace()).kept) == ["ChannelsLast"]
    assert names(search(Room(gains), trace()).kept) == ["ChannelsLast"]


def test_what_was_not_worth_its_trial_before_may_be_now() -> None:
    """The allocator promised too little for its trial while steps were long; then they are shorter, and all faults."""
    room = Room({"ChannelsLast": 4.0, "Allocator": 1.3}, counted=(0.03, 0.02, 20_000.0), least=40.0)
    found = search(room, trace(faults=4000.0), budget=50.0)
    assert names(found.kept) == ["ChannelsLast", "Allocator"]
    assert [t.name for t in found.trials].count("Allocator") == 1


def test_whole_batches_go_with_a_loader_without_workers() -> None:
    """Workers slow the loop; once they are gone, batches can be gathered, and the workers do not come back for it."""
    gains = {"LoaderWorkers": 2.0, "BatchedFetch": 3.0}
    seen = trace(fetch=0.2)
    with_workers = dataclasses.replace(seen, loaders=(dataclasses.replace(seen.loaders[0], num_workers=2),))

    class AsSeen(Room):
        def again(self, trace: Trace, remedies: list[Remedy], seconds: float) -> Trace | None:
            return seen

    room = AsSeen(gains)
    found = search(room, with_workers)
    assert [str(k.remedy) for k in found.kept] == ["LoaderWorkers(0)", "BatchedFetch()"]


def test_a_second_look_begins_no_trial_of_a_small_promise() -> None:
    """Page faults that cost 3 % of the step were not there before; their trial would cost more than it can give."""
    room = Room({"ChannelsLast": 1.5, "Allocator": 1.03}, counted=(0.06, 0.002, 2000.0))
    found = search(room, trace())
    assert names(found.kept) == ["ChannelsLast"]
    assert not any("Allocator" in with_ for _, with_ in room.tried)


def test_nothing_is_looked_at_again_where_nothing_was_kept() -> None:
    room = Room({}, counted=(0.06, 0.012, 12_000.0))
    assert not search(room, trace()).kept
    assert not room.asked


def test_a_broken_promise_is_not_kept() -> None:
    found = search(Room({"ChannelsLast": 1.5}), trace(), judge=Judge(("ChannelsLast",)))
    assert not found.kept
    assert [b.split("(")[0] for b in found.broken] == ["ChannelsLast"]


def test_only_what_the_user_allows_is_tried() -> None:
    room = Room({"ChannelsLast": 1.5})
    found = search(room, trace(fetch=0.1), allow=Fidelity.IDENTICAL)
    assert not any("ChannelsLast" in with_ for _, with_ in room.tried)
    assert next(t for t in found.trials if t.name == "ChannelsLast").why == "ask: --allow equivalent"


def test_what_is_not_tried_takes_no_time_from_what_is() -> None:
    room = Room({})
    search(room, trace(fetch=0.1), budget=30.0, only=("BatchedFetch",))
    assert room.allowed == [pytest.approx(30.0, abs=1.0)]
    two = Room({})
    search(two, trace(fetch=0.1), budget=30.0, only=("BatchedFetch", "ChannelsLast"))
    assert two.allowed == [pytest.approx(22.5, abs=1.0), pytest.approx(30.0, abs=1.0)]


def test_only_trials_that_are_begun_are_counted() -> None:
    class Refusing(Room):
        def unsuited(self, remedy: Remedy, base: list[Remedy]) -> str:
            return "nothing here" if remedy.name == "BatchedFetch" else ""

    said: list[str] = []
    room = Refusing({"ChannelsLast": 1.5})
    search(room, trace(fetch=0.1), say=said.append)
    assert [line.split(":")[0] for line in said] == [f"trial {i}" for i in range(1, len(room.tried) + 1)]
    assert not any("BatchedFetch" in line or " of " in line for line in said)


class Interrupted(Room):
    """Ends after ten pairs, nine of which were won: the interval lies above 1, and no look has claimed it yet."""

    why = TIME_UP

    def compare(
        self, without: list[Remedy], with_: list[Remedy], seconds: float, hoped: float = math.inf, before: Any = None
    ) -> Measured:
        pairs = Pairs(wall=[0.4, 0.5, 0.6, 0.7, 0.8, -0.05, 0.9, 1.0, 1.1, 1.2])
        pairs.look()
        return Measured(pairs, "by hand", 0.0, self.why)


@pytest.mark.parametrize(("why", "said"), [(TIME_UP, ALMOST), (TOO_NOISY, ALMOST), ("", UNCLEAR)])
def test_what_looks_faster_at_its_end_is_not_claimed_and_says_so(why: str, said: str) -> None:
    room = Interrupted({})
    room.why = why
    found = search(room, trace())
    assert not found.kept
    tried = [t for t in found.trials if t.ratio is not None]
    assert tried and all(t.ratio.low > 1 and (t.verdict, t.why) == ("cannot tell", said) for t in tried if t.ratio)


def test_a_setting_that_was_clearly_slower_rules_out_its_own_direction_only() -> None:
    """Too many workers: with none of them it is slower still; with one it may be faster."""
    seen = trace(fetch=0.005)
    usage = Usage(cpu_seconds=0.1, wall_seconds=0.095, other_load=1.0)
    loader = dataclasses.replace(seen.loaders[0], num_workers=3, tensor_backed=False)

    found = search(Room({"LoaderWorkers": 0.5}), dataclasses.replace(seen, loaders=(loader,), usage=usage))
    tried = [t.remedy for t in found.trials if t.name == "LoaderWorkers" and t.pairs]
    assert tried == ["LoaderWorkers(0)", "LoaderWorkers(1)"]
    none = search(Room({"LoaderWorkers": 0.5}), trace(fetch=0.1), only=("LoaderWorkers",))
    assert [t.why for t in none.trials if t.remedy == "LoaderWorkers(2)"] == [
        "another setting of it was clearly slower"
    ]


class Slow(Room):
    """Trials that take as long as the shortest of their kind, by a clock of their own."""

    def __init__(self, gains: dict[str, float], costs: dict[str, float], least: float, patch: pytest.MonkeyPatch):
        super().__init__(gains, least=least)
        self.costs = costs
        self.now = 0.0
        patch.setattr("hasten.run.search.time", SimpleNamespace(monotonic=lambda: self.now))

    def least_seconds(self, remedy: Remedy, base: Sequence[Remedy] = ()) -> float:
        return self.costs.get(remedy.name, self.least)

    def compare(
        self, without: list[Remedy], with_: list[Remedy], seconds: float, hoped: float = math.inf, before: Any = None
    ) -> Measured:
        self.now += self.least_seconds(with_[-1])
        return super().compare(without, with_, seconds, hoped)


def test_a_budget_for_one_long_trial_goes_to_the_one_that_promises_most(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = trace(fetch=0.9)
    room = Slow({"BatchedFetch": 9.0}, {}, 50.0, monkeypatch)
    found = search(room, dataclasses.replace(seen, predicted_steps=10**6))
    assert names(found.kept) == ["BatchedFetch"]
    assert {tuple(with_) for _, with_ in room.tried} == {("BatchedFetch",)}
    assert LONG_STEPS in {t.why for t in found.trials}


def test_where_the_budget_holds_no_trial_nothing_is_said_to_promise_more(monkeypatch: pytest.MonkeyPatch) -> None:
    room = Slow({}, {}, 100.0, monkeypatch)
    found = search(room, dataclasses.replace(trace(fetch=0.9), predicted_steps=10**6), only=("BatchedFetch",))
    assert not room.tried
    assert {t.why for t in found.trials if t.name == "BatchedFetch"} == {TOO_DEAR}


def with_compiler() -> Trace:
    seen = trace(faults=4000.0, optimizer=0.02)
    return dataclasses.replace(seen, process=dataclasses.replace(seen.process, compiler=True))


def test_one_dear_trial_does_not_take_the_place_of_many_that_promise_more(monkeypatch: pytest.MonkeyPatch) -> None:
    room = Slow({"ChannelsLast": 1.3}, {"Compile": 55.0}, 8.0, monkeypatch)
    found = search(room, with_compiler())
    assert "Compile" not in {r for _, with_ in room.tried for r in with_}
    assert names(found.kept) == ["ChannelsLast"]
    assert {t.name for t in found.trials if t.pairs} > {"ChannelsLast", "FusedOptimizer", "Allocator"}


def test_what_trials_leave_of_the_budget_goes_to_those_it_did_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    class Sooner(Slow):
        def compare(
            self, without: Any, with_: Any, seconds: float, hoped: float = math.inf, before: Any = None
        ) -> Measured:
            self.now -= 0.9 * self.least_seconds(with_[-1])  # ends long before it might
            return super().compare(without, with_, seconds, hoped)

    room = Sooner({"Compile": 1.5}, {"Compile": 40.0}, 9.0, monkeypatch)
    found = search(room, with_compiler())
    assert names(found.kept) == ["Compile"]
    assert [t.name for t in found.trials].count("Compile") == 1


def test_no_trial_eats_into_the_shortest_of_those_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Greedy(Slow):
        def compare(
            self, without: Any, with_: Any, seconds: float, hoped: float = math.inf, before: Any = None
        ) -> Measured:
            self.now += seconds - self.least_seconds(with_[-1])
            return super().compare(without, with_, seconds, hoped)

    room = Greedy({}, {}, 9.0, monkeypatch)
    search(room, trace(faults=4000.0, optimizer=0.02), budget=50.0)
    assert len(room.allowed) == 4 and min(room.allowed) >= 9.0


def test_only_trials_that_others_wait_for_are_given_up_early() -> None:
    hopes: list[float] = []

    class Asked(Room):
        def compare(
            self, without: Any, with_: Any, seconds: float, hoped: float = math.inf, before: Any = None
        ) -> Measured:
            hopes.append(hoped)
            return super().compare(without, with_, seconds, hoped)

    search(Asked({}), trace(faults=4000.0, optimizer=0.02))
    assert len(hopes) == 4 and max(hopes[:-1]) < 2.0 and hopes[-1] == math.inf


class Upset(Room):
    """Threads(1) gain as said, but cost when compiled code is on."""

    def _seconds(self, remedies: list[Remedy]) -> float:
        named = {r.name for r in remedies}
        return super()._seconds(remedies) * (1.2 * self.gains["Threads"] if named >= {"Threads", "Compile"} else 1.0)


def test_what_a_later_remedy_has_turned_into_a_loss_is_taken_back() -> None:
    seen = dataclasses.replace(with_compiler(), usage=Usage(cpu_seconds=0.02, wall_seconds=0.11))
    found = search(Upset({"Threads": 1.3, "Compile": 2.0}), seen, budget=200.0)
    assert names(found.kept) == ["Compile"]
    threads = next(t for t in found.trials if t.name == "Threads")
    assert (threads.verdict, threads.why) == ("replaced", "slower with Compile() on")
    assert threads.ratio is not None and threads.ratio.high < 1
    assert found.prove() == "by hand"
    together = found.overall()
    assert together is not None and together.ratio is not None and 1.9 < together.ratio.value < 2.1
    still = search(Room({"Threads": 1.3, "Compile": 2.0}), seen, budget=200.0)
    assert names(still.kept) == ["Threads", "Compile"]
    assert next(t for t in still.trials if t.name == "Threads").verdict == "kept"


def test_what_is_kept_no_longer_is_not_said_to_be() -> None:
    seen = dataclasses.replace(with_compiler(), usage=Usage(cpu_seconds=0.2, wall_seconds=0.11))
    found = search(Room({"ChannelsLast": 1.5, "Compile": 2.0}), seen, budget=200.0)
    assert names(found.kept) == ["Compile"]
    said = {t.name: (t.verdict, t.why) for t in found.trials}
    assert said["ChannelsLast"] == ("replaced", "Compile() takes its place") and said["Compile"] == ("kept", "")
    together = found.overall()  # against the script as it is, not against what it replaced
    assert together is not None and together.ratio is not None and 1.9 < together.ratio.value < 2.1

    found.judge, found._proved = Judge(("Compile",)), (set(), "")
    found.prove()
    assert not found.kept and all(t.verdict != "kept" for t in found.trials)


def test_weights_are_compared_within_the_budget_and_what_is_reserved() -> None:
    ends: list[float] = []

    class Late(Judge):
        def judge(self, remedies: list[Remedy], until: float = math.inf) -> Finding:
            ends.append(until)
            return Finding(None, "too long")

    begun = time.monotonic()
    found = search(Room({"ChannelsLast": 1.5}), trace(), 60.0, Late(), reserve=10.0)
    assert not found.kept and [t.why for t in found.trials if t.name == "ChannelsLast"] == ["too long"]
    assert ends and begun + 70 <= min(ends) == max(ends) <= time.monotonic() + 70


class Copies(Room):
    """Their page faults a step are given; the allocator gains nothing in them."""

    def __init__(self, faults: float, gains: dict[str, float] | None = None) -> None:
        super().__init__(gains or {})
        self.faults = faults

    def compare(
        self, without: Any, with_: Any, seconds: float, hoped: float = math.inf, before: Any = None
    ) -> Measured:
        measured = super().compare(without, with_, seconds, hoped)
        if with_[-1].name == "Allocator":
            measured.pairs = TurnPairs(measured.pairs.wall, outcome=measured.outcome, faults=[self.faults] * 9)
        return measured


@pytest.mark.parametrize(("faults", "verdict"), [(3.0, "cannot tell"), (3900.0, "dropped")])
def test_copies_without_page_faults_do_not_tell_what_saving_them_gains(faults: float, verdict: str) -> None:
    found = search(Copies(faults), trace(faults=4000.0), only=("Allocator",))
    told = next(t for t in found.trials if t.name == "Allocator")
    assert told.verdict == verdict and (told.why == SPARED) == (verdict == "cannot tell")


@pytest.mark.parametrize(
    ("started", "faults", "verdict", "why"),
    [
        (Room({"Allocator": 1.25}), 3.0, "kept", BY_PROCESSES),
        (Room({}), 3.0, "dropped", "no "),
        (Room({"Allocator": 1.25}, least=1000.0), 3.0, "cannot tell", "dearer than the budget allows"),
        (Room({"Allocator": 1.25}), 3900.0, "dropped", "no "),
    ],
)
def test_whole_processes_tell_what_copies_without_page_faults_cannot(
    started: Room, faults: float, verdict: str, why: str
) -> None:
    room = Copies(faults, {"ChannelsLast": 1.5})
    found = search(room, trace(faults=4000.0), launches=(started, Judge()))
    told = [t for t in found.trials if t.name == "Allocator"]
    assert [t.verdict for t in told] == [verdict] and why in told[0].why
    assert names(found.kept) == ["ChannelsLast"]
    assert names(found.launched) == (["Allocator"] if verdict == "kept" else [])
    asked = faults < 1000 and started.least < 1000
    assert started.tried == ([(["ChannelsLast"], ["ChannelsLast", "Allocator"])] if asked else [])


def with_jemalloc(faults: float = 20_000.0) -> Trace:
    seen = trace(faults)
    return dataclasses.replace(seen, process=dataclasses.replace(seen.process, allocators=("jemalloc",)))


def test_what_a_process_must_be_started_with_is_tried_last_and_in_processes() -> None:
    room, started = Room({"Allocator": 1.2, "ChannelsLast": 1.1}), Room({"PreloadedAllocator": 1.3})
    found = search(room, with_jemalloc(), launches=(started, Judge()))
    assert names(found.kept) == ["Allocator", "ChannelsLast"] and names(found.launched) == ["PreloadedAllocator"]
    assert started.tried == [(names(found.kept), [*names(found.kept), "PreloadedAllocator"])]
    assert not any("PreloadedAllocator" in with_ for _, with_ in room.tried)
    assert found.trials[-1].verdict == "kept" and found.trials[-1].fidelity_found == "by hand"
    assert found.trials[-1].why == NEXT_START


def test_a_start_that_is_too_dear_no_faster_or_breaks_its_promise_is_not_kept() -> None:
    for started, judge, said in (
        (Room({"PreloadedAllocator": 1.3}, least=1000.0), Judge(), "dearer than the budget allows"),
        (Room({"PreloadedAllocator": 0.7}), Judge(), "no gain"),
        (Room({"PreloadedAllocator": 1.3}), Judge(("PreloadedAllocator",)), "by hand"),
    ):
        found = search(Room({}), with_jemalloc(), launches=(started, judge))
        assert not found.launched and not found.kept
        assert said in found.trials[-1].why and found.trials[-1].name == "PreloadedAllocator"
    assert [b.split("(")[0] for b in found.broken] == ["PreloadedAllocator"]


def test_where_all_trials_are_processes_it_is_one_of_them() -> None:
    room = Room({"PreloadedAllocator": 1.3})
    assert names(search(room, with_jemalloc()).kept) == ["PreloadedAllocator"]
