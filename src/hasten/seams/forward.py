"""Where the outermost modules are called.

Patching ``nn.Module.__call__`` for good would cost 0.4 µs for every inner module of every step. So the first steps
discover which classes are called from outside any module, and only those classes keep a wrapper. Where none of these
owns what is trained, the script calls ``forward`` itself, and the classes of the owners get a wrapper around that.
"""

from __future__ import annotations

import functools
import gc
import sys
import threading
from collections.abc import Callable
from typing import Any

from hasten.measure.clock import INDEX, PYTHON
from hasten.seams.locate import user_frame
from hasten.seams.on_demand import OnDemand
from hasten.seams.patch import Patches
from hasten.seams.watch import Watch

FORWARD = INDEX["forward"]
EVALUATION = INDEX["evaluation"]
OPTIMIZER = INDEX["optimizer"]
_OUTSIDE = frozenset({PYTHON, EVALUATION, OPTIMIZER})  # a closure's forward runs inside the optimizer's step
_get_frame = sys._getframe


class ForwardSeam:
    """Discovers root modules, then watches only their classes.

    Attributes:
        around: each is given a root call and makes the one that is made instead, for remedies that need it (autocast).
        on_demand: how calls in eval mode are made that would record a graph; None for as the script makes them.
        keeps_calls: whether the arguments of such a call are kept, so that it can be made again.
    """

    def __init__(self, watch: Watch, patches: Patches) -> None:
        import torch

        self.watch = watch
        self.patches = patches
        self.module_type = torch.nn.Module
        self.grad_enabled = torch.is_grad_enabled
        self.original = torch.nn.Module.__call__
        self.around: list[Callable[[Callable[..., Any]], Callable[..., Any]]] = []
        self.on_demand: OnDemand | None = None
        self.keeps_calls = False
        self.discovering = False
        self._global = Patches()
        self._classes: dict[tuple[type, str], Patches] = {}

    def discover(self) -> None:
        """Watch all modules until :meth:`settle`. Not done once the script compiles: tracing would see the wrapper."""
        if self.watch.compiled_by_script or self.discovering:
            return
        self.discovering = True
        self._global.set(self.module_type, "__call__", self._wrapper(self.original))

    def settle(self) -> None:
        """Stop discovering; keep watching the classes that were called from outside."""
        if not self.discovering:
            return
        self.discovering = False
        self._global.undo()
        for record in list(self.watch.models.values()):
            module = record.module()
            if module is not None:
                self.keep(type(module))
        for kind in self._called_directly():
            self.keep(kind, "forward")

    def keep(self, kind: type, method: str = "__call__") -> None:
        """Watch the calls of one class's ``method``."""
        if (kind, method) in self._classes or kind is self.module_type:
            return
        own = self._classes[kind, method] = Patches()
        try:
            own.set(kind, method, self._wrapper(getattr(kind, method), method == "forward"))
        except (AttributeError, TypeError):
            pass

    def _called_directly(self) -> set[type]:
        """Classes of the modules that own the first parameter that is trained, where no module that was called does."""
        record = self.watch.optimizers.get(self.watch.clock_key)
        optimizer = record.optimizer if record is not None else None
        trained = next((p for g in getattr(optimizer, "param_groups", ()) for p in g["params"]), None)
        called = [m for r in self.watch.models.values() if (m := r.module()) is not None]
        if trained is None or any(trained is p for m in called for p in m.parameters()):
            return set()
        modules = [m for m in gc.get_objects() if issubclass(type(m), self.module_type)]
        return {type(m) for m in modules if any(trained is p for p in vars(m).get("_parameters", {}).values())}

    def release(self) -> None:
        """Stop watching (before compiling)."""
        if self.discovering:
            self.settle()
        while self._classes:
            self._classes.popitem()[1].undo()

    def away_in(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """``call``, during which nothing is watched: what traces a model's code would see the wrapper."""

        @functools.wraps(call)
        def alone(*args: Any, **kwargs: Any) -> Any:
            kept, discovering = list(self._classes), self.discovering
            self.release()
            try:
                return call(*args, **kwargs)
            finally:
                for kind, method in kept:
                    self.keep(kind, method)
                if discovering:
                    self.discover()

        return alone

    def _wrapper(self, call: Callable[..., Any], directly: bool = False) -> Callable[..., Any]:
        watch, clock, grad_enabled, around = self.watch, self.watch.clock, self.grad_enabled, self.around
        get_ident = threading.get_ident

        def __call__(module: Any, *args: Any, **kwargs: Any) -> Any:
            if watch.depth or get_ident() != clock.thread or clock.current not in _OUTSIDE:
                return call(module, *args, **kwargs)
            watch.depth = 1
            grad = grad_enabled()
            try:
                watch.module_called(module, grad, args or tuple(kwargs.values()))
            except Exception as error:
                watch.fail(error)
            clock.enter(FORWARD)
            start = clock.last
            try:
                if self.on_demand is not None and grad and not module.training:
                    return self.on_demand(self._inside(call), module, args, kwargs)
                made = (self._inside(call) if around else call)(module, *args, **kwargs)
                if grad and (watch.inputs.looking or watch.unsure is not None):
                    watch.made(made)
                return made
            finally:
                clock.leave()
                watch.depth = 0
                evaluates = clock.evaluating and watch.evaluates(module)
                if evaluates:
                    clock.evaluated()
                    if clock.locate is None:
                        self._evaluated_at(module, _get_frame(1))
                if clock.locate is not None:
                    phase = EVALUATION if evaluates else FORWARD
                    frame = clock.locate(_get_frame(1))
                    self._book(phase, module, frame, clock.last - start, (args, kwargs) if grad else None, directly)

        __call__.__wrapped__ = call  # type: ignore[attr-defined]
        return __call__

    def _evaluated_at(self, module: Any, frame: Any) -> None:
        """Remember where a model is evaluated that was not while its calls were looked at closely."""
        record = self.watch.models.get(id(module))
        if record is not None and record.evaluation_place is None:
            at = user_frame(frame)
            record.evaluation_place = (at.f_code, at.f_lasti)

    def _book(self, phase: int, module: Any, frame: Any, nanoseconds: int, arguments: Any, directly: bool) -> None:
        self.watch.clock.book((phase, frame.f_code, frame.f_lasti), nanoseconds)
        record = self.watch.models.get(id(module))
        if record is not None:
            record.directly = directly
            if phase == FORWARD and record.place is None:
                record.place = (frame.f_code, frame.f_lasti)
            elif phase == EVALUATION and record.evaluation_place is None:
                record.evaluation_place = (frame.f_code, frame.f_lasti)
            if self.keeps_calls and phase == EVALUATION and arguments is not None and not module.training:
                record.evaluation_call = arguments

    def _inside(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """``call`` inside all that stands around every root call."""
        for make in self.around:
            call = make(call)
        return call


def with_tensors(value: Any, change: Callable[[Any], Any]) -> Any:
    """A module's output with each of its tensors changed."""
    import torch

    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(with_tensors(v, change) for v in value))
    if type(value) in (list, tuple):
        return type(value)(with_tensors(v, change) for v in value)
    if isinstance(value, dict):
        for key in value:
            value[key] = with_tensors(value[key], change)
    return value


def to_float32(value: Any) -> Any:
    """Half-precision tensors of a module's output as float32, so that the user's loss code sees what it expects."""
    import torch

    return with_tensors(value, lambda t: t.float() if t.dtype in (torch.bfloat16, torch.float16) else t)


def install(watch: Watch, patches: Patches) -> ForwardSeam:
    """Start discovering; note the script's own ``torch.compile``."""
    import torch

    seam = ForwardSeam(watch, patches)
    original = torch.compile
    original_method = torch.nn.Module.compile

    def compile(*args: Any, **kwargs: Any) -> Any:
        _compiles(args)
        out = original(*args, **kwargs)
        if isinstance(out, torch.nn.Module):
            seam.keep(type(out))
        return out

    def compile_module(self: Any, *args: Any, **kwargs: Any) -> Any:
        _compiles((self,))
        original_method(self, *args, **kwargs)
        seam.keep(type(self))

    def _compiles(_args: Any) -> None:
        if not watch.compiled_by_script:
            watch.compiled_by_script = True
            watch.inputs.looking = False  # a compiled graph takes no hooks
            seam.release()
            if watch.at_compile is not None:
                watch.at_compile()

    compile.__doc__ = original.__doc__
    compile.__wrapped__ = original  # type: ignore[attr-defined]
    patches.set(torch, "compile", compile)
    patches.set(torch.nn.Module, "compile", compile_module)
    for owner, name in ((torch.fx.Tracer, "trace"), (torch.export, "export")):
        patches.set(owner, name, seam.away_in(getattr(owner, name)))
    seam.discover()
    return seam
