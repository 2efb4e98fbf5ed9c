"""A frozen part of the model computes the same features of the same samples in every epoch.

Why it is slow
    In transfer learning and distillation a large network is not trained, and a small one is. Where samples are the same
    in every epoch, so is what the large one makes of them: it could be asked once, and every later epoch reads its
    answers, which is often more than ten times faster.

Remedy
    ``CacheFeatures(module)`` keeps what the part gives for each sample, by the bytes of the sample: samples are still
    loaded, and the loop goes on as it is. It takes a part that is called with one tensor, in the model that is trained
    or beside it. By hand, and for all others: run the frozen part over all samples once, in order, in eval mode and
    under ``torch.no_grad()``, keep what it gives, and train the rest on a ``TensorDataset`` of that and the targets.
    For a single linear layer behind it ``hasten.solve.head(model, loader)`` does so, and needs no loop either.

Fidelity
    equivalent: another size of batch rounds another way; the same bits where it does not.

When it does not help
    Where samples are augmented at random, the features differ in every epoch; where the frozen part's normalisations
    are left in train mode, they depend on the batch and move its statistics; where gradients pass through it to
    trained layers before it, it has to run. Nothing is said in these cases, nor where all features would not fit into
    memory, nor where its weights change after all, by an average or when they are unfrozen later. What is told is seen
    in a forked child which was given one batch again and again: the same bits in every step, and the same for half of
    the rows.

References
    https://docs.pytorch.org/tutorials/beginner/transfer_learning_tutorial.html
    https://cs231n.github.io/transfer-learning/
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from hasten.core.errors import Unsuited, nearest
from hasten.core.facts import FrozenFacts, LoaderFacts
from hasten.core.finding import Finding, Rule, ms
from hasten.core.remedy import Fidelity, Remedy, Seam, Undo
from hasten.core.trace import LEAST_PASSES, Trace
from hasten.data.features import FeatureCache, tensors_in
from hasten.measure.digest import random_states, restore, signature

LEAST_SHARE = 0.1  # of the step
LEFT = 0.1  # part of a call's time that reading its answer may take instead
COOL = 0.6  # part of what is left of a step that stays where nothing large drives it from the caches (measured 0.7)
_NAMED = 3  # modules that are named


_caches: weakref.WeakKeyDictionary[Any, FeatureCache] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class CacheFeatures(Remedy):
    """Keeps what a frozen part of a model gives for each sample.

    Args:
        module: where it is in the model, as ``named_modules`` calls it; or, of a model that is called by itself, what
            :func:`hasten.measure.digest.signature` gives.
    """

    module: str = ""
    fidelity: ClassVar[Fidelity] = Fidelity.EQUIVALENT
    seam: ClassVar[Seam] = Seam.MODEL
    of_frozen: ClassVar[bool] = True
    later_passes: ClassVar[bool] = True
    conflicts: ClassVar[tuple[str, ...]] = ("Compile",)  # whose code calls what is inside of a module by itself

    def on(self, target: Any = None) -> Undo:
        parts = {path: part for path, part in target.named_modules() if path} | {signature(target): target}
        part = parts.get(self.module)
        if part is None:
            near = nearest(self.module, parts)
            raise Unsuited(f"the model has no part {self.module!r}" + (f", but one named {near}" if near else ""))
        if any(p.grad is not None for p in part.parameters()):
            raise Unsuited("it is trained")
        if part._compiled_call_impl is not None:
            raise Unsuited("it is compiled, or its features are kept already")
        if any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in part.modules()):
            raise Unsuited("hooks of the script look into it")
        if part not in _caches:
            _caches[part] = FeatureCache(part)
        cache = _caches[part]
        part._compiled_call_impl = cache

        def undo() -> None:
            if part._compiled_call_impl is cache:
                part._compiled_call_impl = None

        return undo

    def ahead(self, target: Any, indices: Sequence[Any]) -> None:
        """In trials: keep the features of a later batch, so that its step is timed as in later epochs."""
        states = random_states()
        if hasattr(target, "fetch"):
            batch = target.fetch(indices)
        else:  # a loader whose workers have not been started
            batch = target.collate_fn([target.dataset[i] for i in indices])
        self.fill(batch)
        restore(states)

    def fill(self, batch: Any) -> bool:
        """The same of a batch that is there; False where the remedy has not been on yet."""
        for x in tensors_in(batch):
            for cache in _caches.values():
                cache.fill(x)
        return bool(_caches)

    def broken(self) -> bool:
        """Whether kept features were found to differ from those computed anew."""
        return any(cache.broken for cache in _caches.values())

    def idle(self) -> str:
        """Why features are computed as without it, where they are."""
        return next((cache.why_idle for cache in _caches.values() if cache.why_idle), "")


def detect(trace: Trace) -> Iterator[Finding]:
    facts = trace.frozen
    if facts is None or not facts.seconds.low >= LEAST_SHARE * trace.step_seconds:
        return
    loader = trace.loader
    if not facts.every_step and (loader is None or not _same_samples(loader)):
        return
    if facts.row_bytes * _samples(facts, loader) > trace.process.available_bytes:
        return
    again = facts.every_step or trace.passes >= LEAST_PASSES
    most = trace.phase("forward") + trace.phase("evaluation")
    least, most = (min(seconds, most) for seconds in ((1 - LEFT) * facts.seconds.low, facts.seconds.high))
    most += 0.0 if facts.every_step else trace.phase("fetch")
    most += (1 - COOL) * max(0.0, trace.step_seconds - most)
    named, it = _names(facts), "it gives" if len(facts.modules) == 1 else "they give"
    yield RULE.finding(
        f"{ms(facts.seconds.value)} of a step of {ms(trace.step_seconds)} go into {named}, which nothing trains, "
        f"for the same features in every {'step' if facts.every_step else 'epoch'}",
        facts.place,
        (trace.amdahl(least), trace.amdahl(most)) if again else (1.0, 1.0),
        label="gives the same for the same samples every time",
        remedies=(CacheFeatures(facts.path),) if facts.path and not facts.every_step else (),
        advice=f"keep what {it} for all samples, asked once without shuffling, and train the rest on that",
        notes=tuple(_notes(facts, loader, again)),
    )


def _samples(facts: FrozenFacts, loader: LoaderFacts | None) -> int:
    """Whose features would be kept; 0 where a step takes all."""
    return 0 if facts.every_step or loader is None else max(0, loader.length)


def _same_samples(loader: LoaderFacts) -> bool:
    probe = loader.probe
    return probe is not None and probe.deterministic and loader.map_style and not loader.changing


def _notes(facts: FrozenFacts, loader: LoaderFacts | None, again: bool) -> Iterator[str]:
    yield f"given one batch {facts.steps} times in a forked child, the same bits each time, half of the rows as all"
    if count := _samples(facts, loader):
        size = facts.row_bytes * count
        kept = f"{size / 1e6:.0f} MB" if size >= 9.5e5 else f"{math.ceil(size / 1000)} kB"
        when = "the gain starts with the second epoch" if again else "this job makes one epoch, a second one would gain"
        yield f"the features of all {count} samples take {kept}; {when}"


def _names(facts: FrozenFacts) -> str:
    rest = len(facts.modules) - _NAMED
    named = ", ".join(facts.modules[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
    return f"{named} ({facts.elements:,} parameters)"


RULE = Rule("M314", "frozen-features", detect, __doc__, (CacheFeatures,))
