"""Matrix products run in full float32 on a GPU with TF32 units.

Why it is slow
    Since Ampere, float32 matrix products can run on tensor cores with 10 bits of mantissa, several times faster;
    torch leaves this off for matrix products.

Remedy
    ``TensorFloat32()`` sets ``torch.set_float32_matmul_precision("high")`` and allows TF32 in cuDNN.

Fidelity
    approximate: 10 bits of mantissa in the factors, float32 sums.

When it does not help
    GPUs before Ampere, CPUs, models already under autocast.

References
    https://docs.pytorch.org/docs/stable/notes/cuda.html#tensorfloat-32-tf32-on-ampere-and-later-devices
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from hasten.core.errors import Unsuited
from hasten.core.finding import Finding, Rule
from hasten.core.remedy import Fidelity, Remedy, Seam, Undo
from hasten.core.trace import Trace

FACTOR = (1.0, 2.6)  # published: up to 2.6x on a transformer


@dataclass(frozen=True)
class TensorFloat32(Remedy):
    """Allows TF32 in matrix products and convolutions."""

    fidelity: ClassVar[Fidelity] = Fidelity.APPROXIMATE
    seam: ClassVar[Seam] = Seam.PROCESS

    def on(self, target: Any = None) -> Undo:
        import torch

        try:
            precision, cudnn = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
        except RuntimeError:
            raise Unsuited("the script sets precisions by torch.backends.fp32_precision") from None
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True

        def undo() -> None:
            torch.set_float32_matmul_precision(precision)
            torch.backends.cudnn.allow_tf32 = cudnn

        return undo


def detect(trace: Trace) -> Iterator[Finding]:
    process = trace.process
    if process.device != "cuda" or process.float32_matmul != "highest" or process.autocast:
        return
    if not any("float32" in model.dtypes for model in trace.models):
        return
    yield RULE.finding(
        "float32 matrix products run without TF32",
        trace.place("forward"),
        FACTOR,
        label="full float32 products",
        remedies=(TensorFloat32(),),
    )


RULE = Rule("M304", "no-tf32", detect, __doc__, (TensorFloat32,))
