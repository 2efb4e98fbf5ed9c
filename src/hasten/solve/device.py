"""Moments of tensors on a GPU: products run there, in float64, and only sums come back."""

from __future__ import annotations

from typing import Any

import numpy as np

from hasten.solve.kernel import Floats, Sums, heaviest, shift_of

FEW_ROWS = 1024  # whose mean is the shift


def on_device(x: Any) -> bool:
    """Whether ``x`` is a torch tensor that is not in the host's memory."""
    device = getattr(x, "device", None)
    return getattr(device, "type", "cpu") != "cpu"


def add(sums: Sums, x: Any, y: Any, weight: Any, cell: int) -> bool:
    """As ``Sums.add``, for a torch tensor ``x: (rows, features)`` on its device; ``y: (rows, targets)`` and weights lie
    there or in the host's memory.

    float64 products do not use TF32; on consumer GPUs float64 runs at 1/32 to 1/64 of float32's speed.
    """
    import torch

    sums.grow(cell + 1, sums.dense)
    y, weight = (None if v is None else torch.as_tensor(v, device=x.device) for v in (y, weight))
    if np.isnan(sums.shift[cell]).any() or sums.sums.weight[cell] <= 0:
        weights = None if weight is None else _host(weight)
        few = heaviest(weights, FEW_ROWS)
        at = few if weights is None else torch.as_tensor(few, device=x.device)
        sums.shift[cell] = 0.0
        if weights is None or len(few):
            here = _host(x[at]), None if y is None else _host(y[at]), None if weights is None else weights[few]
            sums.shift[cell] = shift_of(*here)
    both = x.double() if y is None else torch.cat([x.double(), y.double()], dim=1)
    c = both - torch.as_tensor(sums.shift[cell], device=x.device)
    rows, total = len(x), float(len(x))
    if weight is None:
        first = c.sum(dim=0)
    else:
        root = weight.double().sqrt()[:, None]
        c = c * root
        first = (c * root).sum(dim=0)
        rows, total = int((weight > 0).sum()), float(weight.double().sum())
    return sums.commit(cell, _host(first), _host(c.T @ c), rows, total)


def _host(x: Any) -> Floats:
    found: Floats = x.detach().double().cpu().numpy()
    return found
