"""Which engine trains which models: each that can is tried on real models for a moment, and the fastest is taken."""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
import torch

from hasten.core.errors import HastenError, UsageError, in_a_line
from hasten.fleet import stack_trial
from hasten.fleet.described import own_ways, signature
from hasten.fleet.engines import ENGINES
from hasten.fleet.loop import LoopTrainer, batch_of, fresh, make_optimizer
from hasten.fleet.losses import Loss, check_pairing
from hasten.fleet.modules import Factory, copied
from hasten.fleet.native.build import NoCompiler, kernel
from hasten.fleet.native.chain import Chain
from hasten.fleet.native.engine import NativeTrainer, fits
from hasten.fleet.native.reader import NotAChain, chain_of
from hasten.fleet.recipe import Recipe
from hasten.fleet.stackable import CannotStack, stackable
from hasten.fleet.stacked import WIDTH
from hasten.fleet.state import Layout, State, tensors_of
from hasten.fleet.taken import refusal
from hasten.fleet.tasks import Job
from hasten.fleet.workers import Kind

BEGINNING = 0.01  # seconds after which no other model is made to time it
PROBE = 1.0  # seconds an engine is tried for, at most
GRADIENT = 1e-4  # relative difference of a gradient from torch's above which the kernel is not trusted
NUDGE = 0.05  # added to weights, as a standard deviation, where gradients at the first ones are nought
EPS32 = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class Choice:
    """What was decided for one kind of models.

    Attributes:
        seconds_per_step: of one model on one core, by engine, as far as tried.
        why_not: engines that cannot train these models, with the reason.
        asked: why no other was tried; "" where they were.
        loop_begins: seconds that the plain loop takes for a model before its first step; 0 where it was not tried.
    """

    engine: str
    seconds_per_step: Mapping[str, float] = field(default_factory=dict)
    why_not: Mapping[str, str] = field(default_factory=dict)
    asked: str = ""
    loop_begins: float = 0.0

    def sentence(self) -> str:
        """What was chosen and why."""
        parts = []
        if self.asked:
            parts.append(f"{self.engine}: {self.asked}")
        else:
            own = self.seconds_per_step.get(self.engine)
            said = f"{self.engine}: {own * 1e6:.0f} µs a step of one model" if own else self.engine
            others = [f"{name} {s * 1e6:.0f} µs" for name, s in self.seconds_per_step.items() if name != self.engine]
            parts.append(said + (f" ({', '.join(others)})" if others else ""))
        parts += [f"not {name}: {why}" for name, why in self.why_not.items()]
        return "; ".join(parts)


def kinds_of(jobs: Sequence[Job], factory: Factory) -> tuple[list[Kind], dict[str, str]]:
    """The kind of each job whose module can be made, and the cause of each key whose module cannot.

    Keys with the same settings and row shape are taken to have one module; workers check.

    Raises:
        UsageError: no key's module can be made.
    """
    known: dict[Any, Kind] = {}
    by_signature: dict[Any, Kind] = {}
    found: list[Kind] = []
    refused: dict[str, Exception] = {}
    for job in jobs:
        row = job.task.row
        own = job.key if factory.wants_key else repr(sorted(job.settings.items(), key=lambda item: item[0]))
        try:
            if (own, row) not in known:
                known[own, row] = _kind_of(factory(job), row, by_signature)
        except Exception as error:
            refused[job.key] = error
            continue
        found.append(known[own, row])
    if refused and not found:
        _none_made(refused)
    return found, {key: in_a_line(error) for key, error in refused.items()}


def _kind_of(module: torch.nn.Module, row: tuple[int, ...], by_signature: dict[Any, Kind]) -> Kind:
    layout = Layout.of(module)
    form = (signature(module), row)
    if form not in by_signature:
        by_signature[form] = Kind(f"k{len(by_signature)}", module, layout, row)
    return by_signature[form]


def _none_made(refused: Mapping[str, Exception]) -> NoReturn:
    key, error = next(iter(refused.items()))
    if isinstance(error, UsageError):
        raise error
    raise UsageError(
        f"make_model failed for every key; for {key!r} with {in_a_line(error)}",
        "an argument it does not take (settings= and a parameter `key` are passed on), or an error of its own",
        "make_model() by itself shows where",
    ) from error


def _line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "")


def read_chain(kind: Kind, recipe: Recipe) -> tuple[Chain | None, str]:
    """What the kernel reads in a kind's module, or why it reads nothing."""
    if not recipe.plain:
        what = "optimizer" if isinstance(recipe.loss, Loss) else "loss"
        return None, f"the {what} is a callable"
    if why := own_ways(kind.prototype):
        return None, why
    try:
        chain = chain_of(kind.prototype, kind.row)
        kernel()
    except (NotAChain, NoCompiler) as why:
        return None, str(why).splitlines()[0]
    return chain, ""


def choose(kind: Kind, jobs: Sequence[Job], factory: Factory, recipe: Recipe, asked: str) -> Choice:
    """Decide by trying.

    Args:
        jobs: of this kind.
        asked: an engine's name, or ``"auto"``.

    Raises:
        UsageError: an engine is asked for that cannot train these models, a loss compares all rows with all, or an
            optimizer takes no step by itself.
    """
    if asked != "auto" and asked not in ENGINES:
        raise UsageError(f"engine={asked!r}", "a typing error", f"one of auto, {', '.join(ENGINES)}")
    _check_loss(kind, jobs[0], recipe)
    if not isinstance(recipe.optimizer, str):
        _check_optimizer(kind, jobs[0], recipe)
    jobs = _taken(kind, _usual(kind, jobs, recipe), recipe)
    longest = max(jobs, key=lambda j: j.steps(recipe.batch_size))
    probes: dict[str, Callable[[], float]] = {
        "native": lambda: _probe_native(kind, longest, factory, recipe),
        "stacked": lambda: _probe_stacked(kind, jobs, factory, recipe),
        "loop": lambda: _probe_loop(kind, longest, factory, recipe),
    }
    times: dict[str, float] = {}
    why_not: dict[str, str] = {}
    for name in (asked,) if asked != "auto" else ENGINES:
        if asked == "auto" and name == "stacked" and "native" in times:
            continue  # measured on every machine so far: where the kernel can, it is the faster one
        if asked == "loop":
            continue
        try:
            times[name] = probes[name]()
        except Unfit as why:
            why_not[name] = str(why)
    if asked in why_not:
        raise UsageError(f"the {asked} engine cannot train these models: {why_not[asked]}", "", 'engine="auto"')
    if asked != "auto":
        return Choice(asked, times, {}, "asked for")
    best = min(times, key=lambda name: times[name], default="loop")  # whose probe has failed, too: as each key will
    begins = _begins(kind, longest, factory, recipe) if "loop" in times else 0.0
    return Choice(best, times, why_not, loop_begins=begins)


def _usual(kind: Kind, jobs: Sequence[Job], recipe: Recipe) -> Sequence[Job]:
    """The jobs that engines are tried on. A key whose target the model cannot learn, or whose epochs end with a single
    row, must not decide for all."""
    found = [job for job in jobs if not job.ends_alone(recipe.batch_size)] or jobs
    try:
        outputs = _predicted(kind, found[0]).numel()
    except Exception:  # each engine will say what is wrong
        return found
    fitting = []
    for job in found:
        with contextlib.suppress(HastenError):
            fits(job, outputs, recipe)
            fitting.append(job)
    return fitting or found


def _taken(kind: Kind, jobs: Sequence[Job], recipe: Recipe) -> Sequence[Job]:
    """As many of these jobs as are tried, the longest first, whose rows the module takes; all where it takes none."""
    try:
        module = copy.deepcopy(kind.prototype).eval()
    except Exception:  # each engine will say what is wrong
        return jobs
    found = []
    for job in sorted(jobs, key=lambda j: -j.steps(recipe.batch_size)):
        if not refusal(module, {}, job.task.X, job.epoch_order(0)[: 2 * recipe.batch_size]):
            found.append(job)
        if len(found) == WIDTH:
            break
    return found or jobs


def _predicted(kind: Kind, job: Job) -> torch.Size:
    """The shape of one row's prediction; raises what the module raises."""
    module = copy.deepcopy(kind.prototype).eval()
    with torch.no_grad():
        shape: torch.Size = module(torch.from_numpy(job.task.X[[0, 0]])).shape
    return shape[1:]


def _check_loss(kind: Kind, job: Job, recipe: Recipe) -> None:
    if isinstance(recipe.loss, Loss):
        return
    try:
        shape = _predicted(kind, job)
    except Exception:  # each engine will say what is wrong
        return
    check_pairing(recipe.loss, tuple(shape), job.task.y.shape[1:])


def _check_optimizer(kind: Kind, job: Job, recipe: Recipe) -> None:
    try:
        make_optimizer(recipe, [p for p in copied(kind.prototype).parameters() if p.requires_grad], job)
    except UsageError:
        raise
    except Exception:  # each key will say what is wrong
        return


class Unfit(Exception):
    """An engine cannot train these models; the text says why."""


def _probe_native(kind: Kind, job: Job, factory: Factory, recipe: Recipe) -> float:
    if kind.chain is None:
        raise Unfit(kind.why_no_chain)
    rows = job.epoch_order(0)[: recipe.batch_size]
    module = factory(job)
    reference = LoopTrainer(module, kind.layout, job, recipe)
    state = fresh(module, kind.layout, recipe)
    try:
        trainer = NativeTrainer(kind.chain, kind.layout, recipe, most=job.most).take(job)
        reference.gradient(rows)
    except Exception as error:
        raise Unfit(_line(error) or type(error).__name__) from None
    trainer.load(state)
    ours, _ = trainer.gradient(rows)
    theirs = flat_gradient(reference)
    wrong = difference(ours, theirs, kind.layout)
    if any(not theirs[e.start : e.start + e.size].any() for e in kind.layout.entries if e.trains):
        wrong = max(wrong, _differs_elsewhere(trainer, reference, state, rows))
    if not wrong < GRADIENT:
        raise Unfit(f"its gradient differs from torch's by {wrong:.1e}")
    trainer.load(state)
    try:
        return stack_trial.least(lambda e: list(trainer.epochs(e, 0, 1)), 2, PROBE) / job.steps(recipe.batch_size)
    except HastenError as why:  # a batch norm that meets a single row
        raise Unfit(why.what) from None


def _differs_elsewhere(trainer: NativeTrainer, reference: LoopTrainer, state: State, rows: Any) -> float:
    """The same at weights beside the first ones: no gradient passes a layer that begins at nought."""
    layout, moved = reference.layout, _moved(state, reference.layout)
    layout.write(moved.flat[0], reference.module)
    trainer.load(moved)
    reference.optimizer.zero_grad()
    reference.gradient(rows)
    ours, _ = trainer.gradient(rows)
    return difference(ours, flat_gradient(reference), layout)


def _moved(state: State, layout: Layout) -> State:
    moved = copy.deepcopy(state)
    moved.flat[0, : layout.trained] += np.random.default_rng(0).normal(0, NUDGE, layout.trained).astype(np.float32)
    return moved


def _probe_loop(kind: Kind, job: Job, factory: Factory, recipe: Recipe) -> float:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        trainer = LoopTrainer(factory(job), kind.layout, job, recipe)
        rows = job.epoch_order(0)[: recipe.batch_size]
        trainer.step(rows)
        return stack_trial.least(lambda e: trainer.step(rows), 2, 0.2)
    except Exception as error:
        raise Unfit(in_a_line(error)) from None
    finally:
        torch.set_num_threads(threads)


def _begins(kind: Kind, job: Job, factory: Factory, recipe: Recipe) -> float:
    """Seconds that the plain loop takes to make one model and its optimizer, which counts where steps are few."""
    best, end = float("inf"), time.perf_counter() + BEGINNING
    for _ in range(5):
        start = time.perf_counter()
        assert LoopTrainer(factory(job), kind.layout, job, recipe).optimizer is not None
        best = min(best, time.perf_counter() - start)
        if time.perf_counter() > end:  # a factory may read a file of weights
            break
    return best


def _probe_stacked(kind: Kind, jobs: Sequence[Job], factory: Factory, recipe: Recipe) -> float:
    try:
        seconds = stack_trial.probe(kind, jobs, factory, recipe, PROBE)
    except CannotStack as why:
        raise Unfit(str(why)) from None
    try:
        wrong = _apart(kind, max(jobs, key=lambda j: j.rows), factory, recipe)
    except Exception as error:
        raise Unfit(_line(error) or type(error).__name__) from None
    for what, by in wrong.items():
        if not by < GRADIENT:
            raise Unfit(f"its {what} differs from torch's by {by:.1e}")
    return seconds


def _apart(kind: Kind, job: Job, factory: Factory, recipe: Recipe) -> dict[str, float]:
    """How far a stack is from the plain loop on a real batch: gradient, what modules keep, predictions."""
    rows, layout = job.epoch_order(0)[: recipe.batch_size], kind.layout
    module = factory(job)
    state = _moved(fresh(module, layout, recipe), layout)  # no gradient passes a layer that begins at nought
    layout.write(state.flat[0], module)
    reference = LoopTrainer(module, layout, job, recipe)
    ours = stack_trial.gradient(kind, job, recipe, state)
    X, _ = batch_of(job, rows)
    with torch.no_grad():
        idle = torch.func.functional_call(
            stackable(kind.prototype, together=False).eval(), layout.views(state.flat[0]), (X,)
        )
        asked = module.eval()(X)
    module.train()
    reference.gradient(rows)
    kept = tensors_of(module)
    apart = {"gradient": difference(ours, flat_gradient(reference), layout), "prediction": _relative(idle, asked)}
    for e in layout.entries:
        if not e.trains and e.dtype == torch.float32:
            found = torch.from_numpy(ours[e.start : e.start + e.size]).reshape(e.shape)
            apart[e.name] = _relative(found, kept[e.name].detach())
    return apart


def _relative(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest difference in units of the largest entry; infinite where one is NaN or shapes differ."""
    if a.shape != b.shape:
        return float("inf")
    apart = float((a - b).abs().max()) / max(float(b.abs().max()), EPS32) if a.numel() else 0.0
    return apart if apart == apart else float("inf")


def flat_gradient(trainer: LoopTrainer) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The gradients that ``trainer.gradient`` has filled, as a flat row. (total,), float64."""
    row = np.zeros(trainer.layout.total)
    named = dict(trainer.module.named_parameters())
    for e in trainer.layout.entries:
        grad = named[e.name].grad if e.trains else None
        if grad is not None:
            row[e.start : e.start + e.size] = grad.numpy().reshape(-1)
    return row


def difference(a: Any, b: Any, layout: Layout) -> float:
    """Largest difference of two gradients, in units of each tensor's largest entry.

    A tensor whose entries are much smaller than those of others (a bias before a batch norm has a gradient of rounding
    and nothing else) is measured by a tenth of the others' largest.
    """
    overall = float(np.abs(b[: layout.trained]).max(initial=0.0))
    apart = [0.0]
    for e in layout.entries:
        if e.trains and e.size:
            x, y = a[e.start : e.start + e.size], b[e.start : e.start + e.size]
            apart.append(float(np.abs(x - y).max()) / max(float(np.abs(y).max()), overall / 10, EPS32))
    return float("inf") if any(d != d for d in apart) else max(apart)
