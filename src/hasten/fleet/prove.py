"""Proof by the user's own loop: sampled keys are trained again by plain PyTorch, and compared.

Two float32 trainings that round differently drift apart however right both are, so the last weights are shown but not
judged unless they are the same bits. Judged is the engine's own way to its weights. It is gone once more, which must
come to the fleet's bits, and looked at before the first step, at steps spread over it, and at its end:

- the gradient of the batch that comes next and of the epoch's last one: its distance from the gradient in float64 must
  be no more than a small multiple of torch's own float32 distance;
- the optimizer's step: weights and moments behind it must be what torch's optimizer makes in float64 of the engine's
  own gradient, to rounding.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from hasten.core.errors import in_a_line
from hasten.fleet import replay, streams
from hasten.fleet.loop import LoopTrainer, batch_of
from hasten.fleet.planner import EPS32, difference, flat_gradient
from hasten.fleet.replay import Stop
from hasten.fleet.state import State
from hasten.fleet.tasks import Job

if TYPE_CHECKING:
    from hasten.fleet.fleet import Fleet
    from hasten.fleet.session import Session

MULTIPLE = 8.0  # of torch's own rounding that an engine's gradient, or its step, may differ by
LEAST = 4 * EPS32  # that rounding is taken to be
ASIDE = 1e-3  # how far weights are moved, in units of themselves, where a gradient is asked for once more
AGAIN = 2  # times that it is
FAINT = 1e-30  # moments below it are nought to the kernel

Wide = npt.NDArray[np.float64]


def prove(fleet: Fleet, session: Session, count: int) -> tuple[Mapping[str, Any], ...]:
    """Train ``count`` sampled keys by the plain loop and compare.

    Returns:
        for each key: both last losses, the largest difference of weights, whether all bits are the same, how many
        ``gradients`` of the engine were compared and, of the worst of them, the distances of the engine's and of
        torch's float32 gradient from that in float64 (in units of each tensor's largest entry), that of the worst
        optimizer step (``step_error``, likewise), and ``holds``; a ``cause`` where something else than a gradient is
        why it does not.
    """
    from hasten.fleet.session import Session

    keys = sorted(fleet)
    drawn = streams.permutation(streams.stream_of(session.recipe.seed, "prove"), len(keys), 0, streams.SAMPLE)
    sample = {keys[i]: session.tasks[keys[i]] for i in drawn[:count]}
    own = {key: value for key, value in session.settings.items() if key in sample}
    reference = Session(session.factory, session.recipe, sample, own, "loop", session.workers).train(None, None)
    found = {key: _results(key, fleet, reference, session) for key in sample}
    jobs = {job.key: job for job in session.jobs}
    apart = [jobs[key] for key, result in found.items() if not result.get("identical", True)]
    epochs = {jobs[row.key].index: row.epochs for row in fleet.summary().rows if row.key in jobs}
    again = [job for job in apart if found[job.key]["engine"] != "loop"]
    stops = replay.stops(session, again, epochs) if again else {}
    for job in apart:
        kind, row = fleet.places[job.key]
        found[job.key] |= _judged(session, job, stops.get(job.index, []), fleet.weights[kind][row])
    return tuple(found.values())


def _results(key: str, fleet: Fleet, reference: Fleet, session: Session) -> dict[str, Any]:
    kind, row = fleet.places[key]  # its own weights, also where a baseline predicts for it
    engine = session.choices[kind].engine
    if key not in reference:
        return {"key": key, "engine": engine, "holds": False, "cause": reference.failed[key]}
    ours, theirs = fleet.weights[kind][row], reference.weights_of(key)
    same = bool(np.array_equal(ours, theirs))
    loss, loop_loss = (next(r.loss for r in f.summary().rows if r.key == key) for f in (fleet, reference))
    return {
        "key": key,
        "engine": engine,
        "loss": loss,
        "loop_loss": loop_loss,
        "weights_differ_by": float(np.abs(ours - theirs).max(initial=0)),
        "identical": same,
        "gradients": 0,
        "gradient_error": 0.0,
        "torch_gradient_error": 0.0,
        "step_error": 0.0,
        "holds": same,
    }


def _judged(session: Session, job: Job, stops: Sequence[Stop], weights: npt.NDArray[np.float32]) -> dict[str, Any]:
    if not stops or not np.array_equal(stops[-1].state.flat[0], weights):
        return {"holds": False, "cause": "trained once more by the same engine, it came to other bits"}
    try:
        errors = [error for stop in stops for error in _gradient_errors(session, job, stop)]
    except Exception as error:  # a forward that asks for float32 by name
        return {"holds": False, "cause": f"no gradient in float64 to compare with: {in_a_line(error)}"}
    ours, torchs = max(errors, key=_share)
    step = max(_step_error(session, job, stop) for stop in stops)
    judged = {"gradients": len(errors), "gradient_error": ours, "torch_gradient_error": torchs, "step_error": step}
    if not step <= MULTIPLE * LEAST:
        cause = f"its optimizer's step is off by {step:.0e} from torch's with the same gradient"
        return {**judged, "holds": False, "cause": cause}
    return {**judged, "holds": _share((ours, torchs)) <= 1}


def _share(errors: tuple[float, float]) -> float:
    """Of what an engine's gradient may be off by. errors: the engine's, torch's."""
    ours, torchs = errors
    return ours / (MULTIPLE * max(torchs, LEAST)) if math.isfinite(ours) else math.inf


# -- the gradient ------------------------------------------------------------------------------------------------------


def _gradient_errors(session: Session, job: Job, stop: Stop) -> list[tuple[float, float]]:
    """Of the next batch, and of the epoch's last one: distances from the float64 gradient, the engine's and torch's."""
    last = job.steps(session.recipe.batch_size) - 1
    found = []
    for step in dict.fromkeys((stop.step, last)):
        errors = gradient_check(session, job, stop.state, step)
        for number in range(AGAIN):
            if _share(errors) > 1:  # a sum that is nought but for rounding falls on either side of a ReLU's bend
                errors = gradient_check(session, job, _aside(stop.state, job, number), step)
        found.append(errors)
    return found


def _aside(state: State, job: Job, number: int) -> State:
    moved = copy.deepcopy(state)
    random = np.random.default_rng([job.stream, number])
    moved.flat[0] *= 1 + np.float32(ASIDE) * random.standard_normal(moved.flat.shape[1], np.float32)
    return moved


def gradient_check(session: Session, job: Job, state: State, step: int) -> tuple[float, float]:
    """Distances from the float64 gradient, of the engine's and of torch's float32 one.

    Args:
        step: which batch of the epoch that ``state`` is in.
    """
    layout = session.kinds[job.index].layout
    exact = flat_gradient(_loop(session, job, state, step, wide=True))
    theirs = flat_gradient(_loop(session, job, state, step))
    ours = replay.gradient(session, job, state, step)
    return difference(ours, exact, layout), difference(theirs, exact, layout)


def _loop(session: Session, job: Job, state: State, step: int, wide: bool = False) -> LoopTrainer:
    """The plain loop with the gradient of one batch, in float64 where it is to be ``wide``; tensors that a forward
    makes are float64, then, too."""
    recipe, layout, module = session.recipe, session.kinds[job.index].layout, session.factory(job)
    layout.write(state.flat[0], module)
    trainer = LoopTrainer(module.double() if wide else module, layout, job, recipe)
    trainer.moment.at(state.epoch, step)
    rows = job.epoch_order(state.epoch)[step * recipe.batch_size : (step + 1) * recipe.batch_size]
    if not wide:
        trainer.gradient(rows)
        return trainer
    X, y = batch_of(job, rows)
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        recipe.loss(trainer.module(X.double()), y.double() if y.dtype.is_floating_point else y).backward()
    finally:
        torch.set_default_dtype(usual)
    return trainer


# -- the optimizer's step ----------------------------------------------------------------------------------------------


def _step_error(session: Session, job: Job, stop: Stop) -> float:
    """How far weights and moments behind one step of the engine are from torch's optimizer in float64, given the same
    gradient; in units of each tensor's largest entry."""
    recipe, kind, state = session.recipe, session.kinds[job.index], stop.state
    rows = job.epoch_order(state.epoch)[stop.step * recipe.batch_size : (stop.step + 1) * recipe.batch_size]
    alone = replace(job, order=rows)
    ours = replay.one_step(session, job, state, rows).flat[:3]
    exact = _stepped(session, alone, state, replay.gradient(session, alone, state, 0))
    worst = 0.0
    for e in kind.layout.entries:
        for before, mine, theirs in zip(state.flat[:3], ours, exact, strict=True):
            if e.trains and e.size:
                b, m, t = (row[e.start : e.start + e.size].astype(np.float64) for row in (before, mine, theirs))
                apart = float(np.abs(m - t).max() / max(np.abs(b).max(), np.abs(t).max(), FAINT))
                worst = max(worst, apart if apart == apart else math.inf)
    return worst


def _stepped(session: Session, job: Job, state: State, gradient: npt.NDArray[np.float32]) -> Wide:
    """Weights and moments behind one step of torch's optimizer in float64. (3, total)."""
    recipe, layout = session.recipe, session.kinds[job.index].layout
    trainer = _loop(session, job, state, 0)  # which parameters have a gradient at all
    trainer.module.double()
    trainer.load(state)
    for held in trainer.optimizer.state.values():
        held.update({slot: held[slot].double() for slot in trainer.slots if slot in held})
    named = dict(trainer.module.named_parameters())
    for name, value in layout.views(gradient).items():
        if name in named and named[name].grad is not None:
            named[name].grad = value.double()
    if recipe.clip is not None:
        nn.utils.clip_grad_norm_(trainer.parameters, recipe.clip)
    trainer.optimizer.step()
    found = state.flat[:3].astype(np.float64)
    for e in layout.entries:
        if e.trains:
            slots = trainer.optimizer.state[named[e.name]]
            kept = [named[e.name].detach(), *(slots.get(slot) for slot in trainer.slots)]
            for row, value in zip(found, kept, strict=False):
                if value is not None:
                    row[e.start : e.start + e.size] = value.numpy().reshape(-1)
    return found
