"""Everything is computed in float32 where the processor has faster units for 16 bits.

Why it is slow
    Matrix units for bfloat16 or float16 do several times the work of float32 units, and half the bytes move.

Remedy
    ``Autocast("bfloat16")`` runs the model's calls under autocast and hands float32 back to the script. Devices without
    bfloat16 get ``Autocast("float16")``, which scales losses as ``torch.amp.GradScaler`` does.

Fidelity
    approximate: 8 (bfloat16) or 11 (float16) bits of mantissa in matrix products.

When it does not help
    Processors without such units: measured 0.53 to 0.92, slower, on one. Small models, whose steps go into starting
    operations: measured 0.84 to 0.93 of three. Therefore only after a trial, and only with ``--allow approximate``.

References
    https://docs.pytorch.org/docs/stable/amp.html
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from hasten.core.errors import Unsuited
from hasten.core.finding import Finding, Rule
from hasten.core.remedy import Fidelity, Remedy, Seam, Undo, undo_all
from hasten.core.trace import Trace
from hasten.seams.patch import Patches

FACTOR = (0.6, 3.0)  # of the forward and the backward pass …
SLOWEST = 8.0  # … as far as they are products: small ones take so many times as long as at the rate of a large one


@dataclass(frozen=True)
class Autocast(Remedy):
    """Runs the outermost modules under autocast; floating outputs come back as float32.

    With float16 losses are scaled while they are differentiated (:mod:`hasten.seams.scaling`); the script sees true
    gradients, and steps whose gradients overflow are left out.
    """

    dtype: str = "bfloat16"
    fidelity: ClassVar[Fidelity] = Fidelity.APPROXIMATE
    seam: ClassVar[Seam] = Seam.MODEL
    conflicts: ClassVar[tuple[str, ...]] = ()

    def _inside(self, call: Any, device: str) -> Any:
        import torch

        from hasten.seams.forward import to_float32

        def inside(*args: Any, **kwargs: Any) -> Any:
            with torch.autocast(device, dtype=getattr(torch, self.dtype)):
                out = call(*args, **kwargs)
            return to_float32(out)

        return inside

    def on(self, target: Any = None) -> Undo:
        """For use by hand: wraps ``target.forward``."""
        from hasten.seams.scaling import SCALER

        device, original = _device(target), target.forward
        if getattr(original, "is_autocast", False):
            raise Unsuited("autocast is on already")

        forward = self._inside(original, device)
        forward.is_autocast = True
        patches = Patches()
        patches.set(target, "forward", forward)
        undos: list[Undo] = [patches.undo]
        if self.dtype == "float16":
            undos.append(SCALER.add(target))
        return undo_all(undos)

    def on_seam(self, seam: Any, target: Any) -> Undo:
        """From outside: around every outermost call, leaving the module itself alone."""
        device = _device(target)

        def make(call: Any) -> Any:
            return self._inside(call, device)

        if any(getattr(other, "is_autocast", False) for other in seam.around):
            raise Unsuited("autocast is on already")
        make.is_autocast = True  # type: ignore[attr-defined]
        seam.around.append(make)
        undos: list[Undo] = [lambda: seam.around.remove(make)]
        if self.dtype == "float16":
            from hasten.seams.scaling import SCALER

            stepped = (o for r in seam.watch.optimizers.values() if (o := r.optimizer) is not None)
            undos.append(SCALER.add(target, stepped))
        return undo_all(undos)


def _device(module: Any) -> str:
    parameter = next(module.parameters(), None)
    if parameter is None:
        raise Unsuited("the module has no parameters")
    return str(parameter.device.type)


def detect(trace: Trace) -> Iterator[Finding]:
    process = trace.process
    if process.autocast or not (process.bfloat16_units or process.device == "cuda"):
        return
    model = next((m for m in trace.models if m.elements and "float32" in m.dtypes), None)
    if model is None:
        return
    cost = trace.step_seconds if process.device == "cuda" else trace.phase("forward") + trace.phase("backward")
    if trace.product_seconds >= 0:
        cost = min(cost, SLOWEST * trace.product_seconds)
    dtype = "bfloat16" if process.bfloat16_units else "float16"
    yield RULE.finding(
        f"{model.kind} computes in float32 on a processor with {dtype} units",
        model.place,
        trace.faster(cost, FACTOR),
        label="float32 throughout",
        remedies=(Autocast(dtype),),
    )


RULE = Rule("M303", "full-precision", detect, __doc__, (Autocast,))
