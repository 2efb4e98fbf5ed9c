"""Newton over streams, forecasts, heads, choices and the ladder."""

from __future__ import annotations

import importlib.util
import os
import pickle
import signal
import time
import tracemalloc
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso, LinearRegression, LogisticRegression, PoissonRegressor, Ridge
from sklearn.metrics import r2_score
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from hasten.solve import (
    BadData,
    MissingExtra,
    StreamingLogistic,
    choose,
    forecaster,
    head,
    heads,
    ladder,
    lagged,
    lasso,
    lstsq,
    newton,
    rung_process,
    rungs,
    seasons,
)
from hasten.solve.accuracy import DependentColumns
from tests.solve.data import apart, conditioned, moments_of, table


@pytest.mark.parametrize("weighted", [True, False])
def test_newton_is_scikit_learns_optimum(weighted: bool) -> None:
    X, y = table(500, 4, offset=3.0)
    w: Any = np.random.default_rng(0).random(500) + 0.1 if weighted else None
    labels = (y > y.mean()).astype(float)
    theirs = LogisticRegression(C=0.5, tol=1e-10, solver="newton-cholesky").fit(X, labels, w)
    ours = newton(X, labels, alpha=2.0, sample_weight=w, tol=1e-14)
    assert ours.converged and apart(ours.coef, theirs.coef_[0]) < 1e-6
    counts = np.random.default_rng(1).poisson(np.exp(0.2 * (X[:, 0] - 3)))
    total = 500 if w is None else w.sum()
    poisson = PoissonRegressor(alpha=3.0, tol=1e-12, solver="newton-cholesky").fit(X, counts, w)
    ours = newton(X, counts, family="poisson", alpha=3.0 * total, sample_weight=w, tol=1e-14)
    assert apart(ours.coef, poisson.coef_) < 1e-5


def test_newton_on_separable_rows_stays_finite() -> None:
    X = np.array([[-1.0], [-2.0], [1.0], [2.0]])
    found = newton(X, [0, 0, 1, 1], alpha=1e-3)
    assert np.isfinite(found.coef).all() and found.coef[0] > 1


@pytest.mark.parametrize(
    ("y", "family", "says"),
    [
        ([0, 2], "logistic", "a target is neither"),
        ([-1, 2], "poisson", "a target is negative"),
        ([0, np.nan], "logistic", "y contains NaN: row 1"),
        ([0, np.inf], "poisson", "y contains infinity: row 1"),
    ],
)
def test_newton_refuses_other_targets(y: Any, family: str, says: str) -> None:
    with pytest.raises(BadData, match=says):
        newton(np.ones((2, 1)), y, family=family)


@pytest.mark.parametrize("stream", [True, False])
def test_newton_says_where_a_number_is_missing(stream: bool) -> None:
    X, y = table(300, 3)
    labels: Any = (y > 3).astype(float)
    for bad in (np.nan, np.inf):
        holes = X.copy()
        holes[237, 1] = bad
        given = ([(holes[:200], labels[:200]), (holes[200:], labels[200:])],) if stream else (holes, labels)
        for family in ("logistic", "poisson"):
            with pytest.raises(BadData, match="row 237, column 'x1'"):
                newton(*given, family=family)
    with pytest.raises(BadData, match="negative"):
        newton(X, labels, sample_weight=np.full(300, -1.0))
    for solver in ("auto", "stream"):
        with pytest.raises(ValueError, match=r"[Nn]egative"):
            StreamingLogistic(solver=solver).fit(X, labels, sample_weight=np.full(300, -1.0))


def test_the_lasso_says_who_solved_it() -> None:
    X, y = table(200, 5)
    found, theirs = lasso(X, y, 0.3, solver="sklearn.linear_model"), Lasso(0.3).fit(X, y)
    assert np.array_equal(found.coef, theirs.coef_) and found.method == "scikit-learn, Lasso"
    assert apart(lasso(X, y, 0.3).coef, theirs.coef_) < 1e-2  # whoever was called
    for solver in ("celer", "skglm"):
        if importlib.util.find_spec(solver) is None:
            with pytest.raises(MissingExtra, match=r"hasten\[l1\]"):
                lasso(X, y, solver=solver)
        elif solver == "celer" or importlib.util.find_spec("numba"):
            found = lasso(X, y, 0.3, solver=solver)
            assert found.method.startswith(solver) and apart(found.coef, theirs.coef_) < 1e-2
    with pytest.raises(BadData, match="solver"):
        lasso(X, y, solver="magic")


def test_a_forecast_is_one_ridge_of_all_windows() -> None:
    t = np.arange(400)
    series = np.column_stack([np.sin(t / 5), np.cos(t / 7)]) + 0.05 * np.random.default_rng(0).standard_normal((400, 2))
    found = forecaster(series[:250], series[250:320], 3, lookbacks=(6, 12), alphas=[1e-3, 1.0], levels=("last", "none"))
    assert found.error(series[320 - found.lookback :]) < 0.02
    assert found.predict(series[:320]).shape == (3, 2) and found.predict(series[:320, 0]).shape == (3,)
    X = np.array([series[i : i + 12, c] for i in range(236) for c in range(2)])
    Y = np.array([series[i + 12 : i + 15, c] for i in range(236) for c in range(2)])
    one = forecaster(series[:250], series[250:320], 3, lookbacks=(12,), alphas=[1.0], levels=("none",))
    theirs = Ridge(1.0).fit(X, Y)
    assert apart(one.coef.T, theirs.coef_) < 1e-9 and apart(one.intercept, theirs.intercept_) < 1e-9
    errors = [np.mean((theirs.predict(X[:, :]) - Y) ** 2)]
    assert one.error(series[:250]) == pytest.approx(errors[0])
    with pytest.raises(BadData):
        forecaster(series[:10], series[250:], 3, lookbacks=(12,))


def test_lags_and_seasons() -> None:
    X, y = lagged(np.arange(10.0), [1, 3], horizon=2)
    assert X[0].tolist() == [2.0, 0.0] and y[0] == 4.0 and len(X) == 6
    assert seasons(np.arange(5), [24, 168], 2).shape == (5, 8)


def test_the_head_is_ridge_on_frozen_features() -> None:
    torch.manual_seed(0)
    X, y = table(400, 5)
    labels = np.digitize(y, [0, 5])
    net = nn.Sequential(nn.Linear(5, 40), nn.Tanh(), nn.Dropout(0.5), nn.Linear(40, 3)).train()
    before = [p.clone() for p in net[0].parameters()]
    loader = DataLoader(TensorDataset(torch.tensor(X).float(), torch.tensor(labels)), batch_size=64)
    found = head(net, loader)
    assert found.layer == "3" and found.features == 40 and found.rows == 400 and net.training
    assert all(torch.equal(a, b) for a, b in zip(before, net[0].parameters(), strict=True))
    net.eval()
    accuracy = (net(torch.tensor(X).float()).argmax(1).numpy() == labels).mean()
    assert accuracy >= found.score > 0.75
    again = head(net, loader, features=found.cached)
    assert again.score == found.score and again.alpha == found.alpha
    y = torch.tensor(y).float()[:, None]
    net[3] = nn.Linear(40, 1)
    assert head(net, DataLoader(TensorDataset(torch.tensor(X).float(), y), batch_size=64)).score > 0.75


@pytest.mark.parametrize("offset", [0.0, 1e5])
def test_classes_are_summed_as_columns_of_0_and_1_would_be(offset: float) -> None:
    X, y = table(2000, 5, offset=offset)
    labels = np.digitize(y, [-2, 0, 3, 7, 1e9])  # of the last class there are no rows
    found = heads._Cached(X, labels, 6).moments()
    mean, scatter = moments_of(np.column_stack([X, np.eye(6)[labels]]))
    assert apart(found.mean, mean) < 1e-15 and apart(found.scatter, scatter) < 1e-13
    assert (found.p, found.q, found.n, found.weight) == (5, 6, 2000, 2000)


def test_a_head_of_many_classes_takes_no_memory_for_rows_times_classes() -> None:
    random = np.random.default_rng(0)
    X, y = random.standard_normal((20_000, 4)).astype(np.float32), random.integers(0, 400, 20_000)
    net = nn.Linear(4, 400)
    tracemalloc.start()
    try:
        head(net, [(torch.tensor(X[:4]), torch.tensor(y[:4]))], features=(X, y), alphas=(1.0,))
        assert tracemalloc.get_traced_memory()[1] < 20_000 * 400 * 8  # once was six times that
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("layer", [None, "2"])
def test_a_generator_loses_no_batch_to_the_head(layer: str | None) -> None:
    torch.manual_seed(0)
    X = torch.randn(300, 3)
    labels = X[:, 0] > 0  # of the kind that comparisons give
    net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
    wanted = head(net, [(X, labels.long())], layer=layer)
    found = head(net, ((X[i : i + 50], labels[i : i + 50]) for i in range(0, 300, 50)), layer=layer)
    assert found.rows == 300 and found.score == wanted.score and found.alpha == wanted.alpha


def test_heads_that_cannot_be() -> None:
    with pytest.raises(BadData, match="a batch is a dict"):
        head(nn.Linear(2, 3), [{"x": torch.ones(8, 2)}])
    with pytest.raises(BadData, match="empty"):
        head(nn.Linear(2, 3), [])
    with pytest.raises(BadData, match="NaN"):
        head(nn.Linear(2, 3), [(torch.full((8, 2), torch.nan), torch.ones(8, dtype=torch.int64))])
    data = TensorDataset(torch.ones(8, 2), torch.full((8,), 5))
    with pytest.raises(BadData, match="labels"):
        head(nn.Linear(2, 3), DataLoader(data))
    with pytest.raises(BadData, match="no linear layer"):
        head(nn.ReLU(), DataLoader(data))
    with pytest.raises(BadData, match="'x' is no linear"):
        head(nn.Linear(2, 3), DataLoader(data), layer="x")


@pytest.mark.parametrize(
    ("condition", "name"), [(1.0, "Gram in float64"), (1e4, "Gram in float64, refined"), (1e11, "TSQR stream")]
)
def test_choose_says_what_lstsq_would_do(condition: float, name: str) -> None:
    X = conditioned(500, 6, condition)
    found = choose(X, X[:, 0])
    assert found.chosen.name == name and found.chosen.chosen
    assert all(c.reason and c.passes >= 1 and c.flops > 0 and c.seconds > 0 for c in found.candidates)
    assert name in str(found) and found.features == 6


def test_the_ladder_stops_where_nothing_is_gained() -> None:
    X, y = table(400, 4)
    found = ladder(X, y, budget=120, climb_all=False)
    assert found.best == "linear" and found.metric == "R²"
    statuses = {r.name: r.status for r in found.rungs}
    assert statuses["constant"] == statuses["linear"] == "kept"
    assert found.model.predict(X[:3]).shape == (3,)
    assert all(np.isfinite(r.predicted) for r in found.rungs if np.isfinite(r.score))
    assert "linear is the highest rung that pays" in str(found)


@pytest.mark.parametrize("labels", [("no", "yes"), (10, 20), (False, True)])
def test_the_ladders_model_knows_the_labels(labels: tuple[Any, Any]) -> None:
    X, _ = table(120, 2)
    y = np.array(labels)[(X[:, 0] > 0).astype(int)]
    found = ladder(X, y, budget=120)
    assert found.metric == "accuracy" and found.model is not None
    model = pickle.loads(pickle.dumps(found.model))
    assert model.predict(X).dtype.kind == y.dtype.kind and (model.predict(X) == y).mean() > 0.9
    assert model.classes_.tolist() == list(labels) and model.predict_proba(X).shape == (120, 2)
    assert model.score(X, y) > 0.9


class Plain:
    """A network that only fits and predicts."""

    def fit(self, X: Any, y: Any) -> Any:
        self.model = LinearRegression().fit(X, y)
        return self

    def predict(self, X: Any) -> Any:
        return self.model.predict(X)


class Sleeper:
    """A network that never ends, and hears no signal."""

    def fit(self, X: Any, y: Any) -> Any:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while True:
            time.sleep(0.01)


def test_the_budget_holds_against_a_model_that_never_ends() -> None:
    X, y = table(60, 2)
    for budget in (6.0, 100.0):  # on a machine that others use rungs may take longer to begin than the first one
        found = ladder(X, y, budget=budget, network=Sleeper(), climb_all=True)
        assert found.rungs[-1].status == "out of time"
        assert budget <= found.seconds < budget + 3
        if found.best == "linear" and found.rungs[-1].seconds > 0:
            break
    assert found.best == "linear" and found.model.predict(X[:3]).shape == (3,)
    spent = ladder(X, y, budget=0.0)
    assert {r.status for r in spent.rungs} == {"out of time"} and spent.model is None and not spent.best


class Stubborn(Sleeper):
    """Cannot be pickled, and goes on after any error."""

    def __init__(self) -> None:
        self.hook = lambda: None

    def fit(self, X: Any, y: Any) -> Any:
        while True:
            try:
                time.sleep(0.01)
            except Exception:
                continue


def test_the_budget_holds_against_a_model_that_catches_errors() -> None:
    X, y = table(60, 2)
    found = ladder(X, y, budget=5.0, network=Stubborn(), climb_all=True)
    assert found.rungs[-1].status == "out of time" and found.seconds < 6.0


class Slow(Plain):
    """Right, after a time that grows with the rows."""

    def fit(self, X: Any, y: Any) -> Any:
        time.sleep(len(X) / 400)
        return super().fit(X, y)

    def predict(self, X: Any) -> Any:
        return np.sign(X[:, 0] * X[:, 1])


def test_time_is_kept_for_the_last_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folds that ended at the budget left none for the model, and the ladder came back without any."""
    folds = [(np.delete(np.arange(100), part), part) for part in np.split(np.arange(100), 5)]
    X, y = table(100, 2)
    slept: list[float] = []
    clock = SimpleNamespace(sleep=slept.append, monotonic=lambda: sum(slept))
    monkeypatch.setattr(f"{__name__}.time", clock)
    monkeypatch.setattr(rung_process, "time", clock)
    for budget, skipped in ((1.4, True), (1.6, False)):  # 0.25 s to predict, 1 s of folds, 0.25 s for the model
        found = rung_process.score_folds(Slow(), X, y, folds, clock.monotonic() + budget)
        assert found.get("skipped", False) == skipped and found["predicted"] == pytest.approx(1.0)


class Grows(Slow):
    """Has no memory for all rows."""

    def fit(self, X: Any, y: Any) -> Any:
        if len(X) == 60:
            raise MemoryError("too many rows")
        return Plain.fit(self, X, y)


def test_a_rung_whose_last_fit_fails_leaves_the_model_of_the_one_below() -> None:
    X, _ = table(60, 2)
    y = np.sign(X[:, 0] * X[:, 1]) + 0.1 * X[:, 0]
    found = ladder(X, y, budget=120, network=Grows(), climb_all=True)
    assert found.rungs[-1].status == "failed: MemoryError: too many rows" and found.rungs[-1].gain > 0
    assert found.best in {r.name for r in found.rungs if r.status == "kept"}
    assert found.model is not None and not isinstance(found.model, Grows)


@pytest.mark.parametrize("options", [{"budget": -1}, {"budget": float("nan")}, {"cv": 1}])
def test_a_ladder_without_time_or_folds_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(BadData, match="budget="):
        ladder(*table(60, 2), **options)


def test_targets_that_do_not_vary_are_scored_as_scikit_learn_does() -> None:
    """But for rounding: a mean of 0.1s is not 0.1, and a linear model seemed to gain by that."""
    y = np.full(600, 0.1)
    assert rung_process.r2(y, np.full(600, y.mean())) == 1.0 == rung_process.r2(y, y + 1e-17)
    assert rung_process.r2(y, y + 1e-3) == 0.0
    X, y = table(100, 2)
    assert rung_process.r2(y, 0.9 * y) == pytest.approx(r2_score(y, 0.9 * y), rel=1e-12)
    found = ladder(X, np.full(100, 0.1), budget=120)
    assert found.best == "constant" and found.rungs[1].status == "no gain"


def test_the_ladder_refuses_holes() -> None:
    with pytest.raises(BadData, match="NaN"):
        ladder(np.full((50, 2), np.nan), np.ones(50))
    with pytest.raises(BadData):
        ladder(np.ones((50, 2)), np.ones(40))


def test_counts_of_any_size_take_few_passes() -> None:
    X, _ = table(300, 2)
    for size in (1.0, 1e6, 1e12):
        y = np.round(size * np.exp(0.3 * X[:, 0]))
        found = newton(X, y, family="poisson", alpha=0.0)
        error = X.T @ (np.exp(X @ found.coef + found.intercept) - y)
        assert found.converged and found.passes < 12
        assert np.abs(error).max() < 1e-6 * np.abs(X.T @ y).max()


@pytest.mark.parametrize(
    "call",
    [
        lambda y: forecaster(y, y, 2, lookbacks=[]),
        lambda y: forecaster(y, np.column_stack([y, y]), 2, lookbacks=[5]),
        lambda y: lagged(y, []),
        lambda y: seasons(y, []),
        lambda y: seasons(y, [0.0]),
        lambda y: lasso(y[:, None], np.column_stack([y, y])),
    ],
)
def test_nothing_to_choose_from_or_other_shapes(call: Callable[[Any], Any]) -> None:
    with pytest.raises(BadData):
        call(np.arange(50.0))


def test_newton_needs_rows_that_weigh() -> None:
    X, y = table(50, 2)
    with pytest.raises(BadData, match="all weights are 0"):
        newton(X, (y > 3).astype(float), sample_weight=np.zeros(50))


def test_the_head_of_one_output_is_a_logit() -> None:
    X, y = table(200, 4)
    model = nn.Linear(4, 1)
    rows = TensorDataset(torch.from_numpy(X).float(), torch.from_numpy(y > 3))
    found = head(model, DataLoader(rows, batch_size=50))
    with torch.no_grad():
        right = ((model(rows.tensors[0])[:, 0] > 0) == rows.tensors[1]).float().mean()
    assert found.score > 0.8 and right > 0.8 and 0 < found.loss < 0.5


def test_a_weight_that_is_computed_is_not_written() -> None:
    X, y = table(60, 4)
    rows = TensorDataset(torch.from_numpy(X).float(), torch.from_numpy((y > 3).astype(int)))
    model = nn.Sequential(torch.nn.utils.parametrizations.weight_norm(nn.Linear(4, 2)))
    with pytest.raises(BadData, match="remove_parametrizations"):
        head(model, DataLoader(rows, batch_size=20))


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_choose_knows_of_more_columns_than_rows(alpha: float) -> None:
    X = np.random.default_rng(0).standard_normal((20, 30))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DependentColumns)
        assert choose(X, X[:, 0], alpha=alpha).chosen.name == lstsq(X, X[:, 0], alpha=alpha).method_


class Rounded(Plain):
    def predict(self, X: Any) -> Any:
        return np.round(super().predict(X)).clip(0, 1)[:, None]

    def score(self, X: Any, y: Any) -> float:
        return 0.0


class Dies(Plain):
    def fit(self, X: Any, y: Any) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)


def test_the_ladder_ends_where_it_stops() -> None:
    """The rung after one that was not reached was tried again."""
    X, y = table(200, 3)
    found = ladder(X, y, budget=120, network=Plain())
    assert [r.status for r in found.rungs[-3:]] == ["no gain", "not reached", "not reached"]


def test_rungs_are_scored_by_the_task() -> None:
    X, y = table(200, 3)
    for target, network in ((np.round(10 * y).astype(int), Plain()), ((y > 3).astype(int), Rounded())):
        folds = [(np.arange(100), np.arange(100, 200)), (np.arange(100, 200), np.arange(100))]
        _, y_, task, _, _ = rungs._prepared(X, target, "auto", 2, 0)
        scores = rung_process.score_folds(network, X, y_, folds, np.inf)["scores"]
        assert task == ("classification" if isinstance(network, Rounded) else "regression") and min(scores) > 0.7


def test_rows_sorted_by_class_are_climbed() -> None:
    """The first tenth of the rows, by which the time is predicted, held one class."""
    X, y = table(600, 3)
    order = np.argsort(y)
    found = ladder(X[order], y[order] > 3, budget=120)
    assert not any("failed" in r.status for r in found.rungs) and found.best != "constant"
    labels = np.repeat([0, 1, 2], [500, 5, 1])
    first = rung_process.shuffled(np.arange(506), labels)
    assert sorted(first) == list(range(506)) and set(labels[first[:7]]) == {0, 1, 2}


def test_a_network_that_dies_costs_its_rung_only() -> None:
    X, y = table(200, 2)
    found = ladder(X, y, budget=120, network=Dies(), climb_all=True)
    assert "its process has ended" in found.rungs[-1].status and found.model is not None


def test_passes_of_a_loop_are_not_capped() -> None:
    loop = choose(conditioned(500, 6, 1e6), np.arange(500.0)).candidates[-1]
    assert 5e12 < loop.passes < 5e13 and f"{loop.passes:.1e}" in loop.reason


def test_cost_of_rows_that_cannot_be_counted_is_not_that_of_the_first_ones() -> None:
    X = np.random.default_rng(0).standard_normal((6000, 260))
    found, known = choose([(X, X[:, :1])]), choose(X, X[:, :1])
    assert known.chosen.name == lstsq(X, X[:, :1]).method_ == "Gram in float32, refined"
    assert found.chosen.name == lstsq([(X, X[:, :1])]).method_ == "Gram in float64"
    assert "unknown number of rows (figures are for 1e+06)" in str(found) and found.chosen.flops > 1e6 * 260**2
    with pytest.raises(BadData, match="alpha is -1"):
        choose(X, X[:, 0], alpha=-1.0)


def test_a_ladder_without_a_rung_says_so() -> None:
    assert "no rung could be fitted in this time" in str(ladder(*table(100, 2), budget=0.0))


@pytest.mark.parametrize(("family", "y"), [("logistic", 0.0), ("logistic", 1.0), ("poisson", 0.0)])
def test_targets_that_are_all_alike_have_no_best_intercept(family: str, y: float) -> None:
    """It was 37 for ones, and called converged."""
    X = table(50, 2)[0]
    weights = np.where(np.arange(50) < 49, 0.3, 0.0)
    given = np.where(np.arange(50) < 49, y, 1 - y)  # a row of weight 0 does not count
    with pytest.raises(BadData, match=f"all targets are {y:.0f}, and the best intercept is infinite"):
        newton(X, given, family=family, sample_weight=weights)
    found = newton(X, np.full(50, y), family=family, fit_intercept=False)
    assert found.converged and found.intercept == 0
