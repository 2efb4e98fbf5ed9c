"""One training step of one model as a graph of torch's own operations: loss, gradients, and what modules keep."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from hasten.core.errors import in_a_line
from hasten.fleet.tape import written

MOST = 160  # operations of a forward; a trace takes some hundredths of a second for each


class NotATape(Exception):
    """The kernel cannot run this step; the text says why."""


class Shaped:
    """Stands for a node of the graph."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.meta = {"val": torch.empty(shape, device="meta")}


def calls(module: nn.Module, x: torch.Tensor) -> int:
    """How many operations of torch a forward calls."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Count(TorchDispatchMode):  # type: ignore[misc]
        seen = 0

        def __torch_dispatch__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.seen += 1
            return call(*args, **(kwargs or {}))

    with torch.no_grad(), Count() as count:
        module(x)
    return int(count.seen)


Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
Tensors = Mapping[str, torch.Tensor]

_KEPT = (  # which the kernel has itself
    "native_layer_norm", "native_layer_norm_backward", "select_scatter", "embedding", "embedding_dense_backward",
    *(f"{pool}{back}" for back in ("", "_backward") for pool in (
        "max_pool2d_with_indices", "avg_pool2d", "adaptive_max_pool2d", "_adaptive_avg_pool2d")),
)  # fmt: skip
_MORE = ("_softmax", "_log_softmax", "native_group_norm", "var", "var_mean", "addmm", "gelu", "elu", "leaky_relu",
         "hardtanh", "silu", "mish", "softplus", "hardswish", "hardsigmoid", "log_sigmoid_forward",
         "linalg_vector_norm")  # fmt: skip


def traced(module: nn.Module, loss: Loss, params: Tensors, buffers: Tensors, batch: tuple[torch.Tensor, ...]) -> Any:
    """The graph of (params, buffers, x, y, rows) -> (*gradients, loss); buffers are changed in place.

    Args:
        params, buffers, batch: tensors of the shapes of one model's; their numbers do not matter.

    Raises:
        NotATape: torch cannot trace it, or it is another one from call to call.
    """
    from torch._decomp import core_aten_decompositions, get_decompositions
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.nn.attention import SDPBackend, sdpa_kernel

    aten = torch.ops.aten
    more = get_decompositions([getattr(aten, name) for name in _MORE])
    table = {**core_aten_decompositions(), **more, **written.rules()}
    table = {op: rule for op, rule in table.items() if op.name().split("::")[1].split(".")[0] not in _KEPT}

    def step(params: Tensors, buffers: Tensors, x: torch.Tensor, y: torch.Tensor, rows: torch.Tensor) -> Any:
        with torch.enable_grad():
            own = {name: p.detach().requires_grad_() for name, p in params.items()}
            value = loss(torch.func.functional_call(module, (own, buffers), (x,)), y, rows)
            return *torch.autograd.grad(value, list(own.values()), materialize_grads=True), value.detach()

    def made_of(call: Callable[..., Any]) -> Any:
        return make_fx(call, decomposition_table=table)(params, buffers, *batch)

    try:
        with warnings.catch_warnings(), sdpa_kernel(SDPBackend.MATH):
            warnings.simplefilter("ignore")
            made = made_of(step)
            if any(_writes(node) for node in made.graph.nodes):
                first = made
                made = made_of(torch.func.functionalize(lambda *given: first(*given), remove="mutations"))
    except Exception as error:
        raise NotATape(in_a_line(error)) from error
    made.graph.eliminate_dead_code()
    return made


def _writes(node: Any) -> bool:
    return node.op == "call_function" and bool(getattr(getattr(node.target, "_schema", None), "is_mutable", False))
