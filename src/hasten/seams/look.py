"""What forked children would have been asked, asked in one throw-away process: its datasets, and its ceilings."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hasten.core.codec import decode, encode
from hasten.core.facts import Probe
from hasten.seams import fork
from hasten.seams.ask import Examine, probes_of
from hasten.seams.batches import Batches
from hasten.seams.child import WITH, WITHOUT, Alternating, PullOnly
from hasten.seams.isolate import lead_libraries
from hasten.seams.thrown import Command, reseed, sender
from hasten.seams.watch import Watch

WARM_STEPS = 8
PROBE_SECONDS = 10.0


@dataclass
class Seen:
    """What such a process has told.

    Attributes:
        probes: by the key of :attr:`Watch.loaders` of the process that asked.
        without, with_: seconds of a step as it is, and of the data-free step beside it.
        fetched: of each step as it is, seconds that it waited for its batches.
        alone: seconds to fetch a batch and do nothing else.
        heard: whether it told anything.
    """

    probes: dict[int, Probe] = field(default_factory=dict)
    without: list[float] = field(default_factory=list)
    with_: list[float] = field(default_factory=list)
    fetched: list[float] = field(default_factory=list)
    alone: list[float] = field(default_factory=list)
    heard: bool = False


def look(watch: Watch, command: Command, step_seconds: float, pairs: int = 0, seconds: float = 0.0) -> Seen:
    """Begin the script anew and ask it.

    Args:
        pairs: of steps as they are and data-free; 0 for no ceilings.
        seconds: for each ceiling, at most.
    """
    seen = Seen()
    limit = command.limit(WARM_STEPS * step_seconds) + PROBE_SECONDS + 3 * seconds
    with command.begun({"look": {"pairs": pairs, "seconds": seconds}}) as (child, folder):
        end, ceiling = time.monotonic() + limit, False
        while not child.ended and time.monotonic() < end:
            rows = child.rows(0.5)
            for kind, wall, *_, fetched in rows:
                if kind == fork.READY:
                    ceiling = True
                elif kind in (WITHOUT, WITH):
                    (seen.alone if ceiling else seen.with_ if kind == WITH else seen.without).append(wall)
                if kind == WITHOUT and not ceiling:
                    seen.fetched.append(fetched)
            seen.heard |= bool(rows)
            if any(row[0] == fork.DONE for row in rows):
                break
        child.kill()
        try:
            with open(os.path.join(folder, "probes.json"), encoding="utf-8") as file:
                found = [(tuple(made_of), decode(Probe, probe)) for made_of, probe in json.load(file)]
        except (OSError, ValueError):
            found = []
    own = [(_made_of(loader.dataset), key) for key, r in watch.loaders.items() if (loader := r.loader()) is not None]
    for made_of, key in own:
        matching = [probe for other, probe in found if other == made_of]
        if matching:
            seen.probes[key] = matching[0]
    return seen


def _made_of(dataset: Any) -> tuple[str, int]:
    """The same for one dataset in two processes of a script."""
    kind = type(dataset)
    try:
        length = len(dataset)
    except Exception:
        length = -1
    return f"{kind.__module__}.{kind.__qualname__}", length


class Look:
    """The driver of the watch in such a process.

    Args:
        settle: ends the discovery of modules.
        examine: makes a probe of a dataset.
    """

    def __init__(
        self, watch: Watch, order: dict[str, Any], folder: Path, settle: Callable[[], None], examine: Examine
    ) -> None:
        self.watch = watch
        self.pairs, self.seconds = order["look"]["pairs"], order["look"]["seconds"]
        self.folder = folder
        self.settle = settle
        self.examine = examine
        self.sender = sender(order)
        self.taken = 0
        self.alternating: Alternating | None = None
        self.end = 0.0
        watch.driver = self

    def beat(self) -> None:
        """A step ended."""
        self.taken += 1
        if self.taken == 1:
            self.settle()
            lead_libraries()  # those that were imported after torch
        if self.alternating is not None:
            if time.monotonic() > self.end:
                self.alternating.sender.leave()
            self.alternating.beat()
        elif self.taken == WARM_STEPS:
            self._ask()
            self._data_free()

    def _ask(self) -> None:
        probes = probes_of(self.watch, self.examine)
        datasets = {k: loader.dataset for k, r in self.watch.loaders.items() if (loader := r.loader()) is not None}
        with open(self.folder / "probes.json", "w", encoding="utf-8") as file:
            json.dump([(_made_of(datasets[k]), encode(probe)) for k, probe in probes.items() if k in datasets], file)

    def _data_free(self) -> None:
        record = self.watch.trained_from
        several = any(r.feeds_beside for r in self.watch.loaders.values())
        if not self.pairs or record is None or several:
            self.sender.row(fork.DONE)
            self.sender.leave()
        batches = Batches(self.watch, None)
        batches.take_over()

        then = _Then(self.sender.line, self._model_free)
        self.end = time.monotonic() + self.seconds
        self.alternating = Alternating(
            then, self.watch, batches.hand_out_again, prepare=batches.mend, most_pairs=self.pairs
        )

    def _model_free(self) -> None:
        self.watch.serve = self.watch.new_pass = None
        PullOnly(self.sender, self.watch, self.pairs, self.seconds / 2)


class _Then(fork.Sender):
    """Goes on with something else where a child would leave."""

    def __init__(self, line: Any, call: Callable[[], object]) -> None:
        super().__init__(line)
        self.call = call

    def row(self, kind: int, *values: float, **named: float) -> None:
        if kind != fork.DONE:
            super().row(kind, *values, **named)

    def leave(self) -> None:
        super().row(fork.READY)
        self.call()


def begin(session: Any, order: dict[str, Any], folder: Path, examine: Examine) -> None:
    """Called once torch has been imported in such a process."""
    lead_libraries()
    reseed()
    Look(session.watch, order, folder, session.forward.settle, examine)
