"""Losses by name. Each is the mean over a batch, as the plain loop has it, and takes rows that do not count."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from hasten.core.errors import UsageError

KINDS = ("mse", "mae", "huber", "quantile", "cross_entropy", "bce")
ROWS = 5  # that a callable loss is tried on
_DEFAULTS = {"huber": 1.0, "quantile": 0.5}


@dataclass(frozen=True)
class Loss:
    """A loss that all engines know.

    Attributes:
        kind: one of ``KINDS``. ``bce`` takes logits; ``cross_entropy`` takes logits and class numbers.
        parameter: Huber's delta, or the quantile in (0, 1).
    """

    kind: str
    parameter: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"there is no loss {self.kind!r}", "a typing error", f"one of {', '.join(KINDS)}")
        object.__setattr__(self, "parameter", float(self.parameter))
        if self.kind == "quantile" and not 0 < self.parameter < 1:
            raise UsageError(f"a quantile of {self.parameter}", "it is a share", "fleet.Quantile(0.9)")
        if self.kind == "huber" and not self.parameter > 0:
            raise UsageError(f"a Huber delta of {self.parameter}", "it is a positive size", "fleet.Huber(1.0)")

    def __call__(self, predicted: torch.Tensor, y: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
        """The mean loss.

        Args:
            predicted: (rows, …), float32.
            y: of the same number of elements, float32; class numbers (rows,) for cross-entropy.
            weight: (rows,), 1 or 0; rows of 0 do not count.
        """
        if not isinstance(predicted, torch.Tensor):
            raise UsageError(
                f"the model gives a {type(predicted).__name__}, and no tensor", "a forward that returns several things",
                "a forward that returns the prediction alone",
            )  # fmt: skip
        try:
            each = _ELEMENTWISE[self.kind](predicted, self._shaped(predicted, y), self.parameter)
        except IndexError:
            if y.max() < predicted.shape[-1]:
                raise
            raise unknown_class(y.max().item(), predicted.shape[-1]) from None
        if weight is None:
            return each.mean()
        each = each.reshape(each.shape[0], -1)
        return (each * weight[:, None]).sum() / (weight.sum() * each.shape[1])

    def _shaped(self, predicted: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if self.kind == "cross_entropy":
            return y.reshape(-1).long()
        if predicted.shape == y.shape:
            return y
        if predicted.numel() != y.numel():
            raise UsageError(
                f"the model gives {tuple(predicted.shape)} and the target has {tuple(y.shape)}",
                "the last layer's width differs from the number of target columns",
                f"a last layer with {y[0].numel()} outputs",
            )
        return y.reshape(predicted.shape)


def unknown_class(highest: float, outputs: int) -> UsageError:
    """What is wrong where a target holds a class for which the model has no output."""
    return UsageError(
        f"the target holds class {highest:g}, and the model knows {outputs}, from 0 on",
        "the last layer's width differs from the number of classes",
        f"a last layer with {highest + 1:g} outputs",
    )


def _quantile(p: torch.Tensor, y: torch.Tensor, q: float) -> torch.Tensor:
    rest = y - p
    return torch.where(rest >= 0, q * rest, (q - 1) * rest)


_ELEMENTWISE: dict[str, Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]] = {
    "mse": lambda p, y, _: functional.mse_loss(p, y, reduction="none"),
    "mae": lambda p, y, _: functional.l1_loss(p, y, reduction="none"),
    "huber": lambda p, y, delta: functional.huber_loss(p, y, reduction="none", delta=delta),
    "quantile": _quantile,
    "cross_entropy": lambda p, y, _: functional.cross_entropy(p, y, reduction="none"),
    "bce": lambda p, y, _: functional.binary_cross_entropy_with_logits(p, y, reduction="none"),
}


def Quantile(q: float) -> Loss:
    """The pinball loss of Koenker and Bassett (1978) for quantile ``q`` in (0, 1)."""
    return Loss("quantile", q)


def Huber(delta: float = 1.0) -> Loss:
    """Huber's loss (1964): quadratic up to ``delta``, linear beyond."""
    return Loss("huber", delta)


def check_pairing(loss: Any, predicted: tuple[int, ...], y: tuple[int, ...]) -> None:
    """Check that a callable loss compares a row's prediction with that row's target, and not with every row's: the
    difference of (rows, 1) and (rows,) is (rows, rows).

    Args:
        predicted, y: shapes of one row.

    Raises:
        UsageError: it compares all with all.
    """
    if isinstance(loss, Loss) or predicted == y or math.prod(predicted) != math.prod(y):
        return
    random = torch.Generator().manual_seed(0)
    p, t = (0.1 + 0.8 * torch.rand(ROWS, *shape, generator=random) for shape in (predicted, y))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wrong = not _by_rows(loss, p, t) and _by_rows(loss, p, t.reshape(p.shape))
    except Exception:  # not made for such numbers
        return
    if wrong:
        raise UsageError(
            f"the loss compares each prediction with the targets of all rows: the model gives {('rows', *predicted)}, "
            f"the target has {('rows', *y)}".replace("'", ""),
            "a callable loss gets both as they are, and torch stretches them to one shape",
            "a loss that reshapes: lambda p, y: loss(p, y.reshape(p.shape)); or y with the model's shape",
        )


def _by_rows(loss: Any, p: torch.Tensor, t: torch.Tensor) -> bool:
    """Whether a loss is the mean or the sum of what it is for each row."""
    each = [float(loss(p[i : i + 1], t[i : i + 1])) for i in range(ROWS)]
    whole = float(loss(p, t))
    return any(math.isclose(whole, of, rel_tol=1e-3) for of in (sum(each) / ROWS, sum(each)))


def named(loss: Any) -> Any:
    """A ``Loss`` for a name (``"huber"``, ``"quantile:0.9"``), the object itself for anything that can be called.

    Raises:
        UsageError: neither.
    """
    if isinstance(loss, str):
        kind, _, parameter = loss.partition(":")
        try:
            return Loss(kind, float(parameter) if parameter else _DEFAULTS.get(kind, 0.0))
        except ValueError:
            raise UsageError(f"{parameter!r} is no number", "a typing error", f"loss={kind + ':0.9'!r}") from None
    if callable(loss):
        return loss
    raise UsageError(f"loss={loss!r}", "neither a name nor a callable", f"one of {', '.join(KINDS)}")
