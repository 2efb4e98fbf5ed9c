"""Which tensors a model is given again and again, and whether anything differentiates what it makes of them.

Held-out data that lie in a tensor are told by that from data that are trained on, where neither a loader nor eval mode
tells: ``net(X_test)`` after every step.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

MOST = 256  # tensors that are known at once; more are a pass in small pieces, which begins with one that is known

Key = tuple[int, int, int, int]


class Input:
    """A tensor, or a slice of one, as it was when a model was given it.

    Attributes:
        tensor: a reference to it, or to what it is a slice of.
        step: when it was given first.
        used: a call with it was differentiated.
    """

    __slots__ = ("step", "tensor", "used")

    def __init__(self, tensor: Callable[[], Any], step: int) -> None:
        self.tensor, self.step, self.used = tensor, step, False

    def differentiated(self, *_gradients: Any) -> None:
        self.used = True


class Inputs:
    """Inputs of calls in train mode.

    Attributes:
        looking: whether calls are to be told; until :meth:`settle`, then only where held-out data were found.
        found: whether some were.
    """

    def __init__(self) -> None:
        self.looking = True
        self.found = False
        self._known: dict[Key, Input] = {}
        self._given: Input | None = None  # to the call that runs

    def again(self, given: Any, step: int) -> bool:
        """Whether a call's data were given to one before an earlier step, none of which was differentiated."""
        self._given = None
        try:
            tensor = next(tensors(given))
            base = tensor if tensor._base is None else tensor._base
            key = (id(base), tensor.storage_offset(), tensor.numel(), tensor._version)
        except Exception:  # no tensor, or one that does not lie in memory (sparse), or of a transform's (vmap)
            return False
        known = self._known.get(key)
        if known is None or known.tensor() is not base:
            if len(self._known) >= MOST:
                self._forget()
            if len(self._known) >= MOST:
                return False
            known = self._known[key] = Input(weakref.ref(base), step)
        self._given = known
        if known.used or known.step >= step:
            return False
        self.found = True
        return True

    def follow(self, made: Any) -> None:
        """Have the call that has just ended told when it is differentiated."""
        given, self._given = self._given, None
        if given is not None and not given.used and not follow(made, given.differentiated):
            given.used = True  # it may be

    def settle(self) -> None:
        """Enough was seen: look no longer, unless held-out data were found."""
        self.looking = self.found

    def _forget(self) -> None:
        self._known = {key: known for key, known in self._known.items() if known.tensor() is not None}


def follow(made: Any, differentiated: Callable[..., None]) -> bool:
    """Have ``differentiated`` called when the graph of a call's output is; False where that cannot be."""
    try:
        for tensor in tensors(made):
            if tensor.grad_fn is not None:
                tensor.grad_fn.register_prehook(differentiated)
    except Exception:
        return False
    return True


def tensors(value: Any) -> Iterator[Any]:
    """The tensors of a batch, of a call's arguments, or of what it returns."""
    import torch

    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for one in value:
            yield from tensors(one)
    elif isinstance(value, dict):
        for one in value.values():
            yield from tensors(one)
