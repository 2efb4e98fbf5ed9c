"""Calls of a module that record no graph, and can be differentiated all the same.

An evaluation that forgets ``torch.no_grad`` saves the inputs of every operation for a backward pass that never comes.
Here such a call runs without recording; its outputs carry one node instead of a graph. Should the script differentiate
them after all (a saliency map, an attack), the node runs the call again, with a graph, from the same random state:
the idea of activation checkpointing (Chen et al., arXiv 1604.06174). From then on that module's calls are left alone.

The first call of each module is left alone, too, and looked at: what depends on other leaves than its parameters and
arguments, returns views of them, is no plain tensor, tuple, list or dict, or keeps tensors with their graphs besides,
is never touched. Nor are modules with hooks, those that fail without a graph, and calls under the script's own
autocast.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

Call = Callable[..., Any]


class OnDemand:
    """Runs calls without a graph, and knows the modules for which that cannot be done."""

    def __init__(self) -> None:
        self._known: weakref.WeakKeyDictionary[Any, tuple[bool, ...]] = weakref.WeakKeyDictionary()

    def __call__(self, call: Call, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """``call(module, *args, **kwargs)``, with outputs of the same bits."""
        import torch

        if _traced() or _observed(module) or torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"):
            return call(module, *args, **kwargs)
        known = self._known.get(module)
        if known is None:
            out = call(module, *args, **kwargs)
            known = () if _keeps_graph(module) else _differentiable(out, _inputs(module, args, kwargs), (args, kwargs))
            self._known[module] = known
            return out
        inputs = _inputs(module, args, kwargs) if known else []
        if not inputs:
            return call(module, *args, **kwargs)
        job = _Job(call, module, _kept((args, kwargs)), torch.get_rng_state(), lambda: self._leave_alone(module))
        try:
            with torch.no_grad():
                out = call(module, *args, **kwargs)
        except RuntimeError:  # it differentiates inside; what else it fails for, it fails for again
            self._leave_alone(module)
            torch.set_rng_state(job.random_state)
            return call(module, *args, **kwargs)
        job.tensors = tuple(_tensors(out))
        if len(job.tensors) != len(known):  # another form than the first call's: as if nothing had happened
            self._leave_alone(module)
            return job.again()
        job.differentiable = known
        carrying = iter(_node().apply(job, *inputs))
        return _replaced(out, carrying)

    def _leave_alone(self, module: Any) -> None:
        self._known[module] = ()


@dataclass
class _Job:
    """A call that was made without a graph, and how to make it again with one, whatever has become of its arguments and
    of the module's mode."""

    call: Call
    module: Any
    arguments: Any
    random_state: Any
    differentiated: Callable[[], None]
    tensors: tuple[Any, ...] = ()
    differentiable: tuple[bool, ...] = ()

    def __post_init__(self) -> None:
        from torch.nn.modules.batchnorm import _NormBase

        self.modes = [(m, m.training) for m in self.module.modules()]
        norms = [m for m, _ in self.modes if isinstance(m, _NormBase)]
        self.running = [(b, b.clone()) for m in norms for b in m._buffers.values() if b is not None]

    def fixed(self) -> list[Any]:
        """Buffers that training does not write to by itself."""
        running = {id(b) for b, _ in self.running}
        return [b for b in self.module.buffers() if id(b) not in running]

    def again(self) -> Any:
        import torch

        args, kwargs = self.arguments
        now = [(m, m.training) for m, _ in self.modes]
        means = [(b, b.clone()) for b, _ in self.running]  # torch's own graph would use these as they are by now, too
        with torch.random.fork_rng(devices=()), torch.enable_grad():
            torch.set_rng_state(self.random_state)
            try:
                _set(self.modes)
                _write(self.running)
                return self.call(self.module, *args, **kwargs)
            finally:
                _set(now)
                _write(means)


def _set(modes: list[tuple[Any, bool]]) -> None:
    for module, training in modes:
        if module.training is not training:
            module.training = training


def _write(buffers: list[tuple[Any, Any]]) -> None:
    """Give buffers their values of another time; graphs that have saved them do not count that as a change."""
    for buffer, value in buffers:
        buffer.data.copy_(value)


def _kept(arguments: Any) -> Any:
    """Arguments that stay as they are; those that gradients go to are watched by torch itself."""
    return _replaced(arguments, iter([t if t.requires_grad else t.clone() for t in _tensors(arguments)]))


@functools.cache
def _node() -> Any:
    """The node that stands for a call's graph; made once torch is there."""
    import torch

    class Again(torch.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, job: _Job, *inputs: Any) -> tuple[Any, ...]:
            ctx.job = job
            ctx.save_for_backward(*inputs, *job.fixed())
            ctx.mark_non_differentiable(*(t for t, d in zip(job.tensors, job.differentiable, strict=True) if not d))
            ctx.set_materialize_grads(False)
            tensors, job.tensors = job.tensors, ()
            return tensors

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
            saved = ctx.saved_tensors  # torch's own error where one was written to since
            inputs = saved[: len(ctx.needs_input_grad) - 1]
            ctx.job.differentiated()
            made = list(_tensors(ctx.job.again()))
            pairs = [(t, g) for t, g in zip(made, gradients, strict=True) if g is not None and t.requires_grad]
            if not pairs:
                return (None,) * (1 + len(inputs))
            tensors, given = zip(*pairs, strict=True)
            found = torch.autograd.grad(tensors, inputs, given, create_graph=torch.is_grad_enabled(), allow_unused=True)
            return (None, *found)

    return Again


def _traced() -> bool:
    import torch

    transformed = getattr(torch._C, "_are_functorch_transforms_active", lambda: False)
    return bool(torch.compiler.is_compiling() or torch.jit.is_tracing() or transformed())


def _observed(module: Any) -> bool:
    """Whether hooks of the script's see what happens inside of it, and may need its graph."""
    return any(
        m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks for m in module.modules()
    )


def _keeps_graph(module: Any) -> bool:
    """Whether a module has kept something of its call that can be differentiated (for a loss, or a map of what it
    has looked at)."""
    import torch

    kept = (value for m in module.modules() for name, value in vars(m).items() if not name.startswith("_"))
    return any(t.grad_fn is not None for value in kept for t in _tensors(value) if isinstance(t, torch.Tensor))


def _inputs(module: Any, args: Any, kwargs: Any) -> list[Any]:
    """What gradients of the call can go to: its arguments and the module's parameters, each once."""
    found = {id(t): t for t in (*_tensors((args, kwargs)), *module.parameters()) if t.requires_grad}
    return list(found.values())


def _differentiable(out: Any, inputs: list[Any], arguments: Any) -> tuple[bool, ...]:
    """Which of a call's tensors depend on what is trained; empty where such a call must be left alone."""
    import torch

    tensors = list(_tensors(out))
    places = [t.untyped_storage().data_ptr() for t in tensors if type(t) is torch.Tensor]
    given = {t.untyped_storage().data_ptr() for t in (*inputs, *_tensors(arguments)) if t.layout is torch.strided}
    if len(set(places)) < len(tensors) or given.intersection(places) or not _plain(out) or not _plain(arguments):
        return ()
    ends = {id(t) for t in inputs}
    nodes = {t.grad_fn for t in inputs if t.grad_fn is not None}
    if any(id(leaf) not in ends for t in tensors if t.requires_grad for leaf in _leaves(t.grad_fn, nodes)):
        return ()
    flags = tuple(bool(t.requires_grad) for t in tensors)
    return flags if any(flags) else ()


def _leaves(node: Any, ends: set[Any]) -> Iterator[Any]:
    """The leaf tensors that a graph reaches without passing one of ``ends``."""
    seen, waiting = set(ends), [node]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None:
            yield leaf
        waiting.extend(following for following, _ in node.next_functions)


def _plain(value: Any) -> bool:
    """Whether a value's tensors are all found by :func:`_tensors`, and are torch's own strided ones."""
    import torch

    if isinstance(value, torch.Tensor):
        return type(value) in (torch.Tensor, torch.nn.Parameter) and value.layout is torch.strided
    if type(value) in (tuple, list):
        return all(map(_plain, value))
    if type(value) is dict:
        return all(map(_plain, value.values()))
    return value is None or isinstance(value, (bool, int, float, str, torch.device, torch.dtype))


def _tensors(value: Any) -> Iterator[Any]:
    import torch

    if isinstance(value, torch.Tensor):
        yield value
    elif type(value) in (tuple, list):
        for item in value:
            yield from _tensors(item)
    elif type(value) is dict:
        for item in value.values():
            yield from _tensors(item)


def _replaced(value: Any, tensors: Iterator[Any]) -> Any:
    """``value`` with its tensors exchanged for the next of ``tensors``."""
    import torch

    if isinstance(value, torch.Tensor):
        return next(tensors)
    if type(value) in (tuple, list):
        return type(value)(_replaced(item, tensors) for item in value)
    if type(value) is dict:
        return {key: _replaced(item, tensors) for key, item in value.items()}
    return value
