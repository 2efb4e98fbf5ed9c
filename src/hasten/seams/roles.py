"""What batches and calls of modules are for: training, or an evaluation.

An evaluation is told by what the script says (eval mode, no graph), by its loader (batches that are asked for one after
the other, used, and never differentiated), or by its data (a tensor that a model is given again after a step, though
nothing has differentiated a call with it).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hasten.measure.clock import CHECKPOINT, EVALUATION, INDEX, PhaseClock
from hasten.seams.inputs import Inputs, follow
from hasten.seams.known import LoaderRecord, ModelRecord, OptimizerRecord
from hasten.seams.samples import Sampler
from hasten.seams.steps import Steps

FETCH = INDEX["fetch"]
FORWARD = INDEX["forward"]
AIMED = 2  # steps in a row that give a model their batch in eval mode before it is trained on it: all do so


class Passing:
    """A loader that is not trained on so far has given a batch; nothing has been differentiated since.

    Attributes:
        spent: the clock's, of the running step. before: the same, when the batch was asked for.
        calls: of ``model`` since then, in train mode and with a graph.
    """

    __slots__ = ("before", "calls", "model", "spent")

    def __init__(self, spent: list[int], fetch: int) -> None:
        self.spent, self.before = spent, list(spent)
        self.before[FETCH] -= fetch
        self.calls = 0
        self.model: ModelRecord | None = None

    def call(self, model: ModelRecord) -> None:
        self.calls = self.calls + 1 if self.model is model else 1
        self.model = model


@dataclass
class Roles(Steps):
    """What is known of the roles of loaders, modules and optimizers.

    Attributes:
        clock: exclusive phase times of the training thread.
        feeding: the loader that has given the last batch. trained_from: that of the last backward pass.
        tentative: the model whose last calls, with a graph, were taken for an evaluation.
        assumed: the loader whose batches were taken last for those of an evaluation in train mode.
        unsure: the model whose running call, with a graph, is taken for one of those. mistaken: one of which such a
            call was differentiated.
        inputs: tensors that models are given in train mode. aimed: those that they are given without a graph in eval
            mode, between a batch to train on and its backward pass.
    """

    clock: PhaseClock = field(default_factory=PhaseClock)
    sampler: Sampler = field(init=False)
    backwards: int = 0
    loaders: dict[int, LoaderRecord] = field(default_factory=dict)
    models: dict[int, ModelRecord] = field(default_factory=dict)
    optimizers: dict[int, OptimizerRecord] = field(default_factory=dict)
    feeding: LoaderRecord | None = None
    trained_from: LoaderRecord | None = None
    tentative: ModelRecord | None = None
    passing: Passing | None = None
    assumed: LoaderRecord | None = None
    unsure: ModelRecord | None = None
    mistaken: ModelRecord | None = None
    inputs: Inputs = field(default_factory=Inputs)
    aimed: Inputs = field(default_factory=Inputs)
    first_fetch: int = 0
    new_target: Callable[[str, Any], None] | None = None

    def begins(self) -> None:
        """The first step begins."""

    # -- batches -------------------------------------------------------------------------------------------------

    def feeds(self, record: LoaderRecord) -> None:
        """Another loader has given a batch; the one before, for the same step if nothing was differentiated since."""
        before, self.feeding = self.feeding, record
        if before is not None and before.asked_at == self.backwards:
            before.beside += 1
        unknown = not record.role and self.trained_from is not None
        self.passing = Passing(self.clock.spent, record.last_fetch) if unknown else None

    def asked_again(self, record: LoaderRecord) -> None:
        """A loader without a role is asked for more, and nothing was differentiated since the last time: if its batch
        was used, this is an evaluation in train mode, and what has passed since the batch was asked for belongs to
        it."""
        passing, self.passing = self.passing, None
        model = passing.model if passing is not None else None
        if passing is None or model is None or record is not self.feeding or model.trains_in_eval_mode:
            return
        record.role, self.assumed = "evaluation", record
        model.evaluates_in_train_mode(passing.calls, graph=True)
        if passing.spent is self.clock.spent:
            for phase, before in enumerate(passing.before):
                if phase != CHECKPOINT:
                    self.clock.move(passing.spent[phase] - before, phase, EVALUATION)
            self._move_samples(FETCH)
            self._move_samples(FORWARD)

    def _trains(self, record: LoaderRecord) -> None:
        self.trained_from = record
        record.role = "training"

    def _only_passes(self, record: LoaderRecord) -> bool:
        """Whether what is differentiated of a loader's batches may be asked for its inputs' sake, in an evaluation
        (adversarial examples, saliency): another loader is trained on, and no step has used these gradients yet."""
        return bool(self.optimizers) and self.trained_from not in (None, record) and record.role != "training"

    # -- calls ---------------------------------------------------------------------------------------------------

    def module_called(self, module: Any, grad: bool, given: tuple[Any, ...] = ()) -> None:
        """An outermost module is called: decide whether this is training or evaluation.

        Args:
            given: its arguments.
        """
        record = self.models.get(id(module))
        if record is None or record.module() is not module:
            record = self.models[id(module)] = ModelRecord(weakref.ref(module))
            if not self.first_fetch and not self.loaders:
                self.begins()
            if self.new_target is not None:
                self.new_target("model", module)
        clock, training = self.clock, module.training
        again = self.inputs.looking and training and self.inputs.again(given, self.steps) and record.trained
        if grad and record.trained and not clock.evaluating and training and self.tentative is not record and not again:
            if self.passing is not None:
                self.passing.call(record)
            return  # the usual step
        feeding, record.aims = self.feeding, False
        if training and record.trained and not record.trains_in_eval_mode and (again or self._passed_over(feeding)):
            self._evaluates_in_train_mode(record, grad)
        elif grad:
            self._called_with_graph(record, module)
        else:
            if training and self.tentative is record:
                self.tentative = None  # what it did was not followed by backward: a generator makes samples
            record.aims = not training and record.trained and self._aims(record, feeding, given)
            if not record.aims and self._evaluates(record, module, feeding):
                record.evaluations += 1
                record.in_train_mode += training
                self._evaluation_begins(feeding)

    def _called_with_graph(self, record: ModelRecord, module: Any) -> None:
        """In train mode it is trained; in eval mode that is not known before something differentiates the call."""
        if module.training or record.trains_in_eval_mode or not record.trained:
            if module.training:
                record.trained = True
                if self.tentative is record:
                    self.tentative = None  # what it did in eval mode was not followed by backward: an evaluation
            if self.clock.evaluating and (record.channels or self._has_parameters(record, module)):
                self.clock.evaluation(False)
            return
        record.evaluations += 1
        record.evaluations_with_graph += 1
        record.undecided = record.undecided + 1 if self.tentative is record else 1
        self.tentative = record
        self._evaluation_begins(self.feeding)

    def _passed_over(self, feeding: LoaderRecord | None) -> bool:
        """Whether the batch is of a loader that was passed over before with nothing differentiated."""
        return feeding is not None and feeding is not self.trained_from and feeding.role == "evaluation"

    def _evaluates_in_train_mode(self, record: ModelRecord, grad: bool) -> None:
        record.evaluates_in_train_mode(1, grad)
        if grad:
            self.unsure = record
        self._evaluation_begins(self.feeding)

    def made(self, output: Any) -> None:
        """A call with a graph has ended: have it told when that is differentiated."""
        record, self.unsure = self.unsure, None
        self.inputs.follow(output)
        if record is not None and not follow(output, lambda *_: self._was_training(record)):
            self._was_training(record)  # it may be

    def _was_training(self, record: ModelRecord) -> None:
        self.mistaken = record  # and no more: the call may come from a thread of torch's

    def take_back(self) -> None:
        """A call that was taken for one of an evaluation in train mode is differentiated."""
        record, self.mistaken = self.mistaken, None
        if record is not None:
            record.take_back()
        if self.assumed is not None and self.assumed.role == "evaluation":
            self.assumed.role, self.assumed = "", None
        self.clock.evaluation(False)

    def graph_used(self, record: ModelRecord, trains: bool = True) -> None:
        """What calls of a model in eval mode have recorded is differentiated: they were no evaluation, unless only
        by ``autograd.grad`` (not ``trains``), or of batches that are not trained on so far."""
        record.evaluations_with_graph = max(0, record.evaluations_with_graph - record.undecided)
        record.undecided, self.tentative = 0, None
        feeding = self.feeding
        if feeding is None or feeding is self.trained_from or (trains and not self._only_passes(feeding)):
            record.trains_in_eval_mode = True
            self.clock.evaluation(False)

    def _evaluates(self, record: ModelRecord, module: Any, feeding: LoaderRecord | None) -> bool:
        """Whether a call without a graph is an evaluation. Of a model that is never trained itself it is (of averaged
        weights, not of a teacher) where batches come one after the other that are not trained on."""
        if feeding is None or feeding is self.trained_from:
            return record.trained and not module.training
        if record.trained:
            return True
        passed = self.trained_from is not None and feeding.in_a_row > 1 and not feeding.feeds_beside
        return passed and self._has_parameters(record, module)

    def _aims(self, record: ModelRecord, feeding: LoaderRecord | None, given: tuple[Any, ...]) -> bool:
        """Whether a call makes what its step trains towards (pseudo labels): in every step the model is called so with
        a batch that is still to be trained on, and never with data that it was given in an earlier step."""
        if feeding is None or feeding is not self.trained_from or feeding.asked_at != self.backwards:
            return False
        if self.aimed.again(given, self.steps):
            record.aims_for = 0
            return False
        if record.aimed_in != self.steps:
            record.aims_for = record.aims_for + 1 if record.aimed_in == self.steps - 1 else 1
            record.aimed_in = self.steps
        return record.aims_for > AIMED

    def evaluates(self, module: Any) -> bool:
        """Whether a call is a sign of the running evaluation: not that of a teacher, which is never trained itself and
        is called with a batch to train on, nor one that makes what the step trains towards."""
        record, feeding = self.models.get(id(module)), self.feeding
        trained = record is None or (record.trained and not record.aims)
        return trained or feeding is None or feeding is not self.trained_from

    def _has_parameters(self, record: ModelRecord, module: Any) -> bool:
        record.channels = next(module.parameters(), None) is not None
        return record.channels

    def _evaluation_begins(self, feeding: LoaderRecord | None) -> None:
        if self.clock.evaluating:
            return
        self.clock.evaluation(True)
        if feeding is not None and feeding is not self.trained_from:
            if not feeding.role:
                feeding.role = "evaluation"
            self.clock.move(feeding.last_fetch, FETCH, EVALUATION)
            self._move_samples(FETCH)

    def _move_samples(self, phase: int) -> None:
        trained_from = self.trained_from
        self.sampler.move(phase, EVALUATION, trained_from.place if trained_from is not None else None)
