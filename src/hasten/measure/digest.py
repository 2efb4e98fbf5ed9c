"""sha256 of any value made of tensors, arrays, containers and plain values; the random states of this process."""

from __future__ import annotations

import hashlib
import random
import sys
from typing import Any

import numpy as np


def raw(tensor: Any) -> bytes:
    """The bytes of a dense tensor, of any dtype, in the order of its elements."""
    import torch

    flat = tensor.detach().cpu().contiguous().reshape(-1)
    if flat.stride(0) != 1:  # of a single element (a row of ``np.linspace(...)[:, None]``) any stride is contiguous
        flat = flat.clone(memory_format=torch.contiguous_format)
    return bytes(flat.view(torch.uint8).numpy().tobytes())


def _feed(hasher: Any, value: Any) -> None:
    import torch

    if isinstance(value, torch.Tensor):
        hasher.update(f"{value.dtype}{tuple(value.shape)}".encode())
        if value.layout is not torch.strided:
            value = value.to_dense()
        hasher.update(raw(value))
    elif isinstance(value, np.ndarray):
        hasher.update(f"{value.dtype}{value.shape}".encode())
        hasher.update(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, dict):
        for key in value:
            hasher.update(str(key).encode())
            _feed(hasher, value[key])
    elif isinstance(value, (list, tuple)):
        hasher.update(str(len(value)).encode())
        for item in value:
            _feed(hasher, item)
    else:
        hasher.update(repr(value).encode())


def sha256(value: Any) -> str:
    hasher = hashlib.sha256()
    _feed(hasher, value)
    return hasher.hexdigest()


def random_states() -> dict[str, Any]:
    """The random states a script may draw from: Python's, torch's, and NumPy's once it is there.

    NumPy loads (and seeds) its own on first use, so asking for it would give every process another one.
    """
    import torch

    states: dict[str, Any] = {"python": random.getstate(), "torch": torch.get_rng_state()}
    if "numpy.random" in sys.modules:
        states["numpy"] = np.random.get_state(legacy=True)
    return states


def random_digest() -> str:
    """sha256 over all random states, those of devices, too."""
    import torch

    on_cuda = torch.cuda.is_available() and torch.cuda.is_initialized()
    return sha256([random_states(), torch.cuda.get_rng_state_all() if on_cuda else []])


def restore(states: dict[str, Any]) -> None:
    """Set the random states back to what :func:`random_states` returned."""
    import torch

    random.setstate(states["python"])
    torch.set_rng_state(states["torch"])
    if "numpy" in states:
        np.random.set_state(states["numpy"])


def same_states(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether nothing was drawn between two calls of :func:`random_states` (cheaper than digests)."""
    import torch

    if a["python"] != b["python"] or not torch.equal(a["torch"], b["torch"]) or a.keys() != b.keys():
        return False
    if "numpy" not in a:
        return True
    old, new = a["numpy"], b["numpy"]
    return bool(old[2:] == new[2:] and (old[1] == new[1]).all())


def signature(model: Any) -> str:
    """What a model is known by from one run to the next: its class, and how many numbers its parameters have."""
    return f"{type(model).__name__}[{sum(p.numel() for p in model.parameters())}]"


ALONE = 1e-3  # relative: what rows may differ by that were computed among others, in float32


def as_close_as_rounding(a: Any, b: Any) -> bool:
    """Whether two tensors are the same numbers but for rounding; NaN is as NaN, and infinity as infinity."""
    import torch

    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if not a.is_floating_point():
        return bool(torch.equal(a, b))
    x, y = a.double(), b.double()
    apart = torch.where((x == y) | (x.isnan() & y.isnan()), 0.0, x - y).norm()
    tolerance = max(ALONE, 4 * torch.finfo(a.dtype).eps)
    return bool(apart <= tolerance * y.nan_to_num(0.0, 0.0, 0.0).norm())
