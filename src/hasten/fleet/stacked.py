"""Trains many models of one kind in one call of each operation: weights lie in one (models, total) array.

Stacking by ``torch.func`` as in its ensembling tutorial; what is added is that every model keeps its own clock: rows,
epoch, step, learning rate, early stop. A model that ends makes room for the next one between two steps. Nothing is
reduced over the models, so a model's bits do not depend on the others; that is tested on each machine before use.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hasten.core.errors import HastenError, in_a_line
from hasten.fleet import streams
from hasten.fleet.arrays import Array
from hasten.fleet.loop import EVAL_ROWS, batches
from hasten.fleet.modules import dropout_scale
from hasten.fleet.native.engine import SINGLE, fits
from hasten.fleet.recipe import Recipe
from hasten.fleet.stackable import Bounded, CannotStack, StackBatchNorm, StackDropout, stackable, up
from hasten.fleet.state import FAILED, RUNNING, State
from hasten.fleet.taken import refusal
from hasten.fleet.tape.step import Program, Step, program_of
from hasten.fleet.tasks import Job
from hasten.fleet.update_rows import Updater
from hasten.fleet.workers import Kind

WIDTH = 32  # models side by side
BYTES = 256 << 20  # of weights and moments of one stack, at most

__all__ = ["WIDTH", "CannotStack", "Stack"]


@dataclass
class Slot:
    """One model on its way through the stack.

    Attributes:
        order: rows of the running epoch. step: batches of it that were taken. total: their losses, times rows.
        keep: the store's slot; before: steps taken when it came here.
    """

    job: Job
    state: State
    keep: int
    before: int
    begun: float
    order: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    step: int = 0
    total: float = 0.0
    rows: tuple[Array, Array] = field(init=False)  # held: a series stays standardised while it is learned

    def __post_init__(self) -> None:
        self.rows = self.job.task.X, self.job.task.y


class Stack:
    """A fixed number of places for models of one kind."""

    def __init__(self, kind: Kind, recipe: Recipe, width: int) -> None:
        self.kind, self.recipe, self.width = kind, recipe, width
        self.module = stackable(kind.prototype).train()
        self.idle_eval = stackable(kind.prototype, together=False).eval()
        layout = kind.layout
        self.flat = torch.zeros(3, width, up(layout.total))[..., : layout.total]
        views = layout.views(self.flat[0])
        self.params = {e.name: views[e.name].detach().requires_grad_() for e in layout.entries if e.trains}
        self.kept = [e for e in layout.entries if not e.trains and e.dtype == torch.float32]
        self.buffers = {e.name: views[e.name].clone() for e in layout.entries if not e.trains}
        self.places: list[Slot | None] = [None] * width
        self.size = size = up(recipe.batch_size)
        self.X = torch.zeros(width, size, *kind.row)
        self.y: torch.Tensor | None = None
        self.outputs = 0
        self.rows = torch.ones(width, size)
        self.norms = [n for n, m in self.module.named_modules() if isinstance(m, StackBatchNorm)]
        self.drops = [(n, m) for n, m in self.module.named_modules() if isinstance(m, StackDropout) and m.p > 0]
        self.buffers |= {f"{n}.rows" if n else "rows": self.rows for n in self.norms}
        self.updater = Updater(recipe, layout, width)
        self.call = torch.func.vmap(self._loss)
        self.tape: Step | None = None
        self.why_no_tape = ""

    def _loss(self, params: Any, buffers: Any, x: torch.Tensor, y: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        with Bounded():
            predicted = torch.func.functional_call(self.module, (params, buffers), (x,))
        loss: torch.Tensor = self.recipe.loss(predicted, y, rows)
        return loss

    # -- coming and going ----------------------------------------------------------------------------------------------

    @property
    def free(self) -> int:
        """Places without a model."""
        return self.places.count(None)

    def put(self, slot: Slot) -> None:
        """Give a model a place.

        Raises:
            HastenError: see ``check``.
        """
        self.check(slot.job)
        i = self.places.index(None)
        self._lay(i, torch.from_numpy(slot.state.flat[:3]))
        self.places[i] = slot

    def check(self, job: Job) -> None:
        """Whether a job can be trained here.

        Raises:
            HastenError: its target is not what the model can learn, or an epoch ends with a single row, which no batch
                norm can normalise.
        """
        if self.y is None:
            with torch.no_grad():
                given = self.idle_eval(torch.from_numpy(job.task.X[[0, 0]])).shape[1:]
            self.outputs = given.numel()
            shape = () if self.recipe.loss.kind == "cross_entropy" else given
            self.y = torch.zeros(self.width, self.size, *shape)
            self._measure_masks()
            self._read_tape()
        fits(job, self.outputs, self.recipe)
        norms = (m for m in self.idle_eval.modules() if isinstance(m, StackBatchNorm))
        if job.ends_alone(self.recipe.batch_size) and any(norm.positions == 1 for norm in norms):
            raise HastenError(SINGLE)

    def _lay(self, i: int, row: torch.Tensor) -> None:
        self.flat[:, i] = row
        for name, value in self.kind.layout.views(self.flat[0, i]).items():
            if name in self.buffers:  # modules change these in place, so they lie apart from what is differentiated
                self.buffers[name][i] = value

    def _measure_masks(self) -> None:
        """Run once, to learn what shape each dropout sees, and in which order they are passed."""
        if not self.drops:
            return
        trial = copy.deepcopy(self.module)
        seen = {n: m for n, m in trial.named_modules() if isinstance(m, StackDropout)}
        order: list[str] = []
        for n, m in seen.items():
            m.register_forward_hook(lambda *_, n=n: order.append(n))
        with torch.no_grad():
            trial(torch.zeros(self.size + 1, *self.kind.row))
            more = {n: m.shape for n, m in seen.items()}
            order.clear()
            trial(torch.zeros(self.size, *self.kind.row))
        self.drops = [(n, drop) for n, drop in self.drops if seen[n].calls]
        if any(seen[n].calls != 2 for n, _ in self.drops):
            raise CannotStack("a dropout is passed more than once a step")
        for n, _ in self.drops:
            rest = seen[n].shape[1:]
            if (seen[n].shape, more[n]) != ((self.size, *rest), (self.size + 1, *rest)):
                raise CannotStack("a dropout sees the rows of a batch elsewhere than along its first dimension")
        self.drops.sort(key=lambda drop: order.index(drop[0]))
        for name, _ in self.drops:
            self.buffers[f"{name}.mask" if name else "mask"] = torch.ones(self.width, *seen[name].shape)

    def _read_tape(self) -> None:
        assert self.y is not None
        arrays = {"x": self.X, "y": self.y, "rows": self.rows}
        shapes = {name: tuple(array.shape[1:]) for name, array in arrays.items()}
        masks = [(f"{n}.mask" if n else "mask", drop.p) for n, drop in self.drops]
        drops = [(name, tuple(self.buffers[name].shape[1:]), p) for name, p in masks]
        found = program_of(self.kind.prototype, self.module, self.kind.layout, self.recipe, shapes, drops)
        if not isinstance(found, Program):
            self.why_no_tape = found
            return
        self.tape = Step(found, [self.flat[0], *arrays.values()], self.kind.layout.trained)
        for e in self.kind.layout.entries:
            if e.trains and e.name not in found.unused:
                grad = self.tape.gradients[:, e.start : e.start + e.size]
                self.params[e.name].grad = grad.reshape(self.width, *e.shape)

    # -- one step of all -----------------------------------------------------------------------------------------------

    def step(self) -> list[tuple[int, Slot]]:
        """One optimizer step of every model here; those whose epoch has ended come back, with their places."""
        assert self.y is not None
        counts = np.zeros(self.width, np.int64)
        with torch.no_grad():
            for i, slot in enumerate(self.places):
                if slot is not None:
                    counts[i] = self.fill(i, slot)
        losses = self.backward()
        taken = [slot.state.steps + slot.step + 1 if slot else 0 for slot in self.places]
        self.updater(self.flat, self.params, [slot.job if slot else None for slot in self.places], taken)
        self.collect(counts)
        each = losses.numpy()
        ended = []
        for i, slot in enumerate(self.places):
            if slot is not None:
                slot.total += float(each[i]) * int(counts[i])
                slot.step += 1
                if slot.step * self.recipe.batch_size >= len(slot.order):
                    ended.append((i, slot))
        return ended

    def losses(self) -> torch.Tensor:
        """Of every model's batch. (width,)."""
        if self.tape is not None:
            return self.tape([i for i, slot in enumerate(self.places) if slot is not None])
        losses: torch.Tensor = self.call(self.params, self.buffers, self.X, self.y, self.rows)
        return losses

    def backward(self) -> torch.Tensor:
        """Losses, and gradients in the parameters' ``grad``. (width,)."""
        if self.tape is None:
            for p in self.params.values():
                p.grad = None
        losses = self.losses()
        if self.tape is None:
            losses.sum().backward()
        return losses.detach()

    def fill(self, i: int, slot: Slot) -> int:
        if slot.step == 0:
            self.begin(i, slot)
        size = self.recipe.batch_size
        rows = slot.order[slot.step * size : (slot.step + 1) * size]
        n = len(rows)
        if self.tape is not None:  # which draws what dropouts keep by itself
            self.tape.when[i, 2:4] = slot.step, n
            if self.tape.when[i, 6]:
                return n
        assert self.y is not None
        X, y, counts = self.X.numpy()[i], self.y.numpy()[i], self.rows.numpy()[i]  # a call of NumPy's costs less
        X[:n] = slot.rows[0][rows]
        y[:n] = slot.rows[1][rows].reshape(y[:n].shape)
        if n < self.size:  # by a row that is there: of noughts a module may make NaN, which no weight of 0 takes away
            X[n:], y[n:] = X[:1], y[:1]
        counts[:n], counts[n:] = 1, 0
        for draw, (name, drop) in enumerate(self.drops if self.tape is None else ()):
            mask = self.buffers[f"{name}.mask" if name else "mask"].numpy()[i, :n]
            kept = streams.keep(slot.job.stream, mask.size, drop.p, slot.state.epoch, slot.step, draw)
            np.multiply(kept.reshape(mask.shape), dropout_scale(drop.p), out=mask)
        return n

    def begin(self, i: int, slot: Slot) -> None:
        """The first batch of an epoch."""
        slot.order, slot.total = slot.job.epoch_order(slot.state.epoch), 0.0
        if self.tape is not None:
            self.tape.begin(i, slot.job.stream, slot.state.epoch, slot.rows, slot.order, self.recipe.batch_size)

    def collect(self, counts: npt.NDArray[np.int64]) -> None:
        """Bring what modules have changed by themselves back into the flat rows."""
        for e in self.kept if self.tape is None else ():  # the tape keeps them there
            self.flat[0, :, e.start : e.start + e.size] = self.buffers[e.name].reshape(self.width, -1)
        for e in self.kind.layout.entries:
            if e.name.endswith("num_batches_tracked"):
                self.flat[0, :, e.start] += torch.from_numpy(counts > 0)

    # -- the end of an epoch -------------------------------------------------------------------------------------------

    def close(self, i: int, slot: Slot) -> bool:
        """Book the epoch of the model in place ``i``; True where it has ended for good (and has left its place)."""
        job, state, recipe = slot.job, slot.state, self.recipe
        held, cause = float("nan"), ""
        if recipe.stop is not None:
            try:
                held = self.held_loss(i, job)
            except Exception as error:
                cause = in_a_line(error)
        if state.close_epoch(recipe, job.steps(recipe.batch_size), slot.total / max(len(slot.order), 1), held):
            state.flat[3] = self.flat[0, i].numpy()
        slot.step = 0
        if state.status == FAILED:
            state.cause = self.refusal(slot, np.concatenate([slot.order, job.held])) or cause or state.cause
        if state.status != RUNNING:
            self.leave(i, state)
            return True
        return False

    def leave(self, i: int, state: State) -> None:
        """Let the model in place ``i``, which has ended, go."""
        self.read(i, state)
        state.finish()
        self.places[i] = None
        self.flat[:, i] = 0
        self.X[i], self.rows[i] = 0, 1  # what is computed here and ignored must be something that can be

    def refusal(self, slot: Slot, rows: npt.NDArray[np.int64]) -> str:
        """Why torch's own modules do not take these rows of a model; "" where they do."""
        tensors = self.kind.layout.views(slot.state.flat[0])  # as they came here: finite
        return refusal(self.idle_eval, tensors, slot.rows[0], rows)

    def refused(self) -> list[tuple[int, Slot, str]]:
        """Models whose batch has made a step fail, with their places and the causes; the others are as before it."""
        found = []
        size = self.recipe.batch_size
        for i, slot in enumerate(self.places):
            if slot is not None:
                self._lay(i, self.flat[:, i].clone())
                if why := self.refusal(slot, slot.order[slot.step * size : (slot.step + 1) * size]):
                    found.append((i, slot, why))
        return found

    def read(self, i: int, state: State) -> None:
        """Copy the model in place ``i`` into its state."""
        state.flat[:3] = self.flat[:, i].numpy()

    def held_loss(self, i: int, job: Job) -> float:
        """The mean loss of the rows held out, by the model in place ``i``."""
        tensors = self.kind.layout.views(self.flat[0, i])
        total = 0.0
        with torch.no_grad():
            for rows in batches(job.held, EVAL_ROWS):
                X, y = torch.from_numpy(job.task.X[rows]), torch.from_numpy(job.task.y[rows])
                out = torch.func.functional_call(self.idle_eval, tensors, (X,))
                total += float(self.recipe.loss(out, y)) * len(rows)
        return total / max(len(job.held), 1)


def width_of(kind: Kind) -> int:
    """How many places a stack of this kind has.

    A function of the model alone: libraries choose their kernels by the shape of the whole stack, so a width that
    depended on the number of keys would let it reach a model's bits. Places without a model are computed and ignored.
    """
    return int(max(2, min(WIDTH, BYTES // max(16 * kind.layout.total, 1))))
