"""What was measured: the one value that explain makes, rules read and reports show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hasten.core.facts import (
    EmbeddingFacts,
    Event,
    FrozenFacts,
    Hot,
    LinearFacts,
    LoaderFacts,
    ModelFacts,
    OptimizerFacts,
    Place,
    Process,
    SuccessionFacts,
    UnusedFacts,
    Usage,
)
from hasten.core.interval import Interval

SCHEMA = 1
LEAST_EVALUATION = 0.05  # of the time, from which on it is told what evaluations leave of a speed-up
LEAST_LEFT = 0.01  # part of a step that always stays: shares come from samples, and are not known any better
LEAST_PASSES = 1.5  # over the data, that a job is expected to make, below which nothing is kept for later ones

COLLATE_LOOP = "loop in collate"  # kind of an event
RECOMPUTE = "recompute"  # part of backward: a model's own code, run once more

# First-level phases in the order a step passes them. Exclusive: an instant belongs to exactly one.
PHASES = (
    "fetch",
    "copy",
    "forward",
    "backward",
    "optimizer",
    "zero_grad",
    "wait",
    "log",
    "evaluation",
    "checkpoint",
    "loader start",
    "python",
)


@dataclass(frozen=True, slots=True)
class Phase:
    """A named share of a step; children are shares of their parent.

    Attributes:
        name: one of :data:`PHASES`, or the name of a sub-phase.
        seconds: mean seconds per step, exclusive of other phases.
        place: the line that owns it.
        calls: calls per step (0 where a sampler found it).
        children: sub-phases, largest first.
        vanished: speed-up of a usual step without it; None where too few were seen. A mean is moved by some steps that
            wait for a core on a busy machine, a trial's pairs are not.
    """

    name: str
    seconds: Interval
    place: Place | None = None
    calls: float = 0.0
    children: tuple[Phase, ...] = ()
    vanished: Interval | None = None


@dataclass(frozen=True, slots=True)
class Ceilings:
    """Step times with one side made free, each measured, paired with the step as it is (seconds)."""

    as_is: Interval | None = None
    data_free: Interval | None = None
    model_free: Interval | None = None
    data_free_ratio: Interval | None = None
    method: str = ""
    why_not: str = ""
    model_free_ratio: Interval | None = None


@dataclass(frozen=True, slots=True)
class Growth:
    """Slopes over the steps (Theil–Sen with a 95 % interval).

    Attributes:
        seconds: seconds per step, per step.
        memory: resident bytes per step.
        relative: growth of the step time over the watched run, as a fraction of its start.
        grows: whether the step time's slope is above zero and matters.
        leaks: whether the memory's slope is above zero and matters.
        place: the line whose time grew most (late profile minus early profile).
        place_seconds: how much that line grew, seconds per step.
        variable: name of the variable that keeps graphs alive, if one was found.
        variable_place: where that variable lives.
        kept: bytes per step that stay allocated while it grows; None where that was not asked.
        epoch: steps after which it lets go of them; 0 where it does not, as far as was seen.
    """

    seconds: Interval | None = None
    memory: Interval | None = None
    relative: float = math.nan
    grows: bool = False
    leaks: bool = False
    place: Place | None = None
    place_seconds: float = math.nan
    variable: str = ""
    variable_place: Place | None = None
    kept: Interval | None = None
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class Epoch:
    """One pass over the training loader, or one span of 1000 steps where there is no loader."""

    steps: int
    seconds: float
    fetch_seconds: float
    evaluation_seconds: float


@dataclass(frozen=True, slots=True)
class Trace:
    """Everything measured about one process that trained.

    ``phases`` sum to ``step`` (seconds per optimizer step, mean over the window); ``unaccounted`` is what is left.
    """

    script: str
    steps: int = 0
    window: int = 0
    wall_seconds: float = math.nan
    startup_seconds: float = math.nan
    import_seconds: float = math.nan
    first_step_seconds: float = math.nan
    step: Interval | None = None
    step_median: float = math.nan
    phases: tuple[Phase, ...] = ()
    unaccounted: float = math.nan
    ceilings: Ceilings = field(default_factory=Ceilings)
    growth: Growth = field(default_factory=Growth)
    epochs: tuple[Epoch, ...] = ()
    loaders: tuple[LoaderFacts, ...] = ()
    optimizers: tuple[OptimizerFacts, ...] = ()
    models: tuple[ModelFacts, ...] = ()
    successions: tuple[SuccessionFacts, ...] = ()
    linear: LinearFacts | None = None
    unused: tuple[UnusedFacts, ...] = ()
    frozen: FrozenFacts | None = None
    embeddings: tuple[EmbeddingFacts, ...] = ()
    product_seconds: float = math.nan
    usage: Usage = field(default_factory=Usage)
    process: Process = field(default_factory=Process)
    hot: tuple[Hot, ...] = ()
    events: tuple[Event, ...] = ()
    reopened: tuple[Event, ...] = ()
    curve: tuple[float, ...] = ()
    curve_stride: int = 1
    predicted_steps: int = -1
    steps_from: str = ""
    backwards: float = 0.0
    batches: float = 1.0
    clock: str = "optimizer"
    device_phases: tuple[Phase, ...] = ()
    pid: int = 0
    rank: int = 0
    ended: str = ""
    notes: tuple[str, ...] = ()
    machine: dict[str, Any] = field(default_factory=dict)

    @property
    def trained_forward(self) -> float:
        """Seconds per step of the forward passes, without those of models that are called elsewhere and never trained
        (a teacher)."""
        trained, others = ({m.place for m in self.models if m.trained is kind} for kind in (True, False))
        left_out = sum(e.seconds for e in self.events if e.kind == "forward" and e.place in others - trained)
        return max(0.0, self.phase("forward") - left_out)

    def phase(self, name: str) -> float:
        """Seconds per step of a first-level phase; 0 where it never occurred."""
        return next((p.seconds.value for p in self.phases if p.name == name), 0.0)

    def place(self, name: str) -> Place | None:
        """The line that owns a first-level phase."""
        return next((p.place for p in self.phases if p.name == name), None)

    @property
    def step_seconds(self) -> float:
        return self.step.value if self.step is not None else math.nan

    @property
    def loader(self) -> LoaderFacts | None:
        """The training loader, if the script has one; of several the one that is waited for most, of those that could
        be asked."""
        training = [x for x in self.loaders if x.role == "training"]
        return max(training, key=lambda x: (x.probe is not None, x.fetch_seconds), default=None)

    @property
    def passes(self) -> float:
        """Passes over the training data that the whole job is expected to make; infinite where unknown."""
        loader, steps = self.loader, self.predicted_steps
        if loader is None or steps <= 0 or loader.length <= 0 or loader.batch_size <= 0:
            return math.inf
        return steps * self.batches / math.ceil(loader.length / loader.batch_size)

    def amdahl(self, saved: float) -> float:
        """Speed-up of a step when ``saved`` seconds of it vanish; what is left is not known to be nothing."""
        return self.step_seconds / max(self.step_seconds - saved, LEAST_LEFT * self.step_seconds, 1e-9)

    def optimizing(self, some: Sequence[OptimizerFacts]) -> float:
        """Seconds a step that these optimizers take; 0 where one step was seen, which tells no share."""
        return 0.0 if self.window == 1 else self.phase("optimizer") * min(1.0, sum(o.share for o in some))

    def without(self, name: str, least: float, most: float) -> tuple[float, float]:
        """Least and greatest speed-up of a usual step when between these parts of a phase vanish."""
        found = next((p for p in self.phases if p.name == name), None)
        if found is None or found.vanished is None:
            cost = self.phase(name)
            return self.amdahl(least * cost), self.amdahl(most * cost)
        low, high = (part * (1 - 1 / end) for part, end in ((least, found.vanished.low), (most, found.vanished.high)))
        return 1 / max(1 - low, LEAST_LEFT), 1 / max(1 - high, LEAST_LEFT)

    def evaluations_beside(self, name: str, predicted: tuple[float, float]) -> tuple[str, ...]:
        """What a speed-up of :meth:`without` a phase comes to where evaluations between usual steps take their part of
        the time; empty where they take little, or are counted already, as where usual steps hold them."""
        phases = {p.name: p for p in self.phases}
        part = self.phase("evaluation") / self.step_seconds
        if name not in phases or phases[name].vanished is None or not part >= LEAST_EVALUATION:
            return ()
        held = phases["evaluation"].vanished
        if held is not None and 1 - 1 / held.value > part / 2:
            return ()
        low, high = (1 / ((1 - part) / ratio + part) for ratio in predicted)
        return (
            f"evaluations, {100 * part:.0f} % of the time, stay as they are: with them it is {low:.1f}–{high:.1f}×",
        )

    def faster(self, cost: float, by: tuple[float, float]) -> tuple[float, float]:
        """Least and greatest speed-up of a step, ``cost`` seconds of which are done ``by`` times as fast."""
        return self.amdahl(cost * (1 - 1 / by[0])), self.amdahl(cost * (1 - 1 / by[1]))
