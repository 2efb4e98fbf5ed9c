"""Evaluation takes a large part of the training time.

Why it is slow
    While a model is evaluated it does not learn. An evaluation over all validation data every few steps can cost
    more than the training.

Remedy
    None from outside: how often and on what a model is evaluated is part of the experiment. By hand: evaluate less
    often, on a fixed subset, and with a larger batch, for there is no gradient to keep memory for.

Fidelity
    identical weights, unless evaluations decide when to stop or draw random numbers; fewer points of the validation
    curve.

When it does not help
    Short runs with one evaluation at the end.

References
    https://lightning.ai/docs/pytorch/stable/common/trainer.html#val-check-interval
    https://docs.pytorch.org/docs/stable/notes/autograd.html#inference-mode
"""

from __future__ import annotations

from collections.abc import Iterator

from hasten.core.facts import LoaderFacts, Place
from hasten.core.finding import Finding, Rule, ms
from hasten.core.trace import Trace
from hasten.seams.source import callers, function_around

LEAST_SHARE = 0.15  # of the time since the first step; below, evaluating half as often gains less than 8 %
SAVED = (0.5, 0.9)  # half as often, ten times less often; measured 2.2x for every 10 steps against every 200
SMALL_BATCH = 0.5  # an evaluation batch smaller than this part of the training batch wastes calls
ACTING = "where a policy acts by these calls, to collect data, they are no evaluation, and have to be made"
TARGETS = "where a step trains towards what these calls return, they are no evaluation, and have to be made"


def detect(trace: Trace) -> Iterator[Finding]:
    cost = trace.phase("evaluation")
    if not cost >= LEAST_SHARE * trace.step_seconds:
        return
    place = trace.place("evaluation")
    small = _small_batches(trace)
    fed = any(x.role == "evaluation" for x in trace.loaders)
    advice = "evaluate less often (every 200 steps, or once an epoch), or on a fixed subset"
    if _once_an_epoch(trace) or _between_epochs(trace):
        advice = "evaluate after every few epochs rather than after each, or on a fixed subset"
    if small is not None:
        advice = f"raise the evaluation's batch size from {small.batch_size}; then {advice}"
    in_train_mode = any(2 * m.in_train_mode > m.evaluations for m in trace.models)
    calls = "calls that no backward pass follows" if in_train_mode else "calls in eval mode"
    yield RULE.finding(
        f"{'evaluation takes' if fed else f'{calls} take'} {cost / trace.step_seconds:.0%} of the time,"
        f" {ms(cost)} for every step",
        started(place) or place,
        (trace.amdahl(SAVED[0] * cost), trace.amdahl(SAVED[1] * cost)),
        label="evaluates here",
        advice=advice,
        notes=() if fed else (TARGETS if in_train_mode else ACTING,),
    )


def _between_epochs(trace: Trace) -> bool:
    """Whether it is done once an epoch already: what follows an epoch's last step counts to the next epoch, so the
    first has none."""
    first, *others = trace.epochs or (None,)
    return first is not None and bool(others) and not first.evaluation_seconds and others[0].evaluation_seconds > 0


def started(place: Place | None) -> Place | None:
    """The line in a loop that calls the function in which evaluation happens, if there is exactly one."""
    function = function_around(place.file, place.line) if place is not None else ""
    if place is None or function in ("", "forward"):
        return None
    found = callers(place.file, function)
    return found[0] if len(found) == 1 else None


def _once_an_epoch(trace: Trace) -> bool:
    """Whether no loader of an evaluation was passed over more often than the training's; one that every epoch makes
    anew stands for those before it."""
    training = trace.loader
    if training is None or training.starts + training.before < 2:
        return False
    evaluations = [x.starts + x.before for x in trace.loaders if x.role == "evaluation"]
    epochs = max(x.starts + x.before for x in trace.loaders if x.role == "training")
    return bool(evaluations) and max(evaluations) <= epochs + 1  # one before the first


def _small_batches(trace: Trace) -> LoaderFacts | None:
    training = trace.loader
    if training is None or training.batch_size < 1:
        return None
    for loader in trace.loaders:
        if loader.role == "evaluation" and 0 < loader.batch_size < SMALL_BATCH * training.batch_size:
            return loader
    return None


RULE = Rule("E602", "evaluation-share", detect, __doc__)
