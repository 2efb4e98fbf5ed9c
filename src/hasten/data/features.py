"""What a frozen part of a network gives for a sample, kept by the bytes of the sample.

The network must give the same for the same rows, whatever rows are beside them; that is seen in a forked child before
(:mod:`hasten.seams.frozen`), and here again and again: rows that are served are computed anew now and then, and
compared. Nothing is served while a mode, or a weight or a buffer by its version, place or first number, is another than
when it was kept; a change that none of these tells is found by comparing.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

from hasten.data.store import SHARE_OF_MEMORY
from hasten.measure.digest import as_close_as_rounding, random_states, same_states
from hasten.measure.machine import available_bytes

AUDIT_EVERY = 64  # batches served between two of which some rows are computed anew, too; the first is one
AUDITED = 8  # so manyth of their rows
FIRST_ROWS = 1024  # that there is room for at first
MOST_FORMS = 8  # of rows; more are those of batches that are padded to their longest


class FeatureCache:
    """Stands in for the calls of a module with one tensor, whose rows are samples.

    Args:
        module: whose answers are kept; its calls come here as long as this is its ``_compiled_call_impl``, which is
            left behind where it is copied or saved.

    Attributes:
        served: batches that were served.
        broken: a row that was computed anew was another one.
        why_idle: why nothing is kept any more; empty where it is.
    """

    def __init__(self, module: Any) -> None:
        self._module = weakref.ref(module)  # which holds this as what it is called by
        self.served = 0
        self.broken = False
        self.why_idle = ""
        self._kept: dict[Any, Rows] = {}  # by the form of a row that is given
        self._state: Any = None

    @property
    def module(self) -> Any:
        """Whose answers are kept."""
        return self._module()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The module's answer, kept or computed."""
        keys = self._asked(args, kwargs)
        if not keys:
            return self.module._call_impl(*args, **kwargs)
        (x,) = args
        found = self._kept[form(x)].of(keys) if form(x) in self._kept else None
        if found is None:
            return self._computed(x, keys)
        if self.served % AUDIT_EVERY == 0 and not self._as_kept(x, found):
            self._give_up("")
            self.broken = True
            return self.module._call_impl(x)
        self.served += 1
        return found

    def _asked(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[bytes]:
        """A key for each row; none where the call goes by."""
        try:
            return self._known(args[0]) if len(args) == 1 and not kwargs and self._suits(args[0]) else []
        except Exception:  # a tensor of some transform's, which has no bytes
            return []

    def _as_kept(self, x: Any, found: Any) -> bool:
        some = -(-len(x) // AUDITED)
        return as_close_as_rounding(found[:some], self.module._call_impl(x[:some]))

    def fill(self, x: Any) -> None:
        """Keep the answers of rows that will come; nothing where they do not suit, or a call might move a buffer."""
        import torch

        if any(m.training and m._buffers for m in self.module.modules()):
            return
        with contextlib.suppress(Exception), torch.no_grad():
            keys = self._asked((x,), {})
            if keys and (form(x) not in self._kept or self._kept[form(x)].of(keys) is None):
                self._computed(x, keys)

    def _suits(self, x: Any) -> bool:
        """Whether an answer to it may be kept or served."""
        import torch

        if self.broken or self.why_idle or type(x) is not torch.Tensor or x.dim() < 2 or not len(x):
            return False
        if x.device.type != "cpu" or x.layout is not torch.strided or x.is_complex() or x.requires_grad:
            return False
        if torch.is_grad_enabled() and any(p.requires_grad for p in self.module.parameters()):
            self._state = None  # it may learn now, as fused optimizers have it do unseen
            return False
        return not (
            torch.is_inference_mode_enabled() or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling()
        )

    def _known(self, x: Any) -> list[bytes]:
        """A key for each row; what was kept is forgotten where the module is another since."""
        import torch

        state = self._now()
        if state != self._state:
            self._state = state
            self._kept.clear()
        lying = x.detach().contiguous().reshape(len(x), -1).view(torch.uint8).numpy()
        return [hashlib.sha1(row, usedforsecurity=False).digest() for row in lying]  # the fastest of hashlib

    def _now(self) -> Any:
        """What the answers depend on besides the rows, as far as it can be seen in no time."""
        tensors = (*self.module.parameters(), *self.module.buffers())
        return [(id(t), t._version, first(t)) for t in tensors], [m.training for m in self.module.modules()]

    def _computed(self, x: Any, keys: list[bytes]) -> Any:
        """The module's own answer, which is kept if it may be."""
        import torch

        before, given = random_states(), x._version
        out = self.module._call_impl(x)
        if type(out) is not torch.Tensor or out.requires_grad or out.dim() < 2 or len(out) != len(x):
            self._give_up("it gives no rows without a graph")
        elif not same_states(before, random_states()) or self._now() != self._state or x._version != given:
            self._give_up("it draws random numbers, or changes a buffer or what it is given")
        elif form(x) not in self._kept and len(self._kept) == MOST_FORMS:
            self._give_up("it is given rows of ever another form")
        elif why := self._kept.setdefault(form(x), Rows()).keep(keys, out.detach()):
            self._give_up(why)
        return out

    def _give_up(self, why: str) -> None:
        self._kept.clear()
        self.why_idle = why


class Rows:
    """Answers by the keys of the rows that they are for."""

    def __init__(self) -> None:
        self.at: dict[bytes, int] = {}
        self.rows: Any = None
        self.count = 0

    def of(self, keys: Sequence[bytes]) -> Any:
        """The answers, (len(keys), …); None where one is missing."""
        places = [self.at.get(key, -1) for key in keys]
        return self.rows[places] if min(places) >= 0 else None

    def keep(self, keys: Sequence[bytes], out: Any) -> str:
        """Add those that are new; why that is not possible, else empty."""
        import torch

        new = [i for i, key in enumerate(keys) if key not in self.at]
        need = self.count + len(new)
        if self.rows is not None and (out.dtype, out.shape[1:]) != (self.rows.dtype, self.rows.shape[1:]):
            return "it gives rows of another form"
        if self.rows is None or need > len(self.rows):
            room = max(FIRST_ROWS, 2 * need)
            if room * out[:1].numel() * out.element_size() > SHARE_OF_MEMORY * available_bytes():
                return "the features would take more than half of the memory that is free"
            grown = torch.empty((room, *out.shape[1:]), dtype=out.dtype)
            if self.count:
                grown[: self.count] = self.rows[: self.count]
            self.rows = grown
        self.rows[self.count : need] = out[new]
        self.at.update({keys[i]: self.count + j for j, i in enumerate(new)})
        self.count = need
        return ""


def form(x: Any) -> Any:
    """What a row of it is like."""
    return x.dtype, x.shape[1:]


def first(tensor: Any) -> tuple[int, bytes]:
    """Where a tensor lies, and the bytes of its first element: what ``tensor.data`` changes counts as no version."""
    at = tensor.data_ptr()
    return at, ctypes.string_at(at, tensor.element_size()) if at and tensor.device.type == "cpu" else b""


def tensors_in(batch: Any) -> Iterator[Any]:
    """The tensors of a batch."""
    import torch

    if isinstance(batch, torch.Tensor):
        yield batch
    elif isinstance(batch, dict):
        for one in batch.values():
            yield from tensors_in(one)
    elif isinstance(batch, (list, tuple)):
        for one in batch:
            yield from tensors_in(one)
