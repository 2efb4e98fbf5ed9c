"""What a module is apart from its numbers, and what about it only Python can see."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import types
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_OF_TENSORS = ("_backward_hooks", "_post_accumulate_grad_hooks")
_DEEPEST = 6  # values within values that are looked into


def own_ways(module: nn.Module) -> str:
    """What a module does that its types and numbers do not tell: hooks, and methods replaced on an instance.

    An engine that reads a module's layers, or puts others in their place, would not do these.

    Returns:
        the first that is found, as a sentence; "" for none.
    """
    for name, part in module.named_modules():
        called = f"its {type(part).__name__}{f' {name!r}' if name else ''}"
        if any(getattr(part, held, None) for held in _HOOKS):
            return f"{called} has hooks"
        for attribute in part.__dict__.keys() - _EVERY:
            if isinstance(getattr(type(part), attribute, None), types.FunctionType):
                return f"{called} has a {attribute} of its own, set on the instance"
    for name, tensor in module.named_parameters():
        if any(getattr(tensor, held, None) for held in _OF_TENSORS):
            return f"its parameter {name!r} has hooks"
    return ""


def loose_numbers(module: nn.Module) -> tuple[tuple[str, str], ...]:
    """Tensors and arrays that a module keeps outside of its state: names, and digests of what they hold.

    No file holds them and no engine hands them from key to key, so they must be the same for all keys. Those that
    ``nn.utils.spectral_norm`` and the like compute whenever they are called do not count.
    """
    found = []
    for name, part in module.named_modules():
        values = [(k, v) for k, v in part.__dict__.items() if k not in _EVERY]
        values += [(k, part._buffers[k]) for k in sorted(part._non_persistent_buffers_set)]
        for key, value in values:
            if isinstance(value, torch.Tensor) and value.is_leaf and f"{key}_orig" not in part._parameters:
                value = value.detach().cpu().numpy()
            if isinstance(value, np.ndarray):
                digest = hashlib.blake2b(np.ascontiguousarray(value).tobytes(), digest_size=8)
                found.append((f"{name}.{key}".lstrip("."), digest.hexdigest()))
    return tuple(found)


def signature(module: nn.Module) -> tuple[Any, ...]:
    """What makes two modules the same but for their weights: types, attributes, hooks, shapes. Plain values."""
    return tuple(
        (
            name,
            f"{type(part).__module__}.{type(part).__qualname__}",
            tuple((k, described(v)) for k, v in _said(part)),
            tuple((k, _tensor(p)) for k, p in part._parameters.items() if p is not None),
        )
        for name, part in module.named_modules()
    )


def parts(module: nn.Module) -> dict[str, str]:
    """The type of each of a module's parts by name, its own by ""."""
    return {name: type(part).__name__ for name, part in module.named_modules()}


_EVERY = frozenset(nn.Module().__dict__)  # what every module has: hooks and the like, most of them empty
_ELSEWHERE = {"training", "_parameters", "_modules"}  # of these, told by other means


def _said(part: nn.Module) -> list[tuple[str, Any]]:
    found = [(k, v) for k, v in part.__dict__.items() if k not in _EVERY or (v and k not in _ELSEWHERE)]
    return sorted(found, key=lambda pair: pair[0])


def _tensor(p: torch.Tensor) -> Any:
    return tuple(p.shape), p.requires_grad, tuple(described(getattr(p, held, None)) for held in _OF_TENSORS)


def code_of(module: nn.Module) -> tuple[Any, ...]:
    """The code of every class of its parts that is not torch's own. Plain values."""
    kinds = {kind for part in module.modules() for kind in type(part).__mro__ if not _is_known(kind)}
    return tuple(described(kind) for kind in sorted(kinds, key=lambda kind: (kind.__module__, kind.__qualname__)))


def _is_known(kind: type) -> bool:
    return kind.__module__.partition(".")[0] in ("torch", "builtins", "hasten")


def described(value: Any, depth: int = 0) -> Any:
    """A value as plain ones that are the same in another process: functions by their code, objects by their type."""
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes, torch.dtype, torch.device)):
        return repr(value)
    if isinstance(value, np.generic):
        return repr(value.item())
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return f"{value.dtype} {tuple(value.shape)}"
    if depth >= _DEEPEST:
        return type(value).__qualname__
    if isinstance(value, Mapping):
        return tuple((k if isinstance(k, str) else "", described(v, depth + 1)) for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(described(v, depth + 1) for v in value)
    if isinstance(value, (set, frozenset)):
        return tuple(sorted(str(described(v, depth + 1)) for v in value))
    return _of_code(value, depth + 1)


def _of_code(value: Any, depth: int) -> Any:
    if isinstance(value, types.CodeType):
        return (value.co_code.hex(), value.co_names, tuple(described(c, depth) for c in value.co_consts))
    if isinstance(value, types.FunctionType):
        free = tuple(described(cell, depth) for cell in _cells(value))
        given = described((value.__defaults__, value.__kwdefaults__), depth)
        return (value.__qualname__, described(value.__code__, depth), free, given)
    if isinstance(value, types.MethodType):
        return (described(value.__func__, depth), type(value.__self__).__qualname__)
    if isinstance(value, functools.partial):
        return described([value.func, value.args, value.keywords], depth)
    if isinstance(value, (staticmethod, classmethod)):
        return described(value.__func__, depth)
    if isinstance(value, property):
        return described(value.fget, depth)
    if isinstance(value, type):
        name = f"{value.__module__}.{value.__qualname__}"
        return name if _is_known(value) else (name, *_methods(value, depth))
    named = getattr(value, "__qualname__", "")  # of what is written in C
    return f"{type(value).__module__}.{type(value).__qualname__} {named}"


def _cells(function: types.FunctionType) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # a cell that was not filled
            yield cell.cell_contents


def _methods(kind: type, depth: int) -> Iterator[Any]:
    for name, value in sorted(vars(kind).items()):
        if isinstance(value, (types.FunctionType, staticmethod, classmethod, property)):
            yield name, described(value, depth)
