"""Advice on evaluations knows how often they are made."""

from __future__ import annotations

import dataclasses

import pytest

from hasten.core.facts import LoaderFacts, ModelFacts
from tests.rules.test_judgements import LOOP, found, loader, trace


@pytest.mark.parametrize(
    ("starts", "before", "once"), [(8, 0, True), (9, 0, True), (1, 7, True), (40, 0, False), (1, 39, False)]
)
def test_who_evaluates_once_an_epoch_is_not_advised_to(starts: int, before: int, once: bool) -> None:
    held_out = LoaderFacts("evaluation", "Photos", LOOP, 200, 10, starts=starts, before=before)
    (finding,) = found("E602", dataclasses.replace(trace(0.1, evaluation=0.05), loaders=(loader(0), held_out)))
    assert ("or once an epoch" in finding.advice) is not once
    assert ("every few epochs" in finding.advice) is once


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_an_evaluation_in_train_mode_is_told_and_no_remedy_is_offered(mode: str) -> None:
    """What is an evaluation in train mode is known only when nothing has differentiated it."""
    counts = {"evaluations_with_graph": 5} if mode == "eval" else {"in_train_mode": 5, "graphs_in_train_mode": 5}
    model = ModelFacts("Net", evaluations=5, acts_by_mode=True, **counts)
    seen = dataclasses.replace(trace(0.1, evaluation=0.05), models=(model,))
    (finding,) = found("E601", seen)
    assert finding.message.startswith("5 evaluation calls of Net")
    assert bool(finding.remedies) == (mode == "eval")
    assert bool(finding.advice) == any("batch norm" in note for note in finding.notes) == (mode == "train")
    (finding,) = found("E602", seen)
    said = "calls in eval mode" if mode == "eval" else "calls that no backward pass follows"
    assert finding.message.startswith(said)
