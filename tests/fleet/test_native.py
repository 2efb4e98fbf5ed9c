"""The kernel computes what torch computes: gradients, steps, for every layer, loss and optimizer it knows."""

from __future__ import annotations

import copy
import ctypes
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hasten import fleet
from hasten.fleet import naive
from hasten.fleet.loop import LoopTrainer, drive, fresh
from hasten.fleet.losses import KINDS
from hasten.fleet.native import build
from hasten.fleet.native.engine import NativeTrainer
from hasten.fleet.native.reader import chain_of
from hasten.fleet.planner import difference, flat_gradient
from hasten.fleet.recipe import EarlyStop, Recipe
from hasten.fleet.state import Layout
from hasten.fleet.tasks import Job, from_mapping, jobs_of
from hasten.measure import machine
from hasten.native import compiled
from tests.fleet.common import ragged, weights

try:
    build.kernel()
except build.NoCompiler:
    pytest.skip("no C++ compiler here", allow_module_level=True)

ISAS = [name for name, (needs, _) in build.TARGETS.items() if needs <= machine.cpu_flags()]
ROUNDING = 2e-5  # of a tensor's largest entry


def job(inputs: int, outputs: int, rows: int, recipe: Recipe, seed: int = 0) -> Job:
    random = np.random.default_rng(seed)
    X = random.normal(size=(rows, inputs)).astype(np.float32)
    kind = recipe.loss.kind
    if kind == "cross_entropy":
        y: Any = random.integers(0, outputs, rows).astype(np.float32)
    elif kind == "bce":
        y = random.integers(0, 2, (rows, outputs)).astype(np.float32)
    else:
        y = random.normal(size=(rows, outputs)).astype(np.float32)
    return jobs_of(from_mapping({"a": (X, y)}, recipe), recipe, {})[0]


def both(module: nn.Module, task: Job, recipe: Recipe, isa: str = "") -> tuple[NativeTrainer, LoopTrainer, Layout]:
    torch.set_num_threads(1)
    layout = Layout.of(module)
    chain = chain_of(module, task.task.X.shape[1:])
    loop = LoopTrainer(copy.deepcopy(module), layout, task, recipe)  # it trains the module that it is given
    return NativeTrainer(chain, layout, recipe, isa).take(task), loop, layout


def same_training(
    module: nn.Module, recipe: Recipe, inputs: int, rows: int, atol: float = 2e-5
) -> tuple[np.ndarray, np.ndarray, Layout]:
    """The kernel and torch's loop end with the same losses and weights; these, and where they lie."""
    task = job(inputs, 1, rows, recipe)
    native, loop, layout = both(module, task, recipe)
    ours = drive(task, fresh(module, layout, recipe), recipe, native)
    theirs = drive(task, fresh(module, layout, recipe), recipe, loop)
    assert ours.epoch == theirs.epoch and ours.best_epoch == theirs.best_epoch
    assert np.allclose(ours.losses, theirs.losses, rtol=1e-4, equal_nan=True)
    assert np.allclose(ours.flat[0], theirs.flat[0], atol=atol)
    return ours.flat[0], theirs.flat[0], layout


def same_alone(module: nn.Module, inputs: int, isa: str, atol: float = 1e-5) -> None:
    """A row is predicted as among others, and as torch predicts it."""
    recipe = Recipe(batch_size=64)
    task = job(inputs, 2, 150, recipe)
    native, loop, layout = both(module, task, recipe, isa)
    native.load(fresh(module, layout, recipe))
    X = task.task.X
    whole = native.predict(X)
    assert all(np.array_equal(native.predict(X[i : i + 1])[0], whole[i]) for i in (0, 1, 5, 63, 64, 149))
    with torch.no_grad():
        assert np.allclose(whole, loop.module.eval()(torch.from_numpy(X)), atol=atol)


def same_after_nan(module: nn.Module, inputs: int) -> None:
    """A gradient has the same bits after a training that filled all scratch space with NaN."""
    recipe = Recipe(batch_size=70)
    task = job(inputs, 2, 70, recipe)
    native, _, layout = both(module, task, recipe)
    state = fresh(module, layout, recipe)
    native.load(state)
    rows = np.arange(9)
    before, _ = native.gradient(rows)
    spoilt = fresh(module, layout, recipe)
    spoilt.flat[0] = np.nan
    native.load(spoilt)
    list(native.epochs(0, 0, 1))
    native.load(state)
    after, _ = native.gradient(rows)
    assert np.isfinite(before).all() and before.tobytes() == after.tobytes()


def same_gradient(module: nn.Module, recipe: Recipe, inputs: int, outputs: int, rows: int, isa: str = "") -> None:
    task = job(inputs, outputs, rows, recipe)
    native, loop, layout = both(module.train(), task, recipe, isa)
    native.load(fresh(module, layout, recipe))
    ours, loss = native.gradient(np.arange(rows))
    expected = loop.gradient(np.arange(rows))
    assert loss == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert difference(ours, flat_gradient(loop), layout) < ROUNDING


LAYERS = {
    "relu": nn.ReLU(), "leaky": nn.LeakyReLU(0.1), "elu": nn.ELU(0.7), "selu": nn.SELU(), "gelu": nn.GELU(),
    "gelu-tanh": nn.GELU(approximate="tanh"), "silu": nn.SiLU(), "sigmoid": nn.Sigmoid(), "tanh": nn.Tanh(),
    "softplus": nn.Softplus(), "softplus-beta": nn.Softplus(2.0), "mish": nn.Mish(), "celu": nn.CELU(0.7),
    "softsign": nn.Softsign(), "relu6": nn.ReLU6(), "hardtanh": nn.Hardtanh(-0.5, 0.5), "hardswish": nn.Hardswish(),
    "dropout": nn.Dropout(0.3), "layer-norm": nn.LayerNorm(19), "layer-norm-plain": nn.LayerNorm(19, bias=False),
    "batch-norm": nn.BatchNorm1d(19), "batch-norm-plain": nn.BatchNorm1d(19, affine=False), "identity": nn.Identity(),
}  # fmt: skip


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", LAYERS)
def test_gradients_of_every_layer(name: str, isa: str) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Linear(11, 19),
        LAYERS[name],
        nn.Linear(19, 3),
        LAYERS[name] if "norm" not in name else nn.ReLU(),
        nn.Linear(3, 2),
    )
    same_gradient(module, Recipe(batch_size=16), 11, 2, 13, isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("season", [1, 4, 99])
def test_gradients_of_a_residual(season: int, isa: str) -> None:
    torch.manual_seed(0)
    module = naive.Residual(nn.Sequential(nn.Linear(11, 19), nn.ReLU(), nn.Linear(19, 6)), season)
    nn.init.normal_(module.net[2].weight)
    same_gradient(module, Recipe(batch_size=16), 11, 6, 13, isa)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("outputs", [1, 3, 24])
def test_gradients_of_every_loss(kind: str, outputs: int) -> None:
    if kind == "cross_entropy" and outputs == 1:
        return
    torch.manual_seed(1)
    module = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, outputs))
    same_gradient(module, Recipe(loss=kind, batch_size=32), 5, outputs, 30)


@settings(max_examples=30)
@given(st.lists(st.integers(1, 70), min_size=2, max_size=5), st.integers(1, 70), st.booleans())
def test_gradients_of_any_widths(widths: list[int], rows: int, bias: bool) -> None:
    torch.manual_seed(2)
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(widths):
        layers += [nn.Linear(a, b, bias=bias), nn.Tanh()]
    same_gradient(nn.Sequential(*layers), Recipe(batch_size=64 if rows <= 64 else 128), widths[0], widths[-1], rows)


@pytest.mark.parametrize("isa", ISAS)
def test_the_clipped_norm_holds_no_other_layer(isa: str) -> None:
    """Layers of unlike widths share the space in which their weights are transposed."""
    recipe = Recipe(lr=0.01, epochs=1, batch_size=16, clip=0.05, optimizer="sgd")
    torch.manual_seed(0)
    widths = itertools.pairwise((7, 20, 40, 24, 10))
    module = nn.Sequential(*(part for a, b in widths for part in (nn.Linear(a, b), nn.Tanh()))).train()
    task = job(7, 10, 64, recipe)
    native, loop, layout = both(module, task, recipe, isa)
    ours = drive(task, fresh(module, layout, recipe), recipe, native)
    theirs = drive(task, fresh(module, layout, recipe), recipe, loop)
    assert np.allclose(ours.flat[0], theirs.flat[0], atol=1e-8)


@pytest.mark.parametrize("options", [
    {"optimizer": "sgd"}, {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.01},
    {"optimizer": "sgd", "momentum": 0.9, "nesterov": True}, {"optimizer": "adam", "weight_decay": 0.01},
    {"optimizer": "adamw", "weight_decay": 0.1, "betas": (0.8, 0.95)}, {"optimizer": "adam", "clip": 0.1},
], ids=str)  # fmt: skip
def test_training_ends_where_torch_ends(options: dict[str, Any]) -> None:
    recipe = Recipe(**{"lr": 0.01, "epochs": 4, "batch_size": 16, "stop": EarlyStop(patience=2), **options})
    torch.manual_seed(3)
    module = nn.Sequential(nn.Linear(7, 20), nn.ReLU(), nn.Dropout(0.1), nn.Linear(20, 1)).train()
    same_training(module, recipe, 7, 60)


def test_running_statistics_of_a_batch_norm() -> None:
    recipe = Recipe(epochs=2, batch_size=8)
    module = nn.Sequential(nn.Linear(4, 9, bias=False), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, 1)).train()
    task = job(4, 1, 30, recipe)
    native, loop, layout = both(module, task, recipe)
    ours = drive(task, fresh(module, layout, recipe), recipe, native)
    theirs = drive(task, fresh(module, layout, recipe), recipe, loop)
    assert np.allclose(ours.flat[0, layout.trained :], theirs.flat[0, layout.trained :], atol=1e-5)
    assert ours.flat[0, -1] == 8  # batches seen; with a bias before it, its noise would be in the running mean


def test_without_a_compiler_there_is_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(compiled, "compiler", lambda: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    build.kernel.cache_clear()
    with pytest.raises(build.NoCompiler, match="CXX"):
        build.kernel()
    monkeypatch.undo()
    build.kernel.cache_clear()


@pytest.mark.parametrize("isa", ISAS)
def test_a_step_of_adam_for_gradients_of_every_size(isa: str) -> None:
    """Roots and quotients are estimated and corrected where that is faster than dividing: within some ulps."""
    lib = build.kernel(isa)
    g = np.r_[np.logspace(-12, 15, 200), -np.logspace(-12, 15, 200), 0.0, 1e30, np.inf, np.nan].astype(np.float32)
    w, m, v = np.zeros((3, len(g)), np.float32)
    config = build.Config(optimizer=1, beta1=0.9, beta2=0.999, eps=1e-8, clip=0)
    lr, decay, t, skip = np.array([0.01]), np.zeros(1), np.ones(1, np.int64), np.zeros(1, np.uint8)
    given = g.copy()
    lib.hasten_update(
        1, len(g), w.ctypes.data, m.ctypes.data, v.ctypes.data, len(g), given.ctypes.data, skip.ctypes.data,
        lr.ctypes.data, decay.ctypes.data, t.ctypes.data, ctypes.byref(config),
    )  # fmt: skip
    wide = g[:400].astype(np.float64)
    expected = -0.01 * wide / (np.abs(wide) + 1e-8)
    assert np.allclose(w[:400], expected, rtol=2e-6, atol=0)
    assert w[400] == 0 and w[401] == 0 and np.isnan(w[402:]).all()  # as torch: an infinite second moment stops a weight


FAKE = """#!/bin/sh
echo begun >> {log}
while [ ! -e {go} ]; do sleep 0.02; done
for word; do to=$word; done
cp {kernel} "$to"
"""


@pytest.fixture
def fake_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A compiler that copies the kernel of this machine, once the file ``go`` is there, and counts its calls."""
    script, kernel = tmp_path / "fake", build.LIBRARY.cached(compiled.target())
    script.write_text(FAKE.format(log=tmp_path / "log", go=tmp_path / "go", kernel=kernel))
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def left(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "hasten").iterdir() if path.name.startswith(build.LIBRARY.compiling))


def test_what_a_killed_compilation_leaves_is_removed(fake_compiler: Path) -> None:
    code = "from hasten.fleet.native import build; build.kernel()"
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    deadline = time.monotonic() + 100
    while not (fake_compiler / "log").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    path = build.LIBRARY.cached(compiled.target())
    assert len(left(fake_compiler)) == 1 and not path.exists()
    (fake_compiler / "go").touch()
    build.LIBRARY._compile(compiled.target(), path)
    assert not left(fake_compiler) and path.exists()


def test_two_compile_at_once_and_one_does_the_work(fake_compiler: Path) -> None:
    path = build.LIBRARY.cached(compiled.target())
    threads = [threading.Thread(target=build.LIBRARY._compile, args=(compiled.target(), path)) for _ in range(2)]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    (fake_compiler / "go").touch()
    for thread in threads:
        thread.join()
    assert path.exists() and not left(fake_compiler)
    assert (fake_compiler / "log").read_text().count("begun") == 1


def test_a_compiler_that_fails_is_asked_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By three kinds of models, and by the stacks that train them."""
    script = tmp_path / "fails"
    script.write_text(f"#!/bin/sh\necho called >> {tmp_path / 'log'}\necho no such flag >&2\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    build.kernel.cache_clear()
    try:
        widths = {f"s{i}": {"width": 3 + i} for i in range(3)}
        trained = fleet.fit(
            lambda width: nn.Sequential(nn.Linear(6, width), nn.Linear(width, 1)), ragged(3), epochs=1, settings=widths
        )
    finally:
        monkeypatch.undo()
        build.kernel.cache_clear()
    assert len(trained) == 3 and (tmp_path / "log").read_text() == "called\n"
    said = list(trained.summary().engines.values())
    assert len(said) == 3 and all(f"not native: {script} could not compile the kernel: no such flag" in s for s in said)
    assert build.kernel()


def test_strided_windows_are_read_where_they_lie() -> None:
    recipe = Recipe(batch_size=8, epochs=2)
    series = np.random.default_rng(0).normal(size=60).astype(np.float32)
    view = np.lib.stride_tricks.sliding_window_view
    X, y = view(series[:-2], 9), view(series[9:], 2)
    found = []
    for pair in ((X, y), (X.copy(), y.copy())):
        task = jobs_of(from_mapping({"a": pair}, recipe), recipe, {})[0]
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(9, 4), nn.ReLU(), nn.Linear(4, 2)).train()
        native, _, layout = both(module, task, recipe)
        found.append(drive(task, fresh(module, layout, recipe), recipe, native).flat[0].tobytes())
        assert native.X is task.task.X  # no copy
    assert found[0] == found[1]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_many_steps_of_adam_are_torchs(kind: Any, isa: str) -> None:
    """Constants are rounded as torch rounds them: 1 - beta2 in float32 would be off by one part in 80 000."""
    lib, n = build.kernel(isa), 64
    random = np.random.default_rng(0)
    theirs = torch.zeros(n, requires_grad=True)
    optimizer = kind([theirs], lr=1e-3, weight_decay=0.01)
    w, m, v = np.zeros((3, n), np.float32)
    config = build.Config(optimizer=1 if kind is torch.optim.Adam else 2, beta1=0.9, beta2=0.999, eps=1e-8, clip=0)
    lr, decay, skip = np.array([1e-3]), np.array([0.01]), np.zeros(1, np.uint8)
    for step in range(1, 401):
        g = (random.normal(size=n) + 2).astype(np.float32)
        theirs.grad = torch.from_numpy(g.copy())
        optimizer.step()
        t = np.array([step])
        lib.hasten_update(
            1, n, w.ctypes.data, m.ctypes.data, v.ctypes.data, n, g.ctypes.data, skip.ctypes.data, lr.ctypes.data,
            decay.ctypes.data, t.ctypes.data, ctypes.byref(config),
        )  # fmt: skip
    assert np.allclose(v, optimizer.state[theirs]["exp_avg_sq"], rtol=2e-6, atol=0)
    assert np.allclose(w, theirs.detach().numpy(), rtol=2e-6, atol=0)


def test_a_library_that_cannot_be_loaded_is_no_kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = build.LIBRARY.cached(compiled.target())
    path.parent.mkdir()
    path.write_bytes(b"made for another system")
    with pytest.raises(build.NoCompiler, match="cannot be loaded"):
        build.LIBRARY.load()


def test_a_batch_may_be_larger_than_all_rows() -> None:
    def make() -> nn.Module:
        return nn.Sequential(nn.Linear(6, 1))

    found = [fleet.fit(make, ragged(3), epochs=2, batch_size=size, engine="native") for size in (64, 2**40)]
    assert weights(found[0]) == weights(found[1])
