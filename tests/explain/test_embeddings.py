"""Tables of embeddings that are updated in all rows are found; small ones, and those moved by rule, are not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from hasten.core.facts import EmbeddingFacts, OptimizerFacts
from hasten.core.trace import Trace
from hasten.explain.embeddings import LEAST_ROWS, dense_embeddings
from tests.rules.test_judgements import found, trace

Make = Callable[[Any], torch.optim.Optimizer]


def watch_of(model: nn.Module, make: Make) -> Any:
    """After one step on a few rows."""
    optimizer = make(model.parameters())
    model(torch.tensor([3, 5, 3])).sum().backward()
    optimizer.step()
    models = {1: SimpleNamespace(module=lambda: model)}
    return SimpleNamespace(models=models, optimizers={2: SimpleNamespace(optimizer=optimizer)})


def table(rows: int = LEAST_ROWS, **settings: Any) -> nn.Module:
    return nn.Sequential(nn.Embedding(rows, 8, **settings), nn.Linear(8, 1))


def test_rows_with_a_gradient_are_counted() -> None:
    recommender = table()
    (facts,) = dense_embeddings(watch_of(recommender, lambda p: torch.optim.Adam(p)))
    assert (facts.name, facts.rows, facts.columns, facts.used) == ("recommender.0", LEAST_ROWS, 8, 2)
    assert facts.optimizer == "Adam" and facts.zero_seconds > 0


@pytest.mark.parametrize(
    ("model", "make"),
    [
        pytest.param(table(LEAST_ROWS - 1), lambda p: torch.optim.Adam(p), id="small"),
        pytest.param(table(), lambda p: torch.optim.Adam(p, weight_decay=0.1), id="decay"),
        pytest.param(table(), lambda p: torch.optim.AdamW(p), id="AdamW"),
        pytest.param(table(), lambda p: torch.optim.SGD(p, 0.1, momentum=0.9), id="momentum"),
        pytest.param(table(sparse=True), lambda p: torch.optim.SGD(p, 0.1), id="sparse already"),
    ],
)
def test_what_could_not_be_sparse_is_not_told(model: nn.Module, make: Make) -> None:
    assert dense_embeddings(watch_of(model, make)) == ()


TABLE = EmbeddingFacts("net.users", 90_000, 10, 100, 0.001, "Adam")


def a_trace(*tables: EmbeddingFacts, kind: str = "Adam") -> Trace:
    optimizer = OptimizerFacts(kind, elements=1_000_000)
    return dataclasses.replace(
        trace(0.1, optimizer=0.06, backward=0.02), embeddings=tables, optimizers=(optimizer,), window=100
    )


def test_the_gain_is_the_part_of_the_optimizer_and_at_most_the_zeros() -> None:
    (finding,) = found("O404", a_trace(TABLE))
    cost = 0.06 * (90_000 - 100) * 10 / 1e6
    assert finding.predicted.low == pytest.approx(0.1 / (0.1 - 0.8 * cost))
    assert finding.predicted.high == pytest.approx(0.1 / (0.1 - cost - 0.003))
    assert "SparseAdam" in finding.advice and "net.users" in finding.message


def test_sgd_takes_sparse_gradients_itself() -> None:
    (finding,) = found("O404", a_trace(dataclasses.replace(TABLE, optimizer="SGD"), kind="SGD"))
    assert "SGD takes sparse gradients" in finding.advice and not finding.notes


@pytest.mark.parametrize("changes", [{"used": 90_000}, {"rows": 20_000, "used": 10}])
def test_tables_whose_rows_are_used_or_few_are_not_told(changes: dict[str, int]) -> None:
    """One whose weight is the last layer's, too, has a gradient in every row."""
    assert not found("O404", a_trace(dataclasses.replace(TABLE, **changes)))
