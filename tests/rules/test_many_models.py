"""W801: fires on many models of one shape, one after the other, and on nothing that only looks like it."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from hasten.core.facts import LoaderFacts, Process, Usage
from hasten.core.trace import Trace
from hasten.rules.w801_many_models import RULE
from hasten.seams.collect import _successions
from hasten.seams.watch import Watch

CASES = {
    "many": (
        "for key in range(20):\n    model = network()\n    o = adam(model)\n    for _ in range(40): step(model, o)",
        True,
    ),
    "all_kept": (
        "kept = [(m, adam(m)) for m in (network() for _ in range(20))]\n"
        "for model, o in kept:\n    for _ in range(40): step(model, o)",
        True,
    ),
    "many_by_closures": (  # as skorch steps: the model is called inside of the optimizer's step
        "for key in range(20):\n    m = network()\n    o = adam(m)\n    for _ in range(40): closure(m, o)",
        True,
    ),
    "five_folds": (
        "for fold in range(5):\n    m = network()\n    o = adam(m)\n    for _ in range(100): step(m, o)",
        False,
    ),
    "adversarial": (
        "a, b = network(), network()\np, q = adam(a), adam(b)\nfor _ in range(200):\n    step(a, p)\n    step(b, q)",
        False,
    ),
    "many_in_turn": (
        "kept = [(m, adam(m)) for m in (network() for _ in range(20))]\n"
        "for _ in range(30):\n    for model, o in kept: step(model, o)",
        False,
    ),
    "one_model_restarted": (
        "model = network()\nfor cycle in range(20):\n    o = adam(model)\n    for _ in range(40): step(model, o)",
        False,
    ),
    "two_optimizers_of_a_model": (
        "m = network()\np, q = adam(m[0]), adam(m[2])\nfor _ in range(200): step(m, p, q)",
        False,
    ),
    "widths_differ": (
        "for width in range(1, 21):\n    m = nn.Linear(4, width)\n    o = adam(m)\n    for _ in range(40): step(m, o)",
        False,
    ),
    "all_from_one_template": (
        "first = network()\nfor key in range(20):\n    m = copy.deepcopy(first)\n    o = adam(m)\n"
        "    for _ in range(40): step(m, o)\n    move(m)",
        True,
    ),
    "seeds_outside": (
        "for seed in range(4):\n    for key in range(5):\n        torch.manual_seed(seed)\n        m = network()\n"
        "        o = adam(m)\n        for _ in range(40): step(m, o)\n        move(m)",
        True,
    ),
    "folds_inside_of_seeds": (  # trained for so long that what they end with covers what others begin with
        "for seed in range(6):\n    for fold in range(5):\n        torch.manual_seed(seed)\n        m = network()\n"
        "        o = adam(m)\n        for _ in range(40): step(m, o)\n        torch.manual_seed(10 * seed + fold)\n"
        "        move(m, 10)",
        True,
    ),
    "federated": (
        "server = network()\nfor turn in range(5):\n    clients = []\n    for key in range(4):\n"
        "        m = copy.deepcopy(server)\n        o = adam(m)\n        for _ in range(40): step(m, o)\n"
        "        move(m)\n        clients.append(m.state_dict())\n"
        "    server.load_state_dict({k: torch.stack([c[k] for c in clients]).mean(0) for k in clients[0]})",
        False,
    ),
    "federated_with_a_step_of_the_server": (  # written by hand: momentum on what the clients have moved by
        "server = network()\nspeed = {k: 0 for k in server.state_dict()}\nfor turn in range(5):\n    clients = []\n"
        "    for key in range(4):\n"
        "        m = copy.deepcopy(server)\n        o = adam(m)\n        for _ in range(40): step(m, o)\n"
        "        move(m)\n        clients.append(m.state_dict())\n"
        "    now = server.state_dict()\n"
        "    for k in now:\n"
        "        speed[k] = 0.9 * speed[k] + torch.stack([c[k] for c in clients]).mean(0) - now[k]\n"
        "    server.load_state_dict({k: now[k] + speed[k] for k in now})",
        False,
    ),
    "federated_with_an_optimizer_of_the_server": (
        "server = network()\nq = adam(server)\nfor turn in range(5):\n    clients = []\n    for key in range(4):\n"
        "        m = copy.deepcopy(server)\n        o = adam(m)\n        for _ in range(40): step(m, o)\n"
        "        move(m)\n    move(server)\n    step(server, q)",
        False,
    ),
    "federated_for_long": (
        "server = network()\nfor turn in range(5):\n    clients = []\n    for key in range(4):\n"
        "        m = copy.deepcopy(server)\n        o = adam(m)\n        for _ in range(40): step(m, o)\n"
        "        move(m, 5)\n        clients.append(m.state_dict())\n"
        "    now = server.state_dict()\n"
        "    mean = {k: torch.stack([c[k] for c in clients]).mean(0) for k in now}\n"
        "    server.load_state_dict({k: 0.5 * now[k] + 0.5 * mean[k] for k in now})",
        False,
    ),
    "one_goes_on_from_the_last": (
        "last = network()\nfor key in range(20):\n    m = copy.deepcopy(last)\n    o = adam(m)\n"
        "    for _ in range(40): step(m, o)\n    move(m)\n    last = m",
        False,
    ),
    "few_steps_each": (
        "for task in range(60):\n    m = network()\n    o = adam(m)\n    for _ in range(5): step(m, o)",
        False,
    ),
}


def watched(body: str, median: float = 0.001, device: str = "cpu") -> Trace:
    """What a watch knows after a script's loops; models and optimizers come and go as the script lets them."""
    watch = Watch()

    def step(model: nn.Module, *optimizers: torch.optim.Optimizer) -> None:
        watch.module_called(model, True)
        for optimizer in optimizers:
            watch.optimizer_entered(optimizer)
            watch.optimizer_left(optimizer)

    def closure(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        watch.optimizer_entered(optimizer)
        watch.module_called(model, True)
        watch.optimizer_left(optimizer)

    names = {
        "nn": nn,
        "torch": torch,
        "copy": copy,
        "move": move,
        "network": network,
        "adam": adam,
        "step": step,
        "closure": closure,
    }
    exec(body, names)
    facts = tuple(_successions(watch))
    return Trace("train.py", step_median=median, successions=facts, process=Process(device=device))


@torch.no_grad()
def move(model: nn.Module, far: float = 1) -> None:
    """As training does."""
    for p in model.parameters():
        p.add_(0.1 * far * torch.randn_like(p))


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters())


@pytest.mark.parametrize("name", CASES)
def test_fires_on_models_one_after_the_other_only(name: str) -> None:
    body, fires = CASES[name]
    trace = watched(body)
    assert bool(list(RULE.detect(trace))) == fires, trace.successions


def test_models_that_are_gone_are_counted() -> None:
    (facts,) = watched(CASES["many"][0]).successions
    assert (facts.model, facts.optimizer, facts.elements) == ("Sequential", "Adam", 49)
    assert (facts.models, facts.steps, facts.interleaved) == (20, 800, 0)


def test_long_steps_and_other_devices_are_left_alone() -> None:
    body = CASES["many"][0]
    assert not list(RULE.detect(watched(body, median=0.1)))
    assert not list(RULE.detect(watched(body, median=math.nan)))
    assert not list(RULE.detect(watched(body, device="cuda")))


def test_a_busy_machine_makes_no_step_long() -> None:
    """What a step waits for a core is no arithmetic; what it waits for otherwise is not known to be none."""
    trace = watched(CASES["many"][0], median=0.012)
    for wall, waited, speaks in ((0.013, 0.011, True), (0.013, 0.001, False), (0.013, math.nan, False)):
        seen = dataclasses.replace(trace, usage=Usage(wall_seconds=wall, waited_seconds=waited))
        found = list(RULE.detect(seen))
        assert bool(found) == speaks
        assert all("12.00 ms a step, 11.00 ms of it waiting for a core" in finding.message for finding in found)


def test_what_was_measured_lies_in_the_range() -> None:
    """bench/results/*fleet-1660*: 61 to 118 times a loop with a DataLoader, 30 to 50 without one."""
    trace = watched(CASES["many"][0])
    plain = next(iter(RULE.detect(trace)))
    loaded = next(iter(RULE.detect(dataclasses.replace(trace, loaders=(LoaderFacts("training", "TensorDataset"),)))))
    times: dict[str, list[float]] = {"DataLoader": [], "index batches": []}
    for path in Path(__file__).parents[2].glob("bench/results/*-fleet-1660*.json"):
        for name, job in json.loads(path.read_text())["figures"]["jobs"].items():
            for kind in times:
                times[kind] += [job["times"]] if kind in name else []
    assert max(times["DataLoader"]) <= loaded.predicted.high and max(times["index batches"]) <= plain.predicted.high
    assert min(times["DataLoader"]) > plain.predicted.high, "the range without a loader is the narrower one"


def test_a_clock_that_is_gone_is_replaced_at_once() -> None:
    watch = Watch()
    for _ in range(20):
        optimizer = adam(network())
        for _ in range(10):
            watch.optimizer_entered(optimizer)
            watch.optimizer_left(optimizer)
        assert watch.optimizers[id(optimizer)].steps == 10
    assert watch.steps == 200
