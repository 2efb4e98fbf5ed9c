"""Is the model linear in what is trained? Then what would the best weights cost without a loop?

A forked child goes on in the user's loop for one pass over the training data and notes what the layer is given and
what it should answer; then it solves for the weights, and leaves the rows behind. The loop's own last weights are
judged on the same rows when the script has ended.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import shutil
import signal
import statistics
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from hasten.core.facts import LinearFacts
from hasten.explain.losses import BINARY, SQUARED, target_of
from hasten.rules.w802_linear_by_loop import LEAST_GAIN, ready, solve
from hasten.seams import fork
from hasten.seams.child import exchange_folder
from hasten.seams.steps import WIDTH
from hasten.seams.watch import Watch

MOST_SECONDS = 15.0  # for the pass, and for the solution
MOST_BYTES = 256 << 20  # of noted rows
PART = 1 << 14  # rows whose loss is computed at a time


class Layer(NamedTuple):
    """The one layer that is trained."""

    module: Any
    frozen: int


class Linear:
    """What is known of the layer: kept from the end of the window to the end of the script.

    Attributes:
        facts: of the child; None where the model is not linear or no pass could be made.
    """

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.facts: LinearFacts | None = None
        self.folder = ""
        self.weight: Any = None
        self.bias: Any = None

    def measure(self, steps: int) -> None:
        """Fork, if the model is linear in what is trained. The caller has checked that forking is safe.

        Args:
            steps: that the whole loop is expected to take, negative where unknown. Pass and solution are given up once
                they have taken so long that nothing will be said of them; to import and compile what solves is not
                counted, and may take as long as any silence of a child.
        """
        layer = trained_layer(self.watch)
        job = steps * _mean_seconds(self.watch) if steps >= 0 else math.inf
        enough = min(MOST_SECONDS, job / LEAST_GAIN)
        if layer is None or _pass_seconds(self.watch) > enough:
            return
        self.weight, self.bias = layer.module.weight, layer.module.bias
        self.folder = exchange_folder(self.watch)
        child = fork.go(
            self.watch, lambda sender: Recorder(sender, self.watch, layer, self.folder, job / LEAST_GAIN),
            allowed=(self.folder,), processes=False,
        )  # fmt: skip
        try:
            child.drain(math.inf)
            with open(os.path.join(self.folder, "facts.json"), encoding="utf-8") as file:
                self.facts = LinearFacts(**json.load(file))
        except (OSError, ValueError, TypeError):
            shutil.rmtree(self.folder, ignore_errors=True)

    def judged(self) -> LinearFacts | None:
        """The facts with the loop's seconds and the loss of its weights as they are now."""
        if self.facts is None:
            return None
        import numpy as np

        try:
            x, y = (np.load(os.path.join(self.folder, f"{name}.npy"), mmap_mode="r") for name in "xy")
            weight = self.weight.detach().cpu().double().numpy().T
            bias = 0.0 if self.bias is None else self.bias.detach().cpu().double().numpy()
            loss = mean_loss(self.facts.loss, x, y, weight, bias)
        except (OSError, RuntimeError, ValueError):  # rows or weights are gone, or of another shape
            return None
        return dataclasses.replace(self.facts, loop_seconds=sum(self.watch.rows[::WIDTH]) / 1e9, loop_loss=loss)


def trained_layer(watch: Watch) -> Layer | None:
    """The linear layer whose weights are all that is trained, by one optimizer; None where there is no such layer."""
    import torch

    optimizers = [o for r in watch.optimizers.values() if (o := r.optimizer) is not None]
    modules = {id(m): m for r in watch.models.values() if (top := r.module()) is not None for m in top.modules()}
    if len(optimizers) != 1 or len(watch.optimizers) != 1 or watch.compiled_by_script or watch.autocast:
        return None
    trained = {id(p) for g in optimizers[0].param_groups for p in g["params"] if p.requires_grad}
    for module in modules.values():
        if type(module) is torch.nn.Linear and id(module.weight) in trained:
            if {id(p) for p in module.parameters()} != trained or module.weight.device.type != "cpu":
                return None
            if any(isinstance(m, torch.nn.modules.dropout._DropoutNd) and m.training and m.p for m in modules.values()):
                return None
            every = {id(p): p.numel() for m in modules.values() for p in m.parameters()}
            return Layer(module, sum(n for key, n in every.items() if key not in trained))
    return None


def _pass_seconds(watch: Watch) -> float:
    """How long a pass over the training loader will take; 0 where there is none or its length is unknown."""
    loader = watch.trained_from.loader() if watch.trained_from is not None else None
    try:
        steps = len(loader) if loader is not None else 0
    except TypeError:
        return 0.0
    return steps * step_seconds(watch)


def step_seconds(watch: Watch) -> float:
    """Of the last steps, their median."""
    return statistics.median(row[0] for row in watch.recent(64)) / 1e9


def _mean_seconds(watch: Watch) -> float:
    """Of a step so far: what a job takes on a busy machine, where some steps are many times the median."""
    rows = watch.rows[::WIDTH]
    return sum(rows) / 1e9 / max(1, len(rows) * watch.fold)


class Recorder:
    """Notes the layer's inputs and targets in the child's loop until every row was seen, then solves.

    With a loader a pass is one of its iterators from beginning to end. Without one it has ended when no new row has
    come for as many rows as are known.

    Args:
        enough: seconds of pass and solution together, after which nothing will be said of them.
    """

    def __init__(self, sender: fork.Sender, watch: Watch, layer: Layer, folder: str, enough: float) -> None:
        import torch

        self.sender, self.watch, self.layer, self.folder, self.enough = sender, watch, layer, folder, enough
        self.loss = ""
        self.inputs: list[Any] = []
        self.targets: list[Any] = []
        self.size = 0
        self.seen: set[int] = set()
        self.rows = self.stale = 0
        self.last: tuple[Any, Any] | None = None
        self.own: Any = None
        layer.module.register_forward_hook(self._forward)
        backward = torch.Tensor.backward

        def spied(loss: Any, *args: Any, **kwargs: Any) -> Any:
            self._note(loss)
            return backward(loss, *args, **kwargs)

        torch.Tensor.backward = spied
        if watch.trained_from is not None:
            watch.serve = self._next
        self.start = self.fresh = time.perf_counter()

    def beat(self) -> None:
        """A step of the child's loop has ended."""
        if time.perf_counter() - self.start > min(self.enough, MOST_SECONDS):
            self.sender.leave()

    def _next(self, iterator: Any, original: Any) -> Any:
        record = self.watch.trained_from
        if record is None or self.watch.iterators.get(iterator) is not record:
            return original(iterator)
        if self.own is None:
            loader = record.loader()
            self.own = loader._get_iterator() if loader is not None else _batches(iterator)
        try:
            return next(self.own)
        except StopIteration:
            self._solve(time.perf_counter() - self.start)

    def _forward(self, _module: Any, inputs: tuple[Any, ...], output: Any) -> None:
        self.last = (inputs[0], output)

    def _note(self, loss: Any) -> None:
        found = None
        if self.last is not None:
            x, scores = (t.detach().reshape(-1, t.shape[-1]) if i == 0 else t for i, t in enumerate(self.last))
            found = target_of(loss, scores if scores.ndim == 2 else scores.reshape(-1, scores.shape[-1]))
        if found is None or found[0] != (self.loss or found[0]) or len(found[1]) != len(x):
            self.sender.leave()  # another loss than is understood
            return
        self.last = None
        self.loss = found[0]
        if self.watch.trained_from is not None and self.own is None:
            return  # still of the batch that was fetched before the fork
        new_x, new_y = x.numpy().copy(), found[1].numpy().copy()
        if self.own is None:
            new_x, new_y = self._unseen(new_x, new_y)
        self.inputs.append(new_x)
        self.targets.append(new_y)
        self.size += new_x.nbytes + new_y.nbytes
        if self.size > MOST_BYTES:
            self.sender.leave()

    def _unseen(self, x: Any, y: Any) -> tuple[Any, Any]:
        """The rows that were not seen so far; ends the pass when there have been none for long enough."""
        keys = [hash(a.tobytes() + b.tobytes()) for a, b in zip(x, y, strict=True)]
        new = [i for i, key in enumerate(keys) if key not in self.seen]
        self.seen.update(keys)
        self.stale = 0 if new else self.stale + len(keys)
        if new:
            self.fresh = time.perf_counter()
        elif self.stale >= len(self.seen):
            self._solve(self.fresh - self.start)
        return x[new], y[new]

    def _solve(self, pass_seconds: float) -> None:
        import numpy as np

        x, y = np.concatenate(self.inputs), np.concatenate(self.targets)
        outputs = self.layer.module.out_features
        self.sender.row(fork.READY)  # not silent: the pass has ended
        ready(self.loss)
        self.sender.row(fork.READY)
        own = self.layer.module.bias is not None
        with _at_most(min(self.enough - pass_seconds, MOST_SECONDS)):
            start = time.perf_counter()
            weight, bias, method = solve(x, y, self.loss, outputs, own)
            seconds = time.perf_counter() - start
        facts = {
            "features": x.shape[1], "outputs": outputs, "frozen": self.layer.frozen, "loss": self.loss, "rows": len(x),
            "method": method, "pass_seconds": pass_seconds, "solve_seconds": seconds,
            "solved_loss": mean_loss(self.loss, x, y, weight, bias), "bias": own,
        }  # fmt: skip
        np.save(os.path.join(self.folder, "x.npy"), x)
        np.save(os.path.join(self.folder, "y.npy"), y)
        with open(os.path.join(self.folder, "facts.json"), "w", encoding="utf-8") as file:
            json.dump(facts, file)
        self.sender.row(fork.DONE)
        self.sender.leave()


@contextlib.contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """End this process if the block takes longer, in compiled code, too."""
    before = signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _batches(iterator: Any) -> Iterator[Any]:
    """All batches of the loader that an iterator was made from; of one that the script did not keep."""
    from torch.utils.data.dataloader import _DatasetKind

    collates = (iterator._auto_collation, iterator._collate_fn, iterator._drop_last)
    fetcher = _DatasetKind.create_fetcher(iterator._dataset_kind, iterator._dataset, *collates)
    for rows in iterator._index_sampler:
        try:
            yield fetcher.fetch(rows)
        except StopIteration:  # of an IterableDataset
            return


def mean_loss(loss: str, x: Any, y: Any, weight: Any, bias: Any) -> float:
    """Mean loss of a linear layer over rows and outputs.

    Args:
        x: (rows, features). y: (rows, outputs) numbers, (rows,) classes, or (rows, 1) of 0 and 1.
        weight: (features, outputs). bias: (outputs,).
    """
    import numpy as np

    total = 0.0
    for i in range(0, len(x), PART):
        scores = np.asarray(x[i : i + PART], dtype=np.float64) @ weight + bias
        target = np.asarray(y[i : i + PART])
        if loss == SQUARED:
            total += float(((scores - target) ** 2).sum()) / scores.shape[1]
        elif loss == BINARY:
            total += float((np.logaddexp(0, scores) - target * scores).sum())
        else:
            top = scores.max(axis=1)
            norm = top + np.log(np.exp(scores - top[:, None]).sum(axis=1))
            total += float((norm - scores[np.arange(len(target)), target]).sum())
    return total / max(len(x), 1)
