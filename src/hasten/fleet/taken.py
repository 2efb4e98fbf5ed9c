"""Rows that a module does not take, as a category that an embedding has no row for: which, and why."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from hasten.core.errors import HastenError, in_a_line
from hasten.fleet.arrays import Array
from hasten.fleet.loop import EVAL_ROWS, batches


def refusal(module: nn.Module, tensors: Mapping[str, torch.Tensor], X: Array, rows: npt.NDArray[np.int64]) -> str:
    """Why a module does not take these rows; "" where it does.

    Args:
        module: in evaluation mode. tensors: in place of its own, by name.
        X: (rows, …), float32. rows: numbers of the rows asked about.
    """
    with torch.no_grad(), _numbers_checked(module):
        for some in batches(rows, EVAL_ROWS):
            try:
                torch.func.functional_call(module, dict(tensors), (torch.from_numpy(X[some]),))
            except Exception as error:
                return in_a_line(error)
    return ""


@contextlib.contextmanager
def _numbers_checked(module: nn.Module) -> Iterator[None]:
    """torch says that an index is out of range, and not which, of what."""
    tables = [(name, part) for name, part in module.named_modules() if isinstance(part, nn.Embedding)]
    hooks = [part.register_forward_pre_hook(functools.partial(_check_numbers, name)) for name, part in tables]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _check_numbers(name: str, part: Any, given: Any) -> None:
    numbers = given[0]
    wrong = (numbers < 0) | (numbers >= part.num_embeddings)
    if wrong.any():
        raise HastenError(
            f"its embedding {name!r} has rows 0 to {part.num_embeddings - 1}, and its data ask for number "
            f"{int(numbers[wrong][0])}",
            "a category that was not counted when the table was made",
            "nn.Embedding with a row for each category, or other numbers",
        )
