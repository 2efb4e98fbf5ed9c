"""Hooks, methods set on an instance, computed weights: trained as the plain loop does, or refused."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hasten import fleet
from hasten.core.errors import UsageError
from hasten.fleet import planner, streams
from hasten.fleet.described import described, own_ways, signature
from hasten.fleet.modules import Factory
from tests.fleet.common import ragged, weights

OPTIONS: dict[str, Any] = {"epochs": 2, "batch_size": 16, "lr": 0.01, "optimizer": "sgd"}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


class Gated(nn.Module):
    """Two ways that meet."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.tanh(self.first(x))
        out: torch.Tensor = self.last(h + torch.tanh(self.second(h)))
        return out


def chain() -> Any:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 1))


def hooked() -> nn.Module:
    made = Gated()
    made.first.register_forward_hook(lambda module, given, out: out * 3)
    return made


def pre_hooked() -> nn.Module:
    made = Gated()
    made.register_forward_pre_hook(lambda module, given: (given[0] * 3,))
    return made


def backward_hooked() -> nn.Module:
    made = chain()
    made[1].register_full_backward_hook(lambda module, into, out: (into[0] * 0,))
    return made  # type: ignore[no-any-return]


def dropout_hooked() -> nn.Module:
    made = chain()
    made[2].register_forward_hook(lambda module, given, out: out * 2)
    return made  # type: ignore[no-any-return]


def frozen_by_hook() -> nn.Module:
    made = chain()
    made[0].weight.register_hook(torch.zeros_like)
    return made  # type: ignore[no-any-return]


def clipped_by_hook() -> nn.Module:
    """A hook that changes nothing on the first batch, so that no comparison would find it."""
    made = chain()
    made[0].weight.register_hook(lambda grad: grad.clamp(-9e9, 9e9))
    return made  # type: ignore[no-any-return]


def own_forward() -> nn.Module:
    made = chain()
    inside = made[0].forward
    made[0].forward = lambda x: inside(x) * 2
    return made  # type: ignore[no-any-return]


def own_forward_alone() -> nn.Module:
    made = Gated()
    inside = made.first.forward
    made.first.forward = lambda x: inside(x) * 2
    return made


def norm(name: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        made = Gated()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made.first = getattr(nn.utils, name)(made.first)
        return made

    return make


def frozen_norm() -> nn.Module:
    made = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))
    made[1].eval()
    made[1].train = lambda mode=True: made[1]
    return made


MADE = [
    hooked, pre_hooked, backward_hooked, dropout_hooked, frozen_by_hook, clipped_by_hook, own_forward, frozen_norm,
    norm("weight_norm"), norm("spectral_norm"),
]  # fmt: skip
NAMES = [*(make.__name__ for make in MADE[:-2]), "weight_norm", "spectral_norm"]


def by_hand(make: Callable[[], nn.Module], key: str) -> Any:
    """The plain loop, with nothing of hasten but the key's numbers."""
    (X, y), stream = ragged(3)[key], streams.stream_of(0, key)
    torch.manual_seed(streams.torch_seed(stream, streams.INIT))
    model = make().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for epoch in range(2):
        order = streams.permutation(stream, len(y), epoch)
        for start in range(0, len(y), 16):
            batch = torch.from_numpy(order[start : start + 16])
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(torch.from_numpy(X)[batch]), torch.from_numpy(y)[batch, None])
            loss.backward()
            optimizer.step()
    return model.eval()


@pytest.mark.parametrize("make", MADE, ids=NAMES)
def test_what_only_python_sees_is_trained_by_the_loop(make: Callable[[], nn.Module]) -> None:
    trained = fleet.fit(make, ragged(3), prove=1, **OPTIONS)
    assert not trained.failed and {row.engine for row in trained.summary().rows} == {"loop"}
    assert all(found["holds"] for found in trained.summary().proof)
    for engine in ("native", "stacked"):
        with pytest.raises(UsageError, match="engine cannot train"):
            fleet.fit(make, ragged(3), engine=engine, **OPTIONS)


@pytest.mark.parametrize(
    "make", [hooked, pre_hooked, frozen_norm, own_forward_alone, norm("weight_norm"), norm("spectral_norm")]
)
def test_the_loop_is_the_one_that_people_write(make: Callable[[], nn.Module], tmp_path: Path) -> None:
    trained, written, X = fleet.fit(make, ragged(3), engine="loop", **OPTIONS), by_hand(make, "s2"), ragged(3)["s2"][0]
    mine, theirs = trained["s2"].state_dict(), written.state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    with torch.no_grad():
        expected = written(torch.from_numpy(X)).numpy()
        assert np.allclose(trained["s2"](torch.from_numpy(X)).numpy(), expected, atol=1e-6)
    assert np.allclose(trained.predict("s2", X), expected, atol=1e-6)
    trained.save(tmp_path / "f.safetensors")
    again = fleet.Fleet.load(tmp_path / "f.safetensors", make)
    with torch.no_grad():
        assert np.allclose(again["s2"](torch.from_numpy(X)).numpy(), expected, atol=1e-6)


def test_a_weight_frozen_by_a_hook_does_not_move() -> None:
    trained = fleet.fit(frozen_by_hook, ragged(2), **OPTIONS)
    torch.manual_seed(streams.torch_seed(streams.stream_of(0, "s1"), streams.INIT))
    assert torch.equal(trained["s1"][0].weight, frozen_by_hook()[0].weight)  # type: ignore[index]
    assert trained["s1"][0].weight._backward_hooks  # a key's module has what the factory gave it


def test_one_network_for_all_keys_is_copied_for_each() -> None:
    torch.manual_seed(3)
    whole = chain()
    before = copy.deepcopy(whole.state_dict())
    shared = weights(fleet.fit(lambda: whole, ragged(3), engine="loop", workers=1, **OPTIONS))
    assert all(torch.equal(value, before[name]) for name, value in whole.state_dict().items())
    assert weights(fleet.fit(lambda: copy.deepcopy(whole), ragged(3), engine="loop", **OPTIONS)) == shared
    with pytest.raises(UsageError, match=r"copy\.deepcopy"):
        fleet.fit(whole, ragged(3), **OPTIONS)


@pytest.mark.parametrize("engine", ["native", "loop"])
def test_layers_that_keys_share_are_copied_for_each(engine: str) -> None:
    shared = nn.Linear(6, 4)
    before = shared.weight.detach().clone()

    def make() -> nn.Module:
        return nn.Sequential(shared, nn.Tanh(), nn.Linear(4, 1))

    whole = fleet.fit(make, ragged(3), engine=engine, workers=1, **OPTIONS)
    assert torch.equal(shared.weight, before)
    alone = fleet.fit(make, {"s2": ragged(3)["s2"]}, engine=engine, **OPTIONS)
    assert alone.weights_of("s2").tobytes() == whole.weights_of("s2").tobytes()


def test_one_hooked_network_for_all_keys_is_refused() -> None:
    whole = own_forward()
    trained = fleet.fit(lambda: whole, ragged(3), engine="loop", workers=1, **OPTIONS)
    assert len(trained) == 0 and all("the same module twice" in cause for cause in trained.failed.values())


class Loose(nn.Module):
    """Random features, kept where no file and no engine looks for them."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.last = nn.Linear(9, 1)
        features = torch.randn(6, 9)
        if where == "attribute":
            self.features = features
        else:
            self.register_buffer("features", features, persistent=where == "state")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.last(torch.cos(x @ self.features))
        return out


@pytest.mark.parametrize("where", ["attribute", "aside", "state"])
def test_numbers_outside_of_a_modules_state_are_found(where: str) -> None:
    trained = fleet.fit(lambda: Loose(where), ragged(3), **OPTIONS)
    if where == "state":
        assert not torch.equal(trained["s1"].features, trained["s2"].features) and len(trained) == 3  # type: ignore[arg-type]
        return
    assert list(trained) == ["s0"] and all("outside of its state" in cause for cause in trained.failed.values())


class Strange(nn.Module):
    """Not the same in a stack, for a reason that nobody has thought of."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.linear, self.last, self.what = nn.Linear(6, 6), nn.Linear(6, 1), what
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        odd = type(self.linear) is not nn.Linear
        h = torch.cos(self.linear(x)) + x  # which the kernel does not read
        if self.what == "gradient" and odd and self.training:
            h = h * 1.01
        if self.what == "prediction" and odd and not self.training:
            h = h * 1.01
        if self.training:
            self.seen.add_(2.0 if odd and self.what == "seen" else 1.0)
        out: torch.Tensor = self.last(h)
        return out


@pytest.mark.parametrize("what", ["gradient", "prediction", "seen"])
def test_a_stack_that_differs_from_torch_is_refused(what: str) -> None:
    trained = fleet.fit(lambda: Strange(what), ragged(3), **OPTIONS)
    assert {row.engine for row in trained.summary().rows} == {"loop"}
    assert f"its {what} differs from torch's" in next(iter(trained.summary().engines.values()))
    assert len(fleet.fit(lambda: Strange(""), ragged(3), engine="stacked", **OPTIONS)) == 3


def test_what_lies_behind_a_layer_of_noughts_is_compared_too() -> None:
    trained = fleet.fit(lambda: fleet.Residual(Strange("gradient")), ragged(3), **OPTIONS)
    assert "its gradient differs from torch's" in next(iter(trained.summary().engines.values()))


class Dropouts(nn.Module):
    """Passed in another order than they were made in."""

    def __init__(self) -> None:
        super().__init__()
        self.late, self.early = nn.Dropout(0.3), nn.Dropout(0.3)
        self.first, self.last = nn.Linear(6, 9), nn.Linear(9, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.first(self.early(x)))
        out: torch.Tensor = self.last(self.late(h + h.square()))
        return out


def test_a_stack_draws_by_the_order_in_which_dropouts_are_passed() -> None:
    found = [fleet.fit(Dropouts, ragged(3), engine=engine, **OPTIONS) for engine in ("stacked", "loop")]
    assert all(np.allclose(found[0].weights_of(key), found[1].weights_of(key), atol=1e-5) for key in found[0])


def test_kinds_are_told_apart_by_functions_and_hooks() -> None:
    class Acting(nn.Module):
        def __init__(self, act: Any) -> None:
            super().__init__()
            self.linear, self.act = nn.Linear(6, 1), act

        def forward(self, x: torch.Tensor) -> Any:
            return self.act(self.linear(x))

    def make(act: str = "tanh") -> nn.Module:
        return Acting(getattr(torch, act))

    settings = {"s0": {"act": "sigmoid"}}
    trained = fleet.fit(make, ragged(2), settings=settings, **OPTIONS)
    assert len({row.kind for row in trained.summary().rows}) == 2
    assert trained.predict("s0", ragged(1)["s0"][0]).min() > 0
    assert signature(hooked()) == signature(hooked()) != signature(Gated())
    assert described(lambda: 1) != described(lambda: 2) and own_ways(Gated()) == ""
    assert planner.kinds_of([], Factory(Gated)) == ([], {})
