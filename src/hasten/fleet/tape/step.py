"""A step's tape, made once for a kind of models, and run on the rows of a stack."""

from __future__ import annotations

import contextlib
import copy
import ctypes
import random
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from hasten.fleet.native.build import NoCompiler, kernel
from hasten.fleet.recipe import Recipe
from hasten.fleet.state import Layout
from hasten.fleet.tape.lower import Lowering, bound
from hasten.fleet.tape.program import Buffer, View, chained, packed
from hasten.fleet.tape.trace import NotATape, traced

FLAT, X, Y, ROWS, MASKS = range(1, 6)  # spaces; behind the masks: constants, losses, gradients

_made: weakref.WeakKeyDictionary[nn.Module, dict[Any, Any]] = weakref.WeakKeyDictionary()  # by prototype


class Program:
    """The words of a tape.

    Attributes:
        unused: parameters without a gradient.
    """

    def __init__(self, module: nn.Module, layout: Layout, recipe: Recipe, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """shapes: of x, y, rows, and of each dropout's mask by its name among the buffers."""
        entries = {e.name: e for e in layout.entries}
        masks = [name for name in shapes if name not in ("x", "y", "rows")]
        self.spaces = MASKS + len(masks) + 2
        params = {e.name: torch.zeros(e.shape) for e in layout.entries if e.trains}
        buffers = {e.name: torch.ones(e.shape, dtype=e.dtype) for e in layout.entries if not e.trains}
        known = list(buffers)
        buffers |= {name: torch.ones(shapes[name]) for name in masks}
        norms = [f"{n}.rows" if n else "rows" for n, m in module.named_modules() if "rows" in m._buffers]
        buffers |= dict.fromkeys(norms, torch.ones(shapes["rows"]))
        batch = tuple(torch.ones(shapes[name]) for name in ("x", "y", "rows"))
        with _unchanged(module):
            graph = traced(module, recipe.loss, params, buffers, batch)

        def own(name: str) -> View | None:
            e = entries[name]
            return bound(Buffer(e.size, FLAT, e.start), e.shape) if e.dtype == torch.float32 else None

        def row(space: int, shape: tuple[int, ...]) -> View:
            return bound(Buffer(int(np.prod(shape)), space), shape)

        inputs = [own(name) for name in params] + [own(name) for name in known]
        inputs += [row(MASKS + k, shapes[name]) for k, name in enumerate(masks)]
        inputs += [row(ROWS, shapes["rows"])] * len(norms)
        inputs += [row(X, shapes["x"]), row(Y, shapes["y"]), row(ROWS, shapes["rows"])]
        lowering = Lowering(graph, inputs, MASKS + len(masks))
        lowering.read()
        *gradients, loss = lowering.results
        self.unused = [name for name, g in zip(params, gradients, strict=True) if not isinstance(g, View)]
        lowering.point("copy", (), loss, into=row(self.spaces - 1, ()))
        for name, gradient in zip(params, gradients, strict=True):
            if isinstance(gradient, View):
                e = entries[name]
                into = bound(Buffer(e.size, self.spaces, e.start), e.shape)
                lowering.point("copy", e.shape, gradient, into=into)
        self.constants = torch.cat([torch.zeros(0), *lowering.constants])
        self.words = np.array(packed(chained(lowering.steps), self.spaces), np.int64)


@contextlib.contextmanager
def _unchanged(module: nn.Module) -> Iterator[None]:
    """A tape is one step for all; a forward that draws numbers or counts its calls has others.

    Raises:
        NotATape: it does.
    """

    def state() -> Any:
        numpy = np.random.get_state()
        return torch.get_rng_state().tolist(), random.getstate(), [n.tolist() if isinstance(n, np.ndarray) else n for n in numpy]

    def own() -> dict[tuple[str, str], Any]:
        ours = ("calls", "shape", "positions")
        return {
            (name, key): copy.copy(value)
            for name, part in module.named_modules()
            for key, value in part.__dict__.items()
            if not key.startswith("_") and not (type(part).__module__ == "hasten.fleet.stackable" and key in ours)
        }

    before, held = state(), own()
    yield
    if state() != before:
        raise NotATape("its forward draws random numbers")
    now = own()
    if now.keys() != held.keys() or any(now[key] is not held[key] and not _same(now[key], held[key]) for key in held):
        raise NotATape("its forward changes what the module holds")


def _same(a: Any, b: Any) -> bool:
    try:
        return bool(a == b)
    except Exception:  # arrays
        return False


class Step:
    """Losses and gradients of a stack's models, by the kernel."""

    def __init__(self, program: Program, arrays: Sequence[torch.Tensor], trained: int) -> None:
        """arrays: (models, …) float32, of the spaces from ``FLAT`` to the masks."""
        width = arrays[0].shape[0]
        self.program, self.lib = program, kernel()
        self.losses = torch.zeros(width)
        self.gradients = torch.zeros(width, -(-trained // 16) * 16)
        constants = program.constants[None].expand(width, -1)
        spaces = [*arrays, constants, self.losses, self.gradients]
        self.held = spaces
        self.pointers = np.array([a.data_ptr() for a in spaces], np.uint64)
        self.strides = np.array([a.stride(0) for a in spaces], np.int64)
        self.tape = self.lib.hasten_tape(program.words.ctypes.data)
        self._free = weakref.finalize(self, self.lib.hasten_tape_free, self.tape)

    def __call__(self, models: Sequence[int]) -> torch.Tensor:
        """One forward and backward of these models. (width,): losses."""
        which = np.array(models, np.int64)
        self.lib.hasten_tape_run(
            self.tape, len(which), which.ctypes.data, self.pointers.ctypes.data, self.strides.ctypes.data
        )
        return self.losses


def program_of(
    prototype: nn.Module, module: nn.Module, layout: Layout, recipe: Recipe, shapes: Mapping[str, tuple[int, ...]]
) -> Program | str:
    """The tape of a kind, made at the first call; or why there is none.

    Args:
        prototype: whose tape it is. module: the same as it can be stacked.
    """
    known = _made.setdefault(prototype, {})
    key = (recipe.loss, tuple(sorted(shapes.items())))
    if key not in known:
        try:
            kernel()
            known[key] = Program(copy.deepcopy(module), layout, recipe, shapes)
        except (NotATape, NoCompiler) as why:
            known[key] = next(iter(str(why).splitlines()), "")
    found: Program | str = known[key]
    return found


def mask(lib: ctypes.CDLL, into: Any, stream: int, purpose: int, epoch: int, step: int, p: float, scale: Any) -> None:
    """Write which numbers a dropout keeps, times ``scale``. into: a NumPy array in a row."""
    below = int(float(np.float32(p)) * 2.0**32)
    if below >= 1 << 32:
        into[...] = 0
        return
    lib.hasten_mask(stream, into.size, purpose, epoch, step, below, float(scale), into.ctypes.data)
