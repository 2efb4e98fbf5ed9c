"""The tape beside torch: gradients, what modules keep, predictions; and what it leaves to ``torch.func``."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from hasten import fleet
from hasten.fleet import planner, stack_trial, stacked
from hasten.fleet.modules import Factory
from hasten.fleet.native.build import TARGETS, NoCompiler, kernel
from hasten.fleet.recipe import Recipe
from hasten.fleet.tape import step
from hasten.fleet.tasks import Task, jobs_of
from hasten.measure import machine
from tests.fleet.common import Branched, Convolution, ragged

try:
    kernel()
except NoCompiler:
    pytest.skip("no C++ compiler here", allow_module_level=True)

Forward = Callable[[Any, torch.Tensor], torch.Tensor]
WIDTH = 20  # of a row


class Own(nn.Module):
    """Some layers and a forward of one's own. X: (rows, WIDTH)."""

    def __init__(self, forward: Forward, **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.own = forward

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.own(self, x)


def apart(make: Callable[[], nn.Module], loss: Any = "mse", y: Any = None, batch: int = 24) -> dict[str, float]:
    """How far a stack with a tape is from the plain loop."""
    torch.manual_seed(0)
    draw = np.random.default_rng(0)
    tasks = {
        f"k{i}": Task(draw.standard_normal((61, WIDTH), np.float32), draw.standard_normal((61, 3), np.float32))
        if y is None else Task(draw.standard_normal((61, WIDTH), np.float32), y) for i in range(2)
    }  # fmt: skip
    recipe, factory = Recipe(loss=loss, batch_size=batch), Factory(make)
    jobs = jobs_of(tasks, recipe, {})
    kinds, _ = planner.kinds_of(jobs, factory)
    stack = stack_trial.filled(kinds[0], jobs, factory, recipe, 2)
    assert stack.tape is not None, stack.why_no_tape
    if not stack.norms:
        stack_trial.rows_are_independent(stack)
    return planner._apart(kinds[0], jobs[1], factory, recipe)


def convolved(**settings: Any) -> Callable[[], nn.Module]:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(m.a(x.reshape(len(x), 2, WIDTH // 2)))
        return m.last(h.mean(2))

    out = settings.pop("out", 6)
    return lambda: Own(forward, a=nn.Conv1d(2, out, **settings), last=nn.Linear(out, 3))


def image(m: Any, x: torch.Tensor) -> torch.Tensor:
    h = torch.tanh(m.b(functional.gelu(m.a(x.reshape(-1, 1, 4, 5)))))
    return m.last(h.flatten(1))


def attention(m: Any, x: torch.Tensor) -> torch.Tensor:
    h = x.reshape(-1, 5, 4)
    q, k, v = m.qkv(h).chunk(3, -1)
    h = h + torch.softmax(q @ k.transpose(1, 2) / 2, -1) @ v + functional.scaled_dot_product_attention(q, k, v)
    return m.last(m.norm(h).flatten(1))


def heads(m: Any, x: torch.Tensor) -> torch.Tensor:
    h = x.reshape(-1, 5, 4)
    return m.last(m.heads(h, h, h, need_weights=False)[0].flatten(1))


def encoded(m: Any, x: torch.Tensor) -> torch.Tensor:
    return m.last(m.layer(x.reshape(-1, 5, 4)).flatten(1))


def grouped(m: Any, x: torch.Tensor) -> torch.Tensor:
    return m.last(torch.relu(m.norm(m.a(x.reshape(len(x), 2, -1)))).amax(2))


def plane(m: Any, x: torch.Tensor) -> torch.Tensor:
    return m.last(torch.tanh(m.norm(m.a(x.reshape(-1, 1, 4, 5)))).flatten(1))


def across(m: Any, x: torch.Tensor) -> torch.Tensor:
    h = torch.relu(m.a(x.reshape(len(x), 4, *((5,) if isinstance(m.a, nn.ConvTranspose1d) else (1, 5)))))
    return m.last(torch.tanh(m.b(h)).flatten(1))


def bent(m: Any, x: torch.Tensor) -> torch.Tensor:
    h = m.a(x)
    parts = (torch.atan(3 * h), functional.softshrink(h, 0.3), functional.hardshrink(h, 0.2))
    return m.last(torch.cat(parts, 1))


def spread(m: Any, x: torch.Tensor) -> torch.Tensor:
    h = m.a(x)
    scaled = (h - h.mean(1, keepdim=True)) / (h.std(1, keepdim=True) + 0.1)
    sizes = (h.std(dim=1, unbiased=False)[:, None], h.norm(p=1, dim=1, keepdim=True))
    return m.last(torch.cat([scaled, functional.normalize(h, dim=1), *sizes], 1))


def gated(m: Any, x: torch.Tensor) -> torch.Tensor:
    a, b = m.a(x).chunk(2, 1)
    return m.last(torch.cat([a * torch.sigmoid(b), functional.silu(a[:, 1:])], 1))


def normed(m: Any, x: torch.Tensor) -> torch.Tensor:
    h = m.n2(torch.relu_(m.n1(m.a(x)))[:, None].expand(-1, 4, -1) * x[:, :4, None])
    return m.last(m.drop(h).amax(1))


def written(m: Any, x: torch.Tensor) -> torch.Tensor:
    h = functional.pad(m.a(x), (1, 2), value=0.5).clamp(-1, 1) ** 3
    return m.last(torch.where(h > 0, h, -h.abs().sqrt())) / (1 + x[:, :1] ** 2)


def recurrent(m: Any, x: torch.Tensor) -> torch.Tensor:
    return m.last(m.cell(x[:, :6].reshape(-1, 3, 2))[0][:, -1])


def IMAGE() -> dict[str, nn.Module]:
    first = nn.Conv2d(1, 5, (3, 2), padding=(1, 0))
    return {"a": first, "b": nn.Conv2d(5, 4, 3, stride=2, padding=(2, 1)), "last": nn.Linear(4 * 3 * 2, 3)}


def NORMS() -> dict[str, nn.Module]:
    norms = {"n1": nn.BatchNorm1d(7), "n2": nn.BatchNorm1d(4)}
    return {"a": nn.Linear(WIDTH, 7), **norms, "drop": nn.Dropout(0.3), "last": nn.Linear(7, 3)}


MODELS: dict[str, Callable[[], nn.Module]] = {
    "conv": convolved(kernel_size=5, padding=2),
    "conv of one tap": convolved(kernel_size=1, out=1),
    "conv with stride": convolved(kernel_size=4, stride=3, padding=3, out=9),
    "conv with dilation": convolved(kernel_size=3, stride=2, dilation=2, padding=1, out=17),
    "conv with groups": convolved(kernel_size=3, groups=2, bias=False, padding=4),
    "image": lambda: Own(image, **IMAGE()),
    "attention": lambda: Own(attention, qkv=nn.Linear(4, 12), norm=nn.LayerNorm(4), last=nn.Linear(20, 3)),
    "gates": lambda: Own(gated, a=nn.Linear(WIDTH, 16), last=nn.Linear(15, 3)),
    "norms": lambda: Own(normed, **NORMS()),
    "pieces": lambda: Own(written, a=nn.Linear(WIDTH, 8), last=nn.Linear(11, 3)),
    "heads": lambda: Own(heads, heads=nn.MultiheadAttention(4, 2, batch_first=True), last=nn.Linear(20, 3)),
    "encoder": lambda: Own(
        encoded, layer=nn.TransformerEncoderLayer(4, 2, 7, 0.0, batch_first=True), last=nn.Linear(20, 3)
    ),
    "group norm": lambda: Own(grouped, a=nn.Conv1d(2, 6, 3), norm=nn.GroupNorm(3, 6), last=nn.Linear(6, 3)),
    "instance norm": lambda: Own(grouped, a=nn.Conv1d(2, 6, 3), norm=nn.InstanceNorm1d(6), last=nn.Linear(6, 3)),
    "instance norm of an image": lambda: Own(
        plane, a=nn.Conv2d(1, 5, 3, padding=1), norm=nn.InstanceNorm2d(5, affine=True, eps=1e-3), last=nn.Linear(100, 3)
    ),
    "transposed conv": lambda: Own(
        across, a=nn.ConvTranspose1d(4, 6, 4, stride=2, padding=1), b=nn.Conv1d(6, 2, 3), last=nn.Linear(16, 3)
    ),
    "transposed conv in groups": lambda: Own(
        across,
        a=nn.ConvTranspose1d(4, 6, 3, stride=3, padding=4, dilation=2, output_padding=1, groups=2, bias=False),
        b=nn.ConvTranspose1d(6, 17, 1, padding=2),
        last=nn.Linear(102, 3),
    ),
    "transposed conv of an image": lambda: Own(
        across,
        a=nn.ConvTranspose2d(4, 3, (2, 3), stride=(2, 1), output_padding=(1, 0)),
        b=nn.ConvTranspose2d(3, 2, 3, stride=2, padding=1),
        last=nn.Linear(130, 3),
    ),
    "local norm": lambda: Own(
        plane, a=nn.Conv2d(1, 5, 3, padding=1), norm=nn.LocalResponseNorm(4, 0.5, 0.7, 1.1), last=nn.Linear(100, 3)
    ),
    "bends": lambda: Own(bent, a=nn.Linear(WIDTH, 8), last=nn.Linear(24, 3)),
    "weight norm": lambda: Own(
        lambda m, x: m.last(m.a(x.reshape(len(x), 2, -1)).tanh().flatten(1)),
        a=weight_norm(nn.Conv1d(2, 5, 3, padding=2, dilation=2)),
        last=weight_norm(nn.Linear(50, 3), dim=1),
    ),
    "spectral norm": lambda: Own(
        lambda m, x: m.last(m.a(x).tanh()), a=spectral_norm(nn.Linear(WIDTH, 7)), last=nn.Linear(7, 3)
    ),
    "spreads": lambda: Own(spread, a=nn.Linear(WIDTH, 8), last=nn.Linear(18, 3)),
    "gru": lambda: Own(recurrent, cell=nn.GRU(2, 5, batch_first=True), last=nn.Linear(5, 3)),
    "lstm": lambda: Own(recurrent, cell=nn.LSTM(2, 5, 2, batch_first=True), last=nn.Linear(5, 3)),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_tape_agrees_with_torch(name: str) -> None:
    found = apart(MODELS[name])
    assert max(found.values()) < 2e-5, found


@pytest.mark.parametrize("loss", ["mae", "huber", "quantile:0.7", "bce"])
def test_losses(loss: str) -> None:
    y = np.random.default_rng(1).integers(0, 2, (61, 3)).astype(np.float32)
    assert max(apart(MODELS["gates"], loss, y).values()) < 2e-5


@pytest.mark.parametrize("batch", [1, 7, 16, 61, 100])
def test_batches_of_any_size(batch: int) -> None:
    assert max(apart(MODELS["conv"], batch=batch).values()) < 2e-5


class Counted(nn.Module):
    """Another step after some calls."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.calls = nn.Linear(WIDTH, 3), 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.last(x) * (1 if self.calls < 9 else 2)


def last(factor: Callable[[torch.Tensor], Any]) -> Callable[[], nn.Module]:
    return lambda: Own(lambda m, x: m.last(x) * factor(x), last=nn.Linear(WIDTH, 3))


def long(m: Any, x: torch.Tensor) -> torch.Tensor:
    for _ in range(200):
        x = torch.tanh(x)
    return m.last(x)


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "counts": (Counted, "changes what the module holds"),
    "asks for a value": (last(lambda x: 1.0 if x.mean() > 0 else 2.0), "data-dependent|get value out of"),
    "draws": (last(lambda x: torch.rand(3)), "random numbers"),
    "draws by Python": (last(lambda x: random.random()), "random numbers"),
    "draws by NumPy": (last(lambda x: float(np.random.rand())), "random numbers"),
    "is wide": (last(lambda x: x[:, :3].double().float()), "computes in torch.float64"),
    "is long": (lambda: Own(long, last=nn.Linear(WIDTH, 3)), "trace takes long"),
    "has what the kernel has not": (last(lambda x: x.cumsum(1)[:, :3]), "cumsum"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_tape_would_not_repeat_has_none(name: str) -> None:
    make, why = REFUSED[name]
    with pytest.raises(AssertionError, match=why):
        apart(make)


ISAS = [name for name, (needs, _) in TARGETS.items() if needs <= machine.cpu_flags()]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", ["conv with stride", "image", "norms", "attention"])
def test_every_instruction_set(name: str, isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "kernel", lambda: kernel(isa))
    assert max(apart(MODELS[name]).values()) < 2e-5


def test_a_fleet_by_tape_and_one_without_come_to_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"engine": "stacked", "epochs": 3, "batch_size": 8, "lr": 0.01}
    for make in (Convolution, Branched):
        with_tape = fleet.fit(make, ragged(), **options, prove=2)
        assert all(found["holds"] for found in with_tape.summary().proof)
        monkeypatch.setattr(stacked, "program_of", lambda *_: "not now")
        without = fleet.fit(make, ragged(), **options)
        monkeypatch.undo()
        for key in without:
            assert np.allclose(with_tape.weights_of(key), without.weights_of(key), atol=1e-4)
