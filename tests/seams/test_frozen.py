"""Frozen parts whose answer depends on the sample alone are found; those that draw, move, mix or learn are not."""

from __future__ import annotations

import dataclasses
import subprocess
import textwrap
from pathlib import Path

import pytest

from hasten.api import explain
from hasten.core.facts import FrozenFacts, LoaderFacts, Place, Probe
from hasten.core.interval import Interval
from hasten.core.trace import Trace
from tests.rules.test_judgements import found, trace

BEGIN = """
    import copy
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    torch.manual_seed(0)
    torch.set_num_threads(1)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Linear(16, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 16))
            self.body.requires_grad_(False).eval()
            self.head = nn.Linear(16, 1)
        def forward(self, x):
            return self.head(self.body(x))

    def frozen():
        return nn.Linear(16, 16).requires_grad_(False)

    net, first, target = Net(), nn.Linear(16, 16), nn.Linear(16, 1)
    net.never = nn.Linear(4, 4)  # is in the optimizer, and has no gradient
    data = DataLoader(TensorDataset(torch.randn(256, 16), torch.randn(256, 1)), batch_size=16, shuffle=True)
    adam = torch.optim.Adam([p for m in (net, first, target) for p in m.parameters() if p.requires_grad], 1e-3)
    """
MANY = """
    drawn, normed = frozen(), nn.Sequential(nn.BatchNorm1d(16), frozen()).requires_grad_(False)
    mixed = nn.Sequential(frozen(), nn.Softmax(0))
    moving, behind, dropped = frozen(), frozen(), nn.Sequential(frozen(), nn.Dropout(0.5))
    for epoch in range(4):
        for x, y in data:
            x.sub_(0.5)
            others = normed(x).sum() + mixed(x).sum() + dropped(x).sum() + drawn(x + torch.randn(16, 16)).sum()
            others = others + moving(x).sum() + behind(first(x)).sum()
            loss = ((net(x) + target(x) - y) ** 2).mean() + 0 * others
            adam.zero_grad()
            loss.backward()
            adam.step()
            with torch.no_grad():
                moving.weight.lerp_(first.weight, 0.01)
    """
UNFROZEN = """
    for epoch in range(6):
        for x, y in data:
            loss = ((net(x) + target(x) - y) ** 2).mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
        if epoch == 4:
            net.body.requires_grad_(True)
            adam.add_param_group({"params": list(net.body.parameters())})
    """
WITHOUT_GRAPH = """
    for epoch in range(6):
        for x, y in data:
            with torch.no_grad():
                features = net.body(x)
            loss = ((net.head(features) + target(x) - y) ** 2).mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
    """
HELD = """
    net.body.requires_grad_(True)
    adam = torch.optim.Adam([*net.parameters(), *target.parameters()], 1e-3)
""" + WITHOUT_GRAPH.removeprefix("\n")
BY_DATA = (
    WITHOUT_GRAPH
    + """
        if epoch == 4:
            net.body[0].weight.data.mul_(1.01)
    """
)
WHOLE = """
    x, y = data.dataset.tensors
    for step in range(96):
        loss = ((net(x) + target(x) - y) ** 2).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    """


def seen(script: str, folder: Path) -> Trace:
    path = folder / "train.py"
    path.write_text(textwrap.dedent(BEGIN) + textwrap.dedent(script), encoding="utf-8")
    report = explain(str(path), stdout=subprocess.DEVNULL)
    assert report.trace is not None
    return report.trace


def test_what_depends_on_the_sample_alone_is_told_from_what_does_not(tmp_path: Path) -> None:
    facts = seen(MANY, tmp_path).frozen
    assert facts is not None and facts.modules == ("net.body",)
    assert facts.elements == 16 * 64 + 64 + 2 * 64 + 64 * 16 + 16 and facts.row_bytes == 64
    assert facts.place.text.strip() == "return self.head(self.body(x))" and facts.steps == 12
    assert not facts.every_step and facts.seconds.low > 0


@pytest.mark.slow
@pytest.mark.parametrize("script", [UNFROZEN, BY_DATA])
def test_what_is_changed_later_is_not_told(script: str, tmp_path: Path) -> None:
    assert seen(script, tmp_path).frozen is None


@pytest.mark.slow
@pytest.mark.parametrize("script", [WITHOUT_GRAPH, HELD])
def test_features_of_a_call_without_a_graph_are_found(script: str, tmp_path: Path) -> None:
    """Also where an optimizer holds the weights, which without a gradient it leaves alone."""
    facts = seen(script, tmp_path).frozen
    assert facts is not None and facts.modules == ("net.body",) and "net.body(x)" in facts.place.text


@pytest.mark.slow
def test_where_a_step_takes_all_rows_every_step_gives_the_same(tmp_path: Path) -> None:
    facts = seen(WHOLE, tmp_path).frozen
    assert facts is not None and facts.modules == ("net.body",) and facts.every_step


FACTS = FrozenFacts(Place("a.py", 5), ("net.body",), 1000, Interval(0.008, 0.0078, 0.0082), 256, steps=12)
LOADER = LoaderFacts(
    "training",
    "Photos",
    Place("a.py", 4),
    length=1000,
    batch_size=10,
    probe=Probe(deterministic=True, random_free=True),
)


def a_trace(facts: FrozenFacts = FACTS, loader: LoaderFacts | None = LOADER, steps: int = 1000) -> Trace:
    known = trace(0.01, loader=loader, fetch=0.0005, backward=0.001)
    return dataclasses.replace(known, frozen=facts, predicted_steps=steps)


def test_the_gain_is_the_calls_and_what_is_fetched_for_them() -> None:
    (finding,) = found("M314", a_trace())
    assert finding.predicted.low == pytest.approx(0.01 / (0.01 - 0.9 * 0.0078))
    assert finding.predicted.high == pytest.approx(0.01 / (0.6 * (0.01 - 0.0082 - 0.0005)))
    assert "256 kB" in finding.notes[1] and "second epoch" in finding.notes[1] and "net.body" in finding.message


@pytest.mark.parametrize(
    "loader",
    [
        None,
        dataclasses.replace(LOADER, probe=None),
        dataclasses.replace(LOADER, probe=Probe(deterministic=False)),
        dataclasses.replace(LOADER, changing=True),
        dataclasses.replace(LOADER, map_style=False),
    ],
)
def test_nothing_is_said_of_samples_that_may_differ(loader: LoaderFacts | None) -> None:
    assert not found("M314", a_trace(loader=loader))
    assert found("M314", a_trace(dataclasses.replace(FACTS, every_step=True), loader))


def test_in_one_epoch_nothing_is_gained() -> None:
    (finding,) = found("M314", a_trace(steps=100))
    assert finding.predicted.high == 1 and "one epoch" in finding.notes[1]


def test_features_that_no_memory_holds_are_not_told() -> None:
    room = dataclasses.replace(a_trace().process, available_bytes=1e5)
    assert not found("M314", dataclasses.replace(a_trace(), process=room))


def test_little_is_not_told() -> None:
    facts = dataclasses.replace(FACTS, seconds=Interval(0.0009, 0.0008, 0.001))
    assert not found("M314", a_trace(facts))
