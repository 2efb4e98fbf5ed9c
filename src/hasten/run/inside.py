"""What ``run`` does inside the watched process: look, try, prove, apply, and let the script go on faster."""

from __future__ import annotations

import dataclasses
import datetime
import math
import os
import shutil
import time
from pathlib import Path
from typing import Any

from hasten.core.codec import decode
from hasten.core.errors import Unsuited
from hasten.core.facts import Probe
from hasten.core.interval import Interval
from hasten.core.plan import Plan, Step
from hasten.core.remedy import Fidelity, Remedy, Seam
from hasten.core.report import Outcome
from hasten.core.trace import Trace
from hasten.data.probe import probe
from hasten.measure import machine
from hasten.rules import remedy_types
from hasten.run import compiled
from hasten.run.budget import LEAST_TRIAL, budget_of
from hasten.run.fidelity import Judge
from hasten.run.kept import Kept, payback, remedies_of
from hasten.run.late import Beginning, Waiting, due, gain, repaid, slowness, starts, told
from hasten.run.processes import ProcessJudge, ProcessRoom
from hasten.run.renewal import held_by_workers
from hasten.run.search import HELD, TOO_LATE, Search
from hasten.run.trial import TrialRoom
from hasten.seams import fork, schedule, sources
from hasten.seams.ask import probe_loaders
from hasten.seams.child import exchange_folder
from hasten.seams.collect import collect
from hasten.seams.frozen import Frozen
from hasten.seams.guard import guarded, say, tell
from hasten.seams.look import look
from hasten.seams.thrown import Command
from hasten.seams.window import Window, rest

OVERALL_SHARE = 0.15  # of the budget, kept for timing all kept remedies together
JUDGE_SHARE = 0.04  # of the budget, for one child of a comparison of weights
MOST_RECORDS = 2048  # step records that the speed before the trials is read from
LOOK_SHARE = 0.1  # of the budget: where beginning the script anew takes longer, its datasets are not asked
UNFINISHED = "the trials did not come to their end, so nothing was kept"
FIRST_STEPS = 2  # of a replay, without what starts late; the second one's time is one of those to come
FEWEST = 5  # records of steps with the plan on, from which their speed is told
SETTLE = 3  # steps after applying the plan that are not counted


class Runner:
    """Watches, tries once after the window, applies what was kept."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.watch = session.watch
        self.config = session.config
        self.outcome = Outcome()
        self.trace: Trace | None = None
        self._written: Trace | None = None
        self.applied_at = 0
        self.applied: list[Remedy] = []
        self.waiting = Waiting(self.watch)
        self.beginning: Beginning | None = None
        self._idle: set[str] = set()
        session.finish = self._finish
        session.forward.keeps_calls = not self.config.get("plan")
        self.window = Window(self.watch, session.forward, self._after, sample=not self.config.get("plan"))
        if self.config.get("plan"):
            self._replay()

    # -- replaying a plan ----------------------------------------------------------------------------------------

    def _replay(self) -> None:
        """Apply the given plan from the start: objects get their remedies as they appear. Compiling waits for the
        first steps, when the modules are known, nothing has to be discovered any more, and a step's time is known."""
        plan = decode(Plan, self.config["plan"])
        many = f"{len(plan.steps)} remed{'y' if len(plan.steps) == 1 else 'ies'}"
        self.outcome = Outcome(plan=plan, message=f"replayed a plan of {many}")
        made = list(zip(plan.steps, remedies_of(plan.steps, remedy_types()), strict=True))
        late = [(s, r) for s, r in made if r.start_seconds]
        others = [(s, r) for s, r in made if not r.start_seconds]
        guarded(self.session, lambda: self._apply(tuple(s for s, _ in others)))
        if not late:
            return

        def after_first_steps(now: int) -> None:
            self.window.step(now)
            if self.watch.steps >= FIRST_STEPS:
                self.watch.at_step = self.window.step
                guarded(self.session, lambda: self._apply(self._weighed(late, gain(others))))

        self.watch.at_step = after_first_steps

    def _weighed(self, late: list[tuple[Step, Remedy]], gained: float) -> tuple[Step, ...]:
        """Those whose start the rest of the job repays; of others it is said that they wait."""
        steps, _ = schedule.expected(self.watch)
        seconds = min(r[0] for r in self.watch.recent(FIRST_STEPS)) / 1e9  # without them
        left = max(0, steps - self.watch.steps) * seconds if steps > 0 else math.inf
        plan = self.outcome.plan
        assert plan is not None
        known, out = compiled.found(plan), []
        for step, remedy in late:
            start = slowness(self.watch) * (remedy.start_seconds if known else remedy.one_off_seconds)
            start = (compiled.started(plan) if known else None) or start
            after = due(start, step.ratio, gained) if left == math.inf else 0.0
            if after > self.waiting.passed:
                self.waiting.add(after, step)
                why = f"{remedy} {told(start, after)}"
            elif repaid(start, step.ratio, left / step.ratio.value if step.ratio is not None else left):
                out.append(step)
                continue
            else:
                why = f"{remedy} waits for a longer run: the {left:.0f} s left do not repay its start of {start:.0f} s"
            say(why)
            self.outcome = dataclasses.replace(self.outcome, message=f"{self.outcome.message}; {why}")
        return tuple(out)

    # -- searching -----------------------------------------------------------------------------------------------

    def _after(self, _now: int) -> None:
        guarded(self.session, self._between)

    def _between(self) -> None:
        if self.trace is None:
            self.trace = self._trace("")
            if not self.config.get("plan"):
                self._search()
                self._forget_calls()
            self.session.lighten()
        self._write("")
        rest(self.window)
        if ready := self.waiting.ready():
            self._apply(ready)
        self.waiting.call_again()

    def _forget_calls(self) -> None:
        self.session.forward.keeps_calls = False
        for record in self.watch.models.values():
            record.evaluation_call = None

    def _trace(self, ended: str) -> Trace:
        trace = collect(self.watch, self.window, ended=ended)
        predicted, source = schedule.expected(self.watch) if not ended else (-1, "")
        if self.trace is not None:
            predicted, source = self.trace.predicted_steps, self.trace.steps_from
        return dataclasses.replace(trace, predicted_steps=predicted, steps_from=source)

    def _search(self) -> None:
        assert self.trace is not None
        if fork.grouped():  # a copy of one rank would wait for the others, or be taken for it by them
            self.outcome = Outcome(message="no trials: the processes of a group only step together")
            return
        self.outcome = Outcome(message=UNFINISHED)  # until they have
        reason = fork.why_not()
        start = time.monotonic()
        budget = budget_of(self.trace, self.config.get("budget"))
        if reason:
            self._search_in_processes(reason, start, budget)
            return
        self._probe()
        self._announce(budget)
        folder = exchange_folder(self.watch)
        step_seconds = self.trace.step_median
        with fork.AtEnd(lambda: shutil.rmtree(folder, ignore_errors=True)):
            faults = self.trace.usage.minor_faults
            room = TrialRoom(
                self.watch, self.session.switchboard, step_seconds, folder, self._compiled_folder(), faults
            )
            judge = Judge(room, folder, step_seconds, budget * JUDGE_SHARE)
            self._try_all(room, judge, start, budget, self._processes())

    def _announce(self, budget: float) -> None:
        if budget >= LEAST_TRIAL:
            tell(f"trials take {math.ceil(budget)} s at most; the script waits meanwhile")

    def _compiled_folder(self) -> str:
        """Where trials leave compiled code; kept until the script ends."""
        folder = str(self.session.folder / "compiled")
        os.makedirs(folder, exist_ok=True)
        return folder

    def _code(self) -> str | Path | None:
        """Where what the trials, or earlier runs with the plan, have compiled lies from now on."""
        assert self.outcome.plan is not None
        if self.config.get("plan"):
            return compiled.folder_of(self.outcome.plan)
        return compiled.keep(self._compiled_folder(), self.outcome.plan)

    def _search_in_processes(self, reason: str, start: float, budget: float) -> None:
        """Forking is not safe here: the same command again, in throw-away processes."""
        assert self.trace is not None
        room, judge = self._processes()
        if room.command.why_not:
            self.outcome = Outcome(message=f"no trials: {reason}, and {room.command.why_not}")
            return
        tell(f"{reason}: trials run the script again in throw-away processes")
        self._announce(budget)
        if self.watch.loaders and room.command.start_seconds < LOOK_SHARE * budget:
            self._with(look(self.watch, room.command, room.step_seconds).probes)
        self._try_all(room, judge, start, budget)
        self.outcome = dataclasses.replace(self.outcome, message=f"no forks: {reason}")

    def _processes(self) -> tuple[ProcessRoom, ProcessJudge]:
        assert self.trace is not None
        command = Command.of(self.watch, self.session.cwd)
        workers = self.trace.loader is not None and self.trace.loader.num_workers > 0
        room = ProcessRoom(command, self.trace.step_median, workers, self.trace.predicted_steps)
        return room, ProcessJudge(room)

    def _try_all(self, room: Any, judge: Any, start: float, budget: float, launches: Any = None) -> None:
        assert self.trace is not None
        search = Search(
            room,
            judge,
            self.trace,
            start + budget * (1 - OVERALL_SHARE) - time.monotonic(),
            Fidelity(self.config.get("allow", "equivalent")),
            budget * OVERALL_SHARE,
            tuple(self.config.get("only") or ()),
            tuple(self.config.get("skip") or ()),
            tell,
            launches,
        )
        search.run()
        self._conclude(search, start, budget)

    def _probe(self) -> None:
        assert self.trace is not None
        self._with(probe_loaders(self.watch, probe))
        frozen = Frozen(self.watch)
        frozen.measure()
        self.trace = dataclasses.replace(self.trace, frozen=frozen.facts)

    def _with(self, probes: dict[int, Probe]) -> None:
        """Note what asking the datasets has revealed."""
        assert self.trace is not None
        keys = [k for k, r in self.watch.loaders.items() if r.batches]
        loaders = tuple(
            dataclasses.replace(facts, probe=probes.get(key))
            for facts, key in zip(self.trace.loaders, keys, strict=True)
        )
        self.trace = dataclasses.replace(self.trace, loaders=loaders)

    def _conclude(self, search: Search, start: float, budget: float) -> None:
        assert self.trace is not None
        overall = search.overall()
        proof = search.prove()
        cost = time.monotonic() - start
        ratio = overall.ratio if overall is not None and search.kept else None
        before = Interval.of_median([r[0] / 1e9 for r in self.watch.recent(MOST_RECORDS)])
        late = self._late(search.kept, self._left(before.value / (ratio.value if ratio is not None else 1)))
        held = held_by_workers(self.watch, [k.remedy for k in search.kept])
        whys = {str(k.remedy): why for k, why in late} | {str(r): HELD for r in held}
        self.outcome = Outcome(
            trials=tuple(
                dataclasses.replace(t, why=whys[t.remedy]) if t.remedy in whys and t.verdict == "kept" else t
                for t in search.trials
            ),
            plan=self._plan([*search.kept, *search.launched]),
            before=before,
            overall=ratio,
            cost_seconds=cost,
            budget_seconds=budget,
            payback_seconds=payback(cost, ratio),
            proof=proof,
            broken=tuple(search.broken),
        )
        waiting = [k for k, _ in late]
        now = [k for k in search.kept if k not in waiting]
        now += [k for k in search.launched if k.remedy.seam is not Seam.LAUNCH]
        self._apply(tuple(k.step() for k in now))
        if late:  # what trials have compiled is there for the next run all the same
            self._code()
        kept = ", ".join(str(k.remedy) for k in now if k.remedy not in held) or "nothing"
        next_time = [*held, *(k.remedy for k in search.launched if k not in now)]
        with_plan = [f"; {k.remedy} {why}" for k, why in late]
        with_plan += [f"; {remedy} takes hold with the plan" for remedy in next_time]
        tell(f"trials took {cost:.0f} s; kept: {kept}{''.join(with_plan)}")

    def _late(self, kept: list[Kept], left: float) -> list[tuple[Kept, str]]:
        """Those of ``kept`` that do not start now, and why; where the job's length is unknown, they wait.

        Args:
            left: seconds that the rest of this job takes with everything on; infinite where unknown.
        """
        out = []
        for k in kept:
            start, ratio = slowness(self.watch) * k.remedy.start_seconds, k.measured.ratio
            after = due(start, ratio) if left == math.inf else 0.0
            if after > self.waiting.passed:
                self.waiting.add(after, k.step())
                out.append((k, told(start, after)))
            elif not repaid(start, ratio, left):
                out.append((k, TOO_LATE))
        return out

    def _left(self, step_seconds: float) -> float:
        """Seconds that the rest of the job takes; infinite where its length is unknown."""
        assert self.trace is not None
        predicted = self.trace.predicted_steps
        return max(0, predicted - self.watch.steps) * step_seconds if predicted > 0 else math.inf

    def _plan(self, kept: list[Kept]) -> Plan:
        assert self.trace is not None
        unknown = self.trace.predicted_steps <= 0
        return Plan(
            script=self.config.get("script", ""),
            script_sha256=self.config.get("script_sha256", ""),
            versions=machine.versions(),
            machine=self.config.get("machine") or machine.machine(),  # as it was before the script changed anything
            steps=tuple(k.step() for k in kept),
            sources=self._sources(),
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            notes=tuple(starts([(k.step(), k.remedy) for k in kept], slowness(self.watch))) if unknown else (),
        )

    def _sources(self) -> dict[str, str]:
        folder = self.config.get("folder") or self.session.cwd
        return sources.own_modules(folder, self.session.begun, script=not self.config.get("script_sha256"))

    def _apply(self, steps: tuple[Step, ...]) -> None:
        """Switch the remedies on in the user's own process."""
        for step, remedy in zip(steps, remedies_of(steps, remedy_types()), strict=True):
            begun = time.monotonic()
            try:
                if remedy.name == "Compile":
                    self.session.forward.release()
                    code, known = self._code(), compiled.found(self.outcome.plan)  # type: ignore[arg-type]
                    compiled.use(code)
                self.session.switchboard.on(remedy, required=remedy.seam is Seam.LAUNCH)
                self.applied.append(remedy)
                if remedy.name == "Compile" and known:
                    self.beginning = Beginning(self.watch, time.monotonic() - begun)
            except Unsuited as error:
                say(f"{step.remedy} could not be applied: {error}")
        self.applied_at = max(1, self.watch.steps) if self.applied else 0

    # -- the end -------------------------------------------------------------------------------------------------

    def _write(self, ended: str) -> None:
        looks = self.config.get("plan") and not self.watch.light  # at steps as the remedies have made them
        trace = self._trace(ended) if self.trace is None or looks else self.trace
        if ended:
            trace = dataclasses.replace(trace, ended=ended)
        self._audit()
        taken = self.beginning.taken() if self.beginning is not None else None
        if taken is not None and self.outcome.plan is not None:
            self.beginning = None
            compiled.note_start(self.outcome.plan, taken)
        outcome = dataclasses.replace(self.outcome, after=self._speed_after(), steps=self.watch.steps)
        if trace is not self._written:
            self.session.write("trace", trace)
            self._written = trace
        self.session.write("outcome", outcome)

    def _audit(self) -> None:
        """Remedies that check themselves while they run may have found that their promise does not hold."""
        broken = [
            f"{r}: a value made anew differed from the kept one; it was switched off"
            for r in self.applied
            if r.broken()
        ]
        known = self.outcome.broken
        new = tuple(b for b in broken if b not in known)
        for line in new:
            say(f"broken promise: {line}")
        for remedy in self.applied:
            why = remedy.idle()
            if why and not remedy.broken() and str(remedy) not in self._idle:
                self._idle.add(str(remedy))
                say(f"{remedy} does nothing any more: {why}")
        if new:
            self.outcome = dataclasses.replace(self.outcome, broken=(*known, *new))

    def _speed_after(self) -> Interval | None:
        fold = self.watch.fold
        walls = self.watch.walls((self.applied_at + SETTLE) // fold) if self.applied_at else []
        return Interval.of_median(walls[len(walls) // 4 :]) if len(walls) >= FEWEST else None

    def _finish(self, how: str) -> None:
        self.window.close()
        if self.watch.steps or self.watch.backwards:
            unused = [str(r) for r in self.applied if self.session.switchboard.unused(r)]
            if unused and self.config.get("plan"):
                said = f"{self.outcome.message}; nothing in this run could take {', '.join(unused)}"
                self.outcome = dataclasses.replace(self.outcome, message=said)
            self._write(how)
        else:
            self.session.write("idle", {"wall": self.watch.clock.now() - self.watch.torch_imported})


def begin(session: Any) -> None:
    """Called once torch has been imported in a process under ``hasten run``."""
    Runner(session)
