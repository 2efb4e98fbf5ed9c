"""Growth is told from noise and from a busy machine; what keeps graphs alive is named, and nothing else is."""

from __future__ import annotations

import random
import sys
from array import array
from collections.abc import Iterator
from types import CodeType
from typing import Any

import pytest
import torch

from hasten.core.trace import Growth
from hasten.explain.growth import grown_line, growth
from hasten.explain.keepers import LONG_GRAPH, LOOKS, MOST_SUMS, Keeper, KeeperWatch, assignment, graphs_kept, keepers
from hasten.seams.steps import WIDTH
from hasten.seams.watch import Watch
from hasten.seams.window import HERTZ_AFTER

# -- which line --------------------------------------------------------------------------------------------------------

Lines = dict[str, float]


def profile(steps: int, seconds: Lines) -> tuple[int, Any]:
    """A profile of one line a function: its seconds per step."""
    return steps, {(11, code(name), 1, "", ""): s * steps for name, s in seconds.items()}


def code(name: str, _known: dict[str, CodeType] = {}) -> CodeType:  # noqa: B006  one code object a name
    return _known.setdefault(name, compile(f"{name} = 1", f"{name}.py", "exec"))  # equal codes would be one key


QUIET = {"forward": 0.004, "backward": 0.006, "metric": 0.001}


def test_the_line_that_grows_alone_is_named() -> None:
    place, seconds = grown_line(profile(100, QUIET), profile(1000, {**QUIET, "metric": 0.005}))
    assert place is not None and place.file == "metric.py"
    assert seconds == pytest.approx(0.004)


def test_a_new_line_is_named() -> None:
    place, _ = grown_line(profile(100, QUIET), profile(1000, {**QUIET, "hooks": 0.003}))
    assert place is not None and place.file == "hooks.py"


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.5, 4.0])
def test_a_busy_machine_is_no_growth(factor: float) -> None:
    assert grown_line(profile(100, QUIET), profile(1000, {k: factor * s for k, s in QUIET.items()}))[0] is None


def test_a_line_is_named_through_a_busy_machine() -> None:
    slow = {k: 1.5 * s for k, s in QUIET.items()}
    place, seconds = grown_line(profile(100, QUIET), profile(1000, {**slow, "metric": 0.02}))
    assert place is not None and place.file == "metric.py"
    assert seconds == pytest.approx(0.02 - 1.5 * 0.001)


def test_what_few_samples_show_is_noise() -> None:
    one_sample = 1 / HERTZ_AFTER / 1000
    assert grown_line(profile(100, QUIET), profile(1000, {**QUIET, "forward": 0.004 + 2 * one_sample}))[0] is None


def test_without_a_profile_there_is_no_line() -> None:
    assert grown_line((0, {}), profile(10, QUIET))[0] is None
    assert grown_line(profile(10, QUIET), (0, {}))[0] is None


# -- how much ----------------------------------------------------------------------------------------------------------


class Windows:
    """An early and a late profile."""

    def __init__(self, early: Lines, late: Lines) -> None:
        self.early, self.late = profile(100, early), profile(1000, late)


def watched(seconds: list[float], memory: list[float] | None = None) -> Watch:
    """A watch that has seen these step times; memory in bytes every 8 steps."""
    watch = Watch()
    for s in seconds:
        watch.rows.extend(array("q", [int(1e9 * s)] + [0] * (WIDTH - 1)))
    watch.steps = len(seconds)
    watch.memory = [(8 * (i + 1), int(b)) for i, b in enumerate(memory or [])]
    return watch


def noisy(n: int, seed: int, slope: float = 0.0) -> list[float]:
    draw = random.Random(seed)
    return [0.01 * (1 + slope * i / n) * (1 + 0.1 * abs(draw.gauss(0, 1))) for i in range(n)]


def measured(watch: Watch, late: Lines | None = None) -> Growth:
    return growth(watch, Windows(QUIET, late or QUIET))  # type: ignore[arg-type]


def test_a_growing_step_grows() -> None:
    found = measured(watched(noisy(1000, 0, slope=0.5)), {**QUIET, "metric": 0.006})
    assert found.grows
    assert found.relative == pytest.approx(0.5, abs=0.1)
    assert found.place is not None and found.place.file == "metric.py"


@pytest.mark.parametrize("seed", range(5))
def test_a_steady_step_does_not_grow(seed: int) -> None:
    assert not measured(watched(noisy(1000, seed)), {**QUIET, "metric": 0.006}).grows


def test_a_machine_that_gets_busy_is_not_the_scripts_growth() -> None:
    assert not measured(watched(noisy(1000, 0, slope=1.0)), {k: 2 * s for k, s in QUIET.items()}).grows


def worked(watch: Watch, grows_by: float, waits: tuple[float, float] = (0, 0)) -> Watch:
    """The watch with readings of the processor time: 8 ms a step, growing by so much over the run; and of the time that
    the thread waited for a core, in seconds a step in the beginning and in the end."""
    spent = waited = 0.0
    for step in range(1, watch.steps + 1):
        spent += 0.008 * (1 + grows_by * step / watch.steps)
        waited += waits[0] + (waits[1] - waits[0]) * step / watch.steps
        if not step % 8:
            watch.processor.append((step, int(1e9 * spent), int(1e9 * waited)))
    return watch


@pytest.mark.parametrize("steps", [80, 1000])
def test_a_step_that_waits_for_a_core_does_not_grow(steps: int) -> None:
    late = {**QUIET, "metric": 0.03}  # the line at which the thread was put aside
    assert measured(worked(watched(noisy(steps, 0, slope=2.74)), 2.74), late).grows
    assert not measured(worked(watched(noisy(steps, 0, slope=2.74)), 0.3), late).grows


def test_work_that_grows_is_seen_through_a_load_that_grows_more() -> None:
    late = {**QUIET, "metric": 0.03}
    assert measured(worked(watched(noisy(1000, 0, slope=9.0)), 1.0), late).grows


@pytest.mark.parametrize(
    ("threads", "work", "waits", "grows"),
    [
        (2, 2.74, (0.0, 0.0), True),
        (2, 2.74, (0.001, 0.08), False),  # they wait for each other on their cores while others take these
        (1, 2.74, (0.001, 0.08), True),  # one waits for nobody
        (1, 0.4, (0.001, 0.08), False),  # the caches are shared
        (2, 2.74, (0.02, 0.07), True),  # as busy all the time: it waits as often as it works
    ],
)
def test_a_machine_that_gets_busier_is_told_from_work_that_grows(
    threads: int, work: float, waits: tuple[float, float], grows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    slope = max(work, 0.5)
    watch = worked(watched(noisy(1000, 0, slope=slope)), work, waits)
    assert measured(watch, {**QUIET, "metric": 0.03}).grows == grows


@pytest.mark.parametrize("seed", [6, 15, 18])
def test_a_load_that_comes_and_goes_is_no_growth(seed: int) -> None:
    """Steps and their work are slower while it is there, and it stays for a hundred steps or so."""
    draw, level, load = random.Random(seed), 0.0, []
    for _ in range(1000):
        level = 0.99 * level + draw.gauss(0, 1)
        load.append(1 + 0.14 * abs(level))
    watch = watched([0.01 * x for x in load])
    spent = 0.0
    for i, x in enumerate(load):
        spent += 0.008 * x
        if not i % 8:
            watch.processor.append((i, int(1e9 * spent), 0))
    assert not measured(watch, {**QUIET, "metric": 0.03}).grows


def test_the_thread_that_trains_has_its_processor_time_read() -> None:
    watch = Watch()
    for _ in range(16):
        watch.boundary()
    assert [step for step, _, _ in watch.processor] == [8, 16]
    assert [waited for _, _, waited in watch.processor] == sorted(waited for _, _, waited in watch.processor)
    assert watch.processor[1][1] >= watch.processor[0][1] > 0


def test_short_runs_say_nothing() -> None:
    assert repr(measured(watched(noisy(30, 0, slope=3.0)), {"metric": 0.006})) == repr(Growth())  # NaN is not itself


def test_memory_that_keeps_growing_leaks() -> None:
    found = measured(watched(noisy(1000, 0), [1e9 + 1e6 * i for i in range(125)]))
    assert found.leaks
    assert found.memory is not None and found.memory.value == pytest.approx(1e6 / 8)


@pytest.mark.parametrize(
    "memory",
    [
        [1e9] * 125,
        [1e9 + min(i, 25) * 1e6 for i in range(125)],  # a cache that fills in the beginning
        [1e9 + (i % 10) * 1e6 for i in range(125)],  # an allocator that breathes
    ],
)
def test_memory_that_stays_does_not_leak(memory: list[float]) -> None:
    assert not measured(watched(noisy(1000, 0), memory)).leaks


def test_the_keeper_is_told_only_when_something_grows() -> None:
    steady, leaking = watched(noisy(1000, 0)), watched(noisy(1000, 0), [1e9 + 1e6 * i for i in range(125)])
    steady.keeper = leaking.keeper = ("total", None)
    assert measured(steady).variable == ""
    assert measured(leaking).variable == "total"


# -- which variable ----------------------------------------------------------------------------------------------------

weight = torch.ones(3, requires_grad=True)


def losses(n: int) -> Iterator[torch.Tensor]:
    for _ in range(n):
        yield (weight * 2).sum()


class Meter:
    def __init__(self) -> None:
        self.total = torch.zeros(())
        self.count = 0


def here() -> dict[str, Keeper]:
    """Keepers among the caller's own variables."""
    frame = sys._getframe(1)
    names = set(frame.f_locals)
    return {k.name: k for k in keepers(frame) if k.name.split("[")[0].split(".")[0] in names}


def test_a_running_sum_is_found_with_its_line() -> None:
    total = torch.zeros(())
    for loss in losses(30):
        total = total + loss
    found = here()
    assert list(found) == ["total"]
    assert found["total"].length == 30
    place = found["total"].place
    assert place is not None and place.text.strip() == "total = total + loss" and place.function.startswith("test_a_")


def test_sums_in_place_in_lists_dictionaries_and_objects_are_found() -> None:
    running: Any = 0.0
    history, meters, meter = [], {"loss": torch.zeros(()), "steps": 0}, Meter()
    for loss in losses(30):
        running += loss
        history.append(loss)
        meters["loss"] += loss
        meter.total += loss
    found = here()
    assert {n: k.length for n, k in found.items()} == {
        "running": 30,
        "history": 30,
        "meters['loss']": 30,
        "meter.total": 30,
    }
    texts = {n: k.place.text.strip() for n, k in found.items() if k.place is not None}
    assert texts == {
        "running": "running += loss",
        "history": "history.append(loss)",
        "meters['loss']": 'meters["loss"] += loss',
        "meter.total": "meter.total += loss",
    }


def test_a_list_in_a_dictionary_of_an_object_is_found() -> None:
    """As loggers of trainers keep them."""
    module = Meter()
    module.logged = {"loss": [torch.ones(1, requires_grad=True) * 2 for _ in range(LONG_GRAPH)], "step": 3}  # type: ignore[attr-defined]
    found = {k.name: k.length for k in keepers(sys._getframe())}
    assert found["module.logged['loss']"] == LONG_GRAPH


def test_the_line_of_a_list_in_a_dictionary_is_found_however_it_asks_for_it() -> None:
    told: dict[str, list[Any]] = {}
    named: dict[str, list[Any]] = {"accuracy": []}
    for loss in losses(30):
        told.setdefault("loss", []).append(loss)
        for key, value in {"loss": loss}.items():
            named.setdefault("accuracy", []).append(0)
            named.setdefault(key, []).append(value)
    texts = {n: k.place.text.strip() for n, k in here().items() if k.place is not None}
    assert texts == {
        "told['loss']": 'told.setdefault("loss", []).append(loss)',
        "named['loss']": "named.setdefault(key, []).append(value)",
    }


def test_a_running_mean_is_found_with_its_line() -> None:
    mean, other = torch.zeros(()), torch.zeros(())
    for loss in losses(30):
        mean = 0.9 * mean + 0.1 * loss
        other = loss / 10 + other * 0.9
    found = here()
    assert {n: k.length for n, k in found.items()} == {"mean": 30, "other": 30}
    place = found["mean"].place
    assert place is not None and place.text.strip() == "mean = 0.9 * mean + 0.1 * loss"


def test_numbers_and_detached_tensors_keep_nothing() -> None:
    total, history, detached = 0.0, [], torch.zeros(())
    for loss in losses(60):
        total += loss.item()
        history.append(loss.detach())
        detached += loss.detach()
    assert total and len(history) == 60 and detached
    assert here() == {}


def test_objects_that_stand_in_for_others_are_not_asked() -> None:
    class Proxy:
        @property
        def __class__(self) -> Any:
            raise RuntimeError("there is nothing to stand in for")

    proxies = Proxy(), [Proxy()] * 30
    assert here() == {} and len(proxies) == 2


def test_parameters_optimizers_and_batches_keep_nothing() -> None:
    model = torch.nn.Sequential(*(torch.nn.Linear(4, 4) for _ in range(30)))
    optimizer = torch.optim.Adam(model.parameters())
    batches = [torch.ones(2, 4) for _ in range(40)]
    for batch in batches:
        optimizer.zero_grad()
        loss = model(batch).sum()
        loss.backward()
        optimizer.step()
    assert here() == {}


def residual(depth: int) -> torch.Tensor:
    x = weight * 1
    for _ in range(depth):
        x = x + torch.tanh(x)
    return x


def test_a_deep_residual_network_is_not_believed() -> None:
    looks = KeeperWatch()
    for _ in range(3):
        features = residual(2 * LONG_GRAPH)
        assert graphs_kept(features)
        looks.look(sys._getframe())
    assert looks.found is None


def test_a_sum_is_believed_once_it_has_grown_in_each_of_some_steps() -> None:
    looks = KeeperWatch()
    total = torch.zeros(())
    for loss in losses(30):
        total = total + loss
    for step, loss in enumerate(losses(LOOKS), 1):
        total = total + loss
        assert looks.found is None
        looks.look(sys._getframe())
        assert looks.undecided == (step < LOOKS)
    assert looks.found is not None and looks.found[0] == "total"


def test_a_list_that_is_added_to_now_and_then_is_believed() -> None:
    looks, history = KeeperWatch(), list(losses(30))
    for _ in range(LOOKS):
        looks.look(sys._getframe())
    assert looks.found is None
    history.extend(losses(1))
    looks.look(sys._getframe())
    assert looks.found is not None and looks.found[0] == "history"


@pytest.mark.parametrize("lengths", [(40, 22, 60, 500, 700, 1000), (21, 22, 24, 30, 31, 33), (30, 30, 30, 90, 90, 90)])
def test_what_is_made_anew_in_every_step_is_not_believed(lengths: tuple[int, ...]) -> None:
    """The graphs of an episode, as in REINFORCE, and the sum of the losses of a sentence's words."""
    looks = KeeperWatch()
    for length in lengths:
        saved, loss = list(losses(length)), torch.zeros(())
        for each in saved:
            loss = loss + each
        looks.look(sys._getframe())
        assert len(saved) == length and loss > 0
    assert looks.found is None


def test_a_very_long_sum_is_believed_at_once() -> None:
    looks = KeeperWatch()
    total = torch.zeros(())
    for loss in losses(MOST_SUMS + 10):
        total = total + loss
    looks.look(sys._getframe())
    assert looks.found is not None and looks.found[0] == "total"


def test_looking_keeps_nothing_alive() -> None:
    import gc
    import weakref

    def step() -> weakref.ref[torch.Tensor]:
        loss = next(losses(1))
        list(keepers(sys._getframe()))
        return weakref.ref(loss)

    reference = step()
    gc.collect()
    assert reference() is None


def test_no_assignment_no_place() -> None:
    assert assignment(__file__, "never_written_anywhere") is None
    assert assignment("no such file.py", "total") is None
