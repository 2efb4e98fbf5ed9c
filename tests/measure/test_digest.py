"""Digests of whatever scripts hold."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hasten.measure.digest import as_close_as_rounding, raw, sha256


def test_a_single_element_of_any_stride_has_bytes() -> None:
    """A row of ``torch.from_numpy(np.linspace(…)[:, None])`` has stride 0: every such dataset could not be asked."""
    column = torch.from_numpy(np.linspace(-7, 10, 200)[:, None]).float()
    row = column[3]
    assert row.stride() == (0,)
    assert sha256((row, row)) == sha256((row.clone(memory_format=torch.contiguous_format),) * 2)
    assert raw(row) == row.numpy().tobytes()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.complex64])
def test_bytes_are_those_of_the_elements_in_order(dtype: torch.dtype) -> None:
    values = torch.arange(6).reshape(2, 3).to(dtype)
    assert raw(values.T.contiguous()) == raw(values.T) and len(raw(values)) == 6 * values.element_size()
    assert raw(values[:0]) == b"" and len(raw(values[0, 0])) == values.element_size()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rounding_is_told_from_another_number(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    a = torch.randn(64, 8).to(dtype)
    eps = torch.finfo(dtype).eps
    assert as_close_as_rounding(a * (1 + eps), a) and not as_close_as_rounding(1.1 * a, a)
    a[0, 0], a[1, 1] = math.nan, math.inf
    assert as_close_as_rounding(a.clone(), a) and not as_close_as_rounding(a.nan_to_num(0.0, 0.0, 0.0), a)
    assert not as_close_as_rounding(a[1:], a) and not as_close_as_rounding(a.double(), a)
    assert as_close_as_rounding(torch.arange(3), torch.arange(3))
