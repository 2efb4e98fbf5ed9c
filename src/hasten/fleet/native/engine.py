"""Trains jobs by the kernel: one model at a time on each of a few threads, which the kernel lets run side by side."""

from __future__ import annotations

import ctypes
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from hasten.core.errors import HastenError
from hasten.fleet.arrays import Array
from hasten.fleet.losses import Loss, unknown_class
from hasten.fleet.native.build import kernel
from hasten.fleet.native.chain import Chain, compiled
from hasten.fleet.recipe import Recipe
from hasten.fleet.state import Floats, Layout, State
from hasten.fleet.tasks import Job

CALL = 0.4  # seconds that one call of the kernel may take, where its epochs are shorter: an interrupt waits for it
LEAST = 64  # rows that there is room for; less would change how rows lie side by side
SINGLE = "the last batch of an epoch holds one row, which a batch norm cannot normalise: change batch_size"


class NativeTrainer:
    """One thread's copy of the kernel's workspace for one kind of model; takes one job after the other.

    Args:
        isa: an instruction set of ``native.build.TARGETS``; the best one unless given.
        most: rows that a job has at most: there is no room for larger batches.
    """

    def __init__(self, chain: Chain, layout: Layout, recipe: Recipe, isa: str = "", most: int = 0) -> None:
        self.chain, self.layout, self.recipe = chain, layout, recipe
        self.lib = kernel(isa)
        self._ops, self._config = compiled(chain, layout, recipe)
        self._config.batch = min(recipe.batch_size, max(most, LEAST)) if most else recipe.batch_size
        self._model = self.lib.hasten_create(self._ops, ctypes.byref(self._config))
        if not self._model:
            raise HastenError("no memory for the kernel's workspace", "very wide layers or batches", "engine='loop'")
        self._loss = ctypes.c_double()
        self.job: Job | None = None
        self.pace = 0.0  # seconds a visit took in the last call
        self.checked: Callable[[], None] = lambda: None  # called between calls of the kernel; raises to end training

    def __del__(self) -> None:
        if getattr(self, "_model", None):
            self.lib.hasten_free(self._model)

    def take(self, job: Job) -> NativeTrainer:
        """Work on this job from now on.

        Raises:
            HastenError: its target has another number of columns than the model.
        """
        self.job = job
        self.X, self.xs = rows_of(job.task.X)
        self.y, self.ys = rows_of(job.task.y.astype(np.float32, copy=False))
        fits(job, self.chain.outputs, self.recipe)
        return self

    def load(self, state: State) -> None:
        flat = np.ascontiguousarray(state.flat[:3])
        self.lib.hasten_load(self._model, flat.ctypes.data)

    def epochs(self, epoch: int, steps: int, count: int) -> Iterator[float]:
        job = self.job
        assert job is not None
        drawn = job.train is None and job.order is None
        per_epoch = job.steps(self.recipe.batch_size)
        more = 0
        while more < count:
            self.checked()
            at_once = self._at_once(count - more) if drawn else 1  # the kernel draws the rows' order, or is given it
            begun = time.perf_counter()
            order = None if drawn else np.ascontiguousarray(job.epoch_order(epoch + more))
            losses = (ctypes.c_double * at_once)()
            done = self.lib.hasten_epochs(
                self._model, *self._data(order), job.rows if order is None else len(order), job.stream, epoch + more,
                at_once, steps + more * per_epoch, job.lr, job.weight_decay, losses,
            )  # fmt: skip
            if done < 0:
                raise HastenError(SINGLE)
            self.pace = (time.perf_counter() - begun) / max(1, done * job.rows)
            yield from losses[:done]
            if not math.isfinite(losses[done - 1]):
                return
            more += at_once

    def _at_once(self, left: int) -> int:
        """Epochs of the next call."""
        assert self.job is not None
        return min(left, max(1, int(CALL / (self.pace * max(1, self.job.rows))))) if self.pace else 1

    def held_loss(self) -> float:
        assert self.job is not None
        held = np.ascontiguousarray(self.job.held)
        self.lib.hasten_evaluate(self._model, *self._data(held), len(held), None, ctypes.byref(self._loss))
        return float(self._loss.value)

    def predict(self, X: Array) -> Floats:
        """The loaded model's predictions. X: (rows, inputs); (rows, outputs) comes back."""
        rows, stride = rows_of(X.astype(np.float32, copy=False))
        out = np.empty((len(rows), self.chain.outputs), np.float32)
        self.lib.hasten_evaluate(
            self._model, rows.ctypes.data, stride, None, 0, None, len(rows), out.ctypes.data, None
        )  # fmt: skip
        return out

    def gradient(self, rows: npt.NDArray[np.int64], epoch: int = 0, step: int = 0) -> tuple[Floats, float]:
        """The loaded model's gradient on one batch, (total,), and its loss."""
        assert self.job is not None
        flat = np.zeros(self.layout.total, np.float32)
        self.lib.hasten_gradient(
            self._model, *self._data(np.ascontiguousarray(rows)), len(rows), self.job.stream, epoch, step,
            flat.ctypes.data, ctypes.byref(self._loss),
        )  # fmt: skip
        return flat, float(self._loss.value)

    def weights(self, into: Floats) -> None:
        self.lib.hasten_store(self._model, into.ctypes.data, 0)

    def store(self, state: State) -> None:
        self.lib.hasten_store(self._model, state.flat.ctypes.data, 1)

    def _data(self, rows: npt.NDArray[np.int64] | None) -> tuple[Any, ...]:
        pointer = None if rows is None else rows.ctypes.data
        return self.X.ctypes.data, self.xs, self.y.ctypes.data, self.ys, pointer


def fits(job: Job, outputs: int, recipe: Recipe) -> None:
    """Check that a job's target is what a model that gives ``outputs`` numbers a row can learn.

    Raises:
        HastenError: it has another number of columns, or more classes.
    """
    if not isinstance(recipe.loss, Loss):
        return
    classes = recipe.loss.kind == "cross_entropy"
    found, width = job.task.columns, 1 if classes else outputs
    if classes and job.task.y.max() >= outputs:
        raise unknown_class(job.task.y.max(), outputs)
    if found != width:
        raise HastenError(
            f"the model gives {width} numbers a row and the target has {found}",
            "the last layer's width differs from the number of target columns",
            f"a last layer with {found} outputs",
        )


def rows_of(array: Array) -> tuple[Array, int]:
    """The array with contiguous rows (a copy only where they are not), and the distance of rows in numbers."""
    width = int(np.prod(array.shape[1:], dtype=np.int64))
    inner = array.strides[1:] == np.empty((1, *array.shape[1:]), array.dtype).strides[1:]
    if len(array) and inner and array.strides[0] % 4 == 0:
        return array, array.strides[0] // 4 if len(array) > 1 else width
    return np.ascontiguousarray(array), width


def peak(seconds: float = 0.2, isa: str = "") -> float:
    """Fused multiply-adds that one thread of this machine can do at most, in FLOP/s, measured now."""
    lib = kernel(isa)
    lib.hasten_peak(10_000_000)
    best, end = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        done = lib.hasten_peak(5_000_000)
        best = max(best, done / (time.perf_counter() - start))
    return best
