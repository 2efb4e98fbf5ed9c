"""What a model in training is, as flat arrays: any engine can take over from any other, and a file can hold it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from hasten.core.errors import UsageError
from hasten.fleet.recipe import Recipe

Floats = npt.NDArray[np.float32]
RUNNING, DONE, STOPPED, FAILED = range(4)
HEAD = 8  # numbers before the histories
WHOLE = 2**24  # up to which float32 holds every whole number


@dataclass(frozen=True)
class Entry:
    """One tensor of a module inside the flat row."""

    name: str
    shape: tuple[int, ...]
    start: int
    size: int
    dtype: torch.dtype
    trains: bool


@dataclass(frozen=True)
class Layout:
    """Where a module's tensors lie in a flat row: trained parameters first, then what is only kept.

    Attributes:
        trained: how many numbers are trained.
        total: all numbers.
    """

    entries: tuple[Entry, ...]
    trained: int
    total: int

    @classmethod
    def of(cls, module: nn.Module) -> Layout:
        """The layout of a module's parameters and buffers.

        Raises:
            UsageError: a tensor is neither float32 nor a whole number, has no shape yet, or is not on the CPU.
        """
        persistent = set(module.state_dict(keep_vars=True))
        tensors = [(n, p, p.requires_grad) for n, p in module.named_parameters()]
        tensors += [(n, b, False) for n, b in module.named_buffers() if n in persistent]
        tensors.sort(key=lambda t: not t[2])
        entries, at, trained = [], 0, 0
        for name, tensor, trains in tensors:
            _check_there(name, tensor)
            inexact = tensor.dtype.is_floating_point or tensor.dtype.is_complex
            if tensor.dtype != torch.float32 and (trains or inexact):
                raise UsageError(
                    f"{name} is {tensor.dtype}", "fleets are trained in float32", "make_model returning .float()"
                )
            if not inexact and tensor.numel() and tensor.long().abs().max() > WHOLE:
                raise UsageError(
                    f"{name} holds whole numbers beyond {WHOLE}", "a fleet keeps a model's numbers in float32",
                    "a plain attribute, self.numbers = [...], in place of a buffer",
                )  # fmt: skip
            entries.append(Entry(name, tuple(tensor.shape), at, tensor.numel(), tensor.dtype, trains))
            at += tensor.numel()
            trained = at if trains else trained
        return cls(tuple(entries), trained, at)

    def read(self, module: nn.Module, into: Floats) -> None:
        """Copy a module's tensors into a flat row. into: (total,)."""
        tensors = tensors_of(module)
        for e in self.entries:
            into[e.start : e.start + e.size] = tensors[e.name].detach().numpy().reshape(-1)

    def write(self, row: Floats, module: nn.Module) -> None:
        """Copy a flat row into a module's tensors."""
        tensors = tensors_of(module)
        with torch.no_grad():
            for name, value in self.views(row).items():
                tensors[name].copy_(value)

    def views(self, row: Floats | torch.Tensor) -> dict[str, torch.Tensor]:
        """The tensors of a flat row by name; views of it where they are float32. row: (total,) or (models, total)."""
        flat = torch.from_numpy(row) if isinstance(row, np.ndarray) else row
        lead = flat.shape[:-1]
        return {
            e.name: flat[..., e.start : e.start + e.size].reshape((*lead, *e.shape)).to(e.dtype) for e in self.entries
        }


def _check_there(name: str, tensor: torch.Tensor) -> None:
    if torch.nn.parameter.is_lazy(tensor):
        raise UsageError(
            f"{name} has no shape yet", "a lazy layer takes it from the first rows it sees",
            "sizes in make_model, or a first call there",
        )  # fmt: skip
    if tensor.device.type != "cpu":
        raise UsageError(
            f"{name} is on {tensor.device}", "a fleet is trained by the cores of the processor",
            "make_model returning a module on the CPU",
        )  # fmt: skip


def tensors_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers by name."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


class State:
    """One model in training.

    Attributes:
        numbers: (HEAD + 2 * epochs,), float64: epoch, steps, epochs without a better loss, best epoch, best loss,
            status, seconds, spare; then the training loss and the held-out loss of every epoch (NaN where not reached).
        flat: (4, total), float32: weights, the optimizer's first and second moment (or momentum), best weights.
        cause: why it failed.
    """

    def __init__(self, epochs: int, total: int) -> None:
        self.numbers = np.zeros(HEAD + 2 * epochs)
        self.numbers[HEAD:] = math.nan
        self.numbers[4] = math.inf
        self.flat: Floats = np.zeros((4, total), np.float32)
        self.cause = ""

    epoch = property(lambda self: int(self.numbers[0]))
    bad = property(lambda self: int(self.numbers[2]))
    best_epoch = property(lambda self: int(self.numbers[3]))
    best = property(lambda self: float(self.numbers[4]))
    status = property(lambda self: int(self.numbers[5]))

    @property
    def steps(self) -> int:
        """Optimizer steps taken."""
        return int(self.numbers[1])

    @property
    def seconds(self) -> float:
        """Seconds of work on this model, on one core."""
        return float(self.numbers[6])

    @seconds.setter
    def seconds(self, value: float) -> None:
        self.numbers[6] = value

    @property
    def losses(self) -> npt.NDArray[np.float64]:
        """(2, epochs): training and held-out loss."""
        return self.numbers[HEAD:].reshape(2, -1)

    @property
    def loss(self) -> float:
        """The last training loss."""
        return float(self.losses[0, self.epoch - 1]) if self.epoch else math.nan

    def fail(self, cause: str) -> None:
        """End here."""
        self.cause = cause
        self.numbers[5] = FAILED

    def close_epoch(self, recipe: Recipe, steps: int, loss: float, held: float) -> bool:
        """Book an epoch.

        Returns:
            True where its weights are the best so far and are to be kept in ``flat[3]``.
        """
        e = self.epoch
        self.numbers[1] += steps
        self.losses[:, e] = loss, held
        self.numbers[0] = e + 1
        if not math.isfinite(loss) or (recipe.stop is not None and not math.isfinite(held)):
            self.fail(f"the loss became {loss if not math.isfinite(loss) else held:g} in epoch {e + 1}")
            return False
        better = recipe.stop is not None and held < self.best - (recipe.stop.min_delta if self.best_epoch else 0.0)
        if better:
            self.numbers[2:5] = 0, e + 1, held
        elif recipe.stop is not None:
            self.numbers[2] += 1
        if self.epoch == recipe.epochs:
            self.numbers[5] = DONE
        elif recipe.stop is not None and self.bad >= recipe.stop.patience:
            self.numbers[5] = STOPPED
        return better

    def finish(self) -> None:
        """Take the best weights where they were kept; fail where a weight is not finite."""
        if self.best_epoch and self.status != FAILED:
            self.flat[0] = self.flat[3]
        if self.status != FAILED and not np.isfinite(self.flat[0]).all():
            self.fail("a weight became NaN or infinite in the last step")


def settings_json(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as a file holds them.

    Raises:
        UsageError: one is no plain value, and a loaded fleet would make its model without it.
    """
    for name, value in settings.items():
        try:
            json.dumps(value)
        except (TypeError, ValueError):
            raise UsageError(
                f"the setting {name}={value!r} cannot be kept in a file",
                "it is neither a number nor a word, nor a list of them",
                "a word in its place, which make_model looks up",
            ) from None
    return dict(settings)


def plain_settings(key: str, own: Any) -> dict[str, Any]:
    """A key's settings, NumPy's numbers as Python's own.

    Raises:
        UsageError: they are no mapping.
    """
    if not isinstance(own, Mapping):
        raise UsageError(
            f"settings[{key!r}] is a {type(own).__name__}", "a key has several settings, by name",
            f'settings={{{key!r}: {{"lr": 3e-4}}}}',
        )  # fmt: skip
    return {str(k): v.item() if isinstance(v, np.generic) else v for k, v in dict(own).items()}
