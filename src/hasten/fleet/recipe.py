"""How every model of a fleet is trained."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import Any, NoReturn

from hasten.core.errors import UsageError
from hasten.fleet import losses

OPTIMIZERS = ("sgd", "adam", "adamw")


@dataclass(frozen=True)
class EarlyStop:
    """Stop a model when its validation loss no longer falls, and keep its best weights.

    Attributes:
        patience: epochs without a better loss that are waited for.
        min_delta: how much lower counts as better, in the loss's unit.
        fraction: share of a key's rows held out; at least one row.
        split: ``"last"`` holds out the last rows (time series), ``"random"`` a random choice of them.
    """

    patience: int = 5
    min_delta: float = 0.0
    fraction: float = 0.2
    split: str = "last"

    def __post_init__(self) -> None:
        object.__setattr__(self, "patience", counted("patience", self.patience))
        for name in ("min_delta", "fraction"):
            object.__setattr__(self, name, number(name, getattr(self, name), None))
        if self.patience < 1 or not 0 < self.fraction < 1 or self.min_delta < 0:
            raise UsageError(
                f"EarlyStop(patience={self.patience}, min_delta={self.min_delta}, fraction={self.fraction})",
                "patience counts epochs from 1 on, fraction is a share between 0 and 1, min_delta is not negative",
                "EarlyStop(patience=5, fraction=0.2)",
            )
        if self.split not in ("last", "random"):
            raise UsageError(f"split={self.split!r}", "a typing error", 'split="last" or split="random"')


@dataclass(frozen=True)
class Recipe:
    """Everything besides data and model that decides what is learned.

    Attributes:
        loss: a ``Loss``, or a callable ``(predicted, y) -> scalar``.
        optimizer: a name of ``OPTIMIZERS``, or a callable ``parameters -> torch.optim.Optimizer``.
        lr, weight_decay, momentum, nesterov, betas, eps: the optimizer's, as in ``torch.optim``.
        clip: largest 2-norm of a model's gradient; None does not clip.
        epochs, batch_size, seed: as in the plain loop; the last batch of an epoch holds what is left.
        stop: when a model stops early; a number is a patience.
    """

    loss: Any = "mse"
    optimizer: Any = "adam"
    lr: float = 1e-3
    epochs: int = 20
    batch_size: int = 64
    seed: int = 0
    weight_decay: float = 0.0
    momentum: float = 0.0
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    clip: float | None = None
    stop: EarlyStop | None = None

    def __post_init__(self) -> None:
        own = {"loss": losses.named(self.loss), "stop": stop_of(self.stop), "seed": counted("seed", self.seed, None)}
        own |= {name: counted(name, getattr(self, name), 1) for name in ("epochs", "batch_size")}
        own |= {name: number(name, getattr(self, name)) for name in ("lr", "weight_decay", "momentum", "eps")}
        own |= {"betas": _betas(self.betas), "nesterov": bool(self.nesterov)}
        if self.clip is not None:
            own["clip"] = number("clip", self.clip)
        for name, value in own.items():
            object.__setattr__(self, name, value)
        if self.optimizer not in OPTIMIZERS and not callable(self.optimizer):
            _no_optimizer(self.optimizer)
        if self.nesterov and self.optimizer == "sgd" and not self.momentum:
            raise UsageError("nesterov=True and momentum=0", "it is a way to use momentum", "momentum=0.9")
        if self.clip is not None and not self.clip > 0:
            raise UsageError(f"clip={self.clip!r}", "the norm's limit must be positive", "clip=1.0, or None")

    @property
    def plain(self) -> bool:
        """Whether loss and optimizer are ones that every engine knows."""
        return isinstance(self.loss, losses.Loss) and isinstance(self.optimizer, str)


def counted(name: str, value: Any, least: int | None = 0) -> int:
    """A whole number as Python's own, also one of NumPy's.

    Args:
        least: it may be no smaller; None for no limit.

    Raises:
        UsageError: it is no whole number, or too small.
    """
    try:
        found = operator.index(value)
    except TypeError:
        whole = int(value) if isinstance(value, float) and value.is_integer() else 20 if least else 0
        raise UsageError(f"{name}={value!r}", "it is a whole number", f"{name}={whole}") from None
    if least is not None and found < least:
        raise UsageError(f"{name}={value!r}", f"it counts from {least} on", f"{name}={20 if least else 0}")
    return found


def number(name: str, value: Any, least: float | None = 0.0) -> float:
    """A number as Python's own, also one of NumPy's.

    Raises:
        UsageError: it is none, not finite, or smaller than ``least``.
    """
    try:
        found = float(value)
    except (TypeError, ValueError):
        raise UsageError(f"{name}={value!r}", "it is a number", f"{name}=0.001") from None
    if not math.isfinite(found) or (least is not None and found < least):
        raise UsageError(f"{name}={value!r}", "it must be finite and not negative", f"{name}=0.001")
    return found


def stop_of(stop: Any) -> EarlyStop | None:
    """``stop=3`` is a patience."""
    if stop is None or isinstance(stop, EarlyStop):
        return stop
    if isinstance(stop, bool) or not hasattr(stop, "__index__"):
        raise UsageError(f"stop={stop!r}", "it says when a model stops early", "stop=EarlyStop(patience=3)")
    return EarlyStop(operator.index(stop))


def _betas(betas: Any) -> tuple[float, float]:
    try:
        first, second = betas
    except (TypeError, ValueError):
        raise UsageError(f"betas={betas!r}", "Adam has two", "betas=(0.9, 0.999)") from None
    found = number("betas", first), number("betas", second)
    if max(found) >= 1:
        raise UsageError(f"betas={betas!r}", "each is the weight of what was, below 1", "betas=(0.9, 0.999)")
    return found


def _no_optimizer(optimizer: Any) -> NoReturn:
    if hasattr(optimizer, "param_groups"):
        raise UsageError(
            f"the optimizer is an {type(optimizer).__name__} that was made for some parameters",
            "each key needs one of its own",
            f"optimizer=lambda p: torch.optim.{type(optimizer).__name__}(p, lr=1e-3)",
        )
    raise UsageError(
        f"there is no optimizer {optimizer!r}",
        "a typing error, or one that only torch has",
        f"one of {', '.join(OPTIMIZERS)}, or optimizer=lambda p: torch.optim.RMSprop(p, lr=1e-3)",
    )
