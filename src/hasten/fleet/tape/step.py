"""A step's tape, made once for a kind of models, and run on the rows of a stack."""

from __future__ import annotations

import contextlib
import copy
import math
import random
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from hasten.core.errors import in_a_line
from hasten.fleet import streams
from hasten.fleet.modules import dropout_scale
from hasten.fleet.native.build import NoCompiler, kernel
from hasten.fleet.recipe import Recipe
from hasten.fleet.stackable import StackLinear, Unrolled
from hasten.fleet.state import Layout
from hasten.fleet.tape.lower import Lowering, bound
from hasten.fleet.tape.program import MASK, Buffer, Operation, View, chained, fresh, packed
from hasten.fleet.tape.scan import scan
from hasten.fleet.tape.trace import MOST, NotATape, calls, traced

FLAT, X, Y, ROWS, WHEN, KNOWN, LOSSES, GRADIENTS = range(1, 9)  # spaces of a tape

Shapes = Mapping[str, tuple[int, ...]]
Drops = Sequence[tuple[str, tuple[int, ...], float]]

_made: weakref.WeakKeyDictionary[nn.Module, dict[Any, Any]] = weakref.WeakKeyDictionary()  # by prototype


class Program:
    """The words of a tape.

    Attributes:
        unused: parameters without a gradient.
    """

    def __init__(self, module: nn.Module, layout: Layout, recipe: Recipe, shapes: Shapes, drops: Drops) -> None:
        entries = {e.name: e for e in layout.entries}
        params = {e.name: torch.zeros(e.shape) for e in layout.entries if e.trains}
        buffers = {e.name: torch.ones(e.shape, dtype=e.dtype) for e in layout.entries if not e.trains}
        known = list(buffers)
        buffers |= {name: torch.ones(shape) for name, shape, _ in drops}
        norms = [f"{n}.rows" if n else "rows" for n, m in module.named_modules() if "rows" in m._buffers]
        buffers |= dict.fromkeys(norms, torch.ones(shapes["rows"]))
        batch = tuple(torch.ones(shapes[name]) for name in ("x", "y", "rows"))
        with _unchanged(module):
            if (count := calls(module, batch[0])) > MOST:
                raise NotATape(f"a forward of {count} operations, of which a trace takes long")
            graph = traced(module, recipe.loss, params, buffers, batch)

        def own(name: str) -> View | None:
            e = entries[name]
            return bound(Buffer(e.size, FLAT, e.start), e.shape) if e.dtype == torch.float32 else None

        def row(space: int, shape: tuple[int, ...]) -> View:
            return bound(Buffer(math.prod(shape), space), shape)

        inputs = [own(name) for name in params] + [own(name) for name in known]
        masks = [fresh(shape) for _, shape, _ in drops]
        inputs += masks
        inputs += [row(ROWS, shapes["rows"])] * len(norms)
        inputs += [row(X, shapes["x"]), row(Y, shapes["y"]), row(ROWS, shapes["rows"])]
        lowering = Lowering(graph, inputs, KNOWN, kernel().hasten_width() // 4)
        lowering.read()
        *gradients, loss = lowering.results
        self.unused = [name for name, g in zip(params, gradients, strict=True) if not isinstance(g, View)]
        lowering.point("copy", (), loss, into=row(LOSSES, ()))
        for name, gradient in zip(params, gradients, strict=True):
            if isinstance(gradient, View):
                e = entries[name]
                into = bound(Buffer(e.size, GRADIENTS, e.start), e.shape)
                lowering.point("copy", e.shape, gradient, into=into)
        self.constants = torch.cat([torch.zeros(0), *lowering.constants])
        drawn = [_drawn(k, mask, p) for k, (mask, (_, _, p)) in enumerate(zip(masks, drops, strict=True))]
        self.words = np.array(packed(_with(drawn, chained(lowering.steps)), GRADIENTS), np.int64)


def _drawn(number: int, mask: View, p: float) -> Operation:
    """A dropout's mask. number: among the dropouts of a step."""
    purpose = streams.DROPOUT | number << 8
    when = View(Buffer(8, WHEN), 0, (8,), (1,))
    rows, *rest = mask.shape
    words = [rows, math.prod(rest), streams.below(p), purpose, float(dropout_scale(p)), when, mask]
    return Operation(MASK, words, [when], [mask])


def _with(drawn: list[Operation], operations: list[Operation]) -> list[Operation]:
    """Masks put in front of what takes them first, so that they do not lie about before."""
    found = []
    for operation in operations:
        taken = {view.buffer for view in operation.reads}
        found += [mask for mask in drawn if mask.writes[0].buffer in taken and mask not in found]
        found.append(operation)
    return found


@contextlib.contextmanager
def _unchanged(module: nn.Module) -> Iterator[None]:
    """A tape is one step for all; a forward that draws numbers or counts its calls has others.

    Raises:
        NotATape: it does.
    """

    def state() -> Any:
        numpy = [n.tolist() if isinstance(n, np.ndarray) else n for n in np.random.get_state()]
        return torch.get_rng_state().tolist(), random.getstate(), numpy

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
        """arrays: (models, …) float32, of the spaces from ``FLAT`` to ``ROWS``."""
        width = arrays[0].shape[0]
        self.program, self.lib = program, kernel()
        self.losses = torch.zeros(width)
        self.gradients = torch.zeros(width, -(-trained // 16) * 16)
        constants = program.constants[None].expand(width, -1)
        self.when = np.zeros((width, 13), np.int64)  # of each model a ``Batch`` of the kernel's
        moments = torch.from_numpy(self.when).view(torch.float32)
        self.held = spaces = [*arrays, moments, constants, self.losses, self.gradients]
        self.pointers = np.array([a.data_ptr() for a in spaces], np.uint64)
        self.strides = np.array([a.stride(0) for a in spaces], np.int64)
        self.tape = self.lib.hasten_tape(program.words.ctypes.data)
        self.drawn: list[Any] = [None] * width  # what is read from, held
        self._free = weakref.finalize(self, self.lib.hasten_tape_free, self.tape)

    def begin(self, model: int, stream: int, epoch: int, rows: Sequence[Any], order: Any, batch: int) -> bool:
        """Let batches of an epoch be drawn from these rows; False where they lie so that Python must.

        Args:
            rows: X and y, of all rows.
            order: rows of the epoch, (rows,), int64.
        """
        record = self.when[model]
        record[:] = 0
        record[:6] = stream - (stream >> 63 << 64), epoch, 0, 0, batch, self.held[X - 1].shape[1]
        if not all(_in_rows(array) for array in rows):
            return False
        self.drawn[model] = rows, order
        record[6:] = *(n for a in rows for n in (a.ctypes.data, a.strides[0] // 4, a[0].size)), order.ctypes.data
        return True

    def hold(self) -> None:
        """Let batches stay as they are, and fetch no others."""
        self.when[:, 6] = 0

    def __call__(self, models: Sequence[int]) -> torch.Tensor:
        """One forward and backward of these models. (width,): losses."""
        which = np.array(models, np.int64)
        self.lib.hasten_tape_run(
            self.tape, len(which), which.ctypes.data, self.pointers.ctypes.data, self.strides.ctypes.data
        )
        return self.losses


def _in_rows(array: Any) -> bool:
    """Whether each row lies together, in float32."""
    lies = array.dtype == np.float32 and array.strides[0] % 4 == 0 and len(array) > 0
    return bool(lies and array[0].flags.c_contiguous and array.dtype.isnative)


def _taped(module: nn.Module) -> nn.Module:
    """A copy whose linear layers take their inputs as they come, since the kernel needs no alignment, and whose
    recurrent layers are one operation each."""
    made = copy.deepcopy(module)
    for part in made.modules():
        if isinstance(part, StackLinear):
            part.pad = (0, 0)
        if isinstance(part, Unrolled):
            part.way = scan
    return made


def program_of(
    prototype: nn.Module, module: nn.Module, layout: Layout, recipe: Recipe, shapes: Shapes, drops: Drops
) -> Program | str:
    """The tape of a kind, made at the first call; or why there is none.

    Args:
        prototype: whose tape it is. module: the same as it can be stacked.
        shapes: of x, y and rows.
        drops: dropouts in the order of a step: their masks' names among the buffers, shapes, and probabilities.
    """
    known = _made.setdefault(prototype, {})
    key = (recipe.loss, tuple(sorted(shapes.items())), tuple(drops))
    if key not in known:
        try:
            kernel()
            known[key] = Program(_taped(module), layout, recipe, shapes, drops)
        except (NotATape, NoCompiler) as why:
            known[key] = next(iter(str(why).splitlines()), "")
        except Exception as error:  # a form of some operation that was not thought of
            known[key] = in_a_line(error)
    found: Program | str = known[key]
    return found
