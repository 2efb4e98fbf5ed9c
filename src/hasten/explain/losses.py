"""Which loss is differentiated, and of what: read from the graph before it is used up."""

from __future__ import annotations

from typing import Any

SQUARED, SOFTMAX, BINARY = "squared error", "cross-entropy", "binary cross-entropy"
MOST_NODES = 6  # scalings and means between the loss that is differentiated and the loss of a row
_SCALING = ("Mul", "Div", "Mean", "Sum", "Neg")


def target_of(loss: Any, scores: Any) -> tuple[str, Any] | None:
    """The kind of a loss and its targets, if it is a function of these scores, each row counting alike.

    Args:
        loss: about to be differentiated.
        scores: (rows, outputs) output of the layer; detached from nothing.

    Returns:
        ``SQUARED`` with (rows, outputs), ``SOFTMAX`` with (rows,) classes or ``BINARY`` with (rows, 1) of 0 and 1; None
        where the loss is another one, weighted, or of other scores.
    """
    node = getattr(loss, "grad_fn", None)
    for _ in range(MOST_NODES):
        if node is None:
            return None
        name = node.name().removesuffix("0").removesuffix("1").removesuffix("Backward")
        if name in _READERS:
            return _READERS[name](node, scores.detach())
        behind = [n for n, _ in node.next_functions if n is not None]
        if name == "Mul" and len(behind) == 2 and behind[0] is behind[1]:
            return _difference(node, scores.detach())
        if name not in _SCALING or len(behind) != 1 or not _scalar(node):
            return None
        node = behind[0]
    return None


def _scalar(node: Any) -> bool:
    """Whether a product scales all rows alike."""
    saved = (getattr(node, f"_saved_{name}", None) for name in ("self", "other"))
    return all(getattr(t, "numel", lambda: 1)() == 1 for t in saved)


def _same(values: Any, scores: Any) -> bool:
    """Whether these are the scores, in the same order."""
    return bool(values.numel() == scores.numel() and (values.reshape(-1) == scores.reshape(-1)).all())


def _close(values: Any, scores: Any) -> bool:
    import torch

    return bool(values.shape == scores.shape and torch.allclose(values, scores, rtol=1e-4, atol=1e-6))


def _squared(node: Any, scores: Any) -> tuple[str, Any] | None:
    if not _same(node._saved_self, scores):
        return None
    return SQUARED, node._saved_target.detach().reshape(scores.shape)


def _power(node: Any, scores: Any) -> tuple[str, Any] | None:
    """``(scores - y) ** 2`` or ``(y - scores) ** 2``, as people write them."""
    return _difference(node, scores) if float(node._saved_exponent) == 2 else None


def _difference(node: Any, scores: Any) -> tuple[str, Any] | None:
    """Where a node squares a difference from the scores; by multiplying it with itself, too."""
    behind = node.next_functions[0][0]
    if behind is None or behind.name() != "SubBackward0":
        return None
    rest = node._saved_self.detach()
    ahead = [n for n, _ in behind.next_functions]
    if rest.numel() != scores.numel() or len([n for n in ahead if n is not None]) != 1 or not _leads_to(ahead):
        return None
    rest = rest.reshape(scores.shape)
    return SQUARED, scores - rest if ahead[0] is not None else scores + rest


def _leads_to(nodes: list[Any]) -> bool:
    """Whether nothing but another shape stands between a node and the layer's product."""
    node = next(n for n in nodes if n is not None)
    while node.name().startswith(("Squeeze", "Unsqueeze", "View", "Reshape", "Select", "Alias")):
        node = node.next_functions[0][0]
        if node is None:
            return False
    return bool(node.name().startswith(("Addmm", "Mm")))


def _negative(node: Any, scores: Any) -> tuple[str, Any] | None:
    import torch

    target = node._saved_target.detach()
    if scores.ndim != 2 or node._saved_weight is not None or bool((target == node._saved_ignore_index).any()):
        return None
    return (SOFTMAX, target) if _close(node._saved_self, torch.log_softmax(scores, 1)) else None


def _logits(node: Any, scores: Any) -> tuple[str, Any] | None:
    weighted = node._saved_weight is not None or node._saved_pos_weight is not None
    return None if weighted or not _same(node._saved_self, scores) else _binary(node._saved_target, scores)


def _probabilities(node: Any, scores: Any) -> tuple[str, Any] | None:
    import torch

    seen = node._saved_self
    if node._saved_weight is not None or seen.numel() != scores.numel():
        return None
    return _binary(node._saved_target, scores) if _close(seen.reshape(scores.shape), torch.sigmoid(scores)) else None


def _binary(target: Any, scores: Any) -> tuple[str, Any] | None:
    target = target.detach()
    single = target.numel() == len(scores) and bool(((target == 0) | (target == 1)).all())
    return (BINARY, target.reshape(-1, 1)) if single else None


_READERS = {
    "MseLoss": _squared,
    "Pow": _power,
    "NllLoss": _negative,
    "BinaryCrossEntropyWithLogits": _logits,
    "BinaryCrossEntropy": _probabilities,
}
