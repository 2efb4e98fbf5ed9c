"""What rules say of traces written by hand: the place, the remedy, and the range that they are certain of."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from hasten.core.facts import Event, Hot, LoaderFacts, ModelFacts, OptimizerFacts, Place, Probe, Process, Usage
from hasten.core.finding import Finding, worth_telling
from hasten.core.interval import Interval
from hasten.core.remedy import Fidelity
from hasten.core.trace import Epoch, Growth, Phase, Trace
from hasten.rules import all_rules, ranked

LOOP, MODEL, LOAD = (Place("train.py", n, "main", text) for n, text in ((4, "for"), (5, "net(x)"), (9, "np.load")))


def trace(step: float, *, usage: Usage | None = None, loader: LoaderFacts | None = None, **phases: float) -> Trace:
    """A step on two cores with these phases; the rest is forward."""
    times = {"forward": step - sum(phases.values()), **phases}
    return Trace(
        "train.py",
        steps=200,
        window=190,
        step=Interval(step, step, step, "s", 0.95, 190),
        phases=tuple(Phase(n, Interval.exact(s), MODEL if n == "forward" else LOOP) for n, s in times.items()),
        loaders=(loader,) if loader is not None else (),
        usage=usage or Usage(cpu_seconds=step, wall_seconds=step),
        process=Process(threads=2, cores=2, forkable=True),
    )


def found(code: str, of: Trace) -> list[Finding]:
    return list(next(r for r in all_rules() if r.code == code).detect(of))


def faults(**changes: Any) -> Trace:
    usage = Usage(cpu_seconds=0.1, wall_seconds=0.1, system_seconds=0.02, minor_faults=5000)
    return trace(0.1, usage=dataclasses.replace(usage, **changes), fetch=0.08)


def test_page_faults_are_blamed_on_the_line_where_they_came() -> None:
    assert [f.place for f in found("M307", faults(model_faults=0.1, faults_place=LOAD))] == [LOAD]
    assert [f.place for f in found("M307", faults(model_faults=0.9))] == [MODEL]


def test_page_faults_wait_for_a_core_as_the_rest_of_a_step_does() -> None:
    """A fifth of the time on a core is the system's, be it all of the step or half of it, and waiting."""
    quiet, busy = faults(minor_faults=8000), faults(minor_faults=8000, system_seconds=0.01, waited_seconds=0.05)
    (alone,), (beside,) = found("M307", quiet), found("M307", busy)
    assert 1.3 < alone.predicted.high < 1.45 and abs(beside.predicted.high - alone.predicted.high) < 1e-6
    (all_of_it,) = found("M307", faults(system_seconds=0.1, waited_seconds=0.09, minor_faults=50_000))
    assert all_of_it.predicted.high < 6


def test_page_faults_seen_nowhere_are_blamed_on_no_line() -> None:
    for unknown in (faults(), faults(model_faults=0.3)):
        (finding,) = found("M307", unknown)
        assert finding.place is None and finding.notes


def test_threads_keep_no_more_cores_busy_than_the_window_lasted() -> None:
    usage = Usage(cpu_seconds=0.12, wall_seconds=0.1)  # slow steps in the window, quick ones ever since
    (finding,) = found("M306", trace(0.015, usage=usage))
    assert "2 threads keep 1.2 cores busy" in finding.message


def loader(workers: int, sample: float = 0.004, *, asked: bool = True, **changes: Any) -> LoaderFacts:
    probe = Probe(deterministic=True, random_free=True, seconds=sample) if asked else None
    return LoaderFacts("training", "Photos", LOOP, 200, 10, workers, starts=8, batches=160, probe=probe, **changes)


def used(step: float, own: float, workers: float, others: float) -> Usage:
    """Cores that the process, its workers, and all others of the machine (workers included) kept busy."""
    return Usage(step * own, wall_seconds=step, worker_cpu_seconds=step * workers, other_load=others)


def counts(finding: Finding) -> list[int]:
    return [r.workers for r in finding.remedies if hasattr(r, "workers")]


def test_workers_for_samples_that_draw_random_numbers_or_come_in_a_stream_are_advised() -> None:
    """Not applied: other samples would come."""
    draws = dataclasses.replace(loader(0), probe=Probe(seconds=0.004))
    stream = dataclasses.replace(loader(0), probe=None, map_style=False)
    for made, words in ((draws, "stream of its own"), (stream, "get_worker_info")):
        (finding,) = found("D101", trace(0.04, usage=used(0.04, 1.0, 0.0, 0.1), loader=made, fetch=0.03))
        assert not finding.remedies and "num_workers=1" in finding.advice and words in finding.advice
    shared = dataclasses.replace(loader(2), probe=None, map_style=False)
    (finding,) = found("D101", trace(0.04, usage=used(0.04, 1.0, 0.9, 1.0), loader=shared, fetch=0.03))
    assert not finding.remedies and ": other batches, for each worker" in finding.advice
    unknown = dataclasses.replace(loader(0), probe=Probe(why_not="the dataset raised KeyError"))
    assert found("D101", trace(0.04, loader=unknown, fetch=0.03)) == []


def test_a_teacher_is_changed_by_hand() -> None:
    """What is applied from outside is given to models that are trained."""
    student, teacher = (
        ModelFacts("Student", MODEL, 1000, 4),
        ModelFacts("Teacher", LOAD, 9000, 8, trained=False, conv2d=2),
    )
    calls = (Event("forward", LOAD, 1.0, 0.015), Event("forward", MODEL, 1.0, 0.005))
    made = dataclasses.replace(
        trace(0.04, backward=0.02), models=(teacher, student), events=calls, process=Process(compiler="gcc")
    )
    (finding,) = found("M301", made)
    assert finding.place == LOAD and not finding.remedies and "channels_last" in finding.advice
    assert finding.predicted.high < 1.6, "it has no backward pass"
    (finding,) = found("M302", made)
    assert finding.place == MODEL and finding.predicted.high == pytest.approx(made.amdahl(0.025 * (1 - 1 / 1.6)))


def test_sleeping_workers_that_the_step_waits_for_are_too_few() -> None:
    (finding,) = found("D101", trace(0.04, usage=used(0.04, 0.1, 0.05, 0.2), loader=loader(1), fetch=0.036))
    assert "1 worker is too few" in finding.message
    assert min(counts(finding)) == 2 and counts(finding)[0] > 2, "they need no core"
    assert 1.5 < finding.predicted.low < finding.predicted.high < 10


def test_where_no_worker_would_do_nearly_as_well_as_more_both_are_tried() -> None:
    for sample, none in ((0.0018, True), (0.0030, False)):
        made = loader(2, sample)
        (finding,) = found("D101", trace(0.04, usage=used(0.04, 0.1, 0.05, 0.2), loader=made, fetch=0.03))
        assert counts(finding)[0] > 2 and (0 in counts(finding)) == none


def test_computing_workers_get_no_more_than_there_are_cores() -> None:
    (finding,) = found("D101", trace(0.04, usage=used(0.04, 0.1, 0.95, 1.0), loader=loader(1), fetch=0.036))
    assert counts(finding) == [2]


def test_workers_without_a_core_of_their_own_are_too_many() -> None:
    (finding,) = found("D101", trace(0.04, usage=used(0.04, 1.2, 0.8, 0.8), loader=loader(2), fetch=0.001))
    assert counts(finding) == [0, 1]
    assert finding.predicted.low == 1.0 < finding.predicted.high <= 1.66


def test_workers_that_keep_up_on_idle_cores_are_left_alone() -> None:
    assert found("D101", trace(0.04, usage=used(0.04, 1.0, 0.1, 0.1), loader=loader(1), fetch=0.0)) == []


def test_workers_that_take_longer_to_ask_than_the_work_are_taken_away() -> None:
    made = loader(2, sample=20e-6)
    (finding,) = found("D101", trace(0.07, usage=used(0.07, 0.3, 0.1, 0.5), loader=made, fetch=0.042))
    assert counts(finding) == [0]


def test_one_sleeping_worker_is_joined_by_others_though_the_process_itself_could_make_its_batches_sooner() -> None:
    busy = loader(1, start_seconds=0.1)
    (finding,) = found("D101", trace(0.055, usage=used(0.055, 0.1, 0.05, 0.2), loader=busy, fetch=0.045))
    assert min(counts(finding)) == 2


def test_what_workers_would_gain_is_a_range() -> None:
    (finding,) = found("D101", trace(0.04, loader=loader(0), fetch=0.02))
    assert finding.predicted.low < 0.9 * finding.predicted.high


def test_nothing_identical_is_promised_of_a_dataset_that_was_not_asked() -> None:
    usage, respawned = used(0.04, 0.1, 0.05, 0.2), loader(1, asked=False, start_seconds=0.8)
    for code in ("D101", "D105"):
        (finding,) = found(code, trace(0.04, usage=usage, loader=respawned, fetch=0.036))
        assert finding.notes and "could not be asked" in finding.notes[0]
        assert {r.fidelity for r in finding.remedies} == {Fidelity.EQUIVALENT}
        assert {r.name for r in finding.remedies} == {"LoaderWorkers"}
        assert str(finding.remedies[0]).startswith("LoaderWorkers(")


def test_starting_workers_is_compared_with_epochs_after_the_first() -> None:
    epochs = tuple(Epoch(6, seconds, 0.0, 0.0) for seconds in (10.0, 0.3, 0.3, 0.34))
    again = dataclasses.replace(trace(0.05, loader=loader(2, start_seconds=8 * 0.145), fetch=0.02), epochs=epochs)
    (finding,) = found("D105", again)
    assert "145 ms of every 300 ms epoch" in finding.message
    assert finding.predicted.high == pytest.approx(0.3 / 0.155)


def test_what_gains_next_to_nothing_is_last_and_is_told_only_where_nothing_else_is() -> None:
    rule = all_rules()[0]
    small, large = (rule.finding("x", None, span) for span in ((1.015, 1.02), (1.0, 1.03)))
    assert small.predicted.value > large.predicted.value
    assert ranked([small, large]) == (large, small)
    assert worth_telling([large, small]) == (large,)
    assert worth_telling([small]) == (small,)


def test_compiling_is_not_spoken_of_where_the_model_takes_no_time_or_cannot_be() -> None:
    model, process = ModelFacts("Linear", MODEL, 31, 1), Process(cores=2, compiler=True)
    waiting = dataclasses.replace(trace(0.1, fetch=0.099), models=(model,), process=process)
    assert found("M302", waiting) == []
    computing = dataclasses.replace(waiting, phases=trace(0.1).phases)
    (finding,) = found("M302", computing)
    assert "Linear runs its operations eagerly" in finding.message
    twice = dataclasses.replace(process, differentiated_twice=True)  # torch.compile has no double backward
    assert not found("M302", dataclasses.replace(computing, process=twice))


def test_threads_that_others_keep_waiting_promise_more() -> None:
    """Two threads on two cores of which others take one wait for each other; a loader's own workers are no others."""

    def promised(workers: float) -> Finding:
        usage = Usage(0.1, wall_seconds=0.1, worker_cpu_seconds=workers, other_load=1.0)
        (finding,) = found("M306", trace(0.1, usage=usage))
        return finding

    assert promised(0.0).predicted.high > 2 * promised(0.1).predicted.high
    assert "others keep 1.0 cores busy" in promised(0.0).notes[0]
    assert not promised(0.1).notes


def test_compiling_is_not_spoken_of_where_it_would_be_passed_by() -> None:
    model = ModelFacts("Layer", MODEL, 31, 1, directly=True)  # module.compile() compiles calls of the module
    process = Process(cores=2, compiler=True)
    assert found("M302", dataclasses.replace(trace(0.1), models=(model,), process=process)) == []


def test_one_timed_step_tells_nothing_of_the_optimizer() -> None:
    adam = OptimizerFacts("Adam", MODEL, 4, 31, "loop", can_foreach=True, can_fuse=True)
    many = dataclasses.replace(trace(0.1, optimizer=0.05), optimizers=(adam,))
    for code in ("O401", "O402"):
        assert found(code, many)
        assert not found(code, dataclasses.replace(many, window=1))


def test_a_step_that_is_all_logging_promises_no_miracle() -> None:
    """Shares of samples are known to a part in a hundred; what is left of the step is not nothing."""
    (finding,) = found("S501", trace(0.1, log=0.0999))
    assert finding.predicted.high <= 100


@pytest.mark.parametrize(
    ("calls", "label", "advice"),
    [
        (1.0, "logs in every step", "every 50 steps"),
        (0.25, "logs often", "every 50 steps"),
        (1 / 60, "logs every 60 steps", "less at a time"),
        (0.0, "logs now and then", "less at a time"),  # not in the window
    ],
)
def test_who_logs_rarely_is_not_told_to_log_every_50_steps(calls: float, label: str, advice: str) -> None:
    made = dataclasses.replace(trace(0.1, log=0.01), events=(Event("log", LOOP, calls, 0.01),))
    (finding,) = found("S501", made)
    assert finding.label == label and advice in finding.advice


def test_a_line_that_trains_and_logs_a_little_is_no_log() -> None:
    """Of a framework's ``fit``, one line in which everything happens, what its progress bar takes is logging."""
    fit = Place("train.py", 9, "<module>", "trainer.fit(model)")

    def logging(bar: float) -> list[Finding]:
        seen = trace(0.1, python=0.05)
        (python,) = (p for p in seen.phases if p.name == "python")
        children = (Phase("progress bar", Interval.exact(bar), fit), Phase("fit", Interval.exact(0.04), fit))
        phases = tuple(dataclasses.replace(p, children=children) if p is python else p for p in seen.phases)
        return found("S501", dataclasses.replace(seen, phases=phases, hot=(Hot("python", fit, 0.05, 0.5, "fit"),)))

    assert not logging(0.002)
    assert "takes 10 ms" in logging(0.01)[0].message
    assert "takes 50 ms" in logging(0.03)[0].message


def plotted(step: float, seconds: float, text: str, file: Path) -> Trace:
    """A step that spends ``seconds`` in matplotlib, in a line of a file that reads so."""
    lines = file.read_text(encoding="utf-8").splitlines()
    place = Place(str(file), next(i for i, x in enumerate(lines, 1) if text in x), "<module>", text)
    made = trace(step, python=seconds, usage=Usage(0.05 * step, wall_seconds=step, other_load=1.7))
    drawn = (Phase("plot", Interval.exact(seconds), place),)
    phases = tuple(dataclasses.replace(p, children=drawn) if p.name == "python" else p for p in made.phases)
    return dataclasses.replace(made, phases=phases, hot=(Hot("python", place, seconds, seconds / step, "pause"),))


def test_figures_drawn_in_the_loop_are_told_with_how_often(tmp_path: Path) -> None:
    """A tutorial's ``plt.pause(0.05)`` was 98 % of its steps, and nothing was said of it."""
    file = tmp_path / "train.py"
    file.write_text(
        "for step in range(100):\n    net(x).backward()\n    plt.draw(); plt.pause(0.05)\n"
        "    if step % 10 == 0:\n        plt.cla(); plt.pause(0.1)\n",
        encoding="utf-8",
    )
    (every,) = found("S501", plotted(0.15, 0.147, "plt.draw()", file))
    (some,) = found("S501", plotted(0.15, 0.03, "plt.cla()", file))
    assert "plotting takes 150 ms" in every.message and every.label == "draws in every step"
    assert some.label == "draws here" and "more rarely" in some.advice


def test_threads_promise_little_for_time_that_a_plot_takes(tmp_path: Path) -> None:
    """Torch has no threads in there; on a busy machine those without work take a core for a while, no more."""
    file = tmp_path / "train.py"
    file.write_text("plt.pause(0.05)\n", encoding="utf-8")
    (finding,) = found("M306", plotted(0.15, 0.147, "plt.pause", file))
    assert 1.1 < finding.predicted.high < 1.3
    quiet = dataclasses.replace(plotted(0.015, 0.0147, "plt.pause", file), usage=Usage(0.005, wall_seconds=0.015))
    (finding,) = found("M306", quiet)
    assert finding.predicted.high < 1.02


def test_more_threads_promise_no_more_than_free_cores_give() -> None:
    """Two processes that train on two cores (Hogwild, ranks), or somebody else's job: a second thread has no core."""

    def promised(load: float) -> float:
        usage = Usage(0.1, wall_seconds=0.1, other_load=load)
        alone = Process(threads=1, cores=2, forkable=True)
        (finding,) = found("M306", dataclasses.replace(trace(0.1, usage=usage), process=alone))
        assert bool(finding.notes) == (load > 0)
        return finding.predicted.high

    assert promised(0.0) > 1.9 and 1.4 < promised(0.5) < 1.6 and promised(1.8) == 1.0


def test_iterations_of_less_than_a_microsecond_take_some_time() -> None:
    events = (Event("loop", LOOP, 2017.0, 0.0002),)
    (finding,) = found("M310", dataclasses.replace(trace(0.0015, python=0.0004), events=events))
    assert "0.10 µs each" in finding.message


@pytest.mark.parametrize(
    ("code", "told", "untold"),
    [
        (
            "for k in range(5):\n    g = f(p)\n    p = [a - b for a, b in zip(p, g)]\n",
            "'p' of the one before",
            "reduce",
        ),
        ("q = {n: p - g for (n, p), g in zip(params.items(), grads)}\n", "torch._foreach_*", "dim 0"),
        ("for i in range(n):\n    total = total + f(a[i], b[i])\n", "operations on the whole batch", "before"),
    ],
)
def test_a_loop_is_advised_what_can_be_done_with_it(tmp_path: Path, code: str, told: str, untold: str) -> None:
    """Steps of an inner loop (MAML) were to be done all at once, and weights of all shapes indexed along dim 0."""
    script = tmp_path / "loops.py"
    script.write_text(code, encoding="utf-8")
    events = (Event("loop", dataclasses.replace(LOOP, file=str(script), line=1), 20.0, 0.0004),)
    (finding,) = found("M310", dataclasses.replace(trace(0.0015, python=0.0004), events=events))
    assert told in finding.advice and untold not in finding.advice


def test_few_subnormal_numbers_promise_little() -> None:
    def promised(share: float) -> float:
        seen = trace(0.1, optimizer=0.02)
        process = dataclasses.replace(seen.process, denormal_share=share, denormal_tensor="weight")
        (finding,) = found("M305", dataclasses.replace(seen, process=process))
        return finding.predicted.high

    assert promised(0.001) < 1.15 < 5 < promised(0.5)


@pytest.mark.parametrize(
    ("now", "ways"),
    [(0, {1: "more", 2: "more"}), (2, {0: "none", 1: "fewer", 4: "more"}), (4, {0: "none", 2: "fewer"})],
)
def test_numbers_of_workers_lead_in_directions(now: int, ways: dict[int, str]) -> None:
    from hasten.rules.d101_single_process_loader import LoaderWorkers

    seen = trace(0.1, loader=LoaderFacts("training", "Rows", num_workers=now))
    assert {count: LoaderWorkers(count).direction(seen) for count in ways} == ways


@pytest.mark.parametrize(
    ("text", "copies"),
    [
        ("best = copy.deepcopy(net.state_dict())", True),
        ("best = {k: v.clone() for k, v in net.state_dict().items()}", True),
        ("best = deepcopy(net)", True),
        ("best = copy.deepcopy(self.net)", True),
        ("before = copy.deepcopy(settings)", False),
        ("names = list(net.state_dict())", False),
        ("a, b = net(x), deepcopy(settings)", False),
    ],
)
def test_all_weights_are_copied_in_many_ways(text: str, copies: bool) -> None:
    hot = Hot("python", Place("train.py", 7, "main", text), 0.02, 0.2)
    model = ModelFacts("Net", Place("train.py", 5, "main", "y = net(x)"), 1000)
    seen = dataclasses.replace(trace(0.1, python=0.02), hot=(hot,), models=(model,))
    assert [f.label for f in found("E603", seen)] == ["copies all weights"] * copies


def test_of_several_loaders_the_one_that_is_waited_for_is_the_training_loader() -> None:
    quick, slow = (LoaderFacts("training", name, fetch_seconds=s) for name, s in (("Quick", 0.1), ("Slow", 9.0)))
    asked = dataclasses.replace(quick, probe=Probe())
    held_out = LoaderFacts("evaluation", "Rows", fetch_seconds=99.0)
    seen = dataclasses.replace(trace(0.1), loaders=(quick, slow, held_out))
    assert seen.loader == slow
    assert dataclasses.replace(seen, loaders=(slow, asked)).loader == asked  # of the last epoch: others are gone


@pytest.mark.parametrize(("of_the_line", "most"), [(0.010, 3.0), (0.009, 3.0), (0.002, 1.2)])
def test_no_more_of_a_step_that_grows_is_promised_than_its_line_grew_by(of_the_line: float, most: float) -> None:
    """A step that takes three times as long in the end, 10 ms more: the rest is a machine that others have come to."""
    growth = Growth(Interval.exact(0.010 / 200), None, 2.0, True, False, LOOP, of_the_line)
    (finding,) = found("G702", dataclasses.replace(trace(0.01), growth=growth))
    assert finding.predicted.high == pytest.approx(most, rel=0.1)
    assert ("of it in this line" in finding.message) == (of_the_line < 0.006)


@pytest.mark.parametrize(
    ("dtypes", "told"), [(("float64",), True), (("float32", "float64"), False), (("complex128", "float64"), False)]
)
def test_complex_numbers_are_not_advised_to_be_floats(dtypes: tuple[str, ...], told: bool) -> None:
    model = ModelFacts("Net", MODEL, 1000, 2, dtypes=dtypes)
    made = dataclasses.replace(trace(0.1, forward=0.05, backward=0.03), models=(model,))
    assert bool(found("M309", made)) == told


def test_no_factor_is_promised_for_more_of_a_step_than_it_can_speed_up() -> None:
    """Of a step that waits for its samples nine tenths of the time, the rest can gain no more than a tenth."""
    waiting = trace(0.01, loader=loader(0), fetch=0.009)
    (threads,) = found("M306", waiting)
    assert threads.predicted.high < 1 / 0.9
    units = dataclasses.replace(waiting.process, bfloat16_units=True)
    model = ModelFacts("Net", elements=1000, dtypes=("float32",), place=MODEL, trained=True)
    (precision,) = found("M303", dataclasses.replace(waiting, process=units, models=(model,)))
    assert precision.predicted.high < 1 / 0.9


def test_threads_may_serve_what_is_known_to_work_on_samples() -> None:
    """Transforms and stacking are operations of torch, too."""
    at = trace(0.01, loader=loader(0), fetch=0.009)
    stacking = Phase("collate", Interval.exact(0.008), LOOP)
    phases = tuple(dataclasses.replace(p, children=(stacking,)) if p.name == "fetch" else p for p in at.phases)
    (bare,), (finding,) = found("M306", at), found("M306", dataclasses.replace(at, phases=phases))
    assert bare.predicted.high < 1.2 < finding.predicted.high


def threads(count: int, cores: int, step: float, used: float, others: float = 0.0, physical: int = 0) -> list[Finding]:
    """What M306 says of a step on a machine of so many cores."""
    usage = Usage(used * step, wall_seconds=step, other_load=others, worker_cpu_seconds=others * step)
    process = Process(threads=count, cores=cores, physical_cores=physical, forkable=True)
    return found("M306", dataclasses.replace(trace(step, usage=usage), process=process))


def test_threads_of_many_cores_are_promised_no_more_than_they_can_share() -> None:
    assert threads(1, 2, 0.5, 1.0)[0].predicted.high == pytest.approx(1.9, abs=0.01)
    assert 10 < threads(1, 64, 0.5, 1.0)[0].predicted.high < 20
    assert threads(32, 64, 0.5, 30.0)[0].predicted.high < 1.25


def test_second_threads_of_cores_are_not_missed() -> None:
    """By default torch runs one thread a core."""
    assert not threads(32, 64, 0.5, 31.0, physical=32)
    assert threads(16, 64, 0.5, 16.0, physical=32)[0].remedies[0].settings() == {"count": 32}


def test_threads_beside_a_loaders_workers_are_many_only_where_there_are_too_few_cores() -> None:
    assert not threads(32, 64, 0.5, 28.0, others=8.0, physical=32)
    (crowded,) = threads(32, 32, 0.5, 28.0, others=8.0)
    assert [r.settings()["count"] for r in crowded.remedies] == [24, 8, 1]


def test_small_steps_on_many_cores_try_some_threads_before_one() -> None:
    (small,) = threads(32, 64, 0.01, 20.0, physical=32)
    assert [r.settings()["count"] for r in small.remedies] == [8, 1]
    assert [r.settings()["count"] for r in threads(2, 2, 0.01, 1.5)[0].remedies] == [1]


@pytest.mark.parametrize("code", ["D103", "D104"])
def test_what_the_scripts_own_collate_function_takes_no_cache_of_samples_saves(code: str) -> None:
    """Ten samples of 0.1 ms in a step that waits 80 ms for its batch; torch's own collating is spared by D103."""
    asked = Probe(True, True, 100, 1e-4, ("Crop", "Noise"), 1, True, 1e-4, 1e-5, collate_seconds=8e-3)
    own = dataclasses.replace(loader(0), probe=asked, default_collate=False)
    assert not found(code, trace(0.1, loader=own, fetch=0.08))
    slow = dataclasses.replace(asked, seconds=8e-3, prefix_seconds=8e-3)
    (finding,) = found(code, trace(0.1, loader=dataclasses.replace(own, probe=slow), fetch=0.08))
    assert 1.1 < finding.predicted.low < 1.5 < finding.predicted.high < 0.1 / 0.06  # half of the 80 ms, at most


def converting(seconds: float, runs: float) -> Trace:
    event = Event("loop in collate", LOAD, runs, seconds)
    return dataclasses.replace(trace(0.01, loader=loader(0), fetch=0.006), events=(event,))


def test_a_loop_over_values_in_the_collate_function_is_told_one_over_samples_is_not() -> None:
    (finding,) = found("D107", converting(0.005, 2000))
    assert finding.place == LOAD and 1.3 < finding.predicted.low < finding.predicted.high < 2
    for healthy in (converting(0.005, 10), converting(0.0002, 2000), converting(0.005, 100)):
        assert not found("D107", healthy)


def test_a_file_that_workers_open_for_every_sample_is_told_where_the_step_waits_for_them() -> None:
    opens = tuple(Event(name, LOAD, 12, 0.01) for name in ("a.npy", "b.npy"))
    asked = dataclasses.replace(loader(2), probe=Probe(True, True, 100, 0.004, reopened=opens))
    (finding,) = found("D106", trace(0.1, loader=asked, fetch=0.05))
    assert "a.npy and 1 other files" in finding.message and "2 worker processes" in finding.message
    assert finding.predicted.low == 1 and finding.predicted.high < 2
    assert not found("D106", trace(0.1, loader=asked, fetch=0.001))
    assert not found("D106", trace(0.1, loader=dataclasses.replace(asked, num_workers=0), fetch=0.05))


def test_values_that_a_log_reads_on_a_processor_are_told_once() -> None:
    log = Place("train.py", 7, "main", "log.write(json.dumps(weights.tolist()))")
    reads = (Event("wait", log, 1, 0.03), Event("wait", LOOP, 1, 0.001), Event("wait", MODEL, 1, 1e-5))
    reading = trace(0.1, wait=0.031)
    assert not found("S502", dataclasses.replace(reading, events=reads))
    reads = (dataclasses.replace(reads[0], place=LOAD), *reads[1:])
    (finding,) = found("S502", dataclasses.replace(reading, events=reads))
    assert finding.place == LOAD and len(finding.notes) == 1 and "device" not in finding.advice
