"""Samples as a skeleton and its leaves; batches put together as ``default_collate`` does, but at once."""

from __future__ import annotations

import functools
import math
import pickle
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


class Unsupported(Exception):
    """A sample holds something that cannot be kept as bytes."""


class Marked:
    """The value between prefix and suffix, inside a sample."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


@dataclass(frozen=True, slots=True)
class Leaf:
    """What is needed to rebuild one leaf from its bytes: kind, dtype, shape as it lies in memory, and besides the mode
    of a picture, or the order of a tensor's dimensions where they lie in another one."""

    kind: str  # "tensor", "array", "scalar", "int", "float", "bool", "image", "notes", "str", "bytes", "none"
    dtype: str
    shape: tuple[int, ...]
    extra: str = ""

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * _itemsize(self.dtype)


@functools.cache
def _itemsize(dtype: str) -> int:
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


def flatten(sample: Any) -> tuple[Any, list[tuple[Leaf, bytes]]]:
    """Skeleton (containers with :class:`Leaf` in place of data) and the leaves' bytes, in order.

    Raises:
        Unsupported: a leaf is no tensor, array, number, text or picture, or a mapping is no plain dict.
    """
    leaves: list[tuple[Leaf, bytes]] = []

    def walk(value: Any) -> Any:
        if isinstance(value, Marked):
            return (Marked, "mark", [walk(value.value)])
        if type(value) in (dict, OrderedDict):  # others may hold more than their items
            return (type(value), "map", [(k, walk(v)) for k, v in value.items()])
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return (type(value), "named", [walk(v) for v in value])
        if type(value) in (tuple, list):
            return (type(value), "seq", [walk(v) for v in value])
        leaf, content = _to_bytes(value)
        leaves.append((leaf, content))
        if leaf.kind == "image" and value.info:  # EXIF, resolution, …: it may say how the picture is to be turned
            notes = pickle.dumps(value.info, protocol=5)
            leaves.append((Leaf("notes", "|u1", (len(notes),)), notes))
            return (type(value), "picture", [leaf, leaves[-1][0]])
        return leaf

    return walk(sample), leaves


def _to_bytes(value: Any) -> tuple[Leaf, bytes]:
    import torch

    if type(value) is torch.Tensor or type(value) is torch.nn.Parameter:
        return _tensor_bytes(value)
    if type(value) is np.ndarray and value.dtype.kind in "biufc":
        return Leaf("array", value.dtype.str, value.shape), np.ascontiguousarray(value).tobytes()
    if isinstance(value, np.generic) and value.dtype.kind in "biuf":
        return Leaf("scalar", value.dtype.str, ()), value.tobytes()
    if type(value) is bool:
        return Leaf("bool", "|b1", ()), np.bool_(value).tobytes()
    if type(value) is int:
        if not -(2**63) <= value < 2**63:
            raise Unsupported("an integer beyond 64 bits")
        return Leaf("int", "<i8", ()), np.int64(value).tobytes()
    if type(value) is float:
        return Leaf("float", "<f8", ()), np.float64(value).tobytes()
    if value is None:
        return Leaf("none", "|u1", (0,)), b""
    if type(value) is str:
        text = value.encode("utf-8", "surrogatepass")
        return Leaf("str", "|u1", (len(text),)), text
    if type(value) is bytes:
        return Leaf("bytes", "|u1", (len(value),)), value
    if _is_picture(value) and value.mode in ("L", "RGB", "RGBA", "CMYK", "I;16", "F", "I"):
        array = np.asarray(value)
        return Leaf("image", array.dtype.str, array.shape, value.mode), array.tobytes()
    raise Unsupported(f"a {type(value).__name__}")


def _is_picture(value: Any) -> bool:
    """One in memory; those of other classes know a file, a format and more."""
    kind = type(value)
    return kind.__module__ == "PIL.Image" and kind.__name__ == "Image"


def _tensor_bytes(value: Any) -> tuple[Leaf, bytes]:
    import torch

    if value.requires_grad or value.layout is not torch.strided or value.device.type != "cpu" or value.is_quantized:
        raise Unsupported("a tensor that needs a gradient, is sparse, or lies on a device")
    dtype = str(value.dtype).removeprefix("torch.")
    flat, order = value.resolve_conj().resolve_neg(), _order(value)
    if order:
        flat = flat.permute(order)
    flat = flat.contiguous()
    back = ",".join(str(order.index(d)) for d in range(len(order)))
    if value.dtype is torch.bfloat16:
        return Leaf("tensor", dtype, tuple(flat.shape), back), flat.view(torch.int16).numpy().tobytes()
    try:
        array = flat.numpy()
    except TypeError:
        raise Unsupported(f"a tensor of {dtype}") from None
    return Leaf("tensor", array.dtype.str, tuple(flat.shape), back), array.tobytes()


def _order(tensor: Any) -> list[int]:
    """A tensor's dimensions as they lie in memory, where that is another order; a collate function may see it."""
    strides = tensor.stride()
    if tensor.dim() < 2 or tensor.is_contiguous() or 0 in strides:
        return []
    order = sorted(range(tensor.dim()), key=lambda d: (-strides[d], d))
    return order if order != list(range(tensor.dim())) else []


def laid_out(tensor: Any, leaf: Leaf, first: int = 0) -> Any:
    """A tensor of a leaf's shape in memory with its dimensions in their order, behind ``first`` others."""
    if leaf.kind != "tensor" or not leaf.extra:
        return tensor
    return tensor.permute(*range(first), *(first + int(d) for d in leaf.extra.split(",")))


def alike(skeleton: Any) -> Callable[[Any], bool]:
    """What tells whether a sample has this very skeleton, in a fraction of :func:`flatten`'s time; False may also mean
    that only :func:`flatten` can tell."""
    if isinstance(skeleton, Leaf):
        return _alike_leaf(skeleton)
    kind, form, children = skeleton
    if form in ("mark", "picture"):
        return lambda value: False
    if form == "map":
        names, parts = [k for k, _ in children], [alike(v) for _, v in children]
        return lambda value: (
            type(value) is kind and list(value) == names and all(f(value[k]) for f, k in zip(parts, names, strict=True))
        )
    parts, count = [alike(v) for v in children], len(children)
    return lambda value: (
        type(value) is kind and len(value) == count and all(f(v) for f, v in zip(parts, value, strict=True))
    )


def _alike_leaf(leaf: Leaf) -> Callable[[Any], bool]:
    import torch

    if leaf.kind == "tensor" and not leaf.extra:
        name, shape, strided = leaf.dtype, leaf.shape, torch.strided
        dtype = torch.bfloat16 if name == "bfloat16" else torch.from_numpy(np.empty(0, name)).dtype
        return lambda value: (
            type(value) is torch.Tensor
            and value.dtype is dtype
            and value.shape == shape
            and value.layout is strided
            and value.is_cpu
            and not value.requires_grad
            and (len(shape) < 2 or value.is_contiguous())
        )
    if leaf.kind == "array":
        return lambda value: type(value) is np.ndarray and value.dtype.str == leaf.dtype and value.shape == leaf.shape
    if leaf.kind == "scalar":
        return lambda value: isinstance(value, np.generic) and value.dtype.str == leaf.dtype
    if leaf.kind == "int":
        return lambda value: type(value) is int and -(2**63) <= value < 2**63
    plain = {"float": float, "bool": bool}.get(leaf.kind)
    return lambda value: plain is not None and type(value) is plain


def rebuild(skeleton: Any, content: memoryview) -> Any:
    """A fresh sample from its skeleton and the concatenated bytes of its leaves (the bytes are copied)."""
    position = 0

    def walk(node: Any) -> Any:
        nonlocal position
        if isinstance(node, Leaf):
            part = content[position : position + node.nbytes]
            position += node.nbytes
            return _from_bytes(node, part)
        kind, form, children = node
        if form == "map":
            return kind((k, walk(v)) for k, v in children)
        if form in ("named", "mark"):
            return kind(*(walk(v) for v in children))
        if form == "picture":
            picture, notes = (walk(v) for v in children)
            picture.info = pickle.loads(notes)
            return picture
        return kind(walk(v) for v in children)

    return walk(skeleton)


def _from_bytes(leaf: Leaf, part: memoryview) -> Any:
    import torch

    if leaf.kind in ("none", "bytes", "notes"):
        return None if leaf.kind == "none" else bytes(part)
    if leaf.kind == "str":
        return bytes(part).decode("utf-8", "surrogatepass")
    if leaf.dtype == "bfloat16":
        raw = np.frombuffer(bytearray(part), np.int16).reshape(leaf.shape)
        return laid_out(torch.from_numpy(raw).view(torch.bfloat16), leaf)
    array = np.frombuffer(bytearray(part), np.dtype(leaf.dtype)).reshape(leaf.shape)
    if leaf.kind == "tensor":
        return laid_out(torch.from_numpy(array), leaf)
    if leaf.kind == "array":
        return array
    if leaf.kind == "scalar":
        return array[()]
    if leaf.kind == "image":
        from PIL import Image

        return Image.fromarray(array, leaf.extra)
    return array.item()


def pack_skeleton(skeleton: Any) -> bytes:
    """A skeleton as bytes, for records of varying shape (only ever read back by the process family that wrote it).

    Raises:
        Unsupported: a container's type cannot be pickled.
    """
    try:
        return pickle.dumps(skeleton, protocol=5)
    except (pickle.PicklingError, AttributeError, TypeError):
        raise Unsupported("a container that cannot be pickled") from None


@functools.lru_cache(maxsize=256)
def unpack_skeleton(content: bytes) -> Any:
    return pickle.loads(content)


def batch_like(collated: Any, skeleton: Any, columns: list[Any]) -> Any:
    """A batch with the structure that ``default_collate`` gave to an earlier batch of the same skeleton.

    Args:
        collated: that earlier batch.
        skeleton: of one sample.
        columns: one stacked tensor per leaf, in order.

    Raises:
        Unsupported: structure and skeleton do not match.
    """
    rest = iter(columns)

    def walk(node: Any, like: Any) -> Any:
        import torch

        if isinstance(node, Leaf):
            if not isinstance(like, torch.Tensor):
                raise Unsupported("a leaf that was not collated to a tensor")
            column = next(rest)
            if column.dtype != like.dtype or column.shape[1:] != like.shape[1:]:
                raise Unsupported("a leaf that was collated to another shape or dtype")
            return column
        _, form, children = node
        if form == "map":
            return type(like)({k: walk(v, like[k]) for k, v in children})
        parts = [walk(v, x) for v, x in zip(children, like, strict=True)]
        return type(like)(*parts) if form == "named" else type(like)(parts)

    return walk(skeleton, collated)


def columns_of(collated: Any, skeleton: Any) -> list[Any]:
    """The stacked tensors of a collated batch, one per leaf of the skeleton, in order."""
    found: list[Any] = []

    def walk(node: Any, like: Any) -> None:
        if isinstance(node, Leaf):
            found.append(like)
            return
        _, form, children = node
        for i, child in enumerate(children):
            walk(child[1], like[child[0]]) if form == "map" else walk(child, like[i])

    walk(skeleton, collated)
    return found
