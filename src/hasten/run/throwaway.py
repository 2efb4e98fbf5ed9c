"""Inside a throw-away process: remedies on from the start, steps timed as ordered, the outcome written, gone."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hasten.core.errors import Unsuited
from hasten.core.remedy import Remedy, Undo
from hasten.measure.device import device_waiter
from hasten.rules import remedy_types
from hasten.run import stepwise
from hasten.run.fidelity import UNITS
from hasten.seams.batches import Ahead, Batches
from hasten.seams.child import WITHOUT, loss_of
from hasten.seams.fork import DONE, LAST
from hasten.seams.isolate import lead_libraries
from hasten.seams.state import Snapshot, digest
from hasten.seams.thrown import SEED, reseed, sender

DEVICE_STEPS = 10  # steps a timing where a device works behind the host, which is waited for at both ends


class Throwaway:
    """The driver of the watch in such a process.

    Args:
        order: see :class:`hasten.run.processes.ProcessRoom`. With ``on`` what is named there is tried step by step;
            else so many steps are taken and their outcome is written.
    """

    def __init__(self, session: Any, order: dict[str, Any], folder: Path) -> None:
        self.session = session
        self.watch = session.watch
        self.order = order
        self.folder = folder
        self.sender = sender(order)
        self.walls: list[float] = []
        self.cpus: list[float] = []
        self.losses: list[float] = []
        self.taken = self.counted = 0
        self.expected = order.get("expected", -1)
        self.unsuited = ""
        self.remedies = _made(order["remedies"])
        self.undos: list[Undo] = []
        for remedy in self.remedies:
            try:
                self.undos.append(session.switchboard.on(remedy, required=False))
            except Unsuited as error:
                self.unsuited = str(error)
        self.watch.keep_loss = not order["warm"]
        self.watch.driver = self
        self.wait: Any = None
        self.unit = 1
        self.prepare: Callable[[], None] = lambda: None
        self._start()

    def _start(self) -> None:
        self.prepare()
        if self.wait is not None and not self.counted:
            self.wait()
        if not self.counted:
            self.wall, self.cpu = time.perf_counter(), time.process_time()

    def beat(self) -> None:
        """A step ended."""
        self.taken += 1
        if self.watch.keep_loss:
            self.losses.append(loss_of(self.watch))
        if self.taken == 1:
            self._first()
        if self.taken <= self.order["warm"]:
            if "on" in self.order and self.taken == self.order["warm"]:
                self._alternate()
            else:
                self._tell_if_last()
                self._start()
            return
        self.counted += 1
        if self.counted == self.unit:
            if self.wait is not None:
                self.wait()
            self.walls.append((time.perf_counter() - self.wall) / self.unit)
            self.cpus.append((time.process_time() - self.cpu) / self.unit)
            self.counted = 0
        if self.taken >= self.order["warm"] + self.order["steps"]:
            self._tell()
        self._tell_if_last()
        self._start()

    def _tell_if_last(self) -> None:
        """Say when the script's last step is taken; where it goes on all the same, say that, too."""
        if 0 < self.expected <= self.taken:
            self.sender.row(LAST if self.taken == self.expected else WITHOUT)

    def _first(self) -> None:
        self.session.forward.settle()
        lead_libraries()  # those that were imported after torch
        if self.order.get("moved_by") is not None:
            snapshot = Snapshot.of(self.watch)
            snapshot.perturb(UNITS, self.order["moved_by"])
            snapshot.write(str(self.folder / "moved"))
        if self.order.get("seed", SEED) != SEED:  # the script may have set its own before
            reseed(self.order["seed"])
        if self.watch.keep_loss:
            self._keep_ahead()
        self.wait = device_waiter()
        if self.wait is not None and self.order["warm"]:
            self.unit = min(DEVICE_STEPS, self.order.get("steps", DEVICE_STEPS))

    def _keep_ahead(self) -> None:
        """Where weights are compared, what a cache serves is, and not what it was filled with."""
        batches = Batches(self.watch, None, endless=False)
        ahead = Ahead(self.watch, batches, self.remedies, depth=1)
        if ahead.remedies:
            batches.take_over()
            self.prepare = ahead

    def _alternate(self) -> None:
        """From here on, what was ordered is switched on and off."""
        batches = Batches(self.watch, None)
        batches.take_over()
        common = len(self.remedies) - self.order["off"]
        remedies = (self.remedies[:common], self.remedies[common:], _made(self.order["on"]))
        try:
            self.watch.driver = stepwise.alternating(
                self.sender,
                self.watch,
                self.session.switchboard,
                batches,
                remedies,
                self.undos[common:],
                settle=self.order["settle"],
                unit=self.order["unit"],
                taken=self.order["warm"],
            )
        except Unsuited as error:
            self._write({"unsuited": str(error)})

    def _tell(self) -> None:
        snapshot = Snapshot.of(self.watch)
        snapshot.write(str(self.folder / "weights"))
        self._write(
            digest(snapshot)
            | {
                "wall": statistics.median(self.walls),
                "cpu": statistics.median(self.cpus),
                "losses": self.losses,
                "unsuited": self.unsuited,
                "layout": asdict(snapshot.layout()),
            }
        )

    def _write(self, result: dict[str, Any]) -> None:
        with open(self.folder / "result.json", "w", encoding="utf-8") as file:
            json.dump(result, file)
        self.sender.row(DONE)
        os._exit(0)


def _made(named: list[Any]) -> list[Remedy]:
    return [remedy_types()[name](**settings) for name, settings in named]


def begin(session: Any, order: dict[str, Any], folder: Path) -> None:
    """Called once torch has been imported in a throw-away process."""
    lead_libraries()
    reseed(order.get("seed", SEED))
    Throwaway(session, order, folder)
