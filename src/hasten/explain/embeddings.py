"""How many rows of a table of embeddings does a step use, whose gradient and optimizer go through all of them?

Looked at once, where a step has ended and its gradients are still there.
"""

from __future__ import annotations

import time
from typing import Any

from hasten.core.facts import EmbeddingFacts
from hasten.seams.names import names_of
from hasten.seams.state import Snapshot
from hasten.seams.watch import Watch

LEAST_ROWS = 10_000  # of a table that is looked at
PART = 1 << 14  # rows that are looked at, or made, at once
TIMES = 3  # that zeros are made; the longest counts: a step's may lie in memory that is taken anew
SPARSE = ("SGD", "Adagrad", "Adam")  # of torch: take sparse gradients, or have a sparse twin


def dense_embeddings(watch: Watch) -> tuple[EmbeddingFacts, ...]:
    """Large tables on the CPU with a dense gradient, held by an optimizer without weight decay or momentum."""
    import torch

    snapshot = Snapshot.of(watch)
    holders = {id(p): (o, g) for o in snapshot.optimizers for g in o.param_groups for p in g["params"]}
    tables = {
        id(m.weight): m
        for top in snapshot.models
        for m in top.modules()
        if type(m) in (torch.nn.Embedding, torch.nn.EmbeddingBag) and not m.sparse and _large(m.weight)
    }
    found = []
    for key, table in tables.items():
        optimizer, group = holders.get(key, (None, {}))
        kind = type(optimizer).__name__
        if kind not in SPARSE or type(optimizer).__module__.partition(".")[0] != "torch" or _dense_by_rule(group):
            continue
        name = next(names_of(watch, [table]), type(table).__name__)
        rows, columns = table.weight.shape
        used = sum(int((part != 0).any(1).sum()) for part in table.weight.grad.split(PART))
        found.append(EmbeddingFacts(name, rows, columns, used, _zero_seconds(table.weight), kind))
    return tuple(found)


def _large(weight: Any) -> bool:
    gradient = weight.grad
    return (
        weight.requires_grad
        and len(weight) >= LEAST_ROWS
        and weight.device.type == "cpu"
        and gradient is not None
        and not gradient.is_sparse
    )


def _dense_by_rule(group: dict[str, Any]) -> bool:
    """Whether it has a setting that moves rows without a gradient by rule, or that SparseAdam does not have."""
    return any(group.get(name) for name in ("weight_decay", "momentum", "amsgrad", "maximize"))


def _zero_seconds(weight: Any) -> float:
    import torch

    times, part = [], weight[:PART]
    for _ in range(TIMES):
        start = time.perf_counter()
        torch.zeros_like(part)
        times.append(time.perf_counter() - start)
    return max(times) * len(weight) / len(part)
