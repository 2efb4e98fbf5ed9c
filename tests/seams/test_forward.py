"""Where modules are called, beside what traces their code."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.fx

from hasten.seams import forward
from hasten.seams.patch import Patches
from hasten.seams.watch import Watch


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.inner(x))


@pytest.fixture
def seam() -> Iterator[forward.ForwardSeam]:
    patches = Patches()
    seam = forward.install(Watch(), patches)
    yield seam
    seam.release()
    patches.undo()


@pytest.mark.parametrize("settled", [False, True])
def test_tracers_see_the_model_as_it_is(seam: forward.ForwardSeam, settled: bool) -> None:
    net, x = Net(), torch.ones(1, 3)
    net(x), torch.nn.Linear(3, 2)(x)  # a class of torch's own is called from outside, too
    if settled:
        seam.settle()
    graph = torch.fx.symbolic_trace(net).graph
    assert [node.op for node in graph.nodes] == ["placeholder", "call_module", "call_function", "output"]
    assert torch.export.export(net, (x,), strict=True).module()(x).equal(net(x))
    before = len(seam.watch.models)
    late = Net()
    late(x)
    assert len(seam.watch.models) == before + 1  # watched again
