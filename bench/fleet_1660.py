"""How long do 1660 small networks take, and how long by the loops that people write?

1660 perceptrons 32-64-64-1 on 2000 rows each, batches of 64, Adam, 20 epochs, on this machine's cores. In each round
the fleet is trained in full and all others after it: a shared machine's clock changes by a third within seconds, so a
ratio is one of the same round. The others are timed on some models and epochs, the median of five each, and
extrapolated by the number of steps; what each needs once (starting processes, compiling) is not counted for them. All
use one thread a process and as many processes or threads as there are cores, but for the DataLoader loop, which is one
process, as people write it. Peers: joblib (torch loop with fused Adam and index batches); JAX (jit of a scan over all
steps of an epoch) and ``torch.compile`` of a stacked step where asked for, on one core, taken to scale perfectly to
all.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from common import head, ratio, save, say
from loops import loader_loop
from torch import nn

from hasten import fleet
from hasten.fleet.native.engine import peak
from hasten.measure import machine

CLAIM = (
    "1660 perceptrons, 20 epochs (goals: 150× the DataLoader loop, 50× joblib, 3× JAX, 2.3× compiled, half the peak)"
)
NAME = "fleet-1660"
WIDTHS = (32, 64, 64, 1)
ROWS, BATCH, EPOCHS = 2000, 64, 20
STEPS = -(-ROWS // BATCH)
SHORT = 5  # timings of a peer in a round, whose median counts: each is of a fraction of a second, the fleet's of ten
FLOP = sum(2 * a * b * (3 if i else 2) for i, (a, b) in enumerate(itertools.pairwise(WIDTHS)))  # a row


def model() -> nn.Module:
    """32-64-64-1 with ReLU."""
    a, b, c, d = WIDTHS
    return nn.Sequential(nn.Linear(a, b), nn.ReLU(), nn.Linear(b, c), nn.ReLU(), nn.Linear(c, d))


def data(models: int) -> dict[str, tuple[Any, Any]]:
    """A task a key."""
    random = np.random.default_rng(0)
    X = random.standard_normal((models, ROWS, WIDTHS[0]), np.float32)
    w = random.standard_normal((models, WIDTHS[0], 1), np.float32)
    y = np.tanh(X @ w)[..., 0]
    return {f"{k:04d}": (X[k], y[k]) for k in range(models)}


def index_loop(task: tuple[Any, Any], epochs: int) -> float:
    """The same with batches by index and the fused Adam; seconds a step."""
    torch.set_num_threads(1)
    net = model()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)
    X, y = map(torch.from_numpy, task)
    start = time.perf_counter()
    for _ in range(epochs):
        for rows in torch.randperm(ROWS).split(BATCH):
            optimizer.zero_grad()
            nn.functional.mse_loss(net(X[rows]), y[rows, None]).backward()
            optimizer.step()
    return (time.perf_counter() - start) / (epochs * STEPS)


def joblib_steps(tasks: list[tuple[Any, Any]], workers: int, epochs: int) -> float:
    """Wall seconds a step of one model, all workers together."""
    from joblib import Parallel, delayed

    with Parallel(n_jobs=workers) as pool:
        pool(delayed(index_loop)(task, 1) for task in tasks[:workers])  # processes started, torch imported
        start = time.perf_counter()
        pool(delayed(index_loop)(task, epochs) for task in tasks)
        return (time.perf_counter() - start) / (len(tasks) * epochs * STEPS)


def jax_step(task: tuple[Any, Any]) -> Callable[[], float]:
    """JAX's best form here: one model at a time, jit of a scan over an epoch's steps. Gives seconds a step."""
    import jax
    import jax.numpy as jnp

    random = np.random.default_rng(0)
    sizes = list(itertools.pairwise(WIDTHS))
    params = [(jnp.array(random.normal(size=s, scale=s[0] ** -0.5), jnp.float32), jnp.zeros(s[1])) for s in sizes]
    X, y = jnp.array(task[0]), jnp.array(task[1])

    def loss(p: Any, x: Any, t: Any) -> Any:
        for w, b in p[:-1]:
            x = jax.nn.relu(x @ w + b)
        return ((x @ p[-1][0] + p[-1][1])[:, 0] - t) @ ((x @ p[-1][0] + p[-1][1])[:, 0] - t) / len(t)

    def step(state: Any, rows: Any) -> Any:
        p, m, v, t = state
        g = jax.grad(loss)(p, X[rows], y[rows])
        t = t + 1
        m = jax.tree.map(lambda a, b: 0.9 * a + 0.1 * b, m, g)
        v = jax.tree.map(lambda a, b: 0.999 * a + 0.001 * b * b, v, g)
        p = jax.tree.map(lambda w, a, b: w - 1e-3 * (a / (1 - 0.9**t)) / (jnp.sqrt(b / (1 - 0.999**t)) + 1e-8), p, m, v)
        return (p, m, v, t), 0.0

    epoch = jax.jit(lambda state, order: jax.lax.scan(step, state, order)[0])
    zeros = jax.tree.map(jnp.zeros_like, params)
    state = (params, zeros, zeros, jnp.float32(0))
    order = jnp.array(np.resize(random.permutation(ROWS), (STEPS, BATCH)))
    jax.block_until_ready(epoch(state, order))

    def timed() -> float:
        start = time.perf_counter()
        jax.block_until_ready(epoch(state, order))
        return (time.perf_counter() - start) / STEPS

    return timed


def compiled_step(tasks: list[tuple[Any, Any]], width: int = 64) -> Callable[[], float]:
    """``torch.compile`` of the whole stacked step with its gradient written out, weights (models, in, out)."""
    g = torch.Generator().manual_seed(0)
    W = [torch.randn(width, a, b, generator=g) * a**-0.5 for a, b in itertools.pairwise(WIDTHS)]
    B = [torch.zeros(width, 1, b) for b in WIDTHS[1:]]
    P = [*W, *B]
    M, V = [torch.zeros_like(p) for p in P], [torch.zeros_like(p) for p in P]
    X = torch.stack([torch.from_numpy(x) for x, _ in tasks[:width]])
    y = torch.stack([torch.from_numpy(t) for _, t in tasks[:width]])[..., None]
    at = torch.arange(width)[:, None]

    def step(rows: torch.Tensor, t: torch.Tensor) -> None:
        x0, target = X[at, rows], y[at, rows]
        x1 = torch.relu(torch.baddbmm(P[3], x0, P[0]))
        x2 = torch.relu(torch.baddbmm(P[4], x1, P[1]))
        d3 = (torch.baddbmm(P[5], x2, P[2]) - target) * (2 / BATCH)
        d2 = (d3 @ P[2].mT) * (x2 > 0)
        d1 = (d2 @ P[1].mT) * (x1 > 0)
        grads = [x0.mT @ d1, x1.mT @ d2, x2.mT @ d3, d1.sum(1, True), d2.sum(1, True), d3.sum(1, True)]
        for p, m, v, grad in zip(P, M, V, grads, strict=True):
            m.mul_(0.9).add_(grad, alpha=0.1)
            v.mul_(0.999).add_(grad * grad, alpha=0.001)
            p.sub_(1e-3 * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8))

    fast = torch.compile(step, dynamic=False)
    t = torch.tensor(0.0)

    def timed() -> float:
        begun = time.perf_counter()
        with torch.no_grad():
            for _ in range(10):
                t.add_(1)
                fast(torch.randint(ROWS, (width, BATCH)), t)
        return (time.perf_counter() - begun) / (10 * width)

    timed()
    return timed


def all_peaks(workers: int) -> float:
    """FMA peak of all cores at once, FLOP/s."""
    found: list[float] = []
    threads = [threading.Thread(target=lambda: found.append(peak(0.5))) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=1660)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--jax", action="store_true")
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    head(f"{args.models} perceptrons {'-'.join(map(str, WIDTHS))}, {ROWS} rows, batch {BATCH}, {EPOCHS} epochs")
    torch.set_num_threads(1)
    workers, total = machine.cores(), args.models * EPOCHS * STEPS
    tasks = data(args.models)
    some = list(tasks.values())
    others: dict[str, Callable[[], float]] = {
        "torch loop, DataLoader, 1 process": lambda: loader_loop(model, some[0], BATCH, 1),
        "torch loop, index batches, fused, 1 process": lambda: index_loop(some[0], 1),
        f"joblib, {workers} processes of that": lambda: joblib_steps(some[: 2 * workers], workers, 2),
    }
    if args.jax:
        timed = jax_step(some[0])
        others[f"JAX, jit of a scan, / {workers} processes"] = lambda: timed() / workers
    if args.compile:
        step = compiled_step(some)
        others[f"torch.compile, stacked, / {workers} processes"] = lambda: step() / workers
    rows: dict[str, list[float]] = {"hasten.fleet": []}
    peaks, shares = [], []
    for _ in range(args.rounds):
        before = all_peaks(workers)
        start = time.perf_counter()
        trained = fleet.fit(model, tasks, epochs=EPOCHS, batch_size=BATCH, engine="native", workers=workers)
        rows["hasten.fleet"].append((time.perf_counter() - start) / total)
        peaks.append(max(before, all_peaks(workers)))
        shares.append(args.models * EPOCHS * ROWS * FLOP / trained.summary().seconds / peaks[-1])
        for name, one in others.items():
            rows.setdefault(name, []).append(statistics.median(one() for _ in range(SHORT)))
    seconds, share, top = (statistics.median(x) for x in (rows["hasten.fleet"], shares, peaks))
    seconds *= total
    own = f"{100 * share:.0f} % of the FMA peak ({top / 1e9:.0f} GFLOP/s)"
    say(f"{'hasten.fleet, all of it':44} {seconds:8.1f} s   {own}")
    jobs: dict[str, dict[str, Any]] = {"hasten.fleet": {"seconds": seconds}}
    for name in others:
        job = statistics.median(rows[name]) * total
        times = ratio([math.log(a / b) for a, b in zip(rows[name], rows["hasten.fleet"], strict=True)])
        jobs[name] = {"seconds": job, "times": times.value, "interval": times}
        say(f"{name:44} {job:8.0f} s   {times.value:.1f}× ({times.low:.1f}–{times.high:.1f})")
    proof = fleet.fit(model, dict(list(tasks.items())[:2]), epochs=EPOCHS, batch_size=BATCH, prove=2).summary().proof
    for found in proof:
        say(f"last loss of {found['key']}: {found['loss']:.6f}, the plain loop's {found['loop_loss']:.6f}")
    words = {"DataLoader": "the DataLoader loop", "joblib": "joblib", "JAX": "JAX", "compile": "torch.compile"}
    found_times = [(said, j["interval"]) for w, said in words.items() for n, j in jobs.items() if w in n]
    said_times = ", ".join(f"{t.value:.3g}× ({t.low:.3g}–{t.high:.3g}) {said}" for said, t in found_times)
    summary = f"{args.models} models in {seconds:.1f} s: {said_times}; {100 * share:.0f} % of the FMA peak"
    save(NAME, summary, {"jobs": jobs, "peak_flops": top, "share_of_peak": share, "losses": list(proof)}, rows)


if __name__ == "__main__":
    main()
