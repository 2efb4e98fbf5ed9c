"""What is known of a script's loaders, modules and optimizers, none of which it keeps alive."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


class LoaderRecord:
    """What is known of one DataLoader."""

    __slots__ = (
        "batches",
        "epochs",
        "facts",
        "last_fetch",
        "loader",
        "place",
        "reference",
        "role",
        "serving",
        "start_seconds",
        "starts",
    )

    def __init__(self, loader: Any) -> None:
        self.loader = weakref.ref(loader)
        self.facts: Any = None  # as last read while the loader was alive
        self.role = ""
        self.starts = 0
        self.start_seconds = 0.0
        self.batches = 0
        self.place: Any = None
        self.reference: Any = None
        self.serving = 0
        self.last_fetch = 0
        self.epochs: list[tuple[int, float]] = []

    @property
    def iterator(self) -> Any:
        """The iterator that was asked last; None when it is gone. It lives only as long as the script wants it to."""
        return self.reference() if self.reference is not None else None

    @iterator.setter
    def iterator(self, iterator: Any) -> None:
        self.reference = weakref.ref(iterator)
        self.serving = id(iterator)


@dataclass
class ModelRecord:
    """What is known of one outermost module."""

    module: Any
    trained: bool = False
    trains_in_eval_mode: bool = False
    evaluations: int = 0
    evaluations_with_graph: int = 0
    place: Any = None
    evaluation_place: Any = None
    evaluation_call: Any = None  # (args, kwargs) of an evaluation that recorded a graph, where they are kept
    channels: bool = False
    directly: bool = False  # the script calls its forward itself
    facts: Any = None  # as last read while the module was alive


@dataclass
class OptimizerRecord:
    """What is known of one optimizer; None stands for one that the script has done with."""

    reference: Callable[[], Any]
    place: Any = None
    steps: int = 0
    zeroes_gradients: bool = False
    zero_place: Any = None
    facts: Any = None  # as last read while the optimizer was alive

    @property
    def optimizer(self) -> Any:
        return self.reference()
