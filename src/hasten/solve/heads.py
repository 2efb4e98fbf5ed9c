"""A linear head on a frozen network in one forward pass, instead of epochs of gradient steps."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hasten.solve.arrays import in_host
from hasten.solve.kernel import Array, Floats, Stats
from hasten.solve.moments import Moments
from hasten.solve.path import Spectrum, leave_one_out
from hasten.solve.problems import BadData, need
from hasten.solve.source import Block, Source

ALPHAS = tuple(10.0 ** np.arange(-4, 5))  # of features scaled to unit variance, times the rows / 100
CODED = 1 << 20  # numbers of classes' columns at a time
BLOCK_ROWS = 1 << 14
TEMPERATURES = np.geomspace(0.25, 64, 49)


@dataclass(frozen=True)
class Head:
    """What was written into the network.

    Attributes:
        layer: name of the layer. alpha: chosen by leave-one-out, in units of unit-variance features.
        score: leave-one-out accuracy, or R² for regression. loss: leave-one-out cross-entropy, or mean squared error.
        temperature: what the scores were multiplied by, so that their softmax fits the left-out rows best.
        rows, features: of the features that were computed. seconds: of the forward pass, and of the rest.
        cached: (rows, features) float32 features and the targets, for further heads.
    """

    layer: str
    alpha: float
    score: float
    loss: float
    temperature: float
    rows: int
    features: int
    seconds: tuple[float, float]
    cached: tuple[Array, Array]


class _Cached(Source):
    """Features in memory with their targets; labels become columns of 0 and 1 a few rows at a time.

    Args:
        features: (rows, features). targets: (rows, outputs), or (rows,) numbers of classes. count: how many.
        classes: (rows,) numbers of classes, whatever stands for them; None for regression.
    """

    def __init__(self, features: Array, targets: Array, count: int, classes: Array | None = None) -> None:
        self.features, self.given, self.rows, self.classes = features, targets, len(features), classes
        self.labels = targets if targets.ndim == 1 else None
        self.outputs = targets.shape[1] if self.labels is None else count
        self.names = [f"f{j}" for j in range(features.shape[1])]
        self.targets = [f"y{j}" for j in range(self.outputs)]

    def blocks(self, first: int = 0) -> Iterator[Block]:
        step = min(max(CODED // self.outputs, 64), BLOCK_ROWS)
        for i in range(first, len(self.features), step):
            x, y = self.features[i : i + step], self.given[i : i + step]
            if self.labels is not None:
                y = (y[:, None] == np.arange(self.outputs)).astype(np.float64)
            yield Block(x, y, None, self.names, self.targets, start=i)

    def moments(self) -> Moments:
        """Those of features and targets; of classes by sums of their rows, without a product of the columns of 0 and 1.

        Raises:
            BadData: features hold NaN or infinity.
        """
        if self.labels is None:
            return Moments().update(self)
        sparse = need("scipy.sparse", "a head of classes")
        m = Moments(self.features)
        total, p, n = m.total, m.p, len(self.features)
        sums, counts = np.zeros((self.outputs, p)), np.bincount(self.labels, minlength=self.outputs).astype(np.float64)
        for i in range(0, n, BLOCK_ROWS):
            labels = self.labels[i : i + BLOCK_ROWS]
            one = (np.ones(len(labels)), (labels, np.arange(len(labels))))
            sums += sparse.csr_array(one, shape=(self.outputs, len(labels))) @ (
                self.features[i : i + BLOCK_ROWS] - total.mean[0]
            )
        sums -= np.outer(counts / n, sums.sum(axis=0))  # the mean is rounded
        scatter = np.block([[total.scatter[0], sums.T], [sums, np.diag(counts) - np.outer(counts, counts) / n]])
        mean = np.append(total.mean[0], counts / n)
        m.target_names, m._sums, m._view = self.targets, None, None
        m._base = Stats(total.rows, total.weight, mean[None], scatter[None])
        return m


def head(
    model: Any, loader: Any, *, layer: str | None = None, classes: int | None = None, alphas: Any = ALPHAS,
    features: tuple[Any, Any] | None = None,
) -> Head:  # fmt: skip
    """Replace the weights of a network's last linear layer by those of ridge regression on its frozen features.

    One forward pass in evaluation mode without gradients collects the layer's inputs; alpha is chosen by exact
    leave-one-out. Classification regresses one column of 0 and 1 a class (Hastie et al. 2009, p. 103) and scales the
    scores by the temperature that fits the left-out rows best. It is ridge, not logistic, regression: accuracy is that
    of a linear probe, probabilities are somewhat less sharp.

    Args:
        model: a ``torch.nn.Module``. Only that layer's weight and bias are changed.
        loader: batches ``(input, target)``; targets of integers are classes.
        layer: its name; the last ``torch.nn.Linear`` that the forward pass reaches unless given.
        classes: outputs of the layer unless given. With one output, integers of 0 and 1 give it the logit of 1, and
            float targets are regression.
        alphas: to choose from.
        features: ``Head.cached`` of an earlier call with the same layer and loader, instead of the forward pass.

    Raises:
        BadData: no linear layer, no rows, or labels outside the layer's outputs.
    """
    import time

    import torch

    start = time.perf_counter()
    name, module, (x, y) = _collected(model, loader, layer, features)
    forward = time.perf_counter() - start
    start = time.perf_counter()
    source = _checked(name, module, x, y, classes or module.out_features)
    m = source.moments()
    if m.n < 2:
        raise BadData("there is one row, and none is left without it", "a loader of one row", "two rows or more")
    scaled = np.asarray(alphas, dtype=np.float64) * m.n / 100
    path, spectrum = leave_one_out(source, m, scaled, fit_intercept=module.bias is not None, scale=True)
    score, loss, temperature = _judge(source, m, spectrum, path.alpha)
    coef = spectrum.coef(path.alpha)
    bias = spectrum.normal.intercept_of(coef)
    with torch.no_grad():
        module.weight.copy_(torch.as_tensor(coef.T * temperature).to(module.weight))
        if module.bias is not None:
            module.bias.copy_(torch.as_tensor(bias * temperature).to(module.bias))
    seconds = (forward, time.perf_counter() - start)
    return Head(name, path.alpha, score, loss, temperature, len(x), x.shape[1], seconds, (x, y))


def _collected(
    model: Any, loader: Any, layer: str | None, features: tuple[Any, Any] | None
) -> tuple[str, Any, tuple[Any, Any]]:
    """The layer's name, the layer, its inputs and the targets.

    Raises:
        BadData: there is none, or its weight cannot be set.
    """
    batches = iter(loader)
    first = [_pair(batch) for batch in itertools.islice(batches, 0 if layer else 1)]  # a generator gives it once
    name, module = _layer(model, first, layer)
    if "weight" not in module._parameters:
        undo = "parametrize.remove_parametrizations" if hasattr(module, "parametrizations") else "remove_weight_norm"
        raise BadData(
            f"the weight of {name} is computed from others", "weight_norm or spectral_norm",
            f'torch.nn.utils.{undo}(model.get_submodule("{name}"), "weight") first',
        )  # fmt: skip
    return name, module, features or _features(model, itertools.chain(first, map(_pair, batches)), module)


def _checked(name: str, module: Any, x: Array, y: Array, outputs: int) -> _Cached:
    """The rows to solve from.

    Raises:
        BadData: they do not fit the layer.
    """
    coded, labels = _coded(y, outputs)
    source = _Cached(x, coded, outputs, labels)
    if x.shape[1] != module.in_features or source.outputs != module.out_features:
        raise BadData(
            f"the layer {name} is {module.in_features} to {module.out_features}; features are {x.shape[1]}, targets "
            f"{source.outputs}", "another layer, or a head for other classes",
            f"model.{name} = torch.nn.Linear({x.shape[1]}, {source.outputs})",
        )  # fmt: skip
    return source


def _pair(batch: Any) -> Any:
    """A batch of (input, target, …).

    Raises:
        BadData: it is none.
    """
    if isinstance(batch, Mapping) or not isinstance(batch, tuple | list) or len(batch) < 2:
        raise BadData(
            f"a batch is a {type(batch).__name__}, not a pair of input and target",
            "a data set of dictionaries, or one without targets",
            '((batch["x"], batch["y"]) for batch in loader)',
        )
    return batch


def _layer(model: Any, loader: Any, wanted: str | None) -> tuple[str, Any]:
    import torch

    linear = {name: m for name, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    if wanted is not None:
        if wanted not in linear:
            raise BadData(f"{wanted!r} is no linear layer", "a typing error", f"one of {', '.join(linear) or 'none'}")
        return wanted, linear[wanted]
    reached: list[str] = []
    hooks = [m.register_forward_hook(lambda *_, name=name: reached.append(name)) for name, m in linear.items()]
    try:
        for batch in loader:
            _forward(model, batch[0])
            break
    finally:
        for hook in hooks:
            hook.remove()
    if not reached:
        raise BadData("no linear layer was reached", "an empty loader, or a network without one", 'layer="name"')
    return reached[-1], linear[reached[-1]]


def _features(model: Any, loader: Any, module: Any) -> tuple[Array, Array]:
    """(rows, features) float32 inputs of ``module``, and the targets."""
    xs: list[Array] = []
    ys: list[Array] = []
    hook = module.register_forward_pre_hook(
        lambda _, inputs, named: xs.append(
            in_host(inputs[0] if inputs else named["input"]).astype(np.float32, copy=False)
        ),
        with_kwargs=True,
    )
    try:
        for batch in loader:
            _forward(model, batch[0])
            ys.append(np.asarray(in_host(batch[1])))
    finally:
        hook.remove()
    if not xs:
        raise BadData("the loader is empty", "no rows", "a loader with rows")
    if xs[0].ndim != 2 or sum(map(len, xs)) != sum(map(len, ys)):
        raise BadData(
            f"the layer sees {xs[0].shape} for {len(ys[0])} targets", "it is called for tokens, or more than once",
            "layer= a layer that is called once a batch with (rows, features)",
        )  # fmt: skip
    return np.concatenate(xs), np.concatenate(ys)


def _forward(model: Any, inputs: Any) -> None:
    import torch

    training = [m for m in model.modules() if m.training]
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    model.eval()
    try:
        with torch.no_grad():
            model(inputs.to(device) if hasattr(inputs, "to") else inputs)
    finally:
        for m in training:
            m.training = True


def _coded(y: Array, classes: int) -> tuple[Array, Array | None]:
    """(rows, outputs) targets as numbers, or (rows,) numbers of several classes; and labels where they are classes."""
    y = y.astype(np.int64) if y.dtype.kind == "b" else y
    if y.dtype.kind == "f":
        return y.reshape(len(y), -1).astype(np.float64), None
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if y.ndim != 1:
        raise BadData(
            f"targets of integers have the shape {y.shape}", "a column of 0 and 1 a class, or several labels a row",
            "target.argmax(1) for classes, target.float() for a regression a column",
        )  # fmt: skip
    if classes == 1 and y.min() >= 0 and y.max() <= 1:
        return 2.0 * y[:, None] - 1.0, y
    if y.min() < 0 or y.max() >= classes:
        raise BadData(
            f"labels from {y.min()} to {y.max()} for {classes} output{'s' if classes > 1 else ''}",
            "another head, or rows that a loss leaves out by their label", f"labels 0 … {max(classes - 1, 1)} only",
        )  # fmt: skip
    return y, y


def _judge(source: _Cached, m: Moments, spectrum: Spectrum, alpha: float) -> tuple[float, float, float]:
    """Leave-one-out score and loss, and the temperature that makes the loss least."""
    normal, p, labels = spectrum.normal, m.p, source.classes
    coef, shrunk = spectrum.coef(alpha), spectrum.shrunk(np.array([alpha]))[:, 0]
    turn = spectrum.vectors / spectrum.scale[:, None]
    rows, squares, right, losses = len(source.features), 0.0, 0, np.zeros(len(TEMPERATURES))
    for block in source.blocks():
        x = block.x - normal.x_mean
        leverage = (x @ turn) ** 2 @ shrunk + (1 / normal.weight if normal.intercept else 0.0)
        error = (block.y - (x @ coef + normal.y_mean)) / np.maximum(1 - leverage, 1e-10)[:, None]
        squares += float(np.sum(error**2))
        if labels is None:
            continue
        left = block.y - error
        if left.shape[1] == 1:  # the other class has the score 0
            left = np.hstack([np.zeros_like(left), left])
        here = labels[block.start : block.start + len(x)]
        right += int((left.argmax(axis=1) == here).sum())
        losses += [_cross_entropy(left * t, here) for t in TEMPERATURES]
    if labels is None:
        total = float(np.trace(m.scatter[p:, p:]))
        return 1 - squares / max(total, 1e-300), squares / (rows * source.outputs), 1.0
    best = int(np.argmin(losses))
    return right / rows, float(losses[best]) / rows, float(TEMPERATURES[best])


def _cross_entropy(scores: Floats, labels: Array) -> float:
    """Summed over the rows."""
    scores = scores - scores.max(axis=1, keepdims=True)
    return float(np.sum(np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(len(labels)), labels]))
