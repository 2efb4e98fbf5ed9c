"""Making a key's module, and modules whose random numbers belong to the key."""

from __future__ import annotations

import copy
import inspect
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from hasten.core.errors import UsageError
from hasten.fleet import streams
from hasten.fleet.described import own_ways
from hasten.fleet.tasks import OWN, Job, Task

_BUILDING = threading.Lock()  # torch has one generator; two models being initialised at once would share its numbers


class Factory:
    """``make_model``, called for one key at a time with torch's generator seeded from the key's stream.

    A plain loop gets the same initial weights by ``torch.manual_seed(streams.torch_seed(stream, INIT))`` before
    calling ``make_model``.

    Args:
        make_model: returns an ``nn.Module``; gets the settings of its key, and the key where it has a parameter
        ``key``.

    Raises:
        UsageError: ``make_model`` cannot be called, or is a module.
    """

    def __init__(self, make_model: Callable[..., nn.Module]) -> None:
        if isinstance(make_model, nn.Module) or not callable(make_model):
            raise UsageError(
                f"make_model is a {type(make_model).__name__}, and each key needs a network of its own",
                "a network was given in place of what makes networks",
                "make_model=lambda: nn.Sequential(nn.Linear(8, 1)), or make_model=lambda: copy.deepcopy(network)",
            )
        self.make_model = make_model
        self.given: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
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
                stream = job.stream if job.made_by is None else job.made_by
                torch.default_generator.manual_seed(streams.torch_seed(stream, streams.INIT))
                module = self.make_model(**given)
            finally:
                torch.set_rng_state(before)
        if not isinstance(module, nn.Module):
            raise UsageError(
                f"make_model returned a {type(module).__name__}",
                "a class or an instance was given in place of a factory, or a return is missing",
                "make_model=lambda: nn.Sequential(nn.Linear(8, 1))",
            )
        with _BUILDING:
            if any(self.given.get(id(part)) is part for part in (module, *module.parameters())):
                module = _again(module)  # shared by several keys, and the loop trains in place
            self.given.update({id(part): part for part in (module, *module.parameters())})
        return module.train()


def _again(module: nn.Module) -> nn.Module:
    if why := own_ways(module):
        raise UsageError(
            f"make_model returned the same module twice, and it cannot be copied: {why}",
            "it is made outside of the factory, and hooks may hold on to the one they were made for",
            "a factory that makes the module, with its hooks",
        )
    return copied(module)


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


class KeyedDropout(nn.Dropout):  # type: ignore[misc]
    """``nn.Dropout`` whose mask is a function of key, epoch, step and the order of dropouts within the step."""

    moment: Moment

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: any shape, float32."""
        if not self.training or self.p == 0:
            return x
        m = self.moment
        kept = streams.keep(m.stream, x.numel(), self.p, m.epoch, m.step, m.draws)
        m.draws += 1
        mask = torch.from_numpy(kept * dropout_scale(self.p)).reshape(x.shape)
        return x.mul_(mask) if self.inplace else x * mask


def dropout_scale(p: float) -> np.float32:
    """What kept values are multiplied by."""
    return np.float32(1.0 / (1.0 - float(np.float32(p))) if p < 1 else 0.0)


def replace(module: nn.Module, makers: Mapping[type[nn.Module], Callable[[Any], nn.Module]]) -> nn.Module:
    """A copy of ``module`` with every submodule of exactly one of these types replaced.

    Args:
        makers: what takes the old submodule and gives the new one, by type.
    """
    changed = copy.deepcopy(module)
    made: dict[nn.Module, nn.Module] = {}
    old = [(name, part) for name, part in changed.named_modules(remove_duplicate=False) if type(part) in makers]
    for name, part in old:
        if part not in made:
            made[part] = makers[type(part)](part)
            made[part].train(part.training)
        if not name:
            return made[part]
        parent, _, child = name.rpartition(".")
        setattr(changed.get_submodule(parent), child, made[part])
    return changed


def key_dropout(module: nn.Module, moment: Moment) -> None:
    """Let a module's ``nn.Dropout`` draw from the key's stream.

    In place, and by their class alone: a copy would lose hooks on tensors, and hooks and forwards that hold on to the
    module they were made for; another object in a dropout's place would lose its hooks.
    """
    for part in module.modules():
        if type(part) in (nn.Dropout, KeyedDropout) and "forward" not in part.__dict__:
            part.__class__ = KeyedDropout
            part.moment = moment


def blank(factory: Factory, key: str, row: tuple[int, ...], settings: Mapping[str, Any], seed: int) -> nn.Module:
    """A key's module, whose numbers are still to come; what it draws beside them is as when it was trained.

    Args:
        seed: the recipe's.
    """
    empty = np.zeros((0, *row), np.float32)
    own = {name: value for name, value in settings.items() if name not in OWN}
    stream = streams.stream_of(settings.get("seed", seed), key)
    return factory(Job(key, 0, stream, Task(empty, empty), 0, 0.0, 0.0, settings=own)).eval()


def copied(module: nn.Module) -> nn.Module:
    """A copy with the hooks on its parameters, which ``copy.deepcopy`` leaves out.

    Tensors that a module computes from its parameters (as ``nn.utils.weight_norm`` does), which it refuses, come as
    plain numbers: such modules compute them anew whenever they are called.
    """
    memo: dict[int, Any] = {}
    for part in module.modules():
        for value in part.__dict__.values():
            if isinstance(value, torch.Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    made: nn.Module = copy.deepcopy(module, memo)
    for old, new in zip(module.parameters(), made.parameters(), strict=True):
        for hook in (old._backward_hooks or {}).values():
            new.register_hook(hook)
        for hook in (old._post_accumulate_grad_hooks or {}).values():
            new.register_post_accumulate_grad_hook(hook)
    return made
