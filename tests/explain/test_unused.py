"""Gradients that no step uses are found, with their owner and the call of backward; those that are used are not."""

from __future__ import annotations

import dataclasses
import subprocess
import textwrap
from pathlib import Path

import pytest
import torch
from torch import nn

from hasten.api import explain
from hasten.core.facts import Event, Place, UnusedFacts
from hasten.core.interval import Interval
from hasten.explain.unused import leaves, part_saved
from tests.rules.test_judgements import found, trace

BEGIN = """
    import torch
    from torch import nn

    torch.manual_seed(0)
    torch.set_num_threads(1)
    x, y = torch.randn(64, 64), torch.randn(64, 1)
    backbone = nn.Sequential(*(nn.Linear(64, 64) for _ in range(12)))
    head = nn.Linear(64, 1)
    adam = torch.optim.Adam(head.parameters(), 1e-3)
    """
FROZEN = """
    for step in range(60):
        loss = ((head(backbone(x)) - y) ** 2).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    """
BY_HAND = """
    for step in range(60):
        loss = ((head(backbone(x)) - y) ** 2).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        for p in backbone.parameters():
            p.data -= 1e-3 * (p.grad if p.grad is not None else 0)
            p.grad = None
    """
RARELY = """
    other = torch.optim.SGD(backbone.parameters(), 1e-3)
    for step in range(60):
        loss = ((head(backbone(x)) - y) ** 2).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        if step % 20 == 19:
            other.step()
            other.zero_grad()
    """


def unused(script: str, folder: Path) -> tuple[UnusedFacts, ...]:
    path = folder / "train.py"
    path.write_text(textwrap.dedent(BEGIN) + textwrap.dedent(script), encoding="utf-8")
    report = explain(str(path), stdout=subprocess.DEVNULL)
    assert report.trace is not None
    return report.trace.unused


def test_a_backbone_that_nobody_trains_is_found(tmp_path: Path) -> None:
    (facts,) = unused(FROZEN, tmp_path)
    assert facts.modules == ("backbone",) and facts.elements == 12 * 64 * 65 and not facts.stepped
    assert facts.place.text.strip() == "loss.backward()" and facts.place.column == 5
    assert facts.share.value > 0.3


@pytest.mark.parametrize(
    "script", [pytest.param(BY_HAND, id="by hand"), pytest.param(RARELY, id="rarely", marks=pytest.mark.slow)]
)
def test_gradients_that_are_used_in_other_ways_are_not(script: str, tmp_path: Path) -> None:
    assert unused(script, tmp_path) == ()


def test_leaves_are_what_a_backward_pass_adds_gradients_to() -> None:
    a, b = nn.Linear(2, 2), nn.Linear(2, 2)
    x = torch.ones(1, 2, requires_grad=True)
    found_ = {id(t) for t in leaves(b(a(x)).sum())}
    assert found_ == {id(t) for t in (x, *a.parameters(), *b.parameters())}
    assert {id(t) for t in leaves([b(a(x).detach()).sum()])} == {id(t) for t in b.parameters()}
    assert leaves(torch.ones(())) == []


def test_what_is_saved_is_no_better_known_than_the_times_are() -> None:
    sharp = part_saved([1.0, 1.01, 0.99, 1.0], [0.5, 0.51, 0.49, 0.5])
    assert sharp is not None and 0.47 < sharp.low <= sharp.value <= sharp.high < 0.53
    blurred = part_saved([1.0, 3.0, 0.5, 2.0], [1.1, 0.4, 2.5, 2.0])
    assert blurred is not None and blurred.low < 0 < blurred.high
    assert part_saved([1.0] * 3, [0.5] * 9) is None


CALL = Place("train.py", 30, "", "loss.backward()")
FACTS = UnusedFacts(CALL, ("g", "a", "b", "c"), 1000, True, Interval(0.6, 0.5, 0.7, "", 0.95, 12), 8)


def test_the_finding_predicts_by_what_the_call_takes_in_the_script() -> None:
    of = dataclasses.replace(trace(0.1, backward=0.05), unused=(FACTS,), events=(Event("backward", CALL, 1, 0.05),))
    (finding,) = found("M311", of)
    assert "30 ms of a step of 100 ms" in finding.message and "g, a, b and 1 more (1,000 parameters)" in finding.message
    assert finding.place == CALL and ".detach()" in finding.advice
    assert 1 / 0.751 < finding.predicted.low < finding.predicted.high < 1 / 0.649
    alone = dataclasses.replace(FACTS, stepped=False)
    assert "no_grad" in found("M311", dataclasses.replace(of, unused=(alone,)))[0].advice


@pytest.mark.parametrize("share", [Interval(0.6, -0.1, 0.9, "", 0.95, 12), Interval(0.04, 0.03, 0.05, "", 0.95, 12)])
def test_what_is_not_sure_or_not_worth_it_is_not_told(share: Interval) -> None:
    facts = dataclasses.replace(FACTS, share=share)
    of = dataclasses.replace(trace(0.1, backward=0.05), unused=(facts,), events=(Event("backward", CALL, 1, 0.05),))
    assert not found("M311", of)
