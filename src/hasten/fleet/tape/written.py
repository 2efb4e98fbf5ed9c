"""Operations written out in simpler ones, where torch has no way to do so that can be traced."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

Pair = tuple[torch.Tensor, torch.Tensor]


def _std(
    x: torch.Tensor, dim: list[int] | None = None, *, correction: float | None = None, keepdim: bool = False
) -> torch.Tensor:
    over = dim or list(range(x.dim()))
    apart = x - x.mean(over, True)
    count = math.prod(x.shape[d] for d in over) - (1.0 if correction is None else correction)
    return ((apart * apart).sum(over, keepdim) * (1.0 / count)).sqrt()


def _weight_norm(v: torch.Tensor, g: torch.Tensor, dim: int = 0) -> Pair:
    """What ``weight_norm`` makes of direction and size, and the norm of each direction."""
    norm = (v * v).sum(_others(v, dim), True).sqrt()
    return v * (g / norm), norm


def _weight_norm_back(owed: torch.Tensor, v: torch.Tensor, g: torch.Tensor, norm: torch.Tensor, dim: int) -> Pair:
    along = (owed * v).sum(_others(v, dim), True)
    return (g / norm) * (owed - v * (along / (norm * norm))), along / norm


def _others(v: torch.Tensor, dim: int) -> list[int]:
    return [d for d in range(v.dim()) if d != dim]


def rules() -> dict[Any, Callable[..., Any]]:
    """By torch's operation."""
    aten = torch.ops.aten
    return {
        aten.std.correction: _std,
        aten._weight_norm_interface.default: _weight_norm,
        aten._weight_norm_interface_backward.default: _weight_norm_back,
    }
