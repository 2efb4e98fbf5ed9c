"""Where an optimizer steps, and where gradients are zeroed."""

from __future__ import annotations

import functools
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

from hasten.core.errors import Unsuited
from hasten.core.remedy import Undo, undo_all
from hasten.measure.clock import INDEX, PYTHON, PhaseClock, timed
from hasten.seams.locate import user_frame
from hasten.seams.patch import Patches
from hasten.seams.watch import IDLE_CLOCK, OPTIMIZER, Watch

_get_frame = sys._getframe
Hook = Callable[[Any, Any, Any], Any]
Around = dict[int, tuple[tuple[Hook, Hook], ...]]  # by the optimizer's address; under 0 for every one
_around: Around | None = None  # what hasten's own hooks call besides, once they are in


def install(watch: Watch, patches: Patches) -> None:
    """Hook every optimizer's step by torch's own global hooks; wrap ``zero_grad``.

    Args:
        patches: where the wrappers go; the hooks stay, and do less once the watch is light.
    """
    import torch
    from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

    global _around
    clock = watch.clock
    around: Around = {}
    _around = around

    def enter(optimizer: Any) -> None:
        try:
            watch.optimizer_entered(optimizer)
        except Exception as error:
            watch.fail(error)

    def before(optimizer: Any, args: Any, kwargs: Any) -> Any:
        watch.stepping = None if watch.compiled_by_script else _get_frame(1).f_code
        enter(optimizer)
        for call, _ in around.get(0, ()) + around.get(id(optimizer), ()):
            call(optimizer, args, kwargs)
        return _set_apart(clock, args, kwargs) if clock.current == OPTIMIZER and not watch.compiled_by_script else None

    def after(optimizer: Any, args: Any, kwargs: Any) -> None:
        for _, call in around.get(0, ()) + around.get(id(optimizer), ()):
            call(optimizer, args, kwargs)
        leave(optimizer)

    def leave(optimizer: Any) -> None:
        if clock.locate is not None and threading.get_ident() == clock.thread:
            frame = user_frame(_get_frame(1))
            clock.book((clock.current, frame.f_code, frame.f_lasti), clock.now() - clock.last)
        if watch.beginning is not None and threading.get_ident() == clock.thread:
            frame = user_frame(_get_frame(1))
            watch.beginning.place = (frame.f_code, frame.f_lasti)
        try:
            watch.optimizer_left(optimizer)
        except Exception as error:
            watch.fail(error)

    hooks = [register_optimizer_step_pre_hook(before), register_optimizer_step_post_hook(after)]

    def put(calls: tuple[Hook, Hook]) -> None:
        for hook, call in zip(hooks, calls, strict=True):
            # In its place: torch is going through these very hooks. A compiled step must not compile what they call.
            hook.hooks_dict_ref()[hook.id] = torch.compiler.disable(call) if watch.compiled_by_script else call

    def lighten() -> None:
        light = _Light(watch, enter, leave, around)
        put((light.entered, light.left))

    watch.at_lighten = lighten
    watch.at_compile = lambda: put((before, after)) if not watch.light else lighten()
    _wrap_zero_grad(watch, patches)


def _set_apart(clock: PhaseClock, args: Any, kwargs: Any) -> Any:
    """The arguments of a step, with a closure whose time is not the optimizer's; None where there is no closure."""
    closure = args[1] if len(args) > 1 else kwargs.get("closure")
    if not callable(closure) or threading.get_ident() != clock.thread:
        return None

    def closes(*given: Any, **named: Any) -> Any:
        clock.enter(PYTHON)
        try:
            return closure(*given, **named)
        finally:
            clock.leave()

    closes.__wrapped__ = closure  # type: ignore[attr-defined]
    return ((args[0], closes, *args[2:]), kwargs) if len(args) > 1 else (args, {**kwargs, "closure": closes})


def _wrap_zero_grad(watch: Watch, patches: Patches) -> None:
    import torch

    clock, get_ident = watch.clock, threading.get_ident
    original = torch.optim.Optimizer.zero_grad
    phase = INDEX["zero_grad"]

    def zero_grad(self: Any, set_to_none: bool = True) -> None:
        if get_ident() != clock.thread:
            original(self, set_to_none)
            return
        if watch.entered is not None:
            watch.calls_from(_get_frame(1))
        watch.gradients_zeroed()
        clock.enter(phase)
        start = clock.last
        try:
            original(self, set_to_none)
        finally:
            clock.leave()
            if clock.locate is not None:
                frame = user_frame(_get_frame(1))
                clock.book((phase, frame.f_code, frame.f_lasti), clock.last - start)
                record = watch.optimizers.get(id(self))
                if not set_to_none and record is not None and not record.zeroes_gradients:
                    record.zeroes_gradients, record.zero_place = True, (frame.f_code, frame.f_lasti)

    zero_grad.__doc__ = original.__doc__
    zero_grad.__wrapped__ = original  # type: ignore[attr-defined]
    patches.set(torch.optim.Optimizer, "zero_grad", zero_grad)
    zeroed = timed(clock, "zero_grad", torch.nn.Module.zero_grad)

    @functools.wraps(torch.nn.Module.zero_grad)
    def of_module(*args: Any, **kwargs: Any) -> Any:
        if get_ident() == clock.thread:
            watch.gradients_zeroed()
        return zeroed(*args, **kwargs)

    patches.set(torch.nn.Module, "zero_grad", of_module)


class _Light:
    """The hooks of a light watch. What hooks touch is in no cache when they come, so a usual step is stamped, and
    whatever that needs lies together. Of optimizers that step beside the clock nothing is kept while that ticks."""

    __slots__ = (
        "around",
        "beside",
        "clock",
        "clock_optimizer",
        "enter",
        "get_ident",
        "leave",
        "now",
        "silent",
        "stamps",
        "watch",
    )

    def __init__(
        self, watch: Watch, enter: Callable[[Any], None], leave: Callable[[Any], None], around: Around
    ) -> None:
        self.watch = watch
        self.around = around
        self.clock = watch.clock
        self.enter, self.leave = enter, leave
        self.now, self.get_ident = watch.clock.now, threading.get_ident
        self.stamps = watch.stamps
        self.clock_optimizer: Callable[[], Any] = lambda: None
        self.beside: dict[int, Callable[[], Any]] = {}
        self.silent = 0  # steps beside the clock since its last one

    def entered(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if self.around:
            for call, _ in self.around.get(0, ()) + self.around.get(id(optimizer), ()):
                call(optimizer, args, kwargs)
        if self.clock_optimizer() is not optimizer:
            beside = self.beside.get(id(optimizer))
            if beside is None or beside() is not optimizer:
                self.enter(optimizer)

    def left(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if self.around:
            for _, call in self.around.get(0, ()) + self.around.get(id(optimizer), ()):
                call(optimizer, args, kwargs)
        if self.get_ident() != self.clock.thread:
            return
        if self.clock_optimizer() is not optimizer:
            self.silent += 1
            beside = self.beside.get(id(optimizer))
            if beside is None or beside() is not optimizer or self.silent > IDLE_CLOCK:
                self._of_another(optimizer)
            return
        self.silent = 0
        now = self.now()
        self.stamps.append(now)
        if now >= self.stamps[0]:
            self.watch.catch_up()

    def _of_another(self, optimizer: Any) -> None:
        """A step that may be of another clock, after the clock's own so far."""
        watch = self.watch
        watch.catch_up()
        if self.silent > IDLE_CLOCK:
            watch.others = IDLE_CLOCK
        self.leave(optimizer)
        key, record = watch.clock_key, watch.optimizers.get(watch.clock_key)
        if self.silent > IDLE_CLOCK or record is None or self.clock_optimizer is not record.reference:
            self.beside.clear()
            self.silent = 0
        if record is not None:
            self.clock_optimizer = record.reference
        own, line = watch.optimizers.get(id(optimizer)), watch.succession
        if own is not None and id(optimizer) != key and (own is not line.newest or watch.steps > line.began_at):
            self.beside[id(optimizer)] = own.reference  # it began before the clock's last step: it takes turns


def around_steps(before: Hook, after: Hook, optimizer: Any = None) -> Undo:
    """Have every optimizer's step, or that of one, called between two calls, with the way back. May be asked for inside
    a step, when torch is going through its own hooks, and must not find others. One that the script has done with is
    forgotten: the calls must not hold it."""
    if _around is None:
        return _by_torch(before, after, optimizer)
    around, key, pair = _around, id(optimizer) if optimizer is not None else 0, (before, after)
    if optimizer is not None and key not in around:
        weakref.finalize(optimizer, around.pop, key, None).atexit = False
    around[key] = (*around.get(key, ()), pair)

    def undo() -> None:
        left = tuple(each for each in around.pop(key, ()) if each is not pair)
        if left:
            around[key] = left

    return undo


def _by_torch(before: Hook, after: Hook, optimizer: Any) -> Undo:
    """Where nothing is watched: a remedy that is used by hand."""
    if optimizer is not None:
        hooks = optimizer.register_step_pre_hook(before), optimizer.register_step_post_hook(after)
    else:
        from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

        hooks = register_optimizer_step_pre_hook(before), register_optimizer_step_post_hook(after)
    return undo_all([hook.remove for hook in hooks])


def in_groups_while_stepping(optimizer: Any, check: Callable[[Any], None] | None = None, **values: Any) -> Undo:
    """Set keys in every parameter group during its steps only, with the way back: what the script saves or prints of
    its optimizer stays the script's own.

    After a step that has raised, torch calls no hook; what is saved then is the script's own, too, and what is read is
    from the next step on.

    Args:
        check: raises :class:`~hasten.core.errors.Unsuited` where the optimizer cannot take them; asked again whenever
            the script has added parameters.
    """
    names = tuple(values)
    held: list[tuple[Any, list[Any]]] = []
    known, suits = [len(group["params"]) for group in optimizer.param_groups], True

    def begin(stepping: Any, _args: Any, _kwargs: Any) -> None:
        nonlocal known, suits
        if held:
            restore()  # its last step has raised
        groups = stepping.param_groups
        sizes = [len(group["params"]) for group in groups]
        if sizes != known:
            known, suits = sizes, check is None or _passes(check, stepping)
        if suits:
            for group in groups:
                held.append((group, [*map(group.get, names)]))
                group.update(values)

    def restore(*_: Any) -> None:
        for group, old in held:
            group.update(zip(names, old, strict=True))
        held.clear()

    saving = optimizer.register_state_dict_pre_hook(restore)
    return undo_all([restore, saving.remove, around_steps(begin, restore, optimizer)])


def _passes(check: Callable[[Any], None], optimizer: Any) -> bool:
    try:
        check(optimizer)
    except Unsuited:
        return False
    return True


def set_in_groups(optimizer: Any, **values: Any) -> Undo:
    """Set keys in every parameter group, with the way back."""
    before = [{k: g.get(k) for k in values} for g in optimizer.param_groups]
    for group in optimizer.param_groups:
        group.update(values)

    def undo() -> None:
        for group, old in zip(optimizer.param_groups, before, strict=False):
            group.update(old)

    return undo
