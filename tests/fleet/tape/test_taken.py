"""Pools, embeddings and losses of a class on the tape, beside torch's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from hasten import fleet
from hasten.core.errors import UsageError
from hasten.fleet import stacked
from hasten.fleet.native.build import kernel
from hasten.fleet.tape import step
from tests.fleet.common import FEATURES, ragged
from tests.fleet.tape.test_tape import ISAS, MODELS, WIDTH, Own, apart

CLOSE = 2e-5


def pooled(pool: nn.Module, *shape: int) -> nn.Module:
    """A pool between two linear layers. shape: of what is pooled, in a row."""
    torch.manual_seed(0)
    out = pool(torch.zeros(2, *shape))[0].numel()

    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        return m.last(m.pool(m.first(x).reshape(-1, *shape)).flatten(1))

    return Own(forward, first=nn.Linear(WIDTH, int(np.prod(shape))), pool=pool, last=nn.Linear(out, 3))


POOLS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "largest": (nn.MaxPool1d(3, 2, padding=1), (2, 10)),
    "largest, dilated": (nn.MaxPool1d(2, 1, dilation=3), (3, 9)),
    "largest, more at the end": (nn.MaxPool1d(3, 2, ceil_mode=True), (2, 10)),
    "mean": (nn.AvgPool1d(4, 3, padding=2), (2, 10)),
    "mean without padding": (nn.AvgPool1d(3, 2, padding=1, ceil_mode=True, count_include_pad=False), (2, 10)),
    "largest of an image": (nn.MaxPool2d((2, 3), (1, 2), padding=(1, 0)), (2, 5, 7)),
    "mean of an image": (nn.AvgPool2d((3, 2), (2, 1), padding=(1, 1), divisor_override=5), (2, 5, 7)),
    "so many means": (nn.AdaptiveAvgPool1d(5), (2, 10)),
    "so many largest": (nn.AdaptiveMaxPool2d((2, 3)), (2, 4, 9)),
    "one mean": (nn.AdaptiveAvgPool2d(1), (4, 3, 5)),
}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", POOLS)
def test_pools(name: str, isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "kernel", lambda: kernel(isa))
    pool, shape = POOLS[name]
    assert max(apart(lambda: pooled(pool, *shape)).values()) < CLOSE


@settings(max_examples=25)
@given(
    largest=st.booleans(), size=st.integers(1, 12), channels=st.integers(1, 3), taps=st.integers(1, 5),
    stride=st.integers(1, 4), pad=st.integers(0, 2), more=st.booleans(), dilation=st.integers(1, 3),
)  # fmt: skip
def test_any_pool(
    largest: bool, size: int, channels: int, taps: int, stride: int, pad: int, more: bool, dilation: int
) -> None:
    pad, reach = min(pad, taps // 2), (taps - 1) * (dilation if largest else 1)
    size += reach
    pool = (
        nn.MaxPool1d(taps, stride, pad, dilation, ceil_mode=more)
        if largest else nn.AvgPool1d(taps, stride, pad, ceil_mode=more, count_include_pad=size % 2 == 0)
    )  # fmt: skip
    assert max(apart(lambda: pooled(pool, channels, size)).values()) < CLOSE


def tables(m: Any, x: torch.Tensor) -> torch.Tensor:
    which = x[:, :4].abs().clamp(max=5.5).long()
    return m.last(torch.cat([m.table(which).flatten(1), m.other(which[:, 0]), x[:, 4:]], 1))


@pytest.mark.parametrize("isa", ISAS)
def test_embeddings(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "kernel", lambda: kernel(isa))
    parts = {"table": nn.Embedding(6, 5, padding_idx=1), "other": nn.Embedding(6, 17), "last": nn.Linear(53, 3)}
    assert max(apart(lambda: Own(tables, **parts)).values()) < CLOSE


class Categories(nn.Module):
    """The first column names a row of a table."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.last = nn.Embedding(4, 3), nn.Linear(FEATURES + 2, 1)

    def rows(self, numbers: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.table(numbers)
        return found

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.last(torch.cat([self.rows(x[:, 0].long()), x[:, 1:]], 1))
        return out


def test_a_number_that_there_is_no_row_for_is_named_afterwards() -> None:
    X, y = ragged(1)["s0"]
    trained = fleet.fit(Categories, {"a": (np.abs(X).clip(0, 3), y)}, epochs=1)
    why = "its embedding 'table' has rows 0 to 3, and its data ask for number 9"
    strange = np.full((2, FEATURES), 9.0)
    with pytest.raises(UsageError, match=why):
        trained.predict("a", strange)
    assert trained.update({"a": (strange, np.zeros(2))}).failed == {"a": why}


class Called(Categories):
    def rows(self, numbers: torch.Tensor) -> torch.Tensor:
        return functional.embedding(numbers, self.table.weight)


class Indexed(Categories):
    def rows(self, numbers: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.table.weight[numbers]
        return found


@pytest.mark.parametrize("way", ["tape", "torch.func", "loop", "auto"])
@pytest.mark.parametrize("held", [False, True])
def test_a_number_that_there_is_no_row_for_fails_its_own_key(
    way: str, held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever row asks for it, one that is learned or one that is held out; it is named, the others are as ever."""
    if way == "torch.func":
        monkeypatch.setattr(stacked, "program_of", lambda *_: "not asked for")
    tasks = {key: (np.concatenate([(X[:, :1] > 0) * 3, X[:, 1:]], 1), y) for key, (X, y) in ragged(4).items()}
    options: dict[str, Any] = {"engine": way if way in ("loop", "auto") else "stacked", "epochs": 2, "batch_size": 8}
    options |= {"stop": 3} if held else {}
    whole = fleet.fit(Categories, tasks, **options)
    for key, number in (("s0", 4), ("s3", -1)):  # s3 is the longest: engines are tried on it
        tasks[key][0][-1 if held else 0 if key == "s0" else 5, 0] = number
    found = fleet.fit(Categories, tasks, **options)
    assert found.failed == {
        key: f"its embedding 'table' has rows 0 to 3, and its data ask for number {number}"
        for key, number in (("s0", 4), ("s3", -1))
    }
    engines = {row.engine for fitted in (whole, found) for row in fitted.summary().rows}
    assert "loop" not in engines or way in ("loop", "auto")
    if way != "auto":
        assert all(np.array_equal(found.weights_of(key), whole.weights_of(key)) for key in ("s1", "s2"))


@pytest.mark.parametrize("way", ["tape", "torch.func"])
@pytest.mark.parametrize("make", [Called, Indexed])
def test_a_row_that_is_not_there_is_nobody_elses(make: Any, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However it is asked for; the models of a stack lie side by side."""
    if way == "torch.func":
        monkeypatch.setattr(stacked, "program_of", lambda *_: "not asked for")
    tasks = {key: (np.concatenate([(X[:, :1] > 0) * 3, X[:, 1:]], 1), y) for key, (X, y) in ragged(3).items()}
    options: dict[str, Any] = {"engine": "stacked", "epochs": 2, "batch_size": 8, "workers": 1}
    whole = fleet.fit(make, tasks, **options)
    tasks["s1"][0][5, 0] = 4
    found = fleet.fit(make, tasks, **options)
    assert list(found.failed) == ["s1"] and "index" in found.failed["s1"] and "out of" in found.failed["s1"]
    assert all(np.array_equal(found.weights_of(key), whole.weights_of(key)) for key in ("s0", "s2"))


@pytest.mark.parametrize("name", ["gates", "norms", "lstm"])
def test_the_loss_of_a_class(name: str) -> None:
    y = np.random.default_rng(1).integers(0, 3, 61).astype(np.float32)
    assert max(apart(MODELS[name], "cross_entropy", y).values()) < CLOSE
