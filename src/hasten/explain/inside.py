"""What ``explain`` does inside the watched process."""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Any

from hasten.core.facts import EmbeddingFacts, UnusedFacts
from hasten.core.trace import Ceilings, Trace
from hasten.explain.asking import examined
from hasten.explain.ceilings import NO_LOADER, aside, measure
from hasten.explain.changing import Changing
from hasten.explain.embeddings import dense_embeddings
from hasten.explain.growth import GrowthWatch, growth
from hasten.explain.linear import Linear, step_seconds
from hasten.explain.loops import count_repeats, loop_events
from hasten.explain.products import product_seconds
from hasten.explain.unused import unused_gradients
from hasten.seams import fork, schedule
from hasten.seams.ask import probe_loaders
from hasten.seams.collect import collect
from hasten.seams.frozen import Frozen
from hasten.seams.guard import guarded, tell
from hasten.seams.thrown import Command
from hasten.seams.window import Window, rest

MOST_START = 60.0  # seconds to begin the script anew, at most, for its ceilings


class Explainer:
    """Watches, measures the ceilings once after the window, and writes the trace."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.watch = session.watch
        self.ceilings = Ceilings()
        self.probes: dict[int, Any] = {}
        self.repeats: dict[tuple[str, int], Any] = {}
        self.limit = int(session.config.get("steps") or 0)
        self.window = Window(self.watch, session.forward, self._after, limit=self.limit or math.inf)
        if self.limit:
            self.watch.at_step = self._until
        session.finish = self._finish
        Changing(self.watch)
        self.linear: Any = None
        self.frozen = Frozen(self.watch)
        self.unused: tuple[UnusedFacts, ...] = ()
        self.products = math.nan
        self.embeddings: tuple[EmbeddingFacts, ...] = ()
        self._measured = False
        self.predicted = (-1, "")
        self.held_up = 0.0

    def _after(self, _now: int) -> None:
        guarded(self.session, self._between)

    def _until(self, now: int) -> None:
        """Look as always, and end the script after as many steps as were asked for."""
        self.window.step(now)
        if self.watch.steps >= self.limit:
            self.session.ended = f"stopped after {self.limit} steps as asked"
            raise SystemExit(0)

    def _between(self) -> None:
        first = not self._measured
        if first:
            self._measured = True
            self.session.write("trace", self._trace(""))  # should the script be killed meanwhile
            start = time.monotonic()
            self._measure()
            self.held_up = time.monotonic() - start
            if not self.limit:
                tell(f"enough was seen after {self.watch.steps} steps: Ctrl-C for the report, or let the script finish")
        else:
            self.growth.look()
        undecided = self.growth.undecided
        if first or not undecided:
            self.session.write("trace", self._trace(""))
        if undecided:
            self.watch.next_call = self.watch.steps + 1
        else:
            rest(self.window)
        if self.limit:
            self.watch.next_call = min(self.watch.next_call, self.limit)

    def _measure(self) -> None:
        self.growth = GrowthWatch(self.watch, self.window)
        self.predicted = schedule.expected(self.watch)
        self.embeddings = dense_embeddings(self.watch)
        reason = fork.why_not()
        if not self.session.config.get("ceilings", True):
            self.ceilings = Ceilings(why_not=reason)
            return
        if reason:
            self._measure_aside(reason)
            return
        self.probes = probe_loaders(self.watch, examined(self.watch))
        self.ceilings = measure(self.watch)
        self.repeats = count_repeats(self.watch)
        self.products = product_seconds(self.watch)
        self.unused = unused_gradients(self.watch)
        self.frozen.measure()
        self.linear = Linear(self.watch)
        self.linear.measure(self.predicted[0])

    def _measure_aside(self, reason: str) -> None:
        """Forking is not safe here: the script is begun anew in a process that is gone afterwards."""
        command = Command.of(self.watch, self.session.cwd)
        if fork.grouped():
            self.ceilings = Ceilings(why_not=reason)
        elif not self.watch.loaders:  # nor is there a dataset to be asked twice
            self.ceilings = Ceilings(why_not=NO_LOADER)
        elif command.why_not:
            self.ceilings = Ceilings(why_not=f"{reason}, and {command.why_not}")
        elif command.start_seconds > MOST_START:
            self.ceilings = Ceilings(
                why_not=f"{reason}, and to begin the script anew takes {command.start_seconds:.0f} s"
            )
        else:
            tell(f"{reason}: the ceilings are measured in a throw-away process, in which the script begins anew")
            self.ceilings, self.probes = aside(self.watch, command, step_seconds(self.watch))

    def _trace(self, ended: str) -> Trace:
        trace = collect(self.watch, self.window, ended=ended)
        loaders = tuple(
            dataclasses.replace(facts, probe=self.probes.get(key))
            for facts, key in zip(trace.loaders, [k for k, r in self.watch.loaders.items() if r.batches], strict=True)
        )
        predicted, source = self.predicted
        if predicted < 0 and ended == "finished":
            predicted, source = trace.steps, "the script has ended"
        return dataclasses.replace(
            trace,
            predicted_steps=predicted,
            steps_from=source,
            ceilings=self.ceilings,
            linear=self.linear.judged() if self.linear is not None and ended else None,
            unused=self.unused,
            frozen=self.frozen.still(bool(ended)),
            embeddings=self.embeddings,
            product_seconds=self.products,
            loaders=loaders,
            events=trace.events + loop_events(self.repeats, trace.hot),
            growth=growth(self.watch, self.window),
        )

    def _finish(self, how: str) -> None:
        self.window.close()
        if self.watch.steps or self.watch.backwards:
            self.session.write("trace", self._trace(how))
        else:
            self.session.write("idle", {"wall": self.watch.clock.now() - self.watch.torch_imported})


def begin(session: Any) -> None:
    """Called once torch has been imported in a process under ``hasten explain``."""
    Explainer(session)
