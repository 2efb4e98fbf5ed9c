"""Evaluations in train mode are told from training: by their loader, or by held-out data that come again."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from hasten.measure.clock import INDEX
from hasten.seams import backward, loader, optimizer
from hasten.seams.forward import ForwardSeam
from hasten.seams.known import ModelRecord
from hasten.seams.patch import Patches
from hasten.seams.watch import Watch

EVALUATION, FORWARD = INDEX["evaluation"] + 1, INDEX["forward"] + 1
STEPS, BATCHES = 6, 3


class Job:
    """A network that is trained, on rows of its own."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.net = nn.Linear(4, 1)
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.01)
        self.rows, self.held_out = torch.ones(8, 4), torch.zeros(8, 4)

    def train(self, x: torch.Tensor) -> None:
        self.optimizer.zero_grad()
        self.net(x).sum().backward()
        self.optimizer.step()

    @property
    def record(self) -> ModelRecord:
        return self.watch.models[id(self.net)]

    def evaluated(self) -> list[bool]:
        """Whether each step's forward passes took more time in an evaluation than in training."""
        return [row[EVALUATION] > row[FORWARD] for row in self.watch.records()]


@pytest.fixture
def job(seam: ForwardSeam) -> Iterator[Job]:
    patches = Patches()
    for one in (loader, backward, optimizer):
        one.install(seam.watch, patches)
    yield Job(seam.watch)
    patches.undo()


def loader_of(x: torch.Tensor, size: int = 2) -> DataLoader[tuple[torch.Tensor, ...]]:
    return DataLoader(TensorDataset(x), batch_size=size)


@pytest.mark.parametrize("graph", [True, False])
@pytest.mark.parametrize("size", [2, 8])
def test_a_pass_over_another_loader_without_backward_is_an_evaluation(job: Job, graph: bool, size: int) -> None:
    """Also of one batch only."""
    train, held_out = loader_of(job.rows), loader_of(job.held_out, size)
    for _ in range(STEPS):
        for (x,) in train:
            job.train(x)
        with torch.set_grad_enabled(graph):
            for (x,) in held_out:
                job.watch.clock.last -= 10**9
                job.net(x)
        for (x,) in train:
            job.train(x)
            break
    assert job.watch.loaders[id(held_out)].role == "evaluation"
    calls = STEPS * 8 // size
    assert job.record.evaluations == job.record.in_train_mode == calls
    assert job.record.graphs_in_train_mode == graph * calls
    assert not job.record.evaluations_with_graph
    assert sum(row[EVALUATION] for row in job.watch.records()) > 0.8 * calls * 10**9


@pytest.mark.parametrize("graph", [True, False])
def test_held_out_rows_that_come_again_are_an_evaluation(job: Job, graph: bool) -> None:
    """From the second time on: the first may be anything."""
    for _ in range(STEPS):
        job.train(job.rows)
        with torch.set_grad_enabled(graph):
            for first in range(0, 8, 2):
                job.net(job.held_out[first : first + 2])
    assert job.record.in_train_mode == 4 * (STEPS - 1)
    assert job.record.graphs_in_train_mode == graph * 4 * (STEPS - 1)


def acts(job: Job) -> None:
    """A policy that is shown a state in one and the same buffer, and trained later."""
    with torch.no_grad():
        job.net(job.held_out.add_(1))
    job.train(job.rows.clone())


def aims(job: Job) -> None:
    """Of the same rows, targets without a graph."""
    with torch.no_grad():
        job.net(job.rows)
    job.train(job.rows)


def two_at_once(job: Job) -> None:
    """One loss of two calls; the graph of both is used."""
    job.optimizer.zero_grad()
    (job.net(job.rows).sum() + job.net(job.held_out).sum()).backward()
    job.optimizer.step()


def made_before(job: Job) -> None:
    """Fakes for the critic, whose graph is used a step later."""
    made = job.net(job.held_out)
    job.train(job.rows)
    made.sum().backward()


def sparse(job: Job) -> None:
    job.net(job.held_out.to_sparse())
    job.train(job.rows.clone())


@pytest.mark.parametrize("step", [acts, aims, two_at_once, made_before, sparse])
def test_what_training_may_need_is_no_evaluation(job: Job, step: Callable[[Job], None]) -> None:
    for _ in range(STEPS):
        step(job)
    assert not job.record.evaluations and not job.watch.clock.evaluating and not job.watch.broken


def test_several_batches_of_several_loaders_make_one_loss(job: Job) -> None:
    """Two batches of the first loader, then one of the second: only the first step of all can be mistaken."""
    first, second = loader_of(torch.ones(64, 4)), loader_of(torch.ones(64, 4))
    both, others = iter(first), iter(second)
    job.train(next(others)[0])
    for _ in range(STEPS):
        job.optimizer.zero_grad()
        made = [job.net(next(both)[0]), job.net(next(both)[0]), job.net(next(others)[0])]
        torch.cat(made).sum().backward()
        job.optimizer.step()
    assert not any(job.evaluated()[2:])
    assert not job.record.evaluations and job.watch.loaders[id(first)].role != "evaluation"


def test_a_fold_that_trains_on_what_was_held_out_is_training(job: Job) -> None:
    folds = [loader_of(job.rows), loader_of(job.held_out)]
    for train, held_out in (folds, folds[::-1]):
        for _ in range(STEPS):
            for (x,) in train:
                job.train(x)
            for (x,) in held_out:
                job.net(x)
    rows = job.evaluated()
    assert not any(rows[STEPS * 4 + 1 : STEPS * 4 + 4])
    assert job.watch.trained_from is not None and job.watch.trained_from.loader() is folds[1]


@pytest.mark.parametrize("anew", [True, False])
def test_targets_made_in_eval_mode_in_every_step_are_no_evaluation(job: Job, anew: bool) -> None:
    """Pseudo labels of the batch are part of the step; held-out rows looked at before each step are an evaluation."""
    train, held_out = loader_of(job.rows), loader_of(job.held_out)
    clock = job.watch.clock

    def takes_long(net: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        clock.last -= 0 if net.training else 10**9

    job.net.register_forward_pre_hook(takes_long)
    for _ in range(STEPS):
        for (x,) in train:
            job.net.eval()
            with torch.no_grad():
                job.net(x.flip(0) if anew else job.held_out[:2])
            job.net.train()
            job.train(x)
        job.net.eval()
        with torch.no_grad():
            for (x,) in held_out:
                job.net(x)
        job.net.train()
    seconds = [round(row[EVALUATION] / 10**9) for row in job.watch.records()]
    epochs = [seconds[i : i + 4] for i in range(4, 4 * STEPS, 4)]
    first, others = (4, 0) if anew else (5, 1)  # the pass over the other loader is an evaluation all the same
    assert epochs == [[first, others, others, others]] * (STEPS - 1)
