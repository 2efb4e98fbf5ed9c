"""Inside a throw-away process: remedies on from the start, a few steps timed, the outcome written, gone."""

from __future__ import annotations

import json
import os
import statistics
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hasten.core.errors import Unsuited
from hasten.rules import remedy_types
from hasten.seams.isolate import lead_libraries
from hasten.seams.state import Snapshot, digest


class Throwaway:
    """The driver of the watch in such a process."""

    def __init__(self, session: Any, order: dict[str, Any], folder: Path) -> None:
        self.watch = session.watch
        self.order = order
        self.folder = folder
        self.walls: list[float] = []
        self.cpus: list[float] = []
        self.taken = 0
        self.unsuited = ""
        for name, settings in order["remedies"]:
            try:
                session.switchboard.on(remedy_types()[name](**settings), required=False)
            except Unsuited as error:
                self.unsuited = str(error)
        self.forward = session.forward
        self.watch.driver = self
        self._start()

    def _start(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def beat(self) -> None:
        """A step ended."""
        wall, cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu
        self.taken += 1
        if self.taken == 1:
            self.forward.settle()
            lead_libraries()  # those that were imported after torch
            if self.order["perturb"]:
                Snapshot.of(self.watch).perturb()
        if self.taken > self.order["warm"]:
            self.walls.append(wall)
            self.cpus.append(cpu)
        if len(self.walls) >= self.order["steps"]:
            self._tell()
            os._exit(0)
        self._start()

    def _tell(self) -> None:
        snapshot = Snapshot.of(self.watch)
        result = digest(snapshot)
        result |= {
            "wall": statistics.median(self.walls),
            "cpu": statistics.median(self.cpus),
            "unsuited": self.unsuited,
            "layout": asdict(snapshot.layout()),
        }
        snapshot.write(str(self.folder / "weights"))
        with open(self.folder / "result.json", "w", encoding="utf-8") as file:
            json.dump(result, file)


def begin(session: Any, path: str) -> None:
    """Called once torch has been imported in a throw-away process."""
    lead_libraries()
    order = json.loads(Path(path).read_text(encoding="utf-8"))
    Throwaway(session, order, Path(path).parent)
