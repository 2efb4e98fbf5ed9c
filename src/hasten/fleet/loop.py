"""The plain PyTorch loop, with the key's own random streams: the reference that other engines are compared with."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from hasten.core.errors import UsageError
from hasten.fleet import streams
from hasten.fleet.modules import Moment, key_dropout
from hasten.fleet.recipe import Recipe
from hasten.fleet.state import RUNNING, Floats, Layout, State
from hasten.fleet.tasks import Job

EVAL_ROWS = 1024  # rows of a forward pass without gradients

Saved = Callable[[State], None]


class Trainer(Protocol):
    """One model in the hands of an engine."""

    def load(self, state: State) -> None:
        """Take the model over where ``state`` left it."""

    def epochs(self, epoch: int, steps: int, count: int) -> Iterable[float]:
        """Train for ``count`` epochs, after ``steps`` steps; their mean training losses, over rows.

        Ends before that with a loss that is not finite.
        """

    def held_loss(self) -> float:
        """The mean loss of the rows held out."""

    def weights(self, into: Floats) -> None:
        """Copy the weights. into: (total,)."""

    def store(self, state: State) -> None:
        """Copy weights and moments into the state."""


def drive(job: Job, state: State, recipe: Recipe, trainer: Trainer, saved: Saved | None = None) -> State:
    """Train one model to its end.

    Args:
        state: where it starts; filled with where it ends.
        saved: called after every epoch with the state, to be kept.
    """
    trainer.load(state)
    if recipe.stop is not None and not state.best_epoch:
        state.flat[3] = state.flat[0]  # an engine may hand back only what it trains
    per_epoch = job.steps(recipe.batch_size)
    together = recipe.epochs - state.epoch if recipe.stop is None and saved is None else 1
    while state.status == RUNNING:
        for loss in trainer.epochs(state.epoch, state.steps, together):
            held = trainer.held_loss() if recipe.stop is not None else np.nan
            if state.close_epoch(recipe, per_epoch, loss, held):
                trainer.weights(state.flat[3])
        if saved is not None and state.status == RUNNING:
            trainer.store(state)
            saved(state)
    trainer.store(state)
    state.finish()
    return state


def fresh(module: nn.Module, layout: Layout, recipe: Recipe) -> State:
    """The state before the first step."""
    state = State(recipe.epochs, layout.total)
    layout.read(module, state.flat[0])
    return state


class LoopTrainer:
    """The loop that people write: batch, forward, backward, clip, step.

    Args:
        module: trained itself, and no copy of it, which would lose what people have hung on its tensors.

    Raises:
        whatever the module, the loss or the optimizer raise.
    """

    def __init__(self, module: nn.Module, layout: Layout, job: Job, recipe: Recipe) -> None:
        self.moment = Moment(job.stream)
        self.module = module
        key_dropout(module, self.moment)
        self.layout, self.job, self.recipe = layout, job, recipe
        self.parameters = [p for p in self.module.parameters() if p.requires_grad]
        self.rows = job.task.X, job.task.y  # held: a series stays standardised while it is learned
        self.slots = _SLOTS.get(recipe.optimizer, ()) if isinstance(recipe.optimizer, str) else ()

    @cached_property
    def optimizer(self) -> Any:
        """Made when it is first needed: torch's import much for it, and a gradient needs none."""
        return make_optimizer(self.recipe, self.parameters, self.job)

    def load(self, state: State) -> None:
        self.layout.write(state.flat[0], self.module)
        if not state.steps or not self.slots:
            return
        trained = dict(self.module.named_parameters())
        for name in (e.name for e in self.layout.entries if e.trains):
            parameter = trained[name]
            for slot, row in zip(self.slots, state.flat[1:3], strict=False):
                self.optimizer.state[parameter][slot] = self.layout.views(row)[name].clone()
            if "exp_avg" in self.slots:
                self.optimizer.state[parameter]["step"] = torch.tensor(float(state.steps))

    def epochs(self, epoch: int, steps: int, count: int) -> Iterator[float]:
        for more in range(count):
            loss = self.epoch(epoch + more)
            yield loss
            if not math.isfinite(loss):
                return

    def epoch(self, epoch: int) -> float:
        """One epoch; its mean training loss, over rows."""
        job, recipe = self.job, self.recipe
        self.module.train()
        order = job.epoch_order(epoch)
        seeds = streams.words(job.stream, 2 * job.steps(recipe.batch_size), streams.DROPOUT, epoch, layer=1 << 20)
        total = 0.0
        for step, rows in enumerate(batches(order, recipe.batch_size)):
            torch.default_generator.manual_seed(int(seeds[2 * step]) << 32 | int(seeds[2 * step + 1]))
            self.moment.at(epoch, step)
            total += self.step(rows) * len(rows)
        return total / max(len(order), 1)

    def step(self, rows: npt.NDArray[np.int64]) -> float:
        """One optimizer step; the batch's loss."""
        self.optimizer.zero_grad()
        loss = self.gradient(rows)
        if self.recipe.clip is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip)
        self.optimizer.step()
        return loss

    def gradient(self, rows: npt.NDArray[np.int64]) -> float:
        """Fill the parameters' ``grad``; the batch's loss."""
        X, y = batch_of(self.job, rows)
        loss = self.recipe.loss(self.module(X), y)
        if loss.numel() != 1:
            raise UsageError(
                f"the loss of a batch has the shape {tuple(loss.shape)}", "a callable that gives one number a row",
                "its mean: lambda p, y: loss(p, y).mean()",
            )  # fmt: skip
        loss.backward()
        return float(loss.detach())

    def held_loss(self) -> float:
        self.module.eval()
        total = 0.0
        with torch.no_grad():
            for rows in batches(self.job.held, EVAL_ROWS):
                X, y = batch_of(self.job, rows)
                total += float(self.recipe.loss(self.module(X), y)) * len(rows)
        return total / max(len(self.job.held), 1)

    def weights(self, into: Floats) -> None:
        self.layout.read(self.module, into)

    def store(self, state: State) -> None:
        self.layout.read(self.module, state.flat[0])
        trained = dict(self.module.named_parameters())
        for slot, row in zip(self.slots, state.flat[1:3], strict=False):
            for e in self.layout.entries:
                kept = self.optimizer.state[trained[e.name]].get(slot) if e.trains else None
                if kept is not None:
                    row[e.start : e.start + e.size] = kept.numpy().reshape(-1)


_SLOTS = {"sgd": ("momentum_buffer",), "adam": ("exp_avg", "exp_avg_sq"), "adamw": ("exp_avg", "exp_avg_sq")}


def make_optimizer(recipe: Recipe, parameters: list[nn.Parameter], job: Job) -> Any:
    """torch's optimizer for a recipe and a key's own settings.

    Raises:
        UsageError: it takes no step without a closure.
    """
    if not isinstance(recipe.optimizer, str):
        made = recipe.optimizer(parameters)
        if isinstance(made, torch.optim.LBFGS):
            raise UsageError(
                f"{type(made).__name__} evaluates the loss several times a step",
                "a fleet's step is one batch, one gradient, one update, and such an optimizer asks for a closure",
                'optimizer="adam", or optimizer=lambda p: torch.optim.RMSprop(p, lr=1e-3)',
            )
        return made
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            parameters, job.lr, recipe.momentum, weight_decay=job.weight_decay, nesterov=recipe.nesterov
        )
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    return kind(parameters, job.lr, recipe.betas, recipe.eps, job.weight_decay)


def batches(order: npt.NDArray[np.int64], size: int) -> Iterator[npt.NDArray[np.int64]]:
    """Consecutive pieces of ``order``; the last one holds what is left."""
    for start in range(0, len(order), size):
        yield order[start : start + size]


def batch_of(job: Job, rows: npt.NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
    """The rows as tensors of their own."""
    return torch.from_numpy(job.task.X[rows]), torch.from_numpy(job.task.y[rows])
