"""What is known of a script's lines, of the objects that it trains with, and of its process."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hasten.core.interval import Interval

LEAST_STARTS = 4  # passes over a loader from which on they tell how long its passes are


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the user's code. ``column`` counts from 1; 0 means unknown."""

    file: str
    line: int
    function: str = ""
    text: str = ""
    column: int = 0
    end_column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" + (f":{self.column}" if self.column else "")


@dataclass(frozen=True, slots=True)
class Hot:
    """A line of the user's code that a sampler found busy: seconds per step under a phase."""

    phase: str
    place: Place
    seconds: float
    share: float
    callee: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """A watched call with its place: mean calls and seconds per step over the window."""

    kind: str
    place: Place
    calls: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Probe:
    """What asking a dataset for the same items twice revealed (in a forked child).

    Attributes:
        deterministic: the same bytes both times.
        random_free: the Python, NumPy and torch random states were untouched, the dataset has no generator of its own,
            and asking had no other effect.
        sample_bytes: bytes of one sample's tensors.
        seconds: median seconds to make one sample.
        stages: names of the transform chain's stages, if one was found.
        cacheable_stages: how many leading stages are deterministic and draw nothing.
        prefix_exact: cached prefix + replayed suffix gave the same bytes and random states as the whole.
        prefix_seconds, suffix_seconds: seconds of either part for one sample.
        gatherable: whole batches can be gathered from what it holds.
        kind: what the dataset is made of, as a digest: others of the same classes have the same.
        shared_files: those that were opened anew for each of several items.
        reopened: the lines that opened them, with opens and their seconds of all that was asked.
        unkept: what its samples hold that no cache can keep.
        collate_seconds: for one sample, in a batch that the loader's function puts together.
        check_seconds: to look, before a batch, whether the dataset is as it was, with the batch's part of what a cache
            compares where a pass begins.
        gathered, cached: a batch's time if it is gathered, or its samples come from a cache, as a part of what it takes
            sample by sample; measured here, with and without what it needs in the processor's caches.
        why_not: why something could not be probed.
    """

    deterministic: bool = False
    random_free: bool = False
    sample_bytes: int = 0
    seconds: float = math.nan
    stages: tuple[str, ...] = ()
    cacheable_stages: int = 0
    prefix_exact: bool = False
    prefix_seconds: float = math.nan
    suffix_seconds: float = math.nan
    prefix_bytes: int = 0
    gatherable: bool = False
    kind: str = ""
    shared_files: tuple[str, ...] = ()
    reopened: tuple[Event, ...] = ()
    unkept: str = ""
    collate_seconds: float = math.nan
    check_seconds: float = math.nan
    gathered: Interval | None = None
    cached: Interval | None = None
    why_not: str = ""

    def made_share(self, seconds: float) -> float:
        """Part of the time to make a batch for which samples are made, ``seconds`` each; NaN where unknown."""
        return seconds / max(seconds + self.collate_seconds, 1e-12)


@dataclass(frozen=True, slots=True)
class LoaderFacts:
    """A DataLoader that was iterated."""

    role: str
    dataset: str
    place: Place | None = None
    length: int = -1
    batch_size: int = -1
    num_workers: int = 0
    persistent_workers: bool = False
    pin_memory: bool = False
    map_style: bool = True
    default_collate: bool = True
    tensor_backed: bool = False
    starts: int = 0
    before: int = 0
    start_seconds: float = 0.0
    batches: int = 0
    fetch_seconds: float = 0.0
    changing: bool = False
    probe: Probe | None = None

    @property
    def cut_short(self) -> bool:
        """Whether most passes are given up after their first batch or two, as ``next(iter(loader))`` does."""
        whole = self.length > 2 * self.batch_size > 0
        return whole and self.starts >= LEAST_STARTS and self.batches < 2 * self.starts


@dataclass(frozen=True, slots=True)
class OptimizerFacts:
    """An optimizer that stepped.

    Attributes:
        share: of the time that all optimizers take together; 1 where it is not known.
    """

    kind: str
    place: Place | None = None
    tensors: int = 0
    elements: int = 0
    implementation: str = ""
    can_foreach: bool = False
    can_fuse: bool = False
    steps: int = 0
    zeroes_gradients: bool = False
    zero_place: Place | None = None
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A module that was called from the user's code."""

    kind: str
    place: Place | None = None
    elements: int = 0
    modules: int = 0
    dtypes: tuple[str, ...] = ()
    conv2d: int = 0
    channels_last: bool = False
    compiled: bool = False
    directly: bool = False
    evaluations: int = 0
    evaluations_with_graph: int = 0
    in_train_mode: int = 0
    graphs_in_train_mode: int = 0
    acts_by_mode: bool = False
    evaluation_place: Place | None = None
    trained: bool = True


@dataclass(frozen=True, slots=True)
class SuccessionFacts:
    """Models of one class and size, each with an optimizer of its own, that were trained one after the other."""

    model: str
    optimizer: str
    elements: int = 0
    models: int = 0
    steps: int = 0
    interleaved: int = 0


@dataclass(slots=True)
class FitFacts:
    """Networks of one shape that one line had scikit-learn fit, one after the other.

    Attributes:
        estimator: name of its class. layers: its widths, inputs and outputs included.
        lines: the line, then those that called it, outwards; none where a worker process knows no user's line.
        models, epochs, rows, seconds: of all of them together.
    """

    estimator: str
    layers: tuple[int, ...]
    solver: str
    lines: tuple[Place, ...]
    models: int = 0
    epochs: int = 0
    rows: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class LinearFacts:
    """A model that is linear in what is trained, fitted once more without the loop, on the rows of one pass.

    Losses are means over these rows and outputs; ``loop_loss`` is that of the loop's last weights. Seconds are those of
    all steps of the loop, of the pass over the data, and of the solution.
    """

    features: int
    outputs: int
    frozen: int = 0
    loss: str = ""
    rows: int = 0
    method: str = ""
    loop_seconds: float = math.nan
    pass_seconds: float = math.nan
    solve_seconds: float = math.nan
    loop_loss: float = math.nan
    solved_loss: float = math.nan
    bias: bool = True


@dataclass(frozen=True, slots=True)
class UnusedFacts:
    """Gradients that one call of backward computes and no step uses.

    Attributes:
        place: the call.
        modules: whose they are, as the script names them; ``elements`` numbers in their parameters.
        stepped: whether an optimizer holds them, which steps by other gradients of theirs.
        share: of the call's time that they take.
        steps: after which all weights were the same bits without them.
    """

    place: Place
    modules: tuple[str, ...]
    elements: int
    stepped: bool
    share: Interval
    steps: int


@dataclass(frozen=True, slots=True)
class EmbeddingFacts:
    """A table of embeddings with a dense gradient, by an optimizer that could take a sparse one.

    Attributes:
        name: as the script names it; ``rows`` and ``columns`` of its weight.
        used: rows with a gradient in the step that was looked at.
        zero_seconds: to make the zeros of one dense gradient.
        optimizer: its class.
    """

    name: str
    rows: int
    columns: int
    used: int
    zero_seconds: float
    optimizer: str


@dataclass(frozen=True, slots=True)
class FrozenFacts:
    """Parts of models that nothing trains, and that answered to the bit alike when given one batch again and again.

    Attributes:
        place: the call that takes longest.
        modules: as the script names them; ``elements`` numbers in their parameters.
        seconds: of a step that these calls take.
        row_bytes: of one sample's features, as the last of these calls gives them.
        every_step: the script gives them the same in every step by itself, as where a step takes all rows.
        evaluated: whether they are called as in an evaluation: in eval mode, without a graph.
        steps: in which they were looked at.
        path: where it is in the model that is trained, or the signature of a model that is called by itself; empty
            unless it is one part alone, which takes one tensor and gives one.
    """

    place: Place
    modules: tuple[str, ...]
    elements: int
    seconds: Interval
    row_bytes: int = 0
    every_step: bool = False
    evaluated: bool = False
    steps: int = 0
    path: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """Per-step use of the machine by this process over the window."""

    cpu_seconds: float = math.nan
    system_seconds: float = math.nan
    minor_faults: float = math.nan
    major_faults: float = math.nan
    resident_bytes: float = math.nan
    other_load: float = math.nan
    wall_seconds: float = math.nan
    worker_cpu_seconds: float = math.nan
    model_faults: float = math.nan
    faults_place: Place | None = None
    waited_seconds: float = math.nan

    @property
    def cores(self) -> float:
        """Cores that this process kept busy."""
        return self.cpu_seconds / self.wall_seconds if self.wall_seconds > 0 else math.nan

    @property
    def strangers(self) -> float:
        """Cores that neither this process nor its workers kept busy, but others did; NaN where unknown."""
        workers = self.worker_cpu_seconds / self.wall_seconds if self.wall_seconds > 0 else math.nan
        return max(0.0, self.other_load - (workers if workers > 0 else 0.0))


@dataclass(frozen=True, slots=True)
class Process:
    """State of the process that decides which remedies make sense."""

    threads: int = 1
    cores: int = 1
    physical_cores: int = 0
    device: str = "cpu"
    anomaly_mode: bool = False
    anomaly_place: Place | None = None
    flush_denormals: bool = False
    denormal_share: float = 0.0
    denormal_tensor: str = ""
    float32_matmul: str = "highest"
    bfloat16_units: bool = False
    compiler: bool = False
    compiled_by_script: bool = False
    differentiated_twice: bool = False
    autocast: bool = False
    forkable: bool = False
    why_not_forkable: str = ""
    allocators: tuple[str, ...] = ()
    available_bytes: float = math.nan
    framework: str = ""
