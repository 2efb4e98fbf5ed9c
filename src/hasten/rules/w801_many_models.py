"""Many small models of one shape are trained one after the other.

Why it is slow
    A step of a small network costs calls, not arithmetic: some hundred microseconds go to Python, the dispatcher, the
    loader and the optimizer, and they are paid for every step of every model.

Remedy
    None from outside. By hand: ``hasten.fleet.fit(make_model, tasks, ...)`` trains all of them together with the result
    of the loop; ``prove=8`` compares eight of them with it. A library of your own that stacks the models, or one
    model for all keys, cures it, too.

Fidelity
    equivalent: sums round differently. The order of the rows and the initial weights come from fleet's own random
    streams, so single models differ as they do with another seed.

When it does not help
    Models that depend on each other (boosting, meta-learning, rounds of federated averaging, one starting from the
    last one's weights; the last two are seen, and nothing is said), and large ones, whose steps are arithmetic. The
    range is measured on two cores of several kinds of CPU, against one process of the loop: 61 to 118 times for small
    perceptrons where a DataLoader makes the batches, 30 to 50 times where they are picked by index; 24 to 35 times
    against ``MLPRegressor``; 11 to 39 times for a small convolution, 10 to 24 where it has to be stacked, 8 to 20 for a
    recurrent network that has to (one CPU). What the stacked engine cannot trace gains less, 1.4 times in the least
    case seen. More cores gain more. Nothing is said where the script uses a GPU, nor where a step takes more than 5 ms,
    less what it waits for a core on a busy machine.
    Less than twelve models are taken for folds or seeds. Loops through skorch pass the same points of torch and are
    seen. Scikit-learn's ``MLPRegressor`` and ``MLPClassifier`` do not use torch: their fits are counted, by the
    line that asks for them; fits of a search over settings or folds are not, nor those by ``lbfgs``, which fleet
    does not have.

References
    https://docs.pytorch.org/tutorials/intermediate/ensembling.html
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterable, Iterator

from hasten.core.facts import FitFacts, Place
from hasten.core.finding import Finding, Rule
from hasten.core.trace import Trace
from hasten.seams.source import callers, calls, differentiates, function_around, loops_around, place_in

LEAST_MODELS = 12  # more than the ten folds of a cross-validation
LEAST_STEPS = 20  # a model, on average; the inner loops of meta-learning take fewer
MOST_SECONDS = 0.005  # a step; longer ones are arithmetic, which fleet does not make less
MOST_ELEMENTS = 100_000  # in a model; weights, gradients and moments then take 1.6 MB, about a core's cache
PREDICTED = (1.4, 51.0)  # bench/results: 1.4 where torch.func alone stacks, modules 8 to 33, perceptrons 30 to 50 …
PREDICTED_LOADERS = (1.4, 118.0)  # … and 61 to 118 where every batch costs the calls of a DataLoader, too
PREDICTED_FITS = (2.0, 40.0)  # bench/fleet_sklearn.py: 24 for small batches; large ones are arithmetic there, too
NOTED = 0.1  # of a step spent waiting for a core, from which on it is said
MOST_CALLS = 3  # functions between the loop and the line that makes the optimizer


def detect(trace: Trace) -> Iterator[Finding]:
    waited = trace.usage.waited_seconds
    short = trace.step_median <= MOST_SECONDS or trace.usage.wall_seconds - waited <= MOST_SECONDS
    if not short or trace.process.device != "cpu":
        return
    busy = f", {1000 * waited:.2f} ms of it waiting for a core" if waited > NOTED * trace.step_median else ""
    loaders = any(loader.role == "training" for loader in trace.loaders)
    for facts in trace.successions:
        if facts.models < LEAST_MODELS or facts.interleaved or facts.elements > MOST_ELEMENTS:
            continue
        if facts.steps < LEAST_STEPS * facts.models:
            continue
        each = facts.steps / facts.models
        yield RULE.finding(
            f"{facts.models} models of one shape so far, one after the other: {each:,.0f} steps each,"
            f" {1000 * trace.step_median:.2f} ms a step{busy}",
            _loop(trace.place("optimizer"), facts.optimizer),
            PREDICTED_LOADERS if loaders else PREDICTED,
            label="trains many models of one shape",
            advice="train them all together: hasten.fleet.fit(make_model, tasks, ..., prove=8)",
            notes=(f"each is a {facts.model} of {facts.elements:,} parameters, trained by {facts.optimizer}",),
        )


def detect_fits(fits: Iterable[FitFacts]) -> Iterator[Finding]:
    """The same for scikit-learn's networks; one line may be reported by several worker processes."""
    asked: dict[tuple[tuple[Place, ...], str, tuple[int, ...], str], FitFacts] = {}
    for each in fits:
        known = asked.setdefault((each.lines, each.estimator, each.layers, each.solver), each)
        if known is not each:
            known.models += each.models
            known.epochs += each.epochs
            known.rows += each.rows
            known.seconds += each.seconds
    for facts in asked.values():
        elements = sum(a * b + b for a, b in itertools.pairwise(facts.layers))
        if facts.models < LEAST_MODELS or elements > MOST_ELEMENTS or facts.solver not in ("adam", "sgd"):
            continue
        yield RULE.finding(
            f"{facts.models} models of one shape, one after the other: {facts.epochs / facts.models:,.0f} epochs of"
            f" {facts.rows / facts.models:,.0f} rows each, {1000 * facts.seconds / facts.models:,.3g} ms a model",
            _innermost_loop(facts.lines),
            PREDICTED_FITS,
            label="trains many models of one shape",
            advice="train them all together: hasten.fleet.fit(make_model, tasks, ..., prove=8)",
            notes=(f"each is a {facts.estimator} of {elements:,} parameters, trained by {facts.solver}",),
        )


def _innermost_loop(lines: tuple[Place, ...]) -> Place | None:
    for line in lines:
        loops = loops_around(line.file, line.line)
        if loops:
            return place_in(line.file, loops[0], line.function)
    return lines[0] if lines else None


def _loop(place: Place | None, optimizer: str) -> Place | None:
    """The loop over the models: around what makes the optimizer, or around the library call that trains.

    Args:
        place: the line that steps the optimizers. optimizer: name of their class.
    """
    if place is None:
        return None
    made = calls(place.file, lambda call: _name(call) == optimizer)
    found = _around(made[0]) if len(made) == 1 else None
    if found is not None:
        return found
    loops = loops_around(place.file, place.line)
    if loops and not differentiates(loops[0]):
        return place_in(place.file, loops[0], place.function)
    return place


def _around(place: Place) -> Place | None:
    """The innermost loop around a line; where its function has none, around the only call of that function."""
    for _ in range(MOST_CALLS):
        loops = loops_around(place.file, place.line)
        if loops:
            return place_in(place.file, loops[0], place.function)
        found = callers(place.file, function_around(place.file, place.line))
        if len(found) != 1:
            return None
        place = found[0]
    return None


def _name(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


RULE = Rule("W801", "many-models", detect, __doc__)
