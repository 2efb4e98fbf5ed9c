"""Advice on evaluations knows how often they are made."""

from __future__ import annotations

import dataclasses

import pytest

from hasten.core.trace import LoaderFacts
from tests.rules.test_judgements import LOOP, found, loader, trace


@pytest.mark.parametrize(
    ("starts", "before", "once"), [(8, 0, True), (9, 0, True), (1, 7, True), (40, 0, False), (1, 39, False)]
)
def test_who_evaluates_once_an_epoch_is_not_advised_to(starts: int, before: int, once: bool) -> None:
    held_out = LoaderFacts("evaluation", "Photos", LOOP, 200, 10, starts=starts, before=before)
    (finding,) = found("E602", dataclasses.replace(trace(0.1, evaluation=0.05), loaders=(loader(0), held_out)))
    assert ("or once an epoch" in finding.advice) is not once
    assert ("every few epochs" in finding.advice) is once
