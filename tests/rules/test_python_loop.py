"""A loop that leaves nothing for the backward pass is promised none of it."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest

from hasten.core.facts import Event, Place, Usage
from hasten.seams.source import without_graph
from tests.rules.test_judgements import found, trace

AVERAGE = """import torch

def guarded(average, model):
    with torch.no_grad():
        for a, p in zip(average.parameters(), model.parameters()):
            a.mul_(0.99).add_(p, alpha=0.01)

@torch.inference_mode()
def decorated(average, model):
    for a, p in zip(average.parameters(), model.parameters()):
        a.mul_(0.99).add_(p, alpha=0.01)

def penalty(model):
    total = 0
    for p in model.parameters():
        total = total + p.square().sum()
    return total
"""


@pytest.mark.parametrize(("line", "alone"), [(5, True), (10, True), (15, False)])
def test_averaging_weights_has_no_backward_pass(line: int, alone: bool, tmp_path: Path) -> None:
    path = tmp_path / "average.py"
    path.write_text(AVERAGE, encoding="utf-8")
    assert without_graph(str(path), line) is alone
    events = (Event("loop", Place(str(path), line, "f", "for"), 40.0, 0.002),)
    (finding,) = found("M310", dataclasses.replace(trace(0.01, backward=0.006, python=0.002), events=events))
    assert "_foreach_" in finding.advice
    assert (finding.predicted.high < 1 / (1 - 0.2)) is alone


@pytest.mark.parametrize(("waited", "told"), [(math.nan, False), (0.0, False), (0.75, True)])
def test_iterations_that_waited_for_a_core_are_as_long_as_they_worked(
    waited: float, told: bool, tmp_path: Path
) -> None:
    """A character at a time through a GRU: 0.5 ms each, and 2.2 ms where others keep the cores busy."""
    path = tmp_path / "characters.py"
    path.write_text("for c in range(200):\n    output, hidden = decoder(inp[c], hidden)\n", encoding="utf-8")
    events = (Event("loop", Place(str(path), 1, "f", "for c in range(200):"), 200.0, 0.446),)
    usage = Usage(0.22, wall_seconds=1.0, waited_seconds=waited)
    seen = dataclasses.replace(trace(1.0, backward=0.52, forward=0.4), events=events, usage=usage)
    findings = found("M310", seen)
    assert bool(findings) is told
    assert all("'hidden'" in f.advice and "once with the whole sequence; else run" in f.advice for f in findings)


def test_who_carries_something_else_over_is_not_told_of_recurrent_modules(tmp_path: Path) -> None:
    path = tmp_path / "samples.py"
    path.write_text("for t in range(200):\n    z = z + drift(z, t) * dt\n", encoding="utf-8")
    events = (Event("loop", Place(str(path), 1, "f", "for t in range(200):"), 200.0, 0.1),)
    (finding,) = found("M310", dataclasses.replace(trace(0.3, backward=0.1, forward=0.1), events=events))
    assert "nn.GRU" not in finding.advice
