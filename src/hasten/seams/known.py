"""What is known of a script's loaders, modules and optimizers, none of which it keeps alive."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

LEAST_BESIDE = 4  # batches of two loaders for one step; fewer are a look at the model before training begins
FOLLOWED = 2  # datasets in a row that are gone after one pass: every pass makes one
MOST_EPOCHS = 2000  # passes over a loader that are told apart; some scripts begin one for every batch


class LoaderRecord:
    """What is known of one DataLoader."""

    __slots__ = (
        "asked_at",
        "batches",
        "before",
        "beside",
        "changing",
        "epochs",
        "facts",
        "fetched",
        "in_a_row",
        "last_fetch",
        "loader",
        "place",
        "reference",
        "role",
        "serving",
        "start_seconds",
        "starts",
        "used",
    )

    def __init__(self, loader: Any) -> None:
        self.loader = weakref.ref(loader)
        self.facts: Any = None  # as last read while the loader was alive
        self.role = ""
        self.starts = 0
        self.start_seconds = 0.0
        self.batches = 0
        self.used = 0  # batches when a backward pass ended last
        self.place: Any = None
        self.reference: Any = None
        self.serving = 0
        self.last_fetch = 0
        self.fetched = 0  # nanoseconds for all batches
        self.asked_at = -1  # backward passes before it was asked last
        self.in_a_row = 0  # batches asked for since then, with no backward pass between
        self.beside = 0  # batches after which another loader was asked, for the same step
        self.before = 0  # other loaders of its dataset that were iterated at the same line before
        self.changing = False  # whether its dataset was another when a later pass began
        self.epochs: list[int] = []  # steps taken when each pass began

    @property
    def feeds(self) -> bool:
        """Whether batches of it are trained on, also beside those of a loader that is asked after it."""
        return self.role == "training" or self.feeds_beside

    @property
    def feeds_beside(self) -> bool:
        """Whether most of its batches go into a step together with those of another loader."""
        return not self.role and self.beside > max(LEAST_BESIDE, self.batches // 2)

    def begins_pass(self, steps: int) -> None:
        """Another pass begins after so many steps. One too many to be told is remembered, and no more."""
        self.starts += 1
        if len(self.epochs) <= MOST_EPOCHS:
            self.epochs.append(steps)

    @property
    def iterator(self) -> Any:
        """The iterator that was asked last; None when it is gone. It lives only as long as the script wants it to."""
        return self.reference() if self.reference is not None else None

    @iterator.setter
    def iterator(self, iterator: Any) -> None:
        self.reference = weakref.ref(iterator)
        self.serving = id(iterator)


class Iterated:
    """Loaders that were iterated at one line: how many of one dataset, none of which may live on to tell, and whether
    every pass makes a dataset of its own, with which all is gone that was kept of it."""

    def __init__(self) -> None:
        self.counts: dict[int, tuple[Any, int]] = {}  # by a dataset's address, with what tells whether that is still it
        self.last: Any = None
        self.once: list[LoaderRecord] = []  # the latest, of which each dataset was gone after one pass

    def another(self, record: LoaderRecord, dataset: Any) -> None:
        """One more is about to be iterated."""
        try:
            reference: Any = weakref.ref(dataset)
        except TypeError:  # a list, say, that another may follow in its place
            reference = None
        known, count = self.counts.get(id(dataset), (None, 0))
        if known is not None and known() is not dataset:
            count = 0  # another one, where that was
        self.counts[id(dataset)] = reference, count + 1
        record.before = count
        followed = self.last is not None and self.last() is None and all(x.starts == 1 for x in self.once[-1:])
        self.once = [*(self.once if followed and not self.once[-1].before else ()), record]
        self.last = reference
        if len(self.once) > FOLLOWED:
            for x in self.once:
                x.changing = True
            del self.once[:-FOLLOWED]


@dataclass
class ModelRecord:
    """What is known of one outermost module."""

    module: Any
    trained: bool = False
    trains_in_eval_mode: bool = False  # or in train mode, where that looked like an evaluation
    evaluations: int = 0
    evaluations_with_graph: int = 0  # in eval mode
    in_train_mode: int = 0  # evaluations; graphs_in_train_mode: of them, those with a graph
    graphs_in_train_mode: int = 0
    aims: bool = False  # whether its last call has made what the step trains towards
    aims_for: int = 0  # steps in a row, up to step aimed_in, in which a call may have done so
    aimed_in: int = -1
    undecided: int = 0  # calls in eval mode with a graph, that may yet be differentiated
    place: Any = None
    evaluation_place: Any = None
    evaluation_call: Any = None  # (args, kwargs) of an evaluation that recorded a graph, where they are kept
    channels: bool = False
    directly: bool = False  # the script calls its forward itself
    facts: Any = None  # as last read while the module was alive

    def evaluates_in_train_mode(self, calls: int, graph: bool) -> None:
        """Calls have been an evaluation, as far as can be seen."""
        self.evaluations += calls
        self.in_train_mode += calls
        self.graphs_in_train_mode += graph * calls

    def take_back(self) -> None:
        """What was taken for evaluations in train mode is differentiated: none of it is known to have been one."""
        self.trains_in_eval_mode = True
        self.evaluations -= self.in_train_mode
        self.in_train_mode = self.graphs_in_train_mode = 0


@dataclass
class OptimizerRecord:
    """What is known of one optimizer; None stands for one that the script has done with."""

    reference: Callable[[], Any]
    place: Any = None
    steps: int = 0
    nanoseconds: int = 0  # of its own steps, without the first few and without closures
    zeroes_gradients: bool = False
    zero_place: Any = None
    facts: Any = None  # as last read while the optimizer was alive

    @property
    def optimizer(self) -> Any:
        return self.reference()
