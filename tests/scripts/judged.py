"""A training with hasten's seams in its own process: trials and comparisons between two of its steps, as JSON.

Usage: judged.py FOLDER (judge | compare | nothing)
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from hasten.boot.agent import Session
from hasten.core.remedy import Fidelity, Grain, Remedy, Seam, Undo
from hasten.run.fidelity import Judge
from hasten.run.trial import TrialRoom

SWITCHES = {"slow": True}  # what the training looks at in every step
FOLDER = Path(sys.argv[1])


@dataclass(frozen=True)
class Switched(Remedy):
    """Sets one switch of this script."""

    fidelity: ClassVar[Fidelity] = Fidelity.EQUIVALENT
    seam: ClassVar[Seam] = Seam.PROCESS
    switch: str = ""
    value: bool = True

    def on(self, target: Any = None) -> Undo:
        before = SWITCHES.get(self.switch, False)
        SWITCHES[self.switch] = self.value
        if self.switch == "raises":
            raise ZeroDivisionError
        return lambda: SWITCHES.__setitem__(self.switch, before)


@dataclass(frozen=True)
class Promised(Switched):
    fidelity: ClassVar[Fidelity] = Fidelity.IDENTICAL


@dataclass(frozen=True)
class Approximate(Switched):
    fidelity: ClassVar[Fidelity] = Fidelity.APPROXIMATE


@dataclass(frozen=True)
class InTurns(Promised):
    grain: ClassVar[Grain] = Grain.CHILD


@dataclass(frozen=True)
class SavesFaults(InTurns):
    """Said to save page faults, of which the copies have none."""

    saves_faults: ClassVar[bool] = True


class Net(nn.Module):
    """A frozen layer, a bias that a norm makes meaningless, the norm's buffers, dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Linear(16, 32)
        self.frozen.requires_grad_(False)
        self.hidden, self.norm = nn.Linear(32, 32), nn.BatchNorm1d(32)
        self.drop, self.last = nn.Dropout(0.1), nn.Linear(32, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.frozen(x))
        if SWITCHES.get("rounds"):
            h = (h.double() @ self.hidden.weight.double().T).float() + self.hidden.bias
        else:
            h = self.hidden(h)
        out: torch.Tensor = self.last(self.drop(torch.tanh(self.norm(h))))
        return out


def training(net: Net) -> Iterator[None]:
    torch.manual_seed(1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    x, y = torch.randn(512, 16), torch.randn(512, 1)
    while True:
        rows = torch.randint(512, (64,))
        optimizer.zero_grad()
        if SWITCHES.get("forward twice"):
            with torch.no_grad():
                net.norm(torch.relu(net.frozen(x[rows])))
        if SWITCHES.get("draws"):
            torch.rand(1)
        if SWITCHES.get("thaws"):
            with torch.no_grad():
                net.frozen.weight[0, 0] += 1e-3
        loss = nn.functional.mse_loss(net(x[rows]), y[rows])
        (loss * (1.01 if SWITCHES.get("other gradient") else 1.0)).backward()
        if SWITCHES.get("diverges"):
            net.last.weight.grad.fill_(float("nan"))
        if SWITCHES["slow"]:
            time.sleep(0.004)
        if SWITCHES.get("slower"):
            time.sleep(0.012)
        if SWITCHES.get("crawls"):
            time.sleep(0.04)
        optimizer.step()
        yield


def judged(session: Session) -> dict[str, Any]:
    asked = {
        "nothing": Promised(),
        "rounds": Switched("rounds"),
        "rounds, promised identical": Promised("rounds"),
        "other gradient": Switched("other gradient"),
        "thaws": Switched("thaws"),
        "forward twice": Switched("forward twice"),
        "draws": Switched("draws"),
        "diverges": Switched("diverges"),
        "diverges, approximate": Approximate("diverges"),
        "rounds, approximate": Approximate("rounds"),
        "raises": Switched("raises"),
    }
    judge = Judge(TrialRoom(session.watch, session.switchboard, 0.006, str(FOLDER)), str(FOLDER), 0.006)
    hasty = dataclasses.replace(judge, step_seconds=0.001, part_seconds=1.0)
    found = {name: vars(judge.judge([remedy])) for name, remedy in asked.items()}
    return {**found, "crawls": vars(hasty.judge([Promised("crawls")]))}


def compared(session: Session) -> dict[str, Any]:
    asked: dict[str, Remedy] = {
        "faster": Promised("slow", False),
        "slower": Promised("slower"),
        "faster in turns": InTurns("slow", False),
        "slower in turns": InTurns("slower"),
        "raises": Promised("raises"),
        "raises in turns": InTurns("raises"),
        "spared": SavesFaults("slower"),
    }
    room = TrialRoom(session.watch, session.switchboard, 0.006, str(FOLDER), faults=1e9)
    found = {}
    for name, remedy in asked.items():
        measured = room.compare([], [remedy], 30.0)
        pairs = measured.pairs
        found[name] = {
            "outcome": measured.outcome.value,
            "pairs": len(pairs.wall),
            "why": measured.why,
            "method": measured.method,
        }
    return found


def main() -> None:
    doors: dict[str, Callable[[Session], dict[str, Any]]] = {"judge": judged, "compare": compared}
    door = doors.get(sys.argv[2])
    torch.set_num_threads(1)
    torch.manual_seed(0)
    session = Session(FOLDER, {"mode": "bench"}, time.perf_counter_ns())
    session.install()
    net, found = Net(), {}
    steps = training(net)
    for _ in range(20):
        next(steps)
    session.forward.settle()

    def between(_now: int) -> None:
        session.watch.at_step = None
        found.update(door(session) if door else {})

    session.watch.at_step, session.watch.next_call = between, session.watch.steps + 1
    for _ in training_on(steps, session):
        pass
    weights = b"".join(t.numpy().tobytes() for t in net.state_dict().values())
    print(json.dumps({"found": found, "weights": hashlib.sha256(weights).hexdigest()}))


def training_on(steps: Iterator[None], session: Session) -> Iterator[None]:
    """Ten steps more; a child goes on until its parent ends it."""
    for i, _ in enumerate(steps):
        if session.watch.driver is None:
            if i == 9:
                return
            yield


if __name__ == "__main__":
    main()
