"""A model that is linear in what is trained is trained by a loop.

Why it is slow
    A single linear layer, or one behind a frozen network, is fitted by epochs of small steps, each of which pays for
    a batch, a forward and a backward pass and an optimizer. With the squared error the best weights are the solution of
    one system of equations, which one pass over the data makes; with a cross-entropy the problem is convex, and a
    few passes of Newton's method, or a solver that looks at all rows, end at the optimum.

Remedy
    None from outside. By hand: ``hasten.solve.lstsq(X, y)`` (or ``StreamingRidge``, which also chooses a penalty),
    ``hasten.solve.head(model, loader)`` behind a frozen network, ``hasten.solve.StreamingLogistic()`` for classes.

Fidelity
    equivalent: the optimum that the loop approaches. Weight decay, early stopping and few epochs keep a loop away from
    it, which may generalise better; ``StreamingRidge`` finds such a penalty by leave-one-out. The loss that is compared
    is that of the training rows without any penalty.

When it does not help
    What is shown is measured, on the rows of one pass that a forked child made through the loop: their number, the
    seconds of that pass and of the solution, and the mean loss of the solution and of the loop's last weights on just
    these rows. With random augmentation they are one draw of many. Nothing is said of layers behind dropout, of
    weighted losses and added penalties, where two layers are trained or several optimizers step, where a pass takes
    more than 15 s or 256 MB, where pass and solution take more than half of what the loop is expected to take, where
    less than 5 % of the job would be saved, or where the solution's loss is not as small as the loop's.

References
    https://hastie.su.domains/ElemStatLearn/
    https://scikit-learn.org/stable/modules/linear_model.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hasten.core.facts import LinearFacts, Place
from hasten.core.finding import Finding, Rule
from hasten.core.trace import Trace
from hasten.seams.source import loops_around, place_in

LEAST_SHARE = 0.05  # of all seconds since the process was started; who waits for these will not notice fewer
LEAST_GAIN = 2.0  # times the solution must be faster than the loop was, pass over the data included
WORSE = 1.02  # the solution's loss may be so many times the loop's, where a default penalty keeps it from the optimum
MOST_GAIN = 900.0  # a report shows no larger ratio; the seconds in the message are as measured


def detect(trace: Trace) -> Iterator[Finding]:
    facts = trace.linear
    if facts is None or not facts.loop_seconds > 0 or not facts.solved_loss <= facts.loop_loss * WORSE:
        return
    whole = facts.pass_seconds + facts.solve_seconds
    gain = facts.loop_seconds / whole
    if not gain >= LEAST_GAIN or facts.loop_seconds - whole < LEAST_SHARE * trace.wall_seconds:
        return
    yield RULE.finding(
        f"{_layer(facts)} is trained for {facts.loop_seconds:.3g} s by a loop; solved on the same {facts.rows:,} rows"
        f" in {_seconds(facts.solve_seconds)} after one pass over them ({_seconds(facts.pass_seconds)})",
        _loop(trace.place("optimizer")),
        (min(gain, MOST_GAIN), min(facts.loop_seconds / facts.solve_seconds, MOST_GAIN)),
        label=f"approaches the optimum of a {'quadratic' if facts.loss == 'squared error' else 'convex'} function",
        advice=_call(facts),
        notes=(
            f"mean {facts.loss} on these rows: {facts.loop_loss:.6g} after the loop, {facts.solved_loss:.6g} solved",
            f"measured in a forked child with {facts.method}; the pass went through the loop, its steps included",
        ),
    )


def _layer(facts: LinearFacts) -> str:
    behind = f" behind {facts.frozen:,} frozen parameters" if facts.frozen else ""
    return f"a linear layer of {facts.features} inputs and {facts.outputs} outputs{behind}"


def _call(facts: LinearFacts) -> str:
    option = "" if facts.bias else "fit_intercept=False"
    if facts.loss == "squared error":
        rows = ", ".join(["X, y", option] if option else ["X, y"])
        return "hasten.solve.head(model, loader)" if facts.frozen else f"hasten.solve.lstsq({rows})"
    data = "*hasten.solve.head(model, loader).cached" if facts.frozen else "X, y"
    return f"hasten.solve.StreamingLogistic({option}).fit({data})"


def _seconds(value: float) -> str:
    return f"{1000 * value:.3g} ms" if value < 1 else f"{value:.3g} s"


def _loop(place: Place | None) -> Place | None:
    """The outermost loop around the line that steps the optimizer."""
    loops = loops_around(place.file, place.line) if place is not None else []
    return place_in(place.file, loops[-1], place.function) if place is not None and loops else place


def solve(x: Any, y: Any, loss: str, outputs: int, bias: bool = True) -> tuple[Any, Any, str]:
    """The weights without a loop; run in a forked child.

    Args:
        x: (rows, features) float32 or float64. y: (rows, outputs) numbers, or (rows,) or (rows, 1) classes.
        loss: as :mod:`hasten.explain.losses` names it. outputs: of the layer. bias: whether it has one.

    Returns:
        (features, outputs) weights, (outputs,) intercepts, and who solved it.
    """
    import numpy as np

    from hasten import solve as library

    if loss == "squared error":
        found = library.lstsq(x, y, fit_intercept=bias)
        return found.coef_, found.intercept_, f"hasten.solve.lstsq ({found.method_})"
    model = library.StreamingLogistic(fit_intercept=bias).fit(x, y.reshape(-1))
    coef, intercept = model.coef_.T, np.asarray(model.intercept_)
    if outputs > 1 and len(intercept) == 1:  # of two classes the first one has the score 0
        coef, intercept = np.hstack([0 * coef, coef]), np.append(0.0, intercept)
    weights, constants = np.zeros((x.shape[1], outputs)), np.full(outputs, -np.inf)
    seen = np.asarray(model.classes_, dtype=int) if outputs > 1 else [0]  # a class without rows is never the answer
    weights[:, seen], constants[seen] = coef, intercept
    return weights, constants, f"hasten.solve.StreamingLogistic() ({model.method_})"


def ready(loss: str) -> None:
    """Import and compile what :func:`solve` needs, so that its time is its own."""
    from hasten import solve as library
    from hasten.solve import gram

    gram.kernel()
    library.lstsq if loss == "squared error" else library.StreamingLogistic  # noqa: B018


RULE = Rule("W802", "linear-by-loop", detect, __doc__)
