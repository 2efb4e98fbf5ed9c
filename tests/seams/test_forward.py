"""Calls of the model are seen, also where the script calls ``forward`` itself, and not by what traces their code."""

from __future__ import annotations

import pytest
import torch
import torch.fx
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from hasten.measure.clock import INDEX
from hasten.seams import backward
from hasten.seams.forward import ForwardSeam
from hasten.seams.known import LoaderRecord
from hasten.seams.locate import user_frame
from hasten.seams.patch import Patches
from hasten.seams.watch import Watch

FORWARD = INDEX["forward"]


class Layer(nn.Linear):
    """Trains itself, as in Hinton's forward-forward algorithm: nothing calls the module, all call its method."""

    def __init__(self) -> None:
        super().__init__(4, 4)
        self.relu = nn.ReLU()
        self.optimizer = torch.optim.SGD(self.parameters(), lr=0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The layer's output, (rows, 4)."""
        return self.relu(super().forward(x))  # type: ignore[no-any-return]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.optimizer = torch.optim.SGD(self.parameters(), lr=0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)  # type: ignore[no-any-return]


def step(seam: ForwardSeam, optimizer: torch.optim.Optimizer) -> None:
    seam.watch.optimizer_entered(optimizer)
    seam.watch.optimizer_left(optimizer)


def forward_seconds(seam: ForwardSeam) -> int:
    return seam.watch.clock.cut(seam.watch.clock.now())[FORWARD]


def test_a_forward_that_the_script_calls_itself_is_the_forward(seam: ForwardSeam) -> None:
    layer, method = Layer(), Layer.forward
    layer.forward(torch.ones(2, 4))
    step(seam, layer.optimizer)
    seam.settle()
    assert Layer.forward is not method
    assert Layer.forward.__wrapped__ is method
    forward_seconds(seam)
    seam.watch.clock.locate = user_frame
    out = layer.forward(torch.ones(2, 4))
    assert forward_seconds(seam) > 0
    assert seam.watch.models[id(layer)].directly
    seam.release()
    assert Layer.forward is method
    assert torch.equal(out, layer.forward(torch.ones(2, 4)))


@pytest.mark.parametrize("of_evaluation", [False, True])
def test_a_teachers_call_after_an_evaluation_belongs_to_the_batch_that_it_is_given(
    seam: ForwardSeam, of_evaluation: bool
) -> None:
    watch, net, teacher = seam.watch, Net(), Layer()
    train, test = (watch.record_of(DataLoader(TensorDataset(torch.ones(2, 4)))) for _ in range(2))
    watch.feeds(train)
    net(torch.ones(2, 4))
    watch.backward_left()
    step(seam, net.optimizer)
    watch.feeds(test)
    with torch.no_grad():
        net.eval()(torch.ones(2, 4))
        assert watch.clock.evaluating
        if not of_evaluation:
            watch.feeds(train)
        watch.clock.cut(watch.clock.now())
        watch.clock.last -= 10**12  # nothing else takes a thousand seconds
        teacher(torch.ones(2, 4))
    net.train()(torch.ones(2, 4))
    spent = watch.clock.cut(watch.clock.now())
    assert (spent[INDEX["evaluation"]] > 10**12 // 2) == of_evaluation


def ask(watch: Watch, record: LoaderRecord) -> None:
    """As the loader's seam does for a batch."""
    record.in_a_row = record.in_a_row + 1 if record.asked_at == watch.backwards else 1
    record.asked_at = watch.backwards
    record.batches += 1
    if watch.feeding is not record:
        watch.feeds(record)


@pytest.mark.parametrize("averages", [True, False])
def test_averaged_weights_are_evaluated_and_a_teacher_is_not(seam: ForwardSeam, averages: bool) -> None:
    """Neither is ever trained itself; a teacher is given batches of a loader of its own, one for each step."""
    watch, net, other = seam.watch, Net(), Layer()
    train, second = (watch.record_of(DataLoader(TensorDataset(torch.ones(2, 4)))) for _ in range(2))
    evaluated = []
    for _ in range(6):
        if averages:
            ask(watch, train)
        with torch.no_grad():
            for _ in range(0 if averages else 1):
                ask(watch, second)
                other(torch.ones(2, 4))
                evaluated.append(watch.clock.evaluating)
        if not averages:
            ask(watch, train)
        net(torch.ones(2, 4))
        watch.backward_left()
        step(seam, net.optimizer)
    with torch.no_grad():
        for _ in range(4 if averages else 0):
            ask(watch, second)
            other.eval()(torch.ones(2, 4))
            evaluated.append(watch.clock.evaluating)
    assert evaluated == ([False, True, True, True] if averages else [False] * 6)
    assert second.role == ("evaluation" if averages else "")


@pytest.mark.parametrize("on_held_out", [False, True])
def test_gradients_asked_for_in_eval_mode_use_the_graph(seam: ForwardSeam, on_held_out: bool) -> None:
    """Adversarial training (TRADES) looks for its examples in eval mode; forces of an energy are gradients, too, when
    they are evaluated."""
    patches = Patches()
    backward.install(seam.watch, patches)
    try:
        watch, net = seam.watch, Net()
        train, held_out = (watch.record_of(DataLoader(TensorDataset(torch.ones(2, 4)))) for _ in range(2))
        for _ in range(3):
            ask(watch, train)
            net.train()(torch.ones(2, 4)).sum().backward()
            step(seam, net.optimizer)
            ask(watch, held_out if on_held_out else train)
            x = torch.ones(2, 4, requires_grad=True)
            net.eval()
            torch.autograd.grad((net(x) - net(x.detach())).sum(), x)
            assert watch.clock.evaluating == on_held_out
        record = watch.models[id(net)]
        assert record.evaluations_with_graph == 0
        assert record.trains_in_eval_mode == (not on_held_out)
    finally:
        patches.undo()


@pytest.mark.parametrize("kind", [Net, Layer])
def test_where_the_owner_is_called_its_forward_is_left_alone(seam: ForwardSeam, kind: type[Net | Layer]) -> None:
    net, method = kind(), kind.forward
    net(torch.ones(2, 4))
    step(seam, net.optimizer)
    seam.settle()
    assert kind.forward is method
    forward_seconds(seam)
    net(torch.ones(2, 4))
    assert forward_seconds(seam) > 0


def test_of_a_forward_called_directly_whose_parts_are_called_the_parts_are_watched(seam: ForwardSeam) -> None:
    net, method = Net(), Net.forward
    net.forward(torch.ones(2, 4))
    step(seam, net.optimizer)
    seam.settle()
    assert Net.forward is method
    forward_seconds(seam)
    net.forward(torch.ones(2, 4))
    assert forward_seconds(seam) > 0


@pytest.mark.parametrize("settled", [False, True])
def test_tracers_see_the_model_as_it_is(seam: ForwardSeam, settled: bool) -> None:
    net, x = Net(), torch.ones(1, 4)
    net(x), nn.Linear(4, 2)(x)  # a class of torch's own is called from outside, too
    if settled:
        seam.settle()
    graph = torch.fx.symbolic_trace(net).graph
    assert [node.op for node in graph.nodes] == ["placeholder", "call_module", "output"]
    assert torch.export.export(net, (x,), strict=True).module()(x).equal(net(x))
    before = len(seam.watch.models)
    late = Net()
    late(x)
    assert len(seam.watch.models) == before + 1  # watched again


@pytest.mark.parametrize("used", [False, True])
def test_backward_of_held_out_batches_is_training_only_where_a_step_uses_it(seam: ForwardSeam, used: bool) -> None:
    """Adversarial examples of test batches (FGSM) are made by ``backward``, and their gradients zeroed before the next
    step; of two loaders that are trained on, a step uses both."""
    patches = Patches()
    backward.install(seam.watch, patches)
    try:
        watch, net = seam.watch, Net()
        train, held_out = (watch.record_of(DataLoader(TensorDataset(torch.ones(2, 4)))) for _ in range(2))
        for _ in range(3):
            ask(watch, train)
            net.train()(torch.ones(2, 4)).sum().backward()
            step(seam, net.optimizer)
            net.train(used)
            for _ in range(4):
                ask(watch, held_out)
                net(torch.ones(2, 4, requires_grad=True)).sum().backward()
                assert watch.clock.evaluating is not used
            if not used:
                watch.gradients_zeroed()
        ask(watch, train)
        net.train()(torch.ones(2, 4)).sum().backward()
        step(seam, net.optimizer)
        record = watch.models[id(net)]
        assert record.evaluations_with_graph == 0 and not record.trains_in_eval_mode
        assert (train.role, held_out.role) == ("training", "training" if used else "evaluation")
        assert watch.trained_from is train
        assert watch.batches == (4.0 if used else 1.0)
    finally:
        patches.undo()


def test_where_a_model_is_evaluated_is_known_also_when_calls_are_not_looked_at_closely(seam: ForwardSeam) -> None:
    watch, net = seam.watch, Net()
    net(torch.ones(2, 4))
    watch.backward_left()
    step(seam, net.optimizer)
    assert watch.clock.locate is None
    with torch.no_grad():
        net.eval()(torch.ones(2, 4))
    place = watch.models[id(net)].evaluation_place
    assert place is not None and place[0].co_name.startswith("test_where_a_model_is_evaluated")


@pytest.mark.parametrize("real_first", [False, True])
def test_a_generator_that_shows_samples_in_eval_mode_is_not_trained_in_it(seam: ForwardSeam, real_first: bool) -> None:
    """What it shows is not differentiated: next it makes samples for the discriminator, without a graph, or the
    discriminator looks at real ones, whose graph holds nothing of the generator."""
    patches = Patches()
    backward.install(seam.watch, patches)
    try:
        watch, net, critic = seam.watch, Net(), Layer()
        train = watch.record_of(DataLoader(TensorDataset(torch.ones(2, 4))))
        for _ in range(4):
            ask(watch, train)
            if real_first:
                critic(torch.ones(2, 4)).sum().backward()
            with torch.no_grad():
                net.train()(torch.ones(2, 4))
            critic(torch.ones(2, 4)).sum().backward()
            net(torch.ones(2, 4)).sum().backward()
            step(seam, net.optimizer)
            net.eval()(torch.ones(2, 4))
            assert watch.clock.evaluating
        record = watch.models[id(net)]
        assert not record.trains_in_eval_mode and record.evaluations_with_graph == 4
    finally:
        patches.undo()
