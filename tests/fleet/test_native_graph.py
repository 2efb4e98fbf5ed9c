"""The kernel computes what torch computes where ways part and meet, and where positions are pooled or picked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from hasten import fleet
from hasten.fleet.loop import drive, fresh
from hasten.fleet.native.chain import ADD, AVERAGE, CONV, LINEAR, MAXIMUM, PICK, RECURRENT, TURN
from hasten.fleet.native.engine import NativeTrainer
from hasten.fleet.native.reader import NotAChain, chain_of
from hasten.fleet.recipe import EarlyStop, Recipe
from tests.fleet.common import weights
from tests.fleet.test_native import ISAS, both, job, same_after_nan, same_alone, same_gradient

LENGTH = 12


class Block(nn.Module):
    """A residual block as people write them."""

    def __init__(self, channels: int, norm: bool = True, inplace: bool = True) -> None:
        super().__init__()
        self.a, self.b = (nn.Conv1d(channels, channels, 3, padding=1, bias=not norm) for _ in range(2))
        self.na, self.nb = ((nn.BatchNorm1d(channels) if norm else nn.Identity()) for _ in range(2))
        self.relu = nn.ReLU(inplace)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        identity = x
        out = self.relu(self.na(self.a(x)))
        out = self.nb(self.b(out))
        out += identity
        made: torch.Tensor = self.relu(out)
        return made


class Wide(nn.Module):
    """Two residual blocks, a maximum, a mean over positions. X: (rows, LENGTH)."""

    def __init__(self, norm: bool = True) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, 5, 3, padding=1)
        self.blocks = nn.Sequential(Block(5, norm), nn.MaxPool1d(2), Block(5, norm), nn.AdaptiveAvgPool1d(1))
        self.last = nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.last(self.blocks(self.first(x.unsqueeze(1))).squeeze(-1))
        return made


class Own(nn.Module):
    """A forward of its own; of its layers only those that it uses have weights. X: (rows, LENGTH)."""

    def __init__(self, forward: Callable[[Any, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        n = LENGTH
        self.conv, self.more, self.one = (
            nn.Conv1d(1, 4, 3, padding=1),
            nn.Conv1d(4, 4, 3, padding=1),
            nn.Conv1d(1, 4, 1),
        )
        self.flat, self.same, self.last, self.four = nn.Linear(n, n), nn.Linear(n, n), nn.Linear(n, 2), nn.Linear(4, 2)
        self.all, self.halves, self.norm = nn.Linear(4 * n, 2), nn.Linear(2 * n, 2), nn.LayerNorm(n)
        self.gru, self.wide, self.drop = nn.GRU(4, 4, batch_first=True), nn.Conv1d(3, 4, 2), nn.Dropout(0.3)
        self.single, self.each, self.half_of = nn.Linear(1, 2), nn.Linear(1, 4), nn.Linear(4, 2)
        self.own = forward

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.own(self, x)


def only_used(module: Own) -> Own:
    """The same without layers that its forward leaves out, which have no gradient in torch."""
    used = {n.split(".")[0] for layer in chain_of(module, (LENGTH,)).layers for n in (layer.weight,) if n}
    for name, part in list(module.named_children()):
        if name not in used and list(part.parameters()):
            setattr(module, name, nn.Identity())
    return module


def perceptron(m: Any, x: torch.Tensor) -> torch.Tensor:
    h = torch.relu(m.flat(x))
    made: torch.Tensor = m.last(h + m.drop(torch.tanh(m.same(h))))
    return made


def normed_first(m: Any, x: torch.Tensor) -> torch.Tensor:
    x = x + m.flat(m.norm(x))
    made: torch.Tensor = m.last(torch.add(x, torch.relu(m.same(x))))
    return made


def dense(m: Any, x: torch.Tensor) -> torch.Tensor:
    """Every layer takes all that was before it."""
    a = m.conv(x[:, None])
    b = torch.relu(m.more(a)) + a
    c = m.one(x[:, None])
    made: torch.Tensor = m.all((a + b + c + a).flatten(1))
    return made


READ = {
    "perceptron": perceptron, "normed first": normed_first, "dense": dense,
    "both sides": lambda m, x: m.last(m.flat(x)) + m.four(m.conv(x[:, None]).mean(-1)),
    "twice the same": lambda m, x: m.last(_twice(m.flat(x))),
    "input behind": lambda m, x: m.last(m.flat(torch.tanh(m.same(x)) + x)),
    "input in lanes": lambda m, x: m.all((m.one(x[:, None]) + m.conv(x.unsqueeze(1))).flatten(1)),
    "rows and lanes": lambda m, x: m.last(m.flat(x) + m.conv(x[:, None]).mean(1)),
    "lanes and rows": lambda m, x: m.last(m.conv(x[:, None]).mean(1) + m.flat(x)),
    "mean of all": lambda m, x: m.single(m.conv(x[:, None]).mean((1, 2), keepdim=True).flatten(1)),
    "mean of a row": lambda m, x: m.single(torch.mean(torch.tanh(m.flat(x)), dim=-1, keepdim=True)),
    "maximum": lambda m, x: m.halves(functional.max_pool1d(torch.relu(m.conv(x[:, None])), 2).flatten(1)),
    "average": lambda m, x: m.halves(functional.avg_pool1d(m.conv(x[:, None]), 2).flatten(1)),
    "adaptive": lambda m, x: m.halves(functional.adaptive_avg_pool1d(m.conv(x[:, None]), 6).flatten(1)),
    "last position": lambda m, x: m.four(torch.relu(m.conv(x[:, None]))[:, :, -1]),
    "cut off": lambda m, x: m.halves(m.more(m.conv(x[:, None]))[:, :, :-6].flatten(1)),
    "every other": lambda m, x: m.halves(torch.tanh(m.conv(x[:, None]))[..., ::2].flatten(1)),
    "some channels": lambda m, x: m.halves(m.conv(x[:, None])[:, 1:3].flatten(1)),
    "part of the input": lambda m, x: m.four(m.flat(x)[:, 2:6] + x[:, -4:]),
    "exchanged": lambda m, x: m.all(m.conv(x[:, None]).transpose(1, 2).contiguous().view(x.size(0), -1)),
    "convolution, then gru": lambda m, x: m.four(m.gru(m.conv(x[:, None]).permute(0, 2, 1))[0][:, -1]),
    "gru, then convolution": lambda m, x: m.all(m.more(_gru_over_positions(m, x).transpose(1, -1)).flatten(1)),
    "gru beside": lambda m, x: m.four(_over_positions(m.gru, m.conv(x[:, None]).transpose(1, 2))),
    "each position": lambda m, x: m.four(m.each(x[..., None]).mean(1)),
    "each position, then gru": lambda m, x: m.four(m.gru(torch.relu(m.each(x[..., None])))[0][:, -1]),
    "gru, then each position": lambda m, x: m.half_of(m.gru(m.each(x[..., None]))[0]).flatten(1)[:, :2],
    "one position": lambda m, x: torch.tanh(m.last(torch.tanh(m.flat(x[:, None])))).squeeze(1),
    "features first": lambda m, x: m.four(m.wide(x.view(-1, 4, 3).transpose(1, 2)).mean(dim=2)),
}  # fmt: skip


def _twice(h: torch.Tensor) -> torch.Tensor:
    return h + h


def _gru_over_positions(m: Any, x: torch.Tensor) -> torch.Tensor:
    out: torch.Tensor = m.gru(m.conv(x[:, None]).transpose(2, 1))[0]
    return out


def _over_positions(gru: nn.Module, x: torch.Tensor) -> torch.Tensor:
    out, last = gru(x)
    made: torch.Tensor = (out + x).mean(1) + last[-1]
    return made


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", READ)
def test_gradients_of_ways_that_part_and_meet(name: str, isa: str) -> None:
    torch.manual_seed(0)
    same_gradient(only_used(Own(READ[name])), Recipe(batch_size=40), LENGTH, 2, 37, isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("rows", [64, 70, 5])
def test_gradients_of_residual_blocks(norm: bool, isa: str, rows: int) -> None:
    torch.manual_seed(0)
    same_gradient(Wide(norm), Recipe(batch_size=rows), LENGTH, 2, rows, isa)


def test_a_pool_with_windows_that_hold_no_position_is_refused() -> None:
    with pytest.raises(NotAChain, match="no position"):
        chain_of(nn.Sequential(nn.Unflatten(1, (1, 2)), nn.MaxPool1d(2, 2, 1, 3), nn.Flatten(), nn.Linear(1, 1)), (2,))


@settings(max_examples=25)
@given(
    maximum=st.booleans(), taps=st.integers(1, 5), stride=st.integers(1, 4), pad=st.integers(0, 2),
    dilation=st.integers(1, 3), length=st.integers(1, 20), channels=st.integers(1, 5), rows=st.integers(1, 70),
)  # fmt: skip
def test_gradients_of_any_pool(
    maximum: bool, taps: int, stride: int, pad: int, dilation: int, length: int, channels: int, rows: int
) -> None:
    dilation = dilation if maximum else 1
    assume(pad <= taps // 2 and length + 2 * pad > dilation * (taps - 1))
    starts = range(-pad, length + pad - dilation * (taps - 1), stride)
    # torch itself writes where it must not in the way back of a window that holds no position
    assume(all(any(0 <= at + k * dilation < length for k in range(taps)) for at in starts))
    torch.manual_seed(0)
    pool = nn.MaxPool1d(taps, stride, pad, dilation) if maximum else nn.AvgPool1d(taps, stride, pad)
    head = nn.Sequential(
        nn.Unflatten(1, (1, length)), nn.Conv1d(1, channels, 3, padding=1), nn.ReLU(), pool, nn.Flatten()
    )
    with torch.no_grad():
        width = head(torch.zeros(1, length)).shape[1]
    same_gradient(nn.Sequential(*head, nn.Linear(width, 2)), Recipe(batch_size=rows), length, 2, rows)


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.booleans()), min_size=1, max_size=5), st.integers(1, 40)
)
def test_gradients_of_any_sums_of_layers(sums: list[tuple[int, int, bool]], rows: int) -> None:
    """Each layer takes the sum of two of what was before it; the last one takes all."""

    class Sums(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(9, 9) for _ in sums)
            self.last = nn.Linear(9, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            made = [x]
            for (a, b, relu), layer in zip(sums, self.layers, strict=True):
                h = layer(made[a % len(made)] + made[b % len(made)])
                made.append(torch.relu(h) if relu else h)
            whole = made[0]
            for h in made[1:]:
                whole = whole + h
            out: torch.Tensor = self.last(whole)
            return out

    torch.manual_seed(0)
    same_gradient(Sums(), Recipe(batch_size=40), 9, 2, rows)


def kinds(forward: Callable[..., torch.Tensor]) -> list[int]:
    module = Own(forward)
    assert module.train()(torch.zeros(3, LENGTH)).shape == (3, 2)
    return [layer.kind for layer in chain_of(module, (LENGTH,)).layers]


def test_what_is_read() -> None:
    assert kinds(READ["last position"]) == [TURN, CONV, PICK, TURN, LINEAR]
    assert kinds(READ["maximum"]) == [TURN, CONV, MAXIMUM, TURN, LINEAR]
    assert kinds(READ["convolution, then gru"]) == [TURN, CONV, PICK, TURN, RECURRENT, LINEAR]
    assert kinds(READ["input behind"]).count(ADD) == 1 and kinds(READ["adaptive"]).count(AVERAGE) == 1


@pytest.mark.parametrize("forward", [
    lambda m, x: m.last(m.flat(x) + x[:, :1]),
    lambda m, x: m.last(m.flat(x) + 1.0),
    lambda m, x: m.last(torch.add(m.flat(x), x, alpha=2)),
    lambda m, x: m.last(m.flat(x) * m.same(x)),
    lambda m, x: m.last(m.flat(x).mean(0) + m.same(x)),
    lambda m, x: m.last(m.flat(x).mean()),
    lambda m, x: m.four(m.conv(x[:, None]).mean(1.5)),
    lambda m, x: m.four(m.conv(x[:, None]).transpose(0, 2)[0]),
    lambda m, x: m.four(functional.max_pool1d(m.conv(x[:, None]), 12, ceil_mode=True).flatten(1)),
    lambda m, x: m.halves(functional.avg_pool1d(m.conv(x[:, None]), 4, 2, 1, False, False).flatten(1)),
    lambda m, x: _unused(m, x),
    lambda m, x: _changed_in_place(m, x, functional.relu),
    lambda m, x: _added_in_place(m, x),
    lambda m, x: m.last(m.flat(x)[:2]),
    lambda m, x: m.last(m.flat(x)[:, 20:]),
    lambda m, x: m.last(torch.cat([m.flat(x)])),
    lambda m, x: m.last(torch.ones(3, LENGTH)),
    lambda m, x: m.last(input=x),
    lambda m, x: m.last(torch.relu(m.flat(x)) if m.training else m.flat(x)),
])  # fmt: skip
def test_what_is_refused(forward: Callable[..., torch.Tensor]) -> None:
    with pytest.raises(NotAChain):
        chain_of(Own(forward), (LENGTH,))


def _unused(m: Any, x: torch.Tensor) -> Any:
    m.same(x)
    return m.last(m.flat(x))


def _changed_in_place(m: Any, x: torch.Tensor, relu: Any) -> Any:
    h = m.flat(x)
    return m.last(relu(h, inplace=True) + h)


def _added_in_place(m: Any, x: torch.Tensor) -> Any:
    h = m.flat(x)
    view = h.view(-1, 2, LENGTH // 2)
    h.add_(x)
    return m.last(h + view.flatten(1))


@pytest.mark.parametrize("options", [
    {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.01}, {"optimizer": "adam", "clip": 0.1},
], ids=str)  # fmt: skip
def test_training_ends_where_torch_ends(options: dict[str, Any]) -> None:
    recipe = Recipe(**{"lr": 0.003, "epochs": 3, "batch_size": 16, "stop": EarlyStop(patience=2), **options})
    torch.manual_seed(3)
    module = Wide().train()
    task = job(LENGTH, 2, 60, recipe)
    native, loop, layout = both(module, task, recipe)
    ours = drive(task, fresh(module, layout, recipe), recipe, native)
    theirs = drive(task, fresh(module, layout, recipe), recipe, loop)
    assert ours.epoch == theirs.epoch and np.allclose(ours.losses, theirs.losses, rtol=1e-3, equal_nan=True)
    assert np.allclose(ours.flat[0], theirs.flat[0], atol=1e-3)


@pytest.mark.parametrize("isa", ISAS)
def test_a_row_alone_is_predicted_as_among_others(isa: str) -> None:
    torch.manual_seed(0)
    same_alone(Wide().train(), LENGTH, isa)


def test_a_gradient_depends_on_nothing_that_was_there_before() -> None:
    for forward in (READ["gru beside"], READ["dense"], READ["cut off"], READ["maximum"], perceptron):
        same_after_nan(only_used(Own(forward)).train(), LENGTH)


def aliased(m: Any, x: torch.Tensor) -> torch.Tensor:
    h = before = m.flat(x)
    h += x  # torch.fx writes h + x, and does not see that `before` is changed
    made: torch.Tensor = m.last(torch.tanh(before) + h)
    return made


def test_what_the_reader_takes_for_something_else_is_found_by_the_gradient() -> None:
    random = np.random.default_rng(0)
    X = random.normal(size=(30, LENGTH)).astype(np.float32)
    chain_of(Own(aliased), (LENGTH,))
    trained = fleet.fit(lambda: Own(aliased), {"a": (X, X[:, :2])}, epochs=1, batch_size=16)
    assert "not native: its gradient differs" in next(iter(trained.summary().engines.values()))


def test_gradients_are_compared_where_they_are_not_nought(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last layer of a residual begins at nought, and no gradient passes it."""
    random = np.random.default_rng(0)
    tasks = {"a": (random.normal(size=(40, LENGTH)).astype(np.float32), random.normal(size=(40, 2)).astype(np.float32))}

    def make() -> nn.Module:
        return fleet.Residual(nn.Sequential(nn.Linear(LENGTH, 8), nn.Tanh(), nn.Linear(8, 2)), 1)

    sound = fleet.fit(make, tasks, epochs=1).summary().engines
    assert all(said.startswith("native") for said in sound.values())
    right = NativeTrainer.gradient

    def wrong(self: NativeTrainer, *given: Any) -> Any:
        flat, loss = right(self, *given)
        flat[: 8 * LENGTH] = 0
        return flat, loss

    monkeypatch.setattr(NativeTrainer, "gradient", wrong)
    found = fleet.fit(make, tasks, epochs=1).summary().engines
    assert all("not native: its gradient differs" in said for said in found.values())


def test_the_planner_takes_the_kernel_and_the_plain_loop_proves_it() -> None:
    random = np.random.default_rng(0)
    tasks = {f"s{k}": (X := random.normal(size=(30 + 9 * k, LENGTH)).astype(np.float32), X[:, :2]) for k in range(4)}
    trained = fleet.fit(Wide, tasks, epochs=3, batch_size=16, prove=2, workers=2)
    summary = trained.summary()
    assert all(said.startswith("native") for said in summary.engines.values())
    assert all(proof["holds"] and proof["engine"] == "native" for proof in summary.proof)
    alone = fleet.fit(Wide, {"s2": tasks["s2"]}, epochs=3, batch_size=16, engine="native", workers=1)
    assert weights(alone)["s2"] == weights(trained)["s2"]
