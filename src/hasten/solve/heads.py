"""A linear head on a frozen network in one forward pass, instead of epochs of gradient steps."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hasten.solve.kernel import Array, Floats
from hasten.solve.moments import Moments
from hasten.solve.path import Spectrum, leave_one_out
from hasten.solve.problems import BadData
from hasten.solve.source import Block, Source

ALPHAS = tuple(10.0 ** np.arange(-4, 5))  # of features scaled to unit variance, times the rows / 100
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
    """Features with coded targets."""

    def __init__(self, features: Array, targets: Floats) -> None:
        self.features, self.coded, self.rows = features, targets, len(features)

    def blocks(self, first: int = 0) -> Iterator[Block]:
        names = [f"f{j}" for j in range(self.features.shape[1])]
        targets = [f"y{j}" for j in range(self.coded.shape[1])]
        for i in range(first, len(self.features), 1 << 14):
            part = slice(i, i + (1 << 14))
            yield Block(self.features[part], self.coded[part], None, names, targets, start=i)


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
    batches = iter(loader)
    first = [_pair(batch) for batch in itertools.islice(batches, 0 if layer else 1)]  # a generator gives it once
    name, module = _layer(model, first, layer)
    if "weight" not in module._parameters:
        undo = "parametrize.remove_parametrizations" if hasattr(module, "parametrizations") else "remove_weight_norm"
        raise BadData(
            f"the weight of {name} is computed from others", "weight_norm or spectral_norm",
            f'torch.nn.utils.{undo}(model.get_submodule("{name}"), "weight") first',
        )  # fmt: skip
    if features is None:
        features = _features(model, itertools.chain(first, map(_pair, batches)), module)
    x, y = features
    forward = time.perf_counter() - start
    start = time.perf_counter()
    coded, labels = _coded(y, classes or module.out_features)
    if x.shape[1] != module.in_features or coded.shape[1] != module.out_features:
        raise BadData(
            f"the layer {name} is {module.in_features} to {module.out_features}; features are {x.shape[1]}, targets "
            f"{coded.shape[1]}", "another layer, or a head for other classes",
            f"model.{name} = torch.nn.Linear({x.shape[1]}, {coded.shape[1]})",
        )  # fmt: skip
    source = _Cached(x, coded)
    m = Moments().update(source)
    scaled = np.asarray(alphas, dtype=np.float64) * m.n / 100
    path, spectrum = leave_one_out(source, m, scaled, fit_intercept=module.bias is not None, scale=True)
    score, loss, temperature = _judge(source, m, spectrum, path.alpha, labels)
    coef = spectrum.coef(path.alpha)
    bias = spectrum.normal.intercept_of(coef)
    with torch.no_grad():
        module.weight.copy_(torch.as_tensor(coef.T * temperature).to(module.weight))
        if module.bias is not None:
            module.bias.copy_(torch.as_tensor(bias * temperature).to(module.bias))
    seconds = (forward, time.perf_counter() - start)
    return Head(name, path.alpha, score, loss, temperature, len(x), x.shape[1], seconds, (x, y))


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
    hook = module.register_forward_pre_hook(lambda _, inputs: xs.append(inputs[0].detach().float().cpu().numpy()))
    try:
        for batch in loader:
            _forward(model, batch[0])
            ys.append(np.asarray(batch[1].cpu() if hasattr(batch[1], "cpu") else batch[1]))
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


def _coded(y: Array, classes: int) -> tuple[Floats, Array | None]:
    """(rows, outputs) targets as numbers, and labels where they are classes."""
    y = y.astype(np.int64) if y.dtype.kind == "b" else y
    if y.dtype.kind == "f":
        return y.reshape(len(y), -1).astype(np.float64), None
    if classes == 1 and y.ndim == 1 and y.min() >= 0 and y.max() <= 1:
        return 2.0 * y[:, None] - 1.0, y
    if y.ndim != 1 or y.min() < 0 or y.max() >= classes:
        raise BadData(f"labels from {y.min()} to {y.max()} for {classes} outputs", "another head", f"0 … {classes - 1}")
    return np.eye(classes)[y], y


def _judge(source: _Cached, m: Moments, spectrum: Spectrum, alpha: float, labels: Any) -> tuple[float, float, float]:
    """Leave-one-out score and loss, and the temperature that makes the loss least."""
    normal = spectrum.normal
    coef = spectrum.coef(alpha)
    x = source.features - normal.x_mean
    z = x @ (spectrum.vectors / spectrum.scale[:, None])
    leverage = (z * z) @ spectrum.shrunk(np.array([alpha]))[:, 0] + (1 / normal.weight if normal.intercept else 0.0)
    fitted = x @ coef + normal.y_mean
    error = (source.coded - fitted) / np.maximum(1 - leverage, 1e-10)[:, None]
    left = source.coded - error
    if labels is None:
        total = np.sum((source.coded - source.coded.mean(axis=0)) ** 2)
        return float(1 - np.sum(error**2) / max(total, 1e-300)), float(np.mean(error**2)), 1.0
    if left.shape[1] == 1:  # the other class has the score 0
        left = np.hstack([np.zeros_like(left), left])
    accuracy = float((left.argmax(axis=1) == labels).mean())
    losses = [_cross_entropy(left * t, labels) for t in TEMPERATURES]
    best = int(np.argmin(losses))
    return accuracy, losses[best], float(TEMPERATURES[best])


def _cross_entropy(scores: Floats, labels: Array) -> float:
    scores = scores - scores.max(axis=1, keepdims=True)
    return float(np.mean(np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(len(labels)), labels]))
