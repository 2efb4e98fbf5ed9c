"""What is promised of making batches another way follows from what was timed on the dataset, and on usual steps."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from hasten.core.errors import Unsuited
from hasten.core.facts import LoaderFacts, Probe, Process, Usage
from hasten.core.finding import Finding
from hasten.core.interval import Interval
from hasten.core.trace import Phase, Trace
from hasten.rules import all_rules
from hasten.rules.d101_single_process_loader import LoaderWorkers
from tests import samples


def part(low: float, high: float) -> Interval:
    return Interval((low + high) / 2, low, high, "1", 0.9, 10)


def trace(probe: Probe, vanished: Interval | None = None, workers: int = 0, **usage: float) -> Trace:
    """61.3 of 99.2 ms are fetching."""
    of = samples.trace()
    loader = LoaderFacts("training", "Rows", samples.LOOP_LINE, 1000, 64, workers, tensor_backed=True, probe=probe)
    phases = tuple(dataclasses.replace(p, vanished=vanished) if p.name == "fetch" else p for p in of.phases)
    process = Process(threads=2, cores=2, forkable=True)
    return dataclasses.replace(of, loaders=(loader,), phases=phases, process=process, usage=Usage(**usage))


def found(code: str, of: Trace) -> list[Finding]:
    return list(next(r for r in all_rules() if r.code == code).detect(of))


def test_a_gather_saves_what_it_was_timed_to_save() -> None:
    (by_rule,) = found("D102", trace(Probe(gatherable=True)))
    (timed,) = found("D102", trace(Probe(gatherable=True, gathered=part(0.01, 0.04))))
    (dear,) = found("D102", trace(Probe(gatherable=True, gathered=part(0.8, 0.9))))
    assert timed.predicted.low > 2.4 > by_rule.predicted.low and timed.predicted.high < 2.8
    assert dear.predicted.high < 1.25


def test_usual_steps_tell_what_is_saved_not_their_mean() -> None:
    """On a busy machine some steps wait for a core, and fetching seems a smaller part of them."""
    probe = Probe(gatherable=True, gathered=part(0.01, 0.04))
    (usual,) = found("D102", trace(probe, Interval(4.0, 3.8, 4.2, "ratio", 0.9, 60)))
    assert 3.4 < usual.predicted.low < 3.8 and 4.1 < usual.predicted.high < 4.5


def test_what_evaluations_leave_of_it_is_told() -> None:
    """Usual steps have none: 33 to 41 times was told of a job of which evaluations were a quarter."""
    probe, known = Probe(gatherable=True, gathered=part(0.01, 0.02)), Interval(10.0, 9.0, 11.0, "ratio", 0.9, 60)
    of = trace(probe, known)
    for share, noted in ((0.01, False), (0.25, True)):
        evaluating = Phase("evaluation", Interval.exact(share * of.step_seconds))
        (finding,) = found("D102", dataclasses.replace(of, phases=(*of.phases, evaluating)))
        assert finding.predicted.low > 7 and bool(finding.notes) == noted
    (note,) = finding.notes
    low, high = (1 / (0.75 / ratio + 0.25) for ratio in (finding.predicted.low, finding.predicted.high))
    assert note == f"evaluations, 25 % of the time, stay as they are: with them it is {low:.1f}–{high:.1f}×"
    in_each = dataclasses.replace(evaluating, vanished=Interval(1.33, 1.3, 1.36, "ratio", 0.9, 60))
    (held,) = found("D102", dataclasses.replace(of, phases=(*of.phases, in_each)))
    assert not held.notes  # usual steps hold them, and the prediction does
    (unmeasured,) = found("D102", dataclasses.replace(trace(probe), phases=(*trace(probe).phases, evaluating)))
    assert not unmeasured.notes  # what is told then is a mean step's, evaluations and all


def test_where_threads_wait_for_a_core_a_short_fetch_may_relieve_the_rest() -> None:
    probe, known = Probe(gatherable=True, gathered=part(0.01, 0.04)), Interval(1.2, 1.1, 1.3, "ratio", 0.9, 60)
    (alone,) = found("D102", trace(probe, known, cpu_seconds=0.1, wall_seconds=0.1, other_load=0.1))
    (busy,) = found("D102", trace(probe, known, cpu_seconds=0.1, wall_seconds=0.1, other_load=1.6))
    assert alone.predicted.high < 1.4 and busy.predicted.high > 2 and busy.predicted.low == alone.predicted.low


def test_a_cache_that_takes_longer_than_the_samples_promises_nothing() -> None:
    cheap = Probe(deterministic=True, random_free=True, seconds=1e-6, cached=part(1.2, 2.0))
    assert not found("D103", trace(cheap))
    good = dataclasses.replace(cheap, cached=part(0.05, 0.1))
    (finding,) = found("D103", trace(good))
    assert 2.1 < finding.predicted.low <= finding.predicted.high < 2.6


def test_waiting_for_workers_is_saved_as_far_as_it_is_for_samples() -> None:
    """Samples of 2 µs are not what 61 ms of waiting for worker processes are spent on."""
    quick = Probe(deterministic=True, random_free=True, seconds=2e-6, collate_seconds=1e-6, cached=part(0.05, 0.1))
    assert not found("D103", trace(quick, workers=2))
    slow = dataclasses.replace(quick, seconds=1e-3)
    (finding,) = found("D103", trace(slow, workers=2))
    assert finding.predicted.low == 1.0 and finding.predicted.high > 2


def test_workers_that_hardly_make_samples_are_not_sure_to_be_too_few() -> None:
    """Two workers are waited for most of the step, but making its samples takes them a hundredth of it."""
    quick = Probe(deterministic=True, random_free=True, seconds=0.0992 / 64 / 100, kind="rows")
    usage = {"cpu_seconds": 0.03, "wall_seconds": 0.0992, "worker_cpu_seconds": 0.05, "other_load": 0.6}
    (unsure,) = found("D101", trace(quick, workers=2, **usage))
    (sure,) = found("D101", trace(dataclasses.replace(quick, seconds=0.0992 / 64), workers=2, **usage))
    assert any(getattr(r, "workers", 0) > 2 for r in unsure.remedies)
    assert unsure.predicted.low == 1.0 < sure.predicted.low


def test_a_finding_on_workers_does_not_speak_of_a_single_process() -> None:
    quick = Probe(deterministic=True, random_free=True, seconds=1e-3, kind="rows")
    (none,), (two,) = (found("D101", trace(quick, workers=n, cpu_seconds=0.03, wall_seconds=0.0992)) for n in (0, 2))
    assert (none.name, two.name) == ("single-process-loader", "worker-count")


@pytest.mark.parametrize("context", ["spawn", "forkserver", "fork"])
def test_workers_that_are_no_copies_of_the_process_are_not_tried_in_one(context: str) -> None:
    """A trial's process starts no programs, as it would have to."""
    data = TensorDataset(torch.zeros(8))
    loader = DataLoader(data, batch_size=4, num_workers=2, multiprocessing_context=context)
    if context == "fork":
        LoaderWorkers(0).on(loader)()
        return
    with pytest.raises(Unsuited, match="the loader's workers are started anew, not forked"):
        LoaderWorkers(0).on(loader)


@pytest.mark.parametrize("code", ["D103", "D105"])
def test_samples_that_are_others_in_every_pass_are_not_to_be_kept_nor_the_workers_that_hold_them(code: str) -> None:
    """Negative samples drawn anew before every epoch: workers that outlive it would go on with those of the first."""
    probe = Probe(deterministic=True, random_free=True, seconds=1e-3, cached=part(0.05, 0.1))
    same = dataclasses.replace(trace(probe, workers=2), epochs=())
    (loader,) = same.loaders
    started = dataclasses.replace(loader, starts=8, batches=640, start_seconds=8.0)
    assert found(code, dataclasses.replace(same, loaders=(started,)))
    assert not found(code, dataclasses.replace(same, loaders=(dataclasses.replace(started, changing=True),)))


def test_workers_that_would_hold_an_older_dataset_are_not_advised_to_outlive_a_pass() -> None:
    (loader,) = trace(Probe(seconds=1e-3)).loaders
    for changing in (False, True):
        of = dataclasses.replace(trace(Probe()), loaders=(dataclasses.replace(loader, changing=changing),))
        (finding,) = found("D101", of)
        assert ("persistent_workers" not in finding.advice) is changing and "num_workers=" in finding.advice


def test_who_has_seen_one_pass_does_not_know_what_the_next_is_made_of() -> None:
    of = trace(Probe(deterministic=True, random_free=True, seconds=1e-3, cached=part(0.05, 0.1)))
    (loader,) = of.loaders
    for starts, notes in ((2, 3), (3, 2)):
        (finding,) = found("D103", dataclasses.replace(of, loaders=(dataclasses.replace(loader, starts=starts),)))
        assert len(finding.notes) == notes and ("before each" in finding.notes[-1]) is (starts == 2)
