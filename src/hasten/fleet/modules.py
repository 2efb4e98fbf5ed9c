"""Making a key's module, and modules whose random numbers belong to the key."""

from __future__ import annotations

import copy
import inspect
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from hasten.core.errors import UsageError
from hasten.fleet import streams
from hasten.fleet.tasks import Job

_BUILDING = threading.Lock()  # torch has one generator; two models being initialised at once would share its numbers


class Factory:
    """``make_model``, called for one key at a time with torch's generator seeded from the key's stream.

    A plain loop gets the same initial weights by ``torch.manual_seed(streams.torch_seed(stream, INIT))`` before
    calling ``make_model``.

    Args:
        make_model: returns an ``nn.Module``; gets the settings of its key, and the key where it has a parameter
        ``key``.
    """

    def __init__(self, make_model: Callable[..., nn.Module]) -> None:
        self.make_model = make_model
        try:
            self.wants_key = "key" in inspect.signature(make_model).parameters
        except (TypeError, ValueError):
            self.wants_key = False

    def __call__(self, job: Job) -> nn.Module:
        """The key's module with its initial weights, in training mode.

        Raises:
            UsageError: what came back is no module.
        """
        given = {**job.settings, **({"key": job.key} if self.wants_key else {})}
        with _BUILDING:
            before = torch.get_rng_state()
            try:
                torch.default_generator.manual_seed(streams.torch_seed(job.stream, streams.INIT))
                module = self.make_model(**given)
            finally:
                torch.set_rng_state(before)
        if not isinstance(module, nn.Module):
            raise UsageError(
                f"make_model returned a {type(module).__name__}",
                "a class or an instance was given in place of a factory, or a return is missing",
                "make_model=lambda: nn.Sequential(nn.Linear(8, 1))",
            )
        return module.train()


def signature(module: nn.Module) -> tuple[Any, ...]:
    """What makes two modules the same but for their weights: types, plain attributes, shapes."""
    return tuple(
        (
            name,
            type(part),
            tuple(sorted((k, repr(v)) for k, v in part.__dict__.items() if _is_plain(k, v))),
            tuple((k, tuple(p.shape), p.requires_grad) for k, p in part._parameters.items() if p is not None),
        )
        for name, part in module.named_modules()
    )


def _is_plain(name: str, value: Any) -> bool:
    return name != "training" and isinstance(value, (bool, int, float, str, tuple, type(None)))


@dataclass
class Moment:
    """Where in its training a model is: what dropout draws its numbers by.

    Attributes:
        draws: dropouts passed so far in this step; tells them apart.
    """

    stream: int = 0
    epoch: int = 0
    step: int = 0
    draws: int = 0

    def at(self, epoch: int, step: int) -> None:
        """Go to another step."""
        self.epoch, self.step, self.draws = epoch, step, 0


class KeyedDropout(nn.Module):  # type: ignore[misc]
    """``nn.Dropout`` whose mask is a function of key, epoch, step and the order of dropouts within the step."""

    def __init__(self, p: float, moment: Moment) -> None:
        super().__init__()
        self.p, self.moment = p, moment

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: any shape, float32."""
        if not self.training or self.p == 0:
            return x
        m = self.moment
        kept = streams.keep(m.stream, x.numel(), self.p, m.epoch, m.step, m.draws)
        m.draws += 1
        return x * torch.from_numpy(kept * dropout_scale(self.p)).reshape(x.shape)


def dropout_scale(p: float) -> np.float32:
    """What kept values are multiplied by."""
    return np.float32(1.0 / (1.0 - float(np.float32(p))) if p < 1 else 0.0)


def replace(module: nn.Module, kind: type[nn.Module], make: Callable[[Any, int], nn.Module]) -> nn.Module:
    """A copy of ``module`` with every submodule of exactly this type replaced.

    Args:
        make: takes the old submodule and its number among those replaced.
    """
    changed = copy.deepcopy(module)
    made: dict[nn.Module, nn.Module] = {}
    old = [(name, part) for name, part in changed.named_modules(remove_duplicate=False) if type(part) is kind]
    for name, part in old:
        if part not in made:
            made[part] = make(part, len(made))
            made[part].train(part.training)
        if not name:
            return made[part]
        parent, _, child = name.rpartition(".")
        setattr(changed.get_submodule(parent), child, made[part])
    return changed


def with_keyed_dropout(module: nn.Module, moment: Moment) -> nn.Module:
    """A copy of ``module`` whose ``nn.Dropout`` draw from the key's stream."""
    return replace(module, nn.Dropout, lambda old, _: KeyedDropout(old.p, moment))
