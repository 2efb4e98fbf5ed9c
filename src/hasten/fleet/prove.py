"""Proof by the user's own loop: sampled keys are trained again by plain PyTorch, and compared.

Two float32 trainings that round differently drift apart however right both are, so the last weights are shown but not
judged unless they are the same bits. Judged is the gradient, at the first and at the last weights of the plain loop:
the engine's distance from the gradient in float64 must be no more than a small multiple of torch's own float32
distance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hasten.core.errors import in_a_line
from hasten.fleet import stacked, streams
from hasten.fleet.loop import LoopTrainer, batch_of, fresh
from hasten.fleet.native.engine import NativeTrainer
from hasten.fleet.planner import EPS32, difference, flat_gradient
from hasten.fleet.state import Floats, Layout
from hasten.fleet.tasks import Job

if TYPE_CHECKING:
    from hasten.fleet.fit import Session
    from hasten.fleet.fleet import Fleet

MULTIPLE = 8.0  # of torch's own rounding that an engine's gradient may differ by


def prove(fleet: Fleet, session: Session, count: int) -> tuple[Mapping[str, Any], ...]:
    """Train ``count`` sampled keys by the plain loop and compare.

    Returns:
        for each key: both last losses, the largest difference of weights, whether all bits are the same, the distances
        of the engine's and of torch's float32 gradient from that in float64 (in units of each tensor's largest entry),
        and ``holds``.
    """
    from hasten.fleet.fit import Session

    keys = sorted(fleet)
    drawn = streams.permutation(streams.stream_of(session.recipe.seed, "prove"), len(keys), 0, streams.SAMPLE)
    sample = {keys[i]: session.tasks[keys[i]] for i in drawn[:count]}
    own = {key: value for key, value in session.settings.items() if key in sample}
    again = Session(session.factory, session.recipe, sample, own, "loop", session.workers)
    reference = again.train(None, None)
    jobs = {job.key: job for job in session.jobs}
    return tuple(_compared(key, fleet, reference, session, jobs[key]) for key in sample)


def _compared(key: str, fleet: Fleet, reference: Fleet, session: Session, job: Job) -> dict[str, Any]:
    engine = session.choices[session.kinds[job.index].name].engine
    if key not in reference:
        return {"key": key, "engine": engine, "holds": False, "cause": reference.failed[key]}
    kind, row = fleet.places[key]  # its own weights, also where a baseline predicts for it
    ours, theirs = fleet.weights[kind][row], reference.weights_of(key)
    rows = {row.key: row for row in (*fleet.summary().rows, *reference.summary().rows)}
    loss = next(row.loss for row in fleet.summary().rows if row.key == key)
    same = bool(np.array_equal(ours, theirs))
    found = {
        "key": key,
        "engine": engine,
        "loss": loss,
        "loop_loss": rows[key].loss,
        "weights_differ_by": float(np.abs(ours - theirs).max()),
        "identical": same,
    }
    try:
        distance, rounding = gradient_check(session, job, theirs) if not same else (0.0, 0.0)
    except Exception as error:  # a forward that asks for float32 by name
        return {**found, "holds": False, "cause": f"no gradient in float64 to compare with: {in_a_line(error)}"}
    holds = same or (math.isfinite(distance) and distance <= MULTIPLE * max(rounding, 4 * EPS32))
    return {**found, "gradient_error": distance, "torch_gradient_error": rounding, "holds": holds}


def gradient_check(session: Session, job: Job, last: Floats) -> tuple[float, float]:
    """Distances from the float64 gradient, of the engine's and of torch's float32 one: the larger of those at the first
    weights and at ``last``, on the first batch."""
    recipe, kind = session.recipe, session.kinds[job.index]
    layout = kind.layout
    rows = job.epoch_order(0)[: recipe.batch_size]
    state = fresh(session.factory(job), layout, recipe)
    worst = rounding = 0.0
    ours: Any
    for weights in (state.flat[0].copy(), last):
        state.flat[0] = weights
        exact = gradient64(weights, layout, job, session, rows)
        theirs = ours = loop_gradient(weights, layout, job, session, rows)
        engine = session.choices[kind.name].engine
        if engine == "native":
            native = NativeTrainer(kind.chain, layout, recipe, most=job.most).take(job)
            native.load(state)
            ours, _ = native.gradient(rows)
        elif engine == "stacked":
            ours = stacked.gradient(kind, job, recipe, state)
        worst = max(worst, difference(ours, exact, layout))
        rounding = max(rounding, difference(theirs, exact, layout))
    return worst, rounding


def loop_gradient(weights: Floats, layout: Layout, job: Job, session: Session, rows: Any) -> Any:
    """The plain loop's gradient of one batch, as a flat row."""
    module = session.factory(job)
    layout.write(weights, module)
    trainer = LoopTrainer(module, layout, job, session.recipe)
    trainer.gradient(rows)
    return flat_gradient(trainer)


def gradient64(weights: Floats, layout: Layout, job: Job, session: Session, rows: Any) -> Any:
    """The gradient of one batch in float64, as a flat row. Tensors that a forward makes are float64, too."""
    module = session.factory(job)
    layout.write(weights, module)
    trainer = LoopTrainer(module.double(), layout, job, session.recipe)
    X, y = batch_of(job, rows)
    wide = y.double() if y.dtype.is_floating_point else y
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        session.recipe.loss(trainer.module(X.double()), wide).backward()
    finally:
        torch.set_default_dtype(usual)
    return flat_gradient(trainer)
