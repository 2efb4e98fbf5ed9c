"""Convolutions on channels-last memory from outside: nothing that the script holds or looks at changes its layout."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import hasten
from hasten.core.errors import Unsuited
from hasten.seams.forward import ForwardSeam


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.layouts: list[bool] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.first(x).relu()
        self.layouts.append(inner.is_contiguous())
        return self.second(inner)


def test_weights_gradients_outputs_and_evaluations_keep_their_layout(seam: ForwardSeam) -> None:
    net, plain = nn.functional.conv2d, Net()
    model = Net()
    model.load_state_dict(plain.state_dict())
    x = torch.rand(4, 3, 8, 8)
    undo = hasten.ChannelsLast().on_seam(seam, model)
    out = model(x)
    assert model.layouts == [False] and out.is_contiguous()
    out.view(-1).square().sum().backward()
    for p in model.parameters():
        p.view(-1), p.grad.view(-1)
    model.eval()(x)
    with torch.no_grad():
        model.train()(x)
    undo()
    model(x)
    assert model.layouts == [False, True, True, True] and nn.functional.conv2d is net
    plain(x).view(-1).square().sum().backward()
    for p, q in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)


def test_models_that_the_script_looks_into_are_left_alone(seam: ForwardSeam) -> None:
    model = Net()
    torch.nn.utils.spectral_norm(model.first)
    hasten.ChannelsLast().on_seam(seam, model)()
    handle = model.second.register_forward_hook(lambda *_: None)
    with pytest.raises(Unsuited, match="hooks"):
        hasten.ChannelsLast().on_seam(seam, model)
    handle.remove()
    seam.watch.compiled_by_script = True
    with pytest.raises(Unsuited, match="compiles"):
        hasten.ChannelsLast().on_seam(seam, model)
