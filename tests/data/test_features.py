"""Kept features are those of the module; whatever changes it is noticed, and what does not suit goes by it."""

from __future__ import annotations

import copy
import gc
import io
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import hasten
from hasten.core.errors import Unsuited
from hasten.data import features
from hasten.data.features import AUDIT_EVERY, FeatureCache
from hasten.measure.digest import signature


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3))
        self.body.requires_grad_(False).eval()
        self.head = nn.Linear(3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))  # type: ignore[no-any-return]


@pytest.fixture
def cached() -> tuple[Net, FeatureCache]:
    torch.manual_seed(0)
    net = Net()
    hasten.CacheFeatures("body")(net)
    return net, net.body._compiled_call_impl  # type: ignore[return-value]


def calls(cache: FeatureCache, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of each call that the module computes itself."""
    seen: list[int] = []
    own = cache.module._call_impl

    def computed(x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        seen.append(len(x))
        return own(x, *args, **kwargs)

    monkeypatch.setattr(cache.module, "_call_impl", computed)
    return seen


def test_rows_are_computed_once_in_whatever_order_they_come(
    cached: tuple[Net, FeatureCache], monkeypatch: pytest.MonkeyPatch
) -> None:
    net, cache = cached
    plain = copy.deepcopy(net)  # without the cache
    seen = calls(cache, monkeypatch)
    x = torch.randn(32, 4)
    for order in (torch.arange(32), torch.randperm(32), torch.randperm(32)):
        for rows in order.split(8):
            torch.testing.assert_close(net(x[rows]), plain(x[rows]), rtol=1e-5, atol=1e-6)
    assert seen == [8, 8, 8, 8, 1]  # the last is an audit of the first batch that was served
    assert cache.served == 8


def test_heads_learn_the_same(cached: tuple[Net, FeatureCache]) -> None:
    net, cache = cached
    plain = copy.deepcopy(net)
    x, y = torch.randn(16, 4), torch.randn(16, 1)
    for model in (net, plain):
        optimizer = torch.optim.SGD(model.head.parameters(), 0.1)
        for _ in range(5):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x), y).backward()
            optimizer.step()
    torch.testing.assert_close(net.head.weight, plain.head.weight)
    assert cache.served == 4


def by_weight(net: Net) -> None:
    with torch.no_grad():
        net.body[0].weight.mul_(2)


def by_data(net: Net) -> None:
    """As averages of weights are often written, and targets are brought up to date."""
    for p in net.body.parameters():
        p.data.mul_(2)


def by_new_data(net: Net) -> None:
    net.body[0].weight.data = 2 * net.body[0].weight.data


def by_loading(net: Net) -> None:
    net.body.load_state_dict({k: 2 * v for k, v in net.body.state_dict().items()})


def by_training(net: Net) -> None:
    """With a fused optimizer, which counts no changes."""
    net.body.requires_grad_(True)
    optimizer = torch.optim.SGD(net.body.parameters(), 0.1, fused=True)
    net(torch.ones(4, 4)).sum().backward()
    optimizer.step()
    net.body.requires_grad_(False)


def by_assigning(net: Net) -> None:
    net.body.load_state_dict({k: 2 * v for k, v in net.body.state_dict().items()}, assign=True)


CHANGES = [by_weight, by_data, by_new_data, by_loading, by_assigning, by_training, lambda net: net.body.train()]


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_kept_is_forgotten_when_the_module_is_another(
    cached: tuple[Net, FeatureCache], change: Callable[[Net], None]
) -> None:
    net, cache = cached
    x = torch.randn(16, 4)
    net(x), net(x)
    assert cache.served == 1
    change(net)
    plain = copy.deepcopy(net)
    for _ in range(3):
        torch.testing.assert_close(net(x), plain(x))
    assert not cache.broken


def test_changes_that_cannot_be_seen_are_found_by_computing_anew(cached: tuple[Net, FeatureCache]) -> None:
    net, cache = cached
    x = torch.randn(16, 4)
    net(x), net(x)
    net.body[0].weight.data[1].mul_(2)  # neither a version nor the first number is another
    for _ in range(AUDIT_EVERY):
        net(x)
    assert cache.broken and hasten.CacheFeatures("body").broken()
    torch.testing.assert_close(net(x), copy.deepcopy(net)(x))


def test_normalisation_in_train_mode_is_left_alone(cached: tuple[Net, FeatureCache]) -> None:
    net, cache = cached
    net.train()
    plain, x = copy.deepcopy(net), torch.randn(16, 4)
    for _ in range(3):
        torch.testing.assert_close(net(x), plain(x))
    assert cache.served == 0 and "buffer" in cache.why_idle
    torch.testing.assert_close(net.body[1].running_mean, plain.body[1].running_mean)


def test_dropout_draws_what_it_draws() -> None:
    other = Net()
    other.body = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 3)).requires_grad_(False)
    plain = copy.deepcopy(other)
    hasten.CacheFeatures("body")(other)
    x = torch.randn(16, 4)
    torch.manual_seed(1)
    with_ = [other(x) for _ in range(3)]
    torch.manual_seed(1)
    assert all(torch.equal(a, plain(x)) for a in with_)


@pytest.mark.parametrize("given", [torch.randn(4, 4, requires_grad=True), torch.empty(0, 4)], ids=["graph", "empty"])
def test_what_does_not_suit_goes_by(cached: tuple[Net, FeatureCache], given: torch.Tensor) -> None:
    net, cache = cached
    net(torch.randn(8, 4))
    for _ in range(2):
        torch.testing.assert_close(net.body(given), copy.deepcopy(net.body)(given))
    assert cache.served == 0


def test_another_precision_is_another_module(cached: tuple[Net, FeatureCache]) -> None:
    net, _ = cached
    x = torch.randn(8, 4)
    net(x)
    body = net.body.double()
    for _ in range(2):
        torch.testing.assert_close(body(x.double()), copy.deepcopy(body)(x.double()))


def test_functional_calls_and_transforms_are_answered_as_without(cached: tuple[Net, FeatureCache]) -> None:
    net, _ = cached
    x = torch.randn(8, 4)
    net(x), net(x)
    doubled = {name: 2 * p for name, p in net.body.named_parameters()}
    plain = copy.deepcopy(net.body)
    for _ in range(2):
        found = torch.func.functional_call(net.body, doubled, (x,))
        torch.testing.assert_close(found, torch.func.functional_call(plain, doubled, (x,)))
    torch.testing.assert_close(torch.vmap(net.body)(x[None])[0], plain(x))
    torch.testing.assert_close(net.body(x), plain(x))


def test_a_part_that_changes_what_it_is_given_is_left_alone() -> None:
    net, x = Net(), torch.randn(8, 4)
    net.body = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 3)).requires_grad_(False)
    hasten.CacheFeatures("body")(net)
    for _ in range(2):
        given = x.clone()
        net(given)
        assert (given >= 0).all()


def test_autocast_and_inference_mode_go_by(cached: tuple[Net, FeatureCache]) -> None:
    net, cache = cached
    x = torch.randn(8, 4)
    net(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert net.body(x).dtype is torch.bfloat16
    with torch.inference_mode():
        assert net.body(x).is_inference()
    assert cache.served == 0


def test_a_model_is_saved_and_copied_without_it(cached: tuple[Net, FeatureCache]) -> None:
    net, _ = cached
    net(torch.randn(8, 4))
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    assert torch.load(file, weights_only=False).body._compiled_call_impl is None


def test_without_memory_nothing_is_kept(cached: tuple[Net, FeatureCache], monkeypatch: pytest.MonkeyPatch) -> None:
    net, cache = cached
    monkeypatch.setattr(features, "available_bytes", lambda: 1000)
    x = torch.randn(8, 4)
    for _ in range(3):
        torch.testing.assert_close(net(x), copy.deepcopy(net)(x))
    assert "memory" in cache.why_idle and hasten.CacheFeatures("body").idle()


def test_undo_brings_back_what_was_there() -> None:
    net = Net()
    undo = hasten.CacheFeatures("body").on(net)
    with pytest.raises(Unsuited, match="already"):
        hasten.CacheFeatures("body").on(net)
    undo()
    assert net.body._compiled_call_impl is None
    for name in ("nobody", "", signature(net.body)):
        with pytest.raises(Unsuited, match="no part"):
            hasten.CacheFeatures(name).on(net)
    with pytest.raises(Unsuited, match="no part 'bodi', but one named 'body'"):
        hasten.CacheFeatures("bodi").on(net)
    hasten.CacheFeatures(signature(net.body))(net.body)
    assert net.body._compiled_call_impl is not None
    trained = Net()
    trained.body.requires_grad_(True)
    trained(torch.ones(2, 4)).sum().backward()
    with pytest.raises(Unsuited, match="trained"):
        hasten.CacheFeatures("body").on(trained)
    net = Net()
    net.body[0].register_forward_hook(lambda *_: None)
    with pytest.raises(Unsuited, match="hooks"):
        hasten.CacheFeatures("body").on(net)


def test_filling_in_moves_no_running_mean(cached: tuple[Net, FeatureCache]) -> None:
    """Of a model in train mode, which a plan took for the frozen one of the same class and size."""
    net, cache = cached
    net.train()
    before = net.body[1].running_mean.clone()
    cache.fill(torch.randn(8, 4))
    assert torch.equal(net.body[1].running_mean, before)


def test_batches_to_come_are_filled_in_and_draw_nothing(cached: tuple[Net, FeatureCache]) -> None:
    net, cache = cached
    x = torch.randn(16, 4)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, torch.zeros(16)), batch_size=8)
    state = torch.get_rng_state()
    hasten.CacheFeatures("body").ahead(loader, [0, 3, 5])
    assert torch.equal(torch.get_rng_state(), state)
    net(x[[5, 0, 3]])
    assert cache.served == 1
    assert hasten.CacheFeatures("body").fill([x, torch.zeros(16)])
    net(x)
    assert cache.served == 2


def test_rows_of_several_forms_are_kept_apart() -> None:
    """As a network is given pictures of two sizes, or a trial fills in what it is never given."""
    net = Net()
    net.body = nn.Sequential(nn.AdaptiveAvgPool1d(4), nn.Linear(4, 3)).requires_grad_(False)
    plain = copy.deepcopy(net)
    hasten.CacheFeatures("body")(net)
    cache: Any = net.body._compiled_call_impl
    sizes = [torch.randn(8, n) for n in (4, 6, 9)]
    for x in (*sizes, *sizes):
        torch.testing.assert_close(net(x), plain(x))
    assert cache.served == 3
    for n in range(10, 30):
        net(torch.randn(8, n))
    assert "form" in cache.why_idle
    torch.testing.assert_close(net(sizes[0]), plain(sizes[0]))


def test_what_is_kept_goes_with_the_model() -> None:
    net = Net()
    hasten.CacheFeatures("body")(net)
    net(torch.randn(8, 4))
    kept = weakref.ref(net.body._compiled_call_impl)
    del net
    gc.collect()
    assert kept() is None


def test_it_is_kept_while_a_trial_switches_it_off_and_on() -> None:
    net, x = Net(), torch.randn(8, 4)
    for _ in range(3):
        undo = hasten.CacheFeatures("body").on(net)
        net(x)
        cache: Any = net.body._compiled_call_impl
        undo()
        net(x)
    assert cache.served == 2
