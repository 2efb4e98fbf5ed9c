"""Rows of a whole batch, picked out of an array at once, and what may be done with them before they are a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Numbers:
    """An integer for every sample of a batch, int64 of shape (B,)."""

    each: Any

    def batch(self, given: set[int]) -> Any:
        import torch

        return torch.from_numpy(np.array(self.each, dtype=np.int64))


@dataclass(frozen=True)
class Picked:
    """A value for every sample of a batch.

    Attributes:
        each: tensor of shape (B, ...); for numbers of Python's own, their list.
        kind: what each of them is in the script: "tensor", "array" (of NumPy, at least one dimension), "scalar" (of
            NumPy), or "number".
    """

    each: Any
    kind: str

    def part(self, place: Any) -> Picked | None:
        """``value[place]`` of every sample, for an integer or a slice; None where that is no view of an array."""
        if self.kind not in ("tensor", "array") or self.each.dim() < 2:
            return None
        each = self.each[:, place]
        return Picked(each, "scalar" if self.kind == "array" and each.dim() == 1 else self.kind)

    def batch(self, given: set[int]) -> Any:
        """As ``default_collate`` puts them together: new memory, in order."""
        import torch

        if self.kind == "number":
            return torch.tensor(self.each, dtype=torch.float64 if type(self.each[0]) is float else None)
        each = self.each.contiguous()
        storage = each.untyped_storage()
        if storage.data_ptr() in given or storage.nbytes() != each.nbytes:
            return each.clone(memory_format=torch.contiguous_format)
        given.add(storage.data_ptr())
        return each


def picked(whole: Any, numbers: Numbers) -> Picked | None:
    """``whole[i]`` for every number: of a tensor, an array, or a list of numbers; None for anything else.

    Raises:
        IndexError: there is no such row.
    """
    import torch

    if type(whole) is list:
        each = [whole[i] for i in numbers.each.tolist()]
        kinds = set(map(type, each))
        return Picked(each, "number") if kinds in ({int}, {float}) else None
    tensor = _tensor(whole)
    if tensor is None or (tensor.dim() > 3 and not tensor.is_contiguous()):  # layouts are kept by stacking
        return None
    rows = torch.from_numpy(np.where(numbers.each < 0, numbers.each + len(tensor), numbers.each))
    each = tensor.index_select(0, rows)
    return Picked(each, "tensor" if whole is tensor else "array" if each.dim() > 1 else "scalar")


def window(whole: Any, low: Numbers, high: Numbers) -> Picked | None:
    """``whole[low:high]`` for every sample; None where one is cut off at an end, or where they differ in length."""
    import torch

    tensor = _tensor(whole)
    if tensor is None or (tensor.dim() > 2 and not tensor.is_contiguous()):
        return None
    lengths = high.each - low.each
    length = int(lengths[0])
    if length < 1 or (lengths != length).any() or low.each.min() < 0 or high.each.max() > len(tensor):
        return None
    shape, strides = tensor.shape[1:], tensor.stride()
    windows = tensor.as_strided((len(tensor) - length + 1, length, *shape), (strides[0], *strides))
    return Picked(windows.index_select(0, torch.from_numpy(low.each)), "tensor" if whole is tensor else "array")


def _tensor(whole: Any) -> Any:
    """A plain tensor in memory that is ``whole``, or shares its memory."""
    import torch

    if type(whole) in (np.ndarray, np.memmap):
        if whole.ndim < 1 or any(s < 0 for s in whole.strides) or not whole.dtype.isnative:
            return None
        return _shared(whole)
    plain = type(whole) is torch.Tensor and whole.device.type == "cpu" and whole.layout is torch.strided
    return whole if plain and whole.dim() and not whole.requires_grad else None


def _shared(array: Any) -> Any:
    import warnings

    import torch

    if array.flags.writeable:
        return torch.from_numpy(array)
    with warnings.catch_warnings():  # that it cannot be written: nobody will
        warnings.simplefilter("ignore")
        return torch.from_numpy(array)


# -- conversions of dtype ----------------------------------------------------------------------------------------------
# Each is called with what the script's call is given, and gives None for what is not read.


def _to(value: Any, dtype: Any, kinds: tuple[str, ...], kind: str) -> Picked | None:
    """``value`` in another dtype, where every way there rounds alike: not from floats to integers."""
    import torch

    if not isinstance(value, Picked) or value.kind not in kinds or not isinstance(dtype, torch.dtype):
        return None
    if value.kind == "number":
        return Picked(torch.tensor(value.each, dtype=dtype), kind)
    each = value.each
    if each.dtype is not dtype and (each.is_complex() or (each.is_floating_point() and not dtype.is_floating_point)):
        return None
    return Picked(each.to(dtype), kind)


def _tensor_of(value: Any, dtype: Any = None) -> Picked | None:
    """``torch.tensor(x)``, ``torch.as_tensor(x)``."""
    import torch

    if not isinstance(value, Picked) or value.kind == "tensor":
        return None
    if value.kind == "number":
        each = torch.tensor(value.each, dtype=dtype)
        return Picked(each, "tensor")
    return _to(value, dtype or value.each.dtype, ("array", "scalar"), "tensor")


def _from_numpy(value: Any) -> Picked | None:
    return Picked(value.each, "tensor") if isinstance(value, Picked) and value.kind == "array" else None


def _legacy(name: str) -> Callable[[Any], Picked | None]:
    """``torch.FloatTensor(x)`` and its like."""

    def make(value: Any) -> Picked | None:
        import torch

        return _to(value, getattr(torch, name), ("array",), "tensor")

    return make


def _method(name: str) -> Callable[[Any], Picked | None]:
    """``x.float()`` and its like."""

    def convert(value: Any) -> Picked | None:
        import torch

        return _to(value, getattr(torch, name), ("tensor",), "tensor")

    return convert


def _numpy_type(name: str) -> Callable[[Any], Picked | None]:
    """``np.float32(x)`` and its like."""
    return lambda value: _astype(value, getattr(np, name))


def _astype(value: Any, dtype: Any) -> Picked | None:
    import torch

    try:
        wanted = torch.from_numpy(np.empty(0, np.dtype(dtype))).dtype
    except TypeError:
        return None
    return _to(value, wanted, ("array", "scalar"), getattr(value, "kind", ""))


CONVERSIONS: dict[str, Callable[..., Any]] = {
    "torch.tensor": _tensor_of,
    "torch.as_tensor": _tensor_of,
    "torch.from_numpy": _from_numpy,
    "torch.FloatTensor": _legacy("float32"),
    "torch.LongTensor": _legacy("int64"),
    "torch.is_tensor": lambda value: False if isinstance(value, Numbers) else None,
    **{f"numpy.{name}": _numpy_type(name) for name in ("float32", "float64", "int64")},
}
METHODS: dict[str, Callable[..., Any]] = {
    "astype": _astype,
    **{way: _method(name) for way, name in (("float", "float32"), ("double", "float64"), ("long", "int64"))},
}
