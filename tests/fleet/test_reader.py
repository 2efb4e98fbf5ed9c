"""Which modules the kernel reads as a chain, however their forward is written, and which it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from hasten import fleet
from hasten.fleet.naive import Residual
from hasten.fleet.native.chain import ACTIVATION, CONV, DROPOUT, LINEAR, TURN
from hasten.fleet.native.reader import NotAChain, chain_of
from tests.fleet.common import ragged


class Own(nn.Module):
    """A forward of its own over one convolution and one linear layer. X: (rows, 6)."""

    def __init__(self, forward: Callable[[nn.Module, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.conv, self.lin, self.flat, self.drop = nn.Conv1d(1, 2, 3), nn.Linear(8, 1), nn.Linear(6, 8), nn.Dropout()
        self.own = forward

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.own(self, x)


def kinds(module: nn.Module, row: tuple[int, ...] = (6,)) -> list[int]:
    return [layer.kind for layer in chain_of(module, row).layers]


def test_a_perceptron_with_a_forward_of_its_own() -> None:
    module = Own(lambda m, x: m.lin(functional.gelu(m.flat(torch.flatten(x, 1)))).squeeze(-1))
    chain = chain_of(module, (2, 3))
    assert kinds(module, (2, 3)) == [LINEAR, ACTIVATION, LINEAR] and (chain.inputs, chain.outputs) == (6, 1)


def test_a_layer_alone() -> None:
    for module in (nn.Linear(6, 2), Residual(nn.Linear(6, 2), 3)):
        (layer,) = chain_of(module, (6,)).layers
        assert layer.kind == LINEAR and {layer.weight, layer.bias} == set(dict(module.named_parameters()))
    found = {e: fleet.fit(lambda: nn.Linear(6, 1), ragged(3), engine=e, epochs=3, prove=2) for e in ("native", "loop")}
    assert all(proof["holds"] for proof in found["native"].summary().proof)
    for key in found["loop"]:
        assert found["native"].weights_of(key) == pytest.approx(found["loop"].weights_of(key), abs=1e-6)
    for module, row in ((nn.Linear(6, 2), (4, 6)), (nn.Conv1d(1, 1, 3), (1, 6)), (nn.ReLU(), (6,))):
        with pytest.raises(NotAChain, match=r"more than one dimension|no linear layer"):
            chain_of(module, row)


@pytest.mark.parametrize("forward", [
    lambda m, x: m.lin(m.conv(x.unsqueeze(1)).flatten(1)),
    lambda m, x: m.lin(m.conv(x.unsqueeze(-2)).flatten(start_dim=1)),
    lambda m, x: m.lin(torch.flatten(m.conv(x[:, None]), 1, 2)),
    lambda m, x: m.lin(m.conv(x[:, None, :]).view(x.size(0), -1)),
    lambda m, x: m.lin(m.conv(x.view(-1, 1, 6)).reshape(-1, 8)),
    lambda m, x: m.lin(m.conv(x.reshape(x.shape[0], 1, x.shape[1])).view((x.size()[0], 8))),
    lambda m, x: m.lin(m.conv(torch.unsqueeze(x, 1)).flatten(1)),
])  # fmt: skip
def test_a_convolution_however_its_rows_are_shaped(forward: Callable[..., torch.Tensor]) -> None:
    module = Own(forward)
    assert module(torch.zeros(3, 6)).shape == (3, 1)
    assert kinds(module) == [TURN, CONV, TURN, LINEAR]


def test_relu_joins_the_convolution_and_dropout_stays_on_its_side() -> None:
    module = Own(lambda m, x: m.lin(m.drop(torch.relu(m.conv(x[:, None])).flatten(1))))
    assert kinds(module) == [TURN, CONV, DROPOUT, TURN, LINEAR]


@pytest.mark.parametrize("forward", [
    lambda m, x: m.flat(x) + x.sum(),
    lambda m, x: m.lin(m.conv(x.unsqueeze(1)).flatten(1)) + m.lin(m.flat(x)),
    lambda m, x: m.lin(m.conv(x.unsqueeze(1)).transpose(0, 1).flatten(1)),
    lambda m, x: m.conv(x.unsqueeze(1)),
    lambda m, x: m.lin(m.conv(x.unsqueeze(0)).flatten(1)),
    lambda m, x: m.lin(m.conv(x.unsqueeze(1)).flatten()),
    lambda m, x: m.lin(m.conv(x.unsqueeze(1)).view(2, -1)),
    lambda m, x: m.lin(m.flat(x)[:, :4].flatten(1)),
    lambda m, x: m.lin(m.flat(x) * x.size(0)),
    lambda m, x: m.lin(m.flat(x)) if x.sum() > 0 else m.lin(x),
    lambda m, x: (m.flat(x), x),
    lambda m, x: m.flat(m.flat(x)[:, None].view(-1, 2, 4)),
])  # fmt: skip
def test_a_forward_that_is_no_chain_is_refused(forward: Callable[..., torch.Tensor]) -> None:
    with pytest.raises(NotAChain):
        chain_of(Own(forward), (6,))


@pytest.mark.parametrize(("module", "row"), [
    (nn.Sequential(nn.Conv1d(1, 1, 3)), (6,)), (nn.Sequential(nn.ReLU()), (6,)),
    (nn.Sequential(nn.Linear(6, 6), nn.Softmax(1)), (6,)), (nn.Sequential(nn.Linear(5, 6)), (6,)),
    (nn.Sequential(nn.Linear(6, 4), nn.LayerNorm(2)), (6,)),
    (nn.Sequential(nn.Linear(6, 1)).requires_grad_(False), (6,)),
    (nn.Sequential(nn.Linear(6, 1)), (2, 6)), (nn.Sequential(nn.Conv1d(2, 1, 7), nn.Flatten()), (2, 6)),
    (nn.Sequential(nn.Conv1d(2, 1, 3, padding=1, padding_mode="circular"), nn.Flatten()), (2, 6)),
    (nn.Sequential(nn.Conv1d(3, 1, 3), nn.Flatten()), (2, 6)),
    (nn.Sequential(nn.Conv1d(2, 1, 3), nn.Flatten(0)), (2, 6)),
    (nn.Sequential(nn.BatchNorm1d(6), nn.Flatten(), nn.Linear(12, 1)), (2, 6)),
    (nn.Sequential(nn.MaxPool1d(4, ceil_mode=True), nn.Flatten(), nn.Linear(4, 1)), (2, 6)),
    (nn.Sequential(nn.AvgPool1d(2, padding=1, count_include_pad=False), nn.Flatten(), nn.Linear(8, 1)), (2, 6)),
    (nn.Sequential(nn.AdaptiveAvgPool1d(4), nn.Flatten(), nn.Linear(8, 1)), (2, 6)),
    (nn.Sequential(nn.Conv1d(2, 3, 1), nn.MaxPool1d(2, return_indices=True)), (2, 6)),
    (nn.Sequential(nn.Dropout1d(), nn.Flatten(), nn.Linear(12, 1)), (2, 6)),
], ids=lambda m: repr(m).replace("\n", "")[:60])  # fmt: skip
def test_what_is_no_chain_is_refused(module: nn.Module, row: tuple[int, ...]) -> None:
    with pytest.raises(NotAChain):
        chain_of(module, row)


@pytest.mark.parametrize("act", [
    lambda x: functional.leaky_relu(x, 0.3), lambda x: functional.elu(x, alpha=0.5, inplace=True),
    lambda x: functional.gelu(x, approximate="tanh"), lambda x: functional.softplus(x, 2.0),
    lambda x: functional.celu(x, 0.7), lambda x: functional.hardtanh(x, -0.4, 0.4),
    lambda x: functional.max_pool1d(x[:, None], 2, stride=1, dilation=2, padding=1).flatten(1),
    lambda x: functional.adaptive_max_pool1d(x[:, None], 8).flatten(1),
])  # fmt: skip
def test_functions_with_arguments_are_what_their_modules_are(act: Callable[..., torch.Tensor]) -> None:
    def make() -> nn.Module:
        return Own(lambda m, x: m.lin(act(m.flat(x))))

    (proof,) = fleet.fit(make, ragged(1), engine="native", epochs=2, prove=1).summary().proof
    assert proof["holds"]


def test_a_shared_parameter_is_named() -> None:
    first, second = nn.Linear(6, 6), nn.Linear(6, 6)
    second.weight = first.weight
    with pytest.raises(NotAChain, match=r"1.weight is another layer's, too"):
        chain_of(nn.Sequential(first, second), (6,))


REFUSED: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "LogSoftmax": (nn.LogSoftmax(1), (6,)), "GLU": (nn.GLU(), (6,)), "PReLU": (nn.PReLU(), (6,)),
    "Hardsigmoid": (nn.Hardsigmoid(), (6,)), "LogSigmoid": (nn.LogSigmoid(), (6,)), "RMSNorm": (nn.RMSNorm(6), (6,)),
    "Threshold": (nn.Threshold(0.0, 0.0), (6,)), "Tanhshrink": (nn.Tanhshrink(), (6,)),
    "AlphaDropout": (nn.AlphaDropout(), (6,)), "Bilinear": (nn.Bilinear(6, 6, 6), (6,)),
    "GroupNorm": (nn.GroupNorm(1, 2), (2, 6)), "InstanceNorm1d": (nn.InstanceNorm1d(2), (2, 6)),
    "ceil_mode": (nn.MaxPool1d(4, ceil_mode=True), (2, 6)),
    "return_indices": (nn.MaxPool1d(2, return_indices=True), (2, 6)),
    "count_include_pad": (nn.AvgPool1d(2, padding=1, count_include_pad=False), (2, 6)),
    "cumulative": (nn.BatchNorm1d(6, momentum=None), (6,)), "`threshold`": (nn.Softplus(1, 10), (6,)),
    "limits of unequal size": (nn.Hardtanh(-1, 2), (6,)), "transposed": (nn.ConvTranspose1d(2, 1, 3), (2, 6)),
    "`cat`": (Own(lambda m, x: torch.cat([x, x], 1)), (6,)),
    "differences": (Own(lambda m, x: m.lin(m.flat(x)) - x), (6,)),
    "numbers": (Own(lambda m, x: x * 0.5), (6,)), "maxima": (Own(lambda m, x: x.amax(2)), (2, 6)),
    "`pad`": (Own(lambda m, x: functional.pad(x, (1, 1))), (6,)), "`flip`": (Own(lambda m, x: x.flip(1)), (6,)),
    "lists of positions": (Own(lambda m, x: x[:, [0, 2]]), (6,)), "`clamp`": (Own(lambda m, x: x.clamp(min=0)), (6,)),
    "`F.dropout`": (Own(lambda m, x: functional.dropout(x, 0.1, m.training)), (6,)),
    "`F.layer_norm`": (Own(lambda m, x: functional.layer_norm(x, (6,))), (6,)),
    "a dimension": (Own(lambda m, x: x.sum(2)), (2, 6)),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_the_docs_name_what_is_refused(name: str) -> None:
    docs = (Path(__file__).parents[2] / "docs/fleet.md").read_text(encoding="utf-8")
    begun = docs.index("The native kernel also refuses")
    assert name in docs[begun : docs.index("A planner reads", begun)]
    module, row = REFUSED[name]
    with pytest.raises(NotAChain) as why:
        chain_of(nn.Sequential(module, nn.Flatten(), nn.LazyLinear(1)), row)
    assert "Lazy" not in str(why.value)
