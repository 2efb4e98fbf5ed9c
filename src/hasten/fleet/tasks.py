"""What is to be learned: one pair of arrays a key, checked before anything is trained."""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from hasten.core.errors import UsageError
from hasten.fleet import streams
from hasten.fleet.arrays import NUMBERS, Array, as_floats, as_target, finite, rounds, standardised, unbroken, windows_of
from hasten.fleet.losses import Loss
from hasten.fleet.recipe import EarlyStop, Recipe, counted, number

OWN = ("lr", "weight_decay", "seed")  # settings of a key that are not its model's
MISSING = ("None", "nan", "<NA>", "NaT")  # what missing values read as


@dataclass(frozen=True)
class Task:
    """One key's rows.

    Attributes:
        X: (rows, …), float32; rows may be strided views that share memory.
        y: (rows, …) or (rows,), float32; whole numbers stay whole for callable losses.
        gap: rows left out between training and held-out rows (windows whose targets would overlap).
        season: rows of one season, for the seasonal-naive baseline; 0 unknown.
        shift, scale: series were standardised as ``(value - shift) / scale``.
        why_not: why this key cannot be trained; "" if it can.
        series: X and y are windows of one array, X: (rows, window), y: (rows, horizon).
        over_gaps: windows that go over a step in time that is longer than usual.
        breaks: rows of a series before which such a step lies; windows that go over one are not learned.
        repeated: rows of the same time as the one before. disorder: a column of dates whose order the rows are not in.
        rounded: a column of X, or y, whose values float32 rounds by more than ``ROUGH`` of what they differ by.
        until: the time of the last row as a number, see ``times``; minus infinity where no column says it.
        usual: the longest usual step in time, as a number; NaN unknown.
        irregular: steps in time have no period, so that none can be told to be longer than usual.
    """

    X: Array
    y: Array
    gap: int = 0
    season: int = 0
    shift: float = 0.0
    scale: float = 1.0
    why_not: str = ""
    series: bool = False
    over_gaps: int = 0
    breaks: tuple[int, ...] = ()
    repeated: int = 0
    disorder: str = ""
    rounded: str = ""
    until: float = -math.inf
    usual: float = math.nan
    irregular: bool = False

    @property
    def rows(self) -> int:
        """How many there are."""
        return len(self.y)

    @property
    def row(self) -> tuple[int, ...]:
        """The shape of a row of X."""
        return tuple(self.X.shape[1:])

    @property
    def columns(self) -> int:
        """Numbers in a row of y."""
        return math.prod(self.y.shape[1:])

    def learnable(self, first: int = 0) -> npt.NDArray[np.int64]:
        """Numbers of the rows from ``first`` on that can be learned: all, or windows that go over no break. (rows,)."""
        if not self.breaks:
            return np.arange(first, self.rows)
        return first + unbroken(np.array(self.breaks) - first, self.rows - first, self.row[0] + self.columns)


_TAKEN_OVER = tuple(one.name for one in fields(Task) if one.name not in ("X", "y"))
_NONE_HELD: npt.NDArray[np.int64] = np.empty(0, np.int64)
_NONE_HELD.flags.writeable = False  # one for all jobs


class Windows(Task):
    """Every window of a series and what follows it.

    Only the series as it was given is kept: it is standardised when X or y is asked for, to the same bits each time,
    for as long as somebody holds one of them.

    Args:
        values: (rows,), any numbers; not copied.
        like: the task with the windows written out as views; all but those are taken over.
    """

    def __init__(self, values: Array, like: Task) -> None:
        for name in _TAKEN_OVER:  # one after the other: then instances share the table of names, which is most of them
            object.__setattr__(self, name, getattr(like, name))
        self.values, self.window, self.horizon = values, like.row[0], like.columns
        self.held: weakref.ref[Array] | None = None

    def __getattr__(self, name: str) -> Array:  # what the instance itself does not hold
        if name not in ("X", "y"):
            raise AttributeError(name)
        series = self.held() if self.held is not None else None
        if series is None:
            series = standardised(self.values, self.shift, self.scale)
            self.held = weakref.ref(series)
        return windows_of(series, self.window, self.horizon)[name == "y"]

    @property
    def rows(self) -> int:
        return len(self.values) - self.window - self.horizon + 1

    @property
    def row(self) -> tuple[int, ...]:
        return (self.window,)

    @property
    def columns(self) -> int:
        return self.horizon


@dataclass(frozen=True)
class Job:
    """One model to train.

    Attributes:
        stream: what it draws random numbers by.
        order: rows to visit in one epoch, given from outside; None draws them from the stream.
        made_by: the stream that its module was made by, where that is another one.
        train: row numbers to train on; None for the first ``rows``.
        held: row numbers held out.
    """

    key: str
    index: int
    stream: int
    task: Task
    rows: int
    lr: float
    weight_decay: float
    train: npt.NDArray[np.int64] | None = None
    held: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    settings: Mapping[str, Any] = field(default_factory=dict)
    order: npt.NDArray[np.int64] | None = None
    made_by: int | None = None

    def epoch_order(self, epoch: int) -> npt.NDArray[np.int64]:
        """Row numbers in the order of one epoch. (rows,), int64."""
        if self.order is not None:
            return self.order
        drawn = streams.permutation(self.stream, self.rows, epoch)
        return drawn if self.train is None else self.train[drawn]

    @property
    def visits(self) -> int:
        """Rows of one epoch."""
        return self.rows if self.order is None else len(self.order)

    @property
    def most(self) -> int:
        """Rows that are asked for at once, at most."""
        return max(self.visits, self.task.rows)

    def steps(self, batch_size: int) -> int:
        """Optimizer steps of one epoch."""
        return -(-self.visits // batch_size)

    def ends_alone(self, batch_size: int) -> bool:
        """Whether an epoch's last batch holds one row."""
        return (self.visits - 1) % batch_size == 0


def from_mapping(tasks: Mapping[Any, Any], recipe: Recipe) -> dict[str, Task]:
    """Tasks from ``key -> (X, y)`` or ``key -> Task``.

    Raises:
        UsageError: a value is not a pair of arrays of one length, or two keys read the same.
    """
    found: dict[str, Task] = {}
    for key, value in tasks.items():
        name = once(key, found)
        found[name] = value if isinstance(value, Windows) else _pair(name, value, recipe)
    return found


def once(key: Any, found: Mapping[str, Any]) -> str:
    """A key's name, which was not found before.

    Raises:
        UsageError: it was, or the key is a missing value.
    """
    name = name_of(key)
    if not isinstance(key, str) and name in MISSING:
        raise UsageError(
            f"a key is {name}", "rows without a key that were grouped, too", "leave them out, or name them"
        )
    if name in found:
        read_alike(name)
    return name


def name_of(key: Any) -> str:
    """What a key is called, whatever held it: of a moment what Python calls it, ``2024-01-31 12:00:00``."""
    if not isinstance(key, np.datetime64) or np.isnat(key) or np.datetime_data(key.dtype)[0] in "YMWD":
        return str(key)
    seconds = key.astype("datetime64[s]")
    rest = int((key - seconds) / np.timedelta64(1, "ns"))
    part = f".{rest:09d}" if rest % 1000 else f".{rest // 1000:06d}" if rest else ""
    return str(seconds).replace("T", " ") + part


def by_name(given: Mapping[Any, Any]) -> dict[str, Any]:
    """The values of a mapping by their keys' names.

    Raises:
        UsageError: two keys read the same.
    """
    found: dict[str, Any] = {}
    for key, value in given.items():
        found[once(key, found)] = value
    return found


def read_alike(name: str) -> NoReturn:
    """Two keys read the same.

    Raises:
        UsageError: always.
    """
    raise UsageError(f"two keys read {name!r}", "1 and '1' are one name in a saved fleet", "distinct names")


def _pair(name: str, value: Any, recipe: Recipe) -> Task:
    like = value if isinstance(value, Task) else Task(np.empty(0), np.empty(0))
    value = (value.X, value.y) if isinstance(value, Task) else value
    if not isinstance(value, Sequence) or len(value) != 2:
        raise UsageError(
            f"the task of {name!r} is a {type(value).__name__}",
            "each key needs its own rows",
            "tasks = {key: (X, y), …} with X: (rows, features) and y: (rows,) or (rows, outputs)",
        )
    try:
        X, y = as_floats(value[0]), as_target(value[1], recipe)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"the task of {name!r} holds what is no number: {error}", "text, None, or rows of unequal lengths",
            NUMBERS,
        ) from None  # fmt: skip
    if X.ndim < 2 or len(X) != len(y):
        raise UsageError(
            f"the task of {name!r} has X {X.shape} and y {y.shape}",
            "X has a row an observation, y as many",
            "X[:, None] for a single feature",
        )
    lost = np.flatnonzero(rounds(value[0], X))
    rounded = f"X[:, {lost[0]}]" if len(lost) else "y" if rounds(_flat(value[1]), _flat(y)).any() else ""
    return checked(replace(like, X=X, y=y, rounded=rounded), recipe)


def _flat(y: Any) -> Any:
    """NumPy's targets as (rows, columns), others as they are."""
    return y.reshape(len(y), -1) if isinstance(y, np.ndarray) and y.size else y


def checked(task: Task, recipe: Recipe) -> Task:
    """The task, with the reason why it cannot be trained where there is one."""
    why = _why_not(task, recipe)
    return replace(task, why_not=why) if why else task


def _why_not(task: Task, recipe: Recipe) -> str:
    if len(task.y) == 0:
        return "empty: no rows"
    for name, array in (("X", task.X), ("y", task.y)):
        if array.dtype.kind == "f" and not finite(array):
            rows = ~np.isfinite(array).reshape(len(array), -1).all(axis=1)
            why = f"{name} holds NaN or infinity in {rows.sum()} of {len(array)} rows, first in row {rows.argmax()}"
            return f"{why}: as float32, which ends at 3.4e+38" if np.isinf(array).any() else why
    if task.y.size > 1 and task.y.min() == task.y.max():
        return f"constant target: every value is {task.y.reshape(-1)[0]:g}"
    try:
        check_targets(task.y, recipe)
    except UsageError as why:
        return why.what
    count = len(task.learnable())
    if recipe.stop is not None and count - task.gap < 2:
        return f"too short: {count} rows cannot be split into training and held-out rows"
    return ""


def check_targets(y: Array, recipe: Recipe) -> None:
    """Check that the targets are what the loss is made for.

    Raises:
        UsageError: those of a cross-entropy are no class numbers, or those of a binary one no probabilities.
    """
    kind = recipe.loss.kind if isinstance(recipe.loss, Loss) else ""
    if kind == "cross_entropy" and y.size and (y.min() < 0 or (y != np.floor(y)).any()):
        raise UsageError("classes must be whole numbers from 0 on")
    if kind == "bce" and y.size and not 0 <= y.min() <= y.max() <= 1:
        wrong = y.min() if y.min() < 0 else y.max()
        raise UsageError(f"the target of a binary cross-entropy lies between 0 and 1, and holds {wrong:g}")


def jobs_of(tasks: Mapping[str, Task], recipe: Recipe, settings: Mapping[str, Mapping[str, Any]]) -> list[Job]:
    """A job for every task that can be trained, numbered in the order of the tasks.

    Raises:
        UsageError: settings name a key that has no task, or a learning rate, weight decay or seed that is none.
    """
    strange = sorted(set(settings) - set(tasks))
    if strange:
        raise UsageError(f"settings for {strange[0]!r}, which has no task", "a typing error", "a key of tasks")
    jobs: list[Job] = []
    for key, task in tasks.items():
        if not task.why_not:
            jobs.append(_job(key, len(jobs), task, recipe, settings.get(key, {})))
    return jobs


def _job(key: str, index: int, task: Task, recipe: Recipe, own: Mapping[str, Any]) -> Job:
    if callable(recipe.optimizer) and own.keys() & {"lr", "weight_decay"}:
        raise UsageError(
            f"settings[{key!r}] has a learning rate or weight decay, and the optimizer is a callable",
            "a callable makes its optimizer from the parameters alone",
            'optimizer="adam", or no lr and weight_decay in settings',
        )
    seed = counted(f"settings[{key!r}]: seed", own.get("seed", recipe.seed), None)
    stream = streams.stream_of(seed, key)
    train, held = split(stream, task, recipe)
    return Job(
        key,
        index,
        stream,
        task,
        task.rows if train is None else len(train),
        number(f"settings[{key!r}]: lr", own.get("lr", recipe.lr)),
        number(f"settings[{key!r}]: weight_decay", own.get("weight_decay", recipe.weight_decay)),
        train,
        held,
        {name: value for name, value in own.items() if name not in OWN},
    )


def held_out(rows: int, gap: int, stop: EarlyStop) -> int:
    """How many of a key's rows are held out."""
    return min(max(1, round(rows * stop.fraction)), rows - gap - 1)


def split(
    stream: int, task: Task, recipe: Recipe
) -> tuple[npt.NDArray[np.int64] | None, npt.NDArray[np.int64]]:  # fmt: skip
    """Rows to train on (None for all) and rows held out."""
    stop = recipe.stop
    if stop is None:
        return task.learnable() if task.breaks else None, _NONE_HELD
    rows = task.learnable()
    first = len(rows) - held_out(len(rows), task.gap, stop)
    if stop.split == "last":
        return rows[rows < rows[first] - task.gap], rows[first:]
    drawn = streams.permutation(stream, len(rows), 0, streams.SPLIT)
    return rows[drawn[:first]], rows[drawn[first:]]
