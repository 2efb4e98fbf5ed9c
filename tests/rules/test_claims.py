"""What rules must not say: claims that ordinary scripts prove wrong, by traces written by hand and by such scripts."""

from __future__ import annotations

import dataclasses
import subprocess
import textwrap
from pathlib import Path

import pytest

from hasten.api import explain
from hasten.core.facts import Hot, LoaderFacts, ModelFacts, OptimizerFacts, Place, Probe, Process, Usage
from hasten.core.interval import Interval
from hasten.core.report import Report
from hasten.core.trace import Epoch, Phase, Trace
from hasten.rules import all_rules, found_by
from hasten.rules.d103_repeated_samples import CacheSamples
from tests.rules.by_hand import gpu, with_process
from tests.rules.test_judgements import LOOP, MODEL, counts, found, loader, trace, used

PRINT = Place("train.py", 14, "main", "    print(loss.item())")


def on_device(of: Trace, **seconds: float) -> Trace:
    return dataclasses.replace(of, device_phases=tuple(Phase(n, Interval.exact(s)) for n, s in seconds.items()))


def test_a_small_float64_model_beside_others_is_not_said_to_take_the_whole_step() -> None:
    """2,754 parameters were told to compute for 57 ms of 60, which convolutions in float32 took."""
    small, large, loss = (ModelFacts("Net", MODEL, 9, dtypes=d) for d in (("float64",), ("float32",), ()))
    made = dataclasses.replace(trace(0.1, forward=0.05, backward=0.03), models=(small, loss))
    assert found("M309", made) and not found("M309", dataclasses.replace(made, models=(small, loss, large)))


# -- on a device -------------------------------------------------------------------------------------------------------


def test_a_copy_that_waits_for_the_device_promises_no_more_than_the_device_stands_still() -> None:
    """The host runs ahead, and waits where it copies; the device works all the time."""
    busy = on_device(gpu(copy=0.08), forward=0.03, backward=0.06, copy=0.002)
    (finding,) = found("C201", busy)
    assert finding.predicted.high < 1.13
    assert not found("C201", on_device(gpu(copy=0.08), forward=0.03, backward=0.066, copy=0.002))
    assert found("C201", gpu(copy=0.08))[0].predicted.high > 3, "nothing is known of the device"


def test_a_line_that_prints_and_waits_for_the_device_is_no_logging() -> None:
    hot = (Hot("wait", PRINT, 0.06, 0.6, "item"), Hot("log", PRINT, 0.0002, 0.002, "print"))
    waiting = dataclasses.replace(gpu(wait=0.06, log=0.0002), hot=hot)
    assert not found("S501", waiting)
    assert found("S501", with_process(waiting, device="cpu"))


def test_a_model_of_16_bits_has_no_float32_products() -> None:
    assert found("M304", gpu())
    half = dataclasses.replace(gpu(), models=(dataclasses.replace(gpu().models[0], dtypes=("bfloat16",)),))
    assert not found("M304", half) and not found("M303", half)


def test_reading_files_is_no_page_fault() -> None:
    """System time is also that of other calls of the system."""
    usage = Usage(cpu_seconds=0.1, wall_seconds=0.1, system_seconds=0.04, minor_faults=1000)
    (finding,) = found("M307", trace(0.1, usage=usage))
    assert finding.predicted.high < 1.06


def test_on_a_cpu_nobody_waits_for_a_value() -> None:
    (finding,) = found("S502", trace(0.1, wait=0.02))
    assert "take 20 ms of 100 ms" in finding.message and "waits" not in finding.label
    assert "keep the host waiting" in found("S502", gpu(wait=0.02))[0].message


# -- promises ----------------------------------------------------------------------------------------------------------


def test_more_threads_gain_no_more_than_what_they_work_at() -> None:
    one = dataclasses.replace(trace(0.1, fetch=0.04), process=Process(threads=1, cores=16))
    (finding,) = found("M306", one)
    assert 1 / (0.4 + 0.6 / 8) < finding.predicted.high < 1 / (0.4 + 0.6 / 16)


def test_workers_gain_no_more_than_the_cores_have_left() -> None:
    """Half a step is fetching on one of two cores, in the other half the model keeps both busy: 1.5 steps of work."""
    (finding,) = found("D101", trace(0.1, usage=used(0.1, 1.5, 0.0, 0.0), loader=loader(0), fetch=0.05))
    assert finding.predicted.high < 1.34


@pytest.mark.parametrize("workers", [0, 1])
def test_who_waits_for_a_core_does_not_sleep(workers: int) -> None:
    """Others keep 1.8 of two cores busy: more than two workers would wait for them, too."""
    usage = used(0.04, 0.1, 0.05 * workers, 1.8 + 0.05 * workers)
    (finding,) = found("D101", trace(0.04, usage=usage, loader=loader(workers), fetch=0.036))
    assert max(counts(finding)) == 2
    quiet = dataclasses.replace(usage, other_load=0.2)
    (finding,) = found("D101", trace(0.04, usage=quiet, loader=loader(workers), fetch=0.036))
    assert max(counts(finding)) > 2


# -- samples -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("workers", "usage", "fetch", "words"),
    [
        (1, used(0.04, 0.1, 0.05, 0.2), 0.036, "num_workers="),
        (2, used(0.04, 1.2, 0.8, 0.8), 0.001, "num_workers=0:"),
    ],
)
def test_workers_whose_samples_draw_random_numbers_are_spoken_of(
    workers: int, usage: Usage, fetch: float, words: str
) -> None:
    random = dataclasses.replace(loader(workers), probe=Probe(seconds=0.004))
    (finding,) = found("D101", trace(0.04, usage=usage, loader=random, fetch=fetch))
    assert not finding.remedies and words in finding.advice and "other samples" in finding.advice
    assert not counts(finding)


def test_workers_that_are_started_anew_are_spoken_of_where_samples_draw_random_numbers() -> None:
    random = dataclasses.replace(loader(2, start_seconds=0.8), probe=Probe(seconds=0.004))
    (finding,) = found("D105", trace(0.05, loader=random, fetch=0.02))
    assert not finding.remedies and finding.advice.startswith("persistent_workers=True: other samples")
    assert not found("D105", trace(0.05, loader=dataclasses.replace(random, probe=Probe(why_not="raised")), fetch=0.02))


def repeated(steps: int, memory: float) -> Trace:
    """Twenty batches a pass, of ten samples of 1 MB."""
    probe = Probe(deterministic=True, random_free=True, sample_bytes=1_000_000, seconds=0.004)
    seen = trace(0.04, loader=dataclasses.replace(loader(0), probe=probe), fetch=0.03)
    process = dataclasses.replace(seen.process, available_bytes=memory)
    return dataclasses.replace(seen, predicted_steps=steps, process=process)


def test_samples_that_do_not_fit_are_not_to_be_kept() -> None:
    assert found("D103", repeated(100, 1e9))[0].remedies == (CacheSamples(),)
    (finding,) = found("D103", repeated(100, 3e8))
    assert not finding.remedies and finding.advice
    assert "200 MB, more than half of the memory" in finding.notes[1]


def test_a_job_of_one_pass_is_promised_nothing_from_keeping_samples() -> None:
    (finding,) = found("D103", repeated(20, 1e9))
    assert finding.predicted.high == 1.0 and "one epoch" in finding.notes[1]
    assert found("D103", repeated(40, 1e9))[0].predicted.high > 2


# -- words -------------------------------------------------------------------------------------------------------------


def test_copies_of_weights_are_no_checkpoints() -> None:
    hot = Hot("python", Place("train.py", 7, "main", "before = copy.deepcopy(net.state_dict())"), 0.02, 0.2)
    (finding,) = found("E603", dataclasses.replace(trace(0.1, python=0.02), hot=(hot,)))
    assert finding.message.startswith("copying all weights takes 20%") and "async_save" not in finding.advice
    (finding,) = found("E603", trace(0.1, checkpoint=0.02))
    assert finding.message.startswith("checkpoints take 20%")


def test_calls_in_eval_mode_without_a_loader_may_be_a_policys() -> None:
    (finding,) = found("E602", trace(0.1, evaluation=0.05))
    assert finding.message.startswith("calls in eval mode take 50%") and "policy" in finding.notes[0]
    held_out = LoaderFacts("evaluation", "Rows", LOOP)
    (finding,) = found("E602", dataclasses.replace(trace(0.1, evaluation=0.05), loaders=(held_out,)))
    assert finding.message.startswith("evaluation takes 50%") and not finding.notes


def test_who_evaluates_once_an_epoch_is_not_told_to_do_so() -> None:
    def advised(first: float) -> str:
        epochs = (Epoch(50, 5.0, 0.1, first), Epoch(50, 7.0, 0.1, 2.0))
        (finding,) = found("E602", dataclasses.replace(trace(0.1, evaluation=0.05), epochs=epochs))
        return finding.advice

    assert "every few epochs" in advised(0.0) and "once an epoch" not in advised(0.0)
    assert "once an epoch" in advised(2.0)


# -- frameworks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("framework", "code", "written"),
    [
        ("transformers", "O402", 'TrainingArguments(optim="adamw_torch_fused")'),
        ("transformers", "D101", "TrainingArguments(dataloader_num_workers=1, dataloader_persistent_workers=True)"),
        ("transformers", "E602", "TrainingArguments(eval_strategy="),
        ("lightning", "D101", "DataLoader(num_workers=1, persistent_workers=True)"),
        ("skorch", "D101", "iterator_train__num_workers=1, iterator_train__persistent_workers=True"),
        ("skorch", "O402", "optimizer__fused=True"),
    ],
)
def test_users_of_a_framework_are_told_its_own_setting(framework: str, code: str, written: str) -> None:
    adam = OptimizerFacts("AdamW", LOOP, 4, 31, "loop", can_foreach=True, can_fuse=True)
    seen = trace(0.1, fetch=0.03, optimizer=0.03, evaluation=0.02, loader=loader(0))
    seen = dataclasses.replace(seen, optimizers=(adam,))
    rule = next(r for r in all_rules() if r.code == code)
    (plain,) = found_by(rule, seen)
    (finding,) = found_by(rule, with_process(seen, framework=framework))
    assert any(written in note for note in finding.notes)
    assert not any("by hand here" in note for note in plain.notes)


def test_other_optimizers_than_adamw_have_no_such_name_in_transformers() -> None:
    sgd = OptimizerFacts("SGD", LOOP, 4, 31, "loop", can_foreach=True, can_fuse=True)
    seen = with_process(dataclasses.replace(trace(0.1, optimizer=0.03), optimizers=(sgd,)), framework="transformers")
    rule = next(r for r in all_rules() if r.code == "O402")
    assert [f.notes for f in found_by(rule, seen)] == [()]


@pytest.mark.parametrize("code", ["O401", "O402"])
def test_an_optimizer_is_blamed_for_its_own_time_only(code: str) -> None:
    """SparseAdam, or LBFGS, takes most of what optimizers take and has no faster implementation."""
    adam = OptimizerFacts("Adam", LOOP, 4, 31, "loop", can_foreach=True, can_fuse=True, share=0.25)
    other = OptimizerFacts("SparseAdam", LOOP, 2, 31, "loop", share=0.75)
    seen = dataclasses.replace(trace(0.1, optimizer=0.04), optimizers=(other, adam))
    rule = next(r for r in all_rules() if r.code == code)
    (finding,) = found_by(rule, seen)
    assert "10 ms a step" in finding.message and finding.predicted.high < 1.12
    both = dataclasses.replace(seen, optimizers=(dataclasses.replace(adam, share=0.5),) * 2)
    (finding,) = found_by(rule, both)
    assert "40 ms a step" in finding.message
    every = tuple(dataclasses.replace(o, steps=seen.steps) for o in both.optimizers)
    (finding,) = found_by(rule, dataclasses.replace(both, optimizers=every))
    assert code == "O402" or "updates 8 tensors" in finding.message
    after = tuple(dataclasses.replace(o, steps=seen.steps // 2) for o in both.optimizers)
    (finding,) = found_by(rule, dataclasses.replace(both, optimizers=after))
    assert code == "O402" or "updates 4 tensors" in finding.message
    little = (dataclasses.replace(other, share=0.95), dataclasses.replace(adam, share=0.05))
    assert not list(found_by(rule, dataclasses.replace(seen, optimizers=little)))


# -- explained ---------------------------------------------------------------------------------------------------------


def explained(script: str, folder: Path) -> Report:
    path = folder / "train.py"
    path.write_text(textwrap.dedent(script), encoding="utf-8")
    report = explain(path, ceilings=False, stdout=subprocess.DEVNULL)
    assert report.exit_code == 0 and report.trace is not None
    return report


def codes(report: Report) -> set[str]:
    return {f.code for f in report.findings}


ADVERSARIAL = """
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    torch.set_num_threads(1)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten())
            self.out = nn.LazyLinear(3)

        def forward(self, x):
            with torch.autocast("cpu", torch.bfloat16):  # as Accelerate has it
                return self.out(self.layers(x))

    net = Net()
    net(torch.zeros(1, 1, 12, 12))
    net = net.to(memory_format=torch.channels_last)
    adam = torch.optim.Adam(net.parameters(), fused=True)
    data = TensorDataset(torch.rand(640, 1, 12, 12), torch.randint(0, 3, (640,)))
    for epoch in range(6):
        for x, y in DataLoader(data, 16):
            net.eval()
            seen = x.clone()
            for _ in range(2):
                seen.requires_grad_()
                worse = nn.functional.mse_loss(net(seen).float(), net(x).float().detach() + 1)
                seen = (seen + 0.01 * torch.autograd.grad(worse, [seen])[0].sign()).detach()
            net.train()
            with torch.autograd.detect_anomaly(check_nan=False):
                loss = nn.functional.cross_entropy(net(seen).float(), y)
                adam.zero_grad()
                loss.backward()
            adam.step()
    """


def test_adversarial_training_is_no_evaluation_and_what_is_set_inside_of_calls_is_seen(tmp_path: Path) -> None:
    report = explained(ADVERSARIAL, tmp_path)
    assert not codes(report) & {"E601", "E602", "M301", "M303"}
    assert "M308" in codes(report)
    trace = report.trace
    assert trace is not None and trace.process.autocast and trace.models[0].channels_last
    assert trace.phase("evaluation") < 0.02 * trace.step_seconds


BY_HAND = """
    import torch

    torch.set_num_threads(1)
    w, x, y = torch.zeros(20, requires_grad=True), torch.randn(500, 20), torch.randn(500)
    for step in range(40):
        loss = ((x @ w - y) ** 2).mean()
        loss.backward()
        with torch.no_grad():
            w -= 0.1 * w.grad
            w.grad = None
    """


def test_steps_without_an_optimizer_are_all_counted(tmp_path: Path) -> None:
    trace = explained(BY_HAND, tmp_path).trace
    assert trace is not None and trace.clock == "backward" and trace.steps == 40
    assert trace.batches == 1.0


SAVES = """
    import torch
    from safetensors.torch import save_file

    torch.set_num_threads(1)
    net = torch.nn.Sequential(*(torch.nn.Linear(300, 300) for _ in range(8)))
    sgd = torch.optim.SGD(net.parameters(), 0.01)
    for step in range(60):
        sgd.zero_grad()
        net(torch.randn(2, 300)).square().mean().backward()
        sgd.step()
        save_file(net.state_dict(), "last.safetensors")
    """


def test_what_safetensors_writes_is_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("safetensors")
    monkeypatch.chdir(tmp_path)
    report = explained(SAVES, tmp_path)
    (finding,) = (f for f in report.findings if f.code == "E603")
    assert finding.place is not None and "save_file(" in finding.place.text
