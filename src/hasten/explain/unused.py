"""Which gradients does backward compute that no step uses, and how long does it take without them?

A generator that is not detached while its critic learns, a backbone that is not in the optimizer, a target network:
backward goes through them, and what it finds is thrown away. A forked child follows each gradient to the step that uses
it, or to where it is zeroed; a second one takes the same steps without those that were never used, by torch's own
``inputs=``: only if all weights are the same bits afterwards is anything said, and then calls of either kind are timed.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NamedTuple

from hasten.core.facts import Place, UnusedFacts
from hasten.core.interval import Interval
from hasten.measure.interleave import coin_flips
from hasten.seams import fork
from hasten.seams.batches import Batches
from hasten.seams.child import exchange_folder
from hasten.seams.locate import shown, user_frame, variables
from hasten.seams.record import record_batches
from hasten.seams.source import calls
from hasten.seams.state import Snapshot, digest, optimizers
from hasten.seams.watch import Watch

STEPS = 8  # that are followed, and taken without
TIMED = 24  # steps that are timed, half of them without
LIMIT_SECONDS = 12.0  # a child is given up after this
MOST_NODES = 50_000  # of a graph that is looked through
LEAST_TIMED = 4  # of either
RESAMPLED = 400  # times, for the interval

Site = tuple[str, int, int]  # a call of backward: file, line, instruction


class Owner(NamedTuple):
    """A module none of whose gradients is used by a call of backward, as the script names it."""

    name: str
    elements: int


def unused_gradients(watch: Watch) -> tuple[UnusedFacts, ...]:
    """What calls of backward compute for nobody. The caller has checked that forking is safe."""
    if watch.compiled_by_script or not _may_be(watch):
        return ()
    recorded = record_batches(watch)
    if recorded is not None and len(recorded) < STEPS:  # a child must not ask the loader's workers
        return ()
    folder = exchange_folder(watch)

    def told(make: Callable[[fork.Sender, str], _Follower]) -> dict[str, Any]:
        path = os.path.join(folder, "unused.json")

        def driver(sender: fork.Sender) -> _Follower:
            if recorded is not None:
                Batches(watch, recorded).take_over()
            return make(sender, path)

        fork.go(watch, driver, allowed=(folder,), processes=False).drain(LIMIT_SECONDS)
        with open(path, encoding="utf-8") as file:
            found: dict[str, Any] = json.load(file)
        os.unlink(path)
        return found

    try:
        plain = told(lambda sender, path: _Follower(sender, watch, path))
        unused = {tuple(site): set(ids) for site, ids in plain["unused"]}
        if not unused:
            return ()
        without = told(lambda sender, path: _Without(sender, watch, path, unused))
        same = plain["weights"] == without["weights"]
        return tuple(_facts(watch, unused, without["times"])) if same else ()
    except (OSError, ValueError):
        return ()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _may_be(watch: Watch) -> bool:
    """Whether there is more that may be differentiated than one optimizer's weights."""
    snapshot = Snapshot.of(watch)
    held = {id(p) for o in snapshot.optimizers for g in o.param_groups for p in g["params"]}
    wanted = {id(p) for p in snapshot.parameters() if p.requires_grad}
    return bool(snapshot.optimizers) and (len(snapshot.optimizers) > 1 or not wanted <= held)


class _Follower:
    """Follows gradients through some steps of the child's loop.

    Attributes:
        waits: by weight, the calls whose gradients have been added to it since they were last used or zeroed.
        used, thrown: pairs of a call and a weight.
    """

    def __init__(self, sender: fork.Sender, watch: Watch, path: str) -> None:
        import torch
        from torch.optim.optimizer import register_optimizer_step_pre_hook

        self.sender, self.path = sender, path
        self.snapshot = Snapshot.of(watch)
        self.taken = 0
        self.waits: dict[int, set[Site]] = defaultdict(set)
        self.used: set[tuple[Site, int]] = set()
        self.thrown: set[tuple[Site, int]] = set()
        self.known = {id(p) for p in self.snapshot.parameters()}
        self.original = torch.autograd.backward
        torch.autograd.backward = self._backward
        register_optimizer_step_pre_hook(self._steps)

    def _backward(self, *args: Any, **kwargs: Any) -> Any:
        site = _site(sys._getframe(1))
        for leaf in leaves(args[0] if args else kwargs["tensors"]):
            if leaf.grad is None or not (leaf.grad.is_sparse or leaf.grad.any()):
                self.thrown |= {(other, id(leaf)) for other in self.waits.pop(id(leaf), ())}
            self.waits[id(leaf)].add(site)
        return self.original(*args, **kwargs)

    def _steps(self, optimizer: Any, *_: Any) -> None:
        for p in (p for group in optimizer.param_groups for p in group["params"]):
            self.used |= {(site, id(p)) for site in self.waits.pop(id(p), ())}

    def beat(self) -> None:
        """A step has ended."""
        self.taken += 1
        self.sender.row(fork.READY)
        if self.taken == STEPS:
            self._write({"unused": self._unused(), "weights": digest(self.snapshot)["weights"]})
            self._leave()

    def _unused(self) -> list[tuple[Site, list[int]]]:
        """By call: weights whose gradients were thrown away and never used. Those that still wait may be used yet,
        where any optimizer holds the weight, be it one that has not stepped so far."""
        held = {id(p) for o in optimizers() for g in o.param_groups for p in g["params"]}
        waiting = {(site, p) for p, sites in self.waits.items() if p not in held for site in sites}
        found: dict[Site, list[int]] = {}
        for site, p in (self.thrown | waiting) - self.used:
            if p in self.known:
                found.setdefault(site, []).append(p)
        return list(found.items())

    def _write(self, found: dict[str, Any]) -> None:
        with open(self.path + ".new", "w", encoding="utf-8") as file:
            json.dump(found, file)
        os.replace(self.path + ".new", self.path)

    def _leave(self) -> None:
        self.sender.row(fork.DONE)
        self.sender.leave()


class _Without(_Follower):
    """Takes the same steps without the gradients that nobody used, then times calls with them and without."""

    def __init__(self, sender: fork.Sender, watch: Watch, path: str, unused: dict[Any, set[int]]) -> None:
        super().__init__(sender, watch, path)
        self.unused = unused
        self.weights = ""
        self.flips = coin_flips()
        self.without = True
        self.spent: dict[Site, float] = defaultdict(float)
        self.times: list[tuple[bool, list[tuple[Site, float]]]] = []

    def _backward(self, *args: Any, **kwargs: Any) -> Any:
        site = _site(sys._getframe(1))
        left = self.unused.get(site, set())
        if left and self.without and not kwargs.get("inputs"):
            kept = [leaf for leaf in leaves(args[0] if args else kwargs["tensors"]) if id(leaf) not in left]
            if kept:
                kwargs = {**kwargs, "inputs": kept}
        start = time.perf_counter()
        try:
            return self.original(*args, **kwargs)
        finally:
            if left:
                self.spent[site] += time.perf_counter() - start

    def _steps(self, optimizer: Any, *_: Any) -> None:
        pass

    def beat(self) -> None:
        """A step has ended."""
        self.taken += 1
        self.sender.row(fork.READY)
        if self.taken == STEPS:
            self.weights = digest(self.snapshot)["weights"]
        elif self.taken > STEPS:
            self.times.append((self.without, list(self.spent.items())))
        self.spent.clear()
        if self.taken >= STEPS:
            self.without = bool(next(self.flips))
        if self.taken >= STEPS + 2 * LEAST_TIMED:  # the script may end before all are timed
            self._write({"weights": self.weights, "times": self.times})
        if self.taken == STEPS + TIMED:
            self._leave()


def leaves(tensors: Any) -> list[Any]:
    """The tensors that a backward pass from ``tensors`` adds gradients to; none of a graph too large to look at."""
    roots = [tensors] if hasattr(tensors, "grad_fn") else list(tensors)
    open_ = [t.grad_fn for t in roots if t.grad_fn is not None]
    seen, found = set(open_), []
    while open_ and len(seen) < MOST_NODES:
        node = open_.pop()
        leaf = getattr(node, "variable", None)
        if leaf is not None:
            found.append(leaf)
        for behind, _ in node.next_functions:
            if behind is not None and behind not in seen:
                seen.add(behind)
                open_.append(behind)
    return [] if open_ else found


def _site(frame: FrameType) -> Site:
    at = user_frame(frame)
    return at.f_code.co_filename, at.f_lineno or at.f_code.co_firstlineno, at.f_lasti


def _facts(watch: Watch, unused: dict[Any, set[int]], times: list[Any]) -> Iterator[UnusedFacts]:
    held = {id(p) for o in optimizers() for g in o.param_groups for p in g["params"]}
    for site, ids in unused.items():
        with_, without = (
            [{tuple(s): t for s, t in spent}.get(site, 0.0) for off, spent in times if off is kind]
            for kind in (False, True)
        )
        share = part_saved(with_, without)
        owners = list(_owners(watch, ids))
        if share is not None and owners:
            names, elements = tuple(o.name for o in owners), sum(o.elements for o in owners)
            yield UnusedFacts(_place(site), names, elements, bool(ids & held), share, STEPS)


def part_saved(with_: list[float], without: list[float]) -> Interval | None:
    """The part by which one median is below the other, with its 95 % interval by resampling; None of fewer than four of
    either."""
    import numpy as np

    if min(len(with_), len(without)) < LEAST_TIMED:
        return None
    rng = np.random.default_rng(0)
    base, rest = (np.median(rng.choice(np.asarray(x), (RESAMPLED, len(x))), axis=1) for x in (with_, without))
    low, high = np.quantile(1 - rest / base, (0.025, 0.975))
    value = float(1 - np.median(without) / np.median(with_))
    return Interval(value, min(float(low), value), max(float(high), value), "", 0.95, len(with_))


def _place(site: Site) -> Place:
    file, line, _ = site
    found = [p for p in calls(file, lambda c: getattr(c.func, "attr", "") == "backward") if p.line == line]
    place = found[0] if len(found) == 1 else Place(file, line)
    return Place(shown(file), line, place.function, place.text, place.column, place.end_column)


def _owners(watch: Watch, ids: set[int]) -> Iterator[Owner]:
    """The largest modules none of whose gradients is used, under the names that the script has for them."""
    names = {id(value): name for name, value in reversed(list(variables(sys._getframe())))}  # an inner one's counts
    told: set[int] = set()
    for top in [m for r in watch.models.values() if (m := r.module()) is not None]:
        for path, module in top.named_modules():
            own = {id(p): p.numel() for p in module.parameters() if p.requires_grad}
            if own and set(own) <= ids and not set(own) <= told:
                told |= set(own)
                name = names.get(id(top), type(top).__name__)
                yield Owner(f"{name}.{path}" if path else name, sum(own.values()))
