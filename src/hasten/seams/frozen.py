"""Which parts of a model compute for one sample the same features in every epoch, because nothing trains them?

A forked child is handed one batch again and again while the rest of the model learns. What a part without trained
weights then answers to the bit alike in every step depends on the batch alone: no random number, no moving weight, no
state went into it. That every row's answer is its own is seen by giving it half of the rows.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import time
import weakref
from collections.abc import Iterator
from typing import Any, NamedTuple

from hasten.core.codec import decode, encode
from hasten.core.facts import FrozenFacts, Place
from hasten.core.interval import Interval
from hasten.measure.clock import EVALUATION
from hasten.measure.digest import as_close_as_rounding, signature
from hasten.seams import fork
from hasten.seams.batches import Batches
from hasten.seams.child import exchange_folder
from hasten.seams.inputs import tensors
from hasten.seams.locate import place_of, user_frame
from hasten.seams.names import names_of
from hasten.seams.record import record_batches
from hasten.seams.state import Snapshot
from hasten.seams.watch import Watch

STEPS = 12  # that are timed
LEAST = 3  # of them
MOST_SECONDS = 6.0  # for them, where a step is long
LIMIT_SECONDS = 30.0  # a child is given up after this: large networks are what is frozen, and their steps are long
AT_ONCE = ("TransformerEncoder", "TransformerEncoderLayer", "MultiheadAttention")  # are faster without hooks inside


class Frozen:
    """What was found, kept from the end of the window to the end of the script."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.facts: FrozenFacts | None = None
        self._weights: list[tuple[Any, tuple[int, float]]] = []

    def measure(self) -> None:
        """Fork, if there are such parts. The caller has checked that forking is safe."""
        watch = self.watch
        modules = {} if watch.compiled_by_script else frozen_modules(watch)
        recorded = record_batches(watch) if modules else None
        if not modules or (recorded is not None and not recorded):  # a child must not ask the loader's workers
            return
        folder = exchange_folder(watch)
        path = os.path.join(folder, "frozen.json")

        def driver(sender: fork.Sender) -> _Handed:
            batches = Batches(watch, recorded) if watch.trained_from is not None else None
            return _Handed(sender, watch, path, batches, modules)

        try:
            fork.go(watch, driver, allowed=(folder,), processes=False).drain(LIMIT_SECONDS)
            with open(path, encoding="utf-8") as file:
                found = json.load(file)
        except (OSError, ValueError):
            return
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        self._tell(found, modules)

    def _tell(self, found: dict[str, Any], modules: dict[int, Any]) -> None:
        parts = [modules[key] for key in found["modules"]]
        weights = {id(p): p for m in parts for p in (*m.parameters(), *m.buffers())}
        self._weights = [(weakref.ref(p), (version(p), _sum(p))) for p in weights.values()]
        self.facts = FrozenFacts(
            decode(Place, found["place"]),
            tuple(names_of(self.watch, parts)),
            sum(p.numel() for p in {id(p): p for m in parts for p in m.parameters()}.values()),
            decode(Interval, found["seconds"]),
            found["row_bytes"],
            self.watch.trained_from is None,
            found["evaluated"],
            found["steps"],
            _path(self.watch, parts[0]) if len(parts) == 1 and found["single"] else "",
        )

    def still(self, ended: bool) -> FrozenFacts | None:
        """The facts, as long as no weight was changed since.

        Args:
            ended: look at the numbers, too, which ``tensor.data`` changes unseen.
        """
        alive = [(p, before) for ref, before in self._weights if (p := ref()) is not None]
        changed = any(version(p) != count or (ended and _sum(p) != total) for p, (count, total) in alive)
        return None if changed else self.facts


def _sum(tensor: Any) -> float:
    return float(tensor.detach().double().sum())


def version(tensor: Any) -> int:
    """How often it was changed in place; -1 of one made for inference, which does not count."""
    return -1 if tensor.is_inference() else int(tensor._version)


def frozen_modules(watch: Watch) -> dict[int, Any]:
    """Modules by id that have weights, none of which has a gradient where a step has ended."""
    import torch

    def looked_at(module: Any) -> Iterator[Any]:
        weights = list(module.parameters())
        if isinstance(module, torch.jit.ScriptModule) or all(map(_trained, weights)):
            return
        if not any(map(_trained, weights)):
            yield module
        if type(module).__name__ not in AT_ONCE:
            for part in module.children():
                yield from looked_at(part)

    return {id(m): m for top in Snapshot.of(watch).models for m in looked_at(top)}


def _trained(weight: Any) -> bool:
    """Whether it has a gradient; what an optimizer holds and nothing differentiates is not trained."""
    return bool(weight.requires_grad) and weight.grad is not None


class Call(NamedTuple):
    """An outermost call of a frozen module, as it was in the first step that is looked at.

    Attributes:
        half: what it was given, but half of the rows.
    """

    module: int
    half: tuple[Any, dict[str, Any]]
    answer: list[Any]
    place: Place
    evaluated: bool


class _Handed:
    """Goes on in the child's loop with one batch, and notes what frozen modules answer and how long they take.

    Attributes:
        versions: of the buffers of each module, at the second step's end.
        first: the calls of the second step; in the first one a script may still change its batch in place.
        alike: numbers of those that have answered alike ever since.
        seconds: of these calls, by step.
    """

    def __init__(
        self, sender: fork.Sender, watch: Watch, path: str, batches: Batches | None, modules: dict[int, Any]
    ) -> None:
        self.sender, self.watch, self.path, self.batches, self.modules = sender, watch, path, batches, modules
        if batches is not None:
            batches.take_over()
            batches.free = True
        for module in modules.values():
            module.register_forward_pre_hook(self._entered, with_kwargs=True)
            module.register_forward_hook(self._left, with_kwargs=True)
        self.steps = 0
        self.depth = 0
        self.calls: list[float] = []  # seconds of those of the running step
        self.first: list[Call | None] = []
        self.alike: set[int] = set()
        self.seconds: list[list[float]] = []
        self.versions: dict[int, list[int]] = {}
        self.end = time.perf_counter() + MOST_SECONDS
        self.start = 0.0

    def _entered(self, module: Any, args: Any, kwargs: Any) -> None:
        self.depth += 1
        if self.depth == 1:
            self.start = time.perf_counter()

    def _left(self, module: Any, args: Any, kwargs: Any, out: Any) -> None:
        now = time.perf_counter()
        self.depth -= 1
        if self.depth:
            return
        number = len(self.calls)
        self.calls.append(now - self.start)
        answer = list(tensors(out))
        if self.steps == 1:
            trained = any(t.requires_grad for t in (*tensors((args, kwargs)), *answer))
            self.first.append(None if trained else self._call(module, args, kwargs, answer))
        elif self.steps > 1 and number in self.alike and not self._same(number, module, answer):
            self.alike.discard(number)

    def _call(self, module: Any, args: Any, kwargs: Any, answer: list[Any]) -> Call | None:
        given = list(tensors((args, kwargs)))
        rows = {len(t) for t in (*given, *answer) if t.dim()}
        count = min(rows, default=0)
        if len(rows) != 1 or count < 2 or not given or not answer:  # nothing to see rows by
            return None
        at = user_frame(sys._getframe(1))
        evaluated = self.watch.clock.booked_as == EVALUATION
        kept = [t.detach().clone() for t in answer]
        return Call(id(module), _first((args, kwargs), count // 2), kept, place_of(at.f_code, at.f_lasti), evaluated)

    def _same(self, number: int, module: Any, answer: list[Any]) -> bool:
        import torch

        first = self.first[number]
        return (
            first is not None
            and first.module == id(module)
            and len(first.answer) == len(answer)
            and all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(first.answer, answer, strict=True))
        )

    def beat(self) -> None:
        """A step has ended."""
        self.sender.row(fork.READY)
        self.depth = 0
        if self.batches is not None:
            self.batches.mend()
        calls, self.calls = self.calls, []
        self.steps += 1
        if self.steps == 2:
            self.alike = {i for i, call in enumerate(self.first) if call is not None}
            self.versions = self._buffers()
        elif self.steps > 2:
            if len(calls) != len(self.first):  # other parts are called in other steps
                self.sender.leave()
            self.seconds.append(calls)
        if self.steps >= 2 and not self.alike:
            self.sender.leave()
        enough = len(self.seconds) >= LEAST and time.perf_counter() > self.end
        if enough or len(self.seconds) == STEPS:
            self._write()

    def _buffers(self) -> dict[int, list[int]]:
        return {key: [version(b) for b in module.buffers()] for key, module in self.modules.items()}

    def _write(self) -> None:
        import torch

        now = self._buffers()  # which a batch moves where they are running means
        told = [
            (i, call)
            for i, call in enumerate(self.first)
            if i in self.alike and call is not None and now[call.module] == self.versions[call.module]
        ]
        with torch.no_grad():
            told = [(i, call) for i, call in told if self._rows_alone(call)]
        if told:
            spent = [math.fsum(seconds[i] for i, _ in told) for seconds in self.seconds]
            _, longest = max(told, key=lambda one: math.fsum(seconds[one[0]] for seconds in self.seconds))
            last = told[-1][1].answer
            found = {
                "modules": list(dict.fromkeys(call.module for _, call in told)),
                "place": encode(longest.place),
                "seconds": encode(Interval.of_median(spent)),
                "row_bytes": sum(t.numel() * t.element_size() for t in last) // max(1, len(last[0])),
                "evaluated": longest.evaluated,
                "single": all(_single(call) for _, call in told),
                "steps": len(self.seconds),
            }
            with open(self.path, "w", encoding="utf-8") as file:
                json.dump(found, file)
        self.sender.row(fork.DONE)
        self.sender.leave()

    def _rows_alone(self, call: Call) -> bool:
        """Whether half of the rows are answered as among all."""
        args, kwargs = call.half
        try:
            found = list(tensors(self.modules[call.module](*args, **kwargs)))
        except Exception:
            return False
        return len(found) == len(call.answer) and all(
            map(as_close_as_rounding, found, (t[: len(t) // 2] for t in call.answer))
        )


def _single(call: Call) -> bool:
    """Whether one tensor was given, by its place, and one was the answer."""
    import torch

    args, kwargs = call.half
    return len(args) == 1 and not kwargs and isinstance(args[0], torch.Tensor) and len(call.answer) == 1


def _path(watch: Watch, part: Any) -> str:
    """Its place inside of a model that is trained; of a model that is called by itself its signature."""
    models = [(r, m) for r in watch.models.values() if (m := r.module()) is not None]
    inside = (path for r, m in models if r.trained for path, module in m.named_modules() if module is part and path)
    return next(inside, "") or next((signature(m) for _, m in models if m is part), "")


def _first(value: Any, rows: int) -> Any:
    """A copy, of every tensor its first rows."""
    import torch

    if isinstance(value, dict):
        return {key: _first(one, rows) for key, one in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_first(one, rows) for one in value)
    return value[:rows].clone() if isinstance(value, torch.Tensor) and value.dim() else value
