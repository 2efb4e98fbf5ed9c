"""Where an optimizer steps, and where gradients are zeroed."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

from hasten.core.errors import Unsuited
from hasten.core.remedy import Undo, undo_all
from hasten.measure.clock import INDEX, timed
from hasten.seams.locate import user_frame
from hasten.seams.patch import Patches
from hasten.seams.watch import Watch

_get_frame = sys._getframe
Hook = Callable[[Any, Any, Any], None]
_around: list[tuple[Hook, Hook]] | None = None  # what hasten's own hooks call besides, once they are in


def install(watch: Watch, patches: Patches) -> None:
    """Hook every optimizer's step by torch's own global hooks; wrap ``zero_grad``.

    Args:
        patches: where the wrappers go; the hooks stay, and do less once the watch is light.
    """
    import torch
    from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

    global _around
    clock = watch.clock
    around = _around = []

    def enter(optimizer: Any) -> None:
        try:
            watch.optimizer_entered(optimizer)
        except Exception as error:
            watch.fail(error)

    def before(optimizer: Any, args: Any, kwargs: Any) -> None:
        watch.stepping = None if watch.compiled_by_script else _get_frame(1).f_code
        enter(optimizer)
        for call, _ in around:
            call(optimizer, args, kwargs)

    def after(optimizer: Any, args: Any, kwargs: Any) -> None:
        for _, call in around:
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
    patches.set(torch.nn.Module, "zero_grad", timed(clock, "zero_grad", torch.nn.Module.zero_grad))


class _Light:
    """The hooks of a light watch. What hooks touch is in no cache when they come, so a usual step is stamped, and
    whatever that needs lies together."""

    __slots__ = ("around", "clock", "clock_optimizer", "enter", "get_ident", "leave", "now", "stamps", "watch")

    def __init__(
        self,
        watch: Watch,
        enter: Callable[[Any], None],
        leave: Callable[[Any], None],
        around: list[tuple[Hook, Hook]],
    ) -> None:
        self.watch = watch
        self.around = around
        self.clock = watch.clock
        self.enter, self.leave = enter, leave
        self.now, self.get_ident = watch.clock.now, threading.get_ident
        self.stamps = watch.stamps
        self.clock_optimizer: Callable[[], Any] = lambda: None

    def entered(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        for call, _ in self.around:
            call(optimizer, args, kwargs)
        if self.clock_optimizer() is not optimizer:
            self.enter(optimizer)

    def left(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        for _, call in self.around:
            call(optimizer, args, kwargs)
        if self.get_ident() != self.clock.thread:
            return
        if self.clock_optimizer() is not optimizer:
            self._of_another(optimizer)
            return
        now = self.now()
        self.stamps.append(now)
        if now >= self.stamps[0]:
            self.watch.catch_up()

    def _of_another(self, optimizer: Any) -> None:
        """A step that may be of another clock, after the clock's own so far."""
        self.watch.catch_up()
        self.leave(optimizer)
        record = self.watch.optimizers.get(self.watch.clock_key)
        if record is not None:
            self.clock_optimizer = record.reference


def around_steps(before: Hook, after: Hook) -> Undo:
    """Have every optimizer's step called between two calls, with the way back. May be asked for inside a step, when
    torch is going through its own hooks, and must not find others."""
    if _around is None:
        from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

        hooks = register_optimizer_step_pre_hook(before), register_optimizer_step_post_hook(after)
        return undo_all([hook.remove for hook in hooks])
    calls, pair = _around, (before, after)
    calls.append(pair)
    return lambda: calls.remove(pair)


def in_groups_while_stepping(optimizer: Any, check: Callable[[Any], None] | None = None, **values: Any) -> Undo:
    """Set keys in every parameter group during its steps only, with the way back: what the script saves or prints of
    its optimizer stays the script's own.

    Args:
        check: raises :class:`~hasten.core.errors.Unsuited` where the optimizer cannot take them; asked again whenever
            the script has added parameters.
    """
    undos: list[Undo] = []
    known, suits = _sizes(optimizer), True

    def begin(stepping: Any, _args: Any, _kwargs: Any) -> None:
        nonlocal known, suits
        if stepping is optimizer:
            undo_all(undos)()
            before, known = known, _sizes(optimizer)
            if check is not None and known != before:
                try:
                    check(optimizer)
                    suits = True
                except Unsuited:
                    suits = False
            if suits:
                undos.append(set_in_groups(optimizer, **values))

    def after(stepping: Any, _args: Any, _kwargs: Any) -> None:
        if stepping is optimizer:
            undo_all(undos)()

    return around_steps(begin, after)


def _sizes(optimizer: Any) -> list[int]:
    return [len(group["params"]) for group in optimizer.param_groups]


def set_in_groups(optimizer: Any, **values: Any) -> Undo:
    """Set keys in every parameter group, with the way back."""
    before = [{k: g.get(k) for k in values} for g in optimizer.param_groups]
    for group in optimizer.param_groups:
        group.update(values)

    def undo() -> None:
        for group, old in zip(optimizer.param_groups, before, strict=False):
            group.update(old)

    return undo
