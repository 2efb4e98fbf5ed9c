"""The estimators keep scikit-learn's contract, in full, and live in its pipelines."""

from __future__ import annotations

import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import narwhals
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_selection import RFECV
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, RidgeCV
from sklearn.model_selection import GridSearchCV, KFold, LeaveOneOut, ShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch.utils.data import DataLoader, TensorDataset

from hasten.solve import (
    BadData,
    ExactRFECV,
    GroupRidge,
    Hinges,
    Moments,
    Prototypes,
    RandomFeatures,
    SlidingRidge,
    StreamingLogistic,
    StreamingPCA,
    StreamingRidge,
    expanded,
)
from tests.solve.data import apart, table

ALL = [
    StreamingRidge(),
    StreamingRidge(alphas=0.0),
    StreamingRidge(cv=3),
    StreamingRidge(scale=True),
    StreamingPCA(),
    ExactRFECV(),
    StreamingLogistic(),
    StreamingLogistic(solver="stream"),
    SlidingRidge(),
    GroupRidge(),
    GroupRidge(toward=3.0),
    Prototypes(),
    Hinges(),
    RandomFeatures(20, random_state=0),
]


@parametrize_with_checks(ALL)
def test_the_contract_of_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)


def test_ridge_chooses_as_ridgecv_and_by_any_splitter() -> None:
    X, y = table(200, 5)
    alphas = np.logspace(-2, 4, 7)
    assert StreamingRidge(alphas).fit(X, y).alpha_ == RidgeCV(alphas).fit(X, y).alpha_
    splitter = KFold(4, shuffle=True, random_state=1)
    grid = GridSearchCV(Ridge(), {"alpha": alphas}, cv=splitter, scoring="neg_mean_squared_error").fit(X, y)
    ours = StreamingRidge(alphas, cv=splitter).fit(X, y)
    assert ours.alpha_ == grid.best_params_["alpha"]
    assert apart(ours.coef_, grid.best_estimator_.coef_) < 1e-10
    with pytest.raises(BadData, match="more than once"):
        StreamingRidge(alphas, cv=ShuffleSplit(9, random_state=0)).fit(X, y)


def test_ridge_adds_and_forgets() -> None:
    X, y = table(200, 4)
    ours = StreamingRidge(2.0)
    for part in np.array_split(np.arange(200), 5):
        ours.partial_fit(X[part], y[part])
    assert apart(ours.coef_, Ridge(2.0).fit(X, y).coef_) < 1e-11
    ours.forget(X[:50], y[:50])
    assert apart(ours.coef_, Ridge(2.0).fit(X[50:], y[50:]).coef_) < 1e-10


def test_streams_tables_tensors_and_names() -> None:
    X, y = table(300, 3)
    wanted = Ridge(1.0).fit(X, y).coef_
    batches = [(X[i : i + 64], y[i : i + 64]) for i in range(0, 300, 64)]
    assert apart(StreamingRidge(1.0).fit(iter(batches)).coef_, wanted) < 1e-11
    assert apart(StreamingRidge(1.0).fit(torch.from_numpy(X), torch.from_numpy(y)).coef_, wanted) < 1e-11
    frame = pd.DataFrame(X, columns=list("abc"))
    model = make_pipeline(StreamingPCA(2), StreamingRidge()).set_output(transform="pandas").fit(frame, y)
    assert model[:-1].get_feature_names_out().tolist() == ["streamingpca0", "streamingpca1"]
    fitted = StreamingRidge().fit(frame, y)
    assert fitted.feature_names_in_.tolist() == list("abc")
    assert clone(fitted).get_params() == fitted.get_params()
    grid = GridSearchCV(make_pipeline(Hinges(), StreamingRidge()), {"hinges__knots": [2, 4]}, cv=3).fit(X, y)
    assert grid.best_score_ > 0.5


def test_rfecv_has_the_ranking_of_scikit_learn() -> None:
    X, y = table(200, 8)
    y = X[:, :3].sum(axis=1) + 0.5 * np.random.default_rng(0).standard_normal(200)
    ours, theirs = ExactRFECV(cv=5).fit(X, y), RFECV(LinearRegression(), cv=5).fit(X, y)
    assert ours.n_features_ == theirs.n_features_ and (ours.ranking_ == theirs.ranking_).all()
    assert (ours.support_ == theirs.support_).all()
    assert apart(ours.predict(X), theirs.predict(X)) < 1e-10


def test_logistic_says_who_was_called_and_both_agree() -> None:
    X, y = table(300, 3)
    labels = np.where(y > 3, "yes", "no")
    memory, stream = StreamingLogistic().fit(X, labels), StreamingLogistic(solver="stream").fit(X, labels)
    assert "scikit-learn" in memory.method_ and "hasten" in stream.method_
    theirs = LogisticRegression(tol=1e-12, max_iter=1000).fit(X, labels)
    assert apart(stream.coef_, theirs.coef_) < 1e-3
    assert (stream.predict(X) == memory.predict(X)).mean() > 0.99
    three = StreamingLogistic().fit(X, np.digitize(y, [1, 5]))
    assert three.predict_proba(X).shape == (300, 3)
    with pytest.raises(BadData, match="binary"):
        StreamingLogistic(solver="stream").fit(X, np.digitize(y, [1, 5]))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("features", [3, 60])  # Newton's method, and L-BFGS
def test_an_offset_of_columns_costs_logistic_regression_in_memory_no_digits(dtype: Any, features: int) -> None:
    """Times in seconds left scikit-learn's solver with a singular matrix, and nearly random answers."""
    X, y = table(300, features)
    X, labels = np.round(10 * X), y > 3  # so that both hold the same numbers beside their offset
    far = (X + 2**20).astype(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = StreamingLogistic(alpha=100.0, solver="sklearn").fit(far, labels)
    near = LogisticRegression(C=0.01, tol=1e-10, max_iter=10_000).fit(X, labels)
    assert apart(found.coef_, near.coef_) < 5e-3
    assert apart(found.predict_proba(far), near.predict_proba(X)) < 5e-3


def test_a_window_is_a_whole_number_of_rows() -> None:
    X, y = table(30, 3)
    for size in (2.5, 0, "10"):
        with pytest.raises(BadData, match="size="):
            SlidingRidge(size).fit(X, y)  # type: ignore[arg-type]


def test_sliding_ridge_follows_its_window() -> None:
    X, y = table(400, 3, offset=1000.0)
    model = SlidingRidge(50, alpha=0.1).fit(X[:100], y[:100])
    for i in range(100, 400):
        model.partial_fit(X[i : i + 1], y[i : i + 1])
    theirs = Ridge(0.1).fit(X[350:], y[350:])
    assert apart(model.coef_, theirs.coef_) < 1e-3 and apart(model.predict(X), theirs.predict(X)) < 1e-3


@pytest.mark.parametrize("alpha", [1.0, 100.0])
def test_a_sliding_level_is_scikit_learns_to_the_digits(alpha: float) -> None:
    """The column of ones was penalised, so that the level lagged behind."""
    X, noise = table(1500, 2, offset=5.0)
    X = X + np.arange(1500)[:, None] * [0.0, 1e3]
    y = noise + np.arange(1500.0)
    model = SlidingRidge(30, alpha=alpha).fit(X[:10], y[:10])
    for i in range(10, 1500):
        model.partial_fit(X[i : i + 1], y[i : i + 1])
        if i in (15, 50, 1499):
            part = slice(max(0, i - 29), i + 1)
            theirs = Ridge(alpha).fit(X[part], y[part])
            assert apart(model.coef_, theirs.coef_) < 1e-8
            assert apart(model.predict(X[part]), theirs.predict(X[part])) < 1e-10


def test_windows_and_groups_take_loaders() -> None:
    X, y = table(300, 3)
    loader = DataLoader(TensorDataset(torch.from_numpy(X), torch.from_numpy(y)), batch_size=32)
    assert apart(SlidingRidge(100).fit(loader).coef_, Ridge(1.0).fit(X[200:], y[200:]).coef_) < 1e-9
    assert apart(GroupRidge(1.0).fit(loader).coef_, Ridge(1.0).fit(X, y).coef_) < 1e-9
    with pytest.raises(BadData, match="no target"):
        SlidingRidge().fit(DataLoader(torch.from_numpy(X), batch_size=32))


def test_groups_predict_by_their_own_model_and_strangers_by_the_common_one() -> None:
    X, y = table(200, 3)
    labels = np.where(np.arange(200) % 2 == 0, "a", "b")
    model = GroupRidge(1.0).fit(X, y, groups=labels)
    wanted = Ridge(1.0).fit(X[labels == "a"], y[labels == "a"]).predict(X)
    assert apart(model.predict(X, groups=np.full(200, "a")), wanted) < 1e-10
    assert apart(model.predict(X, groups=np.full(200, "?")), Ridge(1.0).fit(X, y).predict(X)) < 1e-10


def test_prototypes_learn_a_class_from_five_examples() -> None:
    random = np.random.default_rng(0)
    centres = random.standard_normal((4, 32)) * 2
    draw = lambda k, n: centres[k] + random.standard_normal((n, 32))  # noqa: E731
    X, y = np.vstack([draw(k, 5) for k in range(3)]), np.repeat([0, 1, 2], 5)
    model = Prototypes().fit(X, y)
    model.partial_fit(draw(3, 5), np.full(5, 3))
    assert model.classes_.tolist() == [0, 1, 2, 3]
    tests, labels = np.vstack([draw(k, 50) for k in range(4)]), np.repeat([0, 1, 2, 3], 50)
    assert model.score(tests, labels) > 0.95
    assert Prototypes(normalise=True).fit(X, y).score(tests[:150], labels[:150]) > 0.9


def test_expansions_of_rows_on_disk_are_those_in_memory(tmp_path: Path) -> None:
    X = np.random.default_rng(0).standard_normal((40_000, 4))
    y = X[:, 0] * X[:, 1] + np.maximum(X[:, 2], 0)
    np.save(tmp_path / "rows.npy", np.column_stack([X, y]))
    for transformer in (PolynomialFeatures(2, include_bias=False), Hinges(4)):
        rows = expanded(tmp_path / "rows.npy", transformer)
        model = StreamingRidge(1e-3).fit(rows)
        theirs = Ridge(1e-3).fit(transformer.transform(X), y)
        assert np.abs(model.coef_ - theirs.coef_).max() < 1e-9
        assert model.moments_.n == 40_000
    assert "x0 x1" in Moments().update(expanded(X, PolynomialFeatures(2), y)).names
    with pytest.raises(BadData, match="once"):
        expanded(((X, y) for _ in range(1)), Hinges())


def test_rows_that_are_added_later_keep_the_choice_of_alpha() -> None:
    """The first alpha of the list was taken."""
    X, y = table(120, 20)
    y = y + 60 * np.random.default_rng(1).standard_normal(120)
    alphas = [1e-3, 1.0, 1e3]
    left_out = StreamingRidge(alphas).fit(X, y)
    chosen = left_out.alpha_
    assert chosen == 1e3 and left_out.partial_fit(X[:5], y[:5]).alpha_ == chosen
    split = StreamingRidge(alphas, cv=KFold(4, shuffle=True, random_state=0)).fit(X, y).partial_fit(X[:40], y[:40])
    assert split.path_.mse.shape[0] == 4 and split.moments_.parts.rows.tolist() == [40] * 4


def test_a_stream_is_added_as_it_comes() -> None:
    X, y = table(300, 3)
    batches = [(X[i : i + 64], y[i : i + 64]) for i in range(0, 300, 64)]
    found = StreamingRidge([0.1, 1.0]).partial_fit(iter(batches), None)
    assert apart(found.coef_, Ridge(found.alpha_).fit(X, y).coef_) < 1e-11 and found.path_.mse.shape[0] == 5


def test_small_weights_are_those_of_rows() -> None:
    X, y = table(200, 4)
    weight = np.full(200, 1 / 200)
    plain, weighted = StreamingPCA().fit(X), StreamingPCA().fit(X, sample_weight=weight)
    assert apart(weighted.explained_variance_, plain.explained_variance_) < 1e-12
    labels = y > 3
    assert Prototypes().fit(X, labels, weight).shrinkage_ == pytest.approx(Prototypes().fit(X, labels).shrinkage_)
    scaled = StreamingRidge(1.0, scale=True)
    wanted = scaled.fit(X, y, np.ones(200)).coef_
    assert apart(StreamingRidge(1 / 200, scale=True).fit(X, y, weight).coef_, wanted) < 1e-10


def test_labels_of_several_kinds_find_their_model() -> None:
    X, y = table(200, 3)
    labels = np.fromiter([1, "a"] * 100, object, 200)
    y = np.where(np.arange(200) % 2 == 0, y, -y)
    model = GroupRidge(1.0).fit(X, y, groups=labels)
    assert apart(model.predict(X, groups=labels)[1::2], Ridge(1.0).fit(X[1::2], y[1::2]).predict(X[1::2])) < 1e-10


def test_logistic_says_where_there_is_no_optimum() -> None:
    X, _ = table(100, 2)
    with pytest.warns(ConvergenceWarning, match="separable"):
        StreamingLogistic(0.0, solver="stream").fit(X, X[:, 0] > 0)
    for solver in ("auto", "stream"):
        with pytest.raises(BadData, match="alpha is"):
            StreamingLogistic(-1.0, solver=solver).fit(X, X[:, 0] > 0)


def test_a_class_without_weight_is_never_the_answer() -> None:
    X, y = table(300, 3)
    labels = np.digitize(y, [1, 5])
    model = Prototypes().fit(X, labels, (labels != 1).astype(float))
    assert set(model.predict(X)) == {0, 2}


@pytest.mark.parametrize("model", [StreamingRidge(), GroupRidge(), ExactRFECV(), StreamingPCA()])
def test_a_missing_value_is_told_by_the_name_of_its_column(model: Any) -> None:
    X, y = table(100, 4)
    frame = pd.DataFrame(X, columns=list("abcd"))
    assert model.fit(frame, y).moments_.names == list("abcd")
    frame.iloc[7, 3] = np.nan
    with pytest.raises(BadData, match="NaN: row 7, column 'd'"):
        model.fit(frame, y)


def test_a_splitter_with_gaps_is_refused() -> None:
    """Its gaps were trained on."""
    X, y = table(90, 3)
    gaps = [
        (np.arange(90)[np.abs(np.arange(90) - (k * 30 + 15)) > 20], np.arange(k * 30, k * 30 + 30)) for k in range(3)
    ]
    for model in (StreamingRidge(cv=gaps), ExactRFECV(cv=gaps)):
        with pytest.raises(BadData, match="out of both parts"):
            model.fit(X, y)


def test_folds_of_one_row_have_no_scores_to_eliminate_by() -> None:
    X, y = table(40, 3)
    with pytest.raises(BadData, match="a fold holds one row"):
        ExactRFECV(cv=LeaveOneOut()).fit(X, y)
    few = ExactRFECV(cv=5).fit(X[:7], y[:7])
    assert "split2_test_score" in few.cv_results_ and "split3_test_score" not in few.cv_results_


def test_whole_numbers_of_numpy_are_folds() -> None:
    X, y = table(90, 3)
    model = StreamingRidge((0.1, 1.0), cv=np.int64(3)).partial_fit(X, y)
    assert model.path_ is not None and len(model.path_.mse) == 3


def test_a_selection_takes_tensors() -> None:
    X, y = table(90, 3)
    model = ExactRFECV(cv=3).fit(X, y)
    rows = torch.tensor(X, dtype=torch.float64, requires_grad=True)
    assert np.array_equal(model.transform(rows), model.transform(X))
    assert list(model.set_output(transform="pandas").transform(rows).columns) == list(model.get_feature_names_out())


def test_groups_predict_without_a_model_for_each_row() -> None:
    """Coefficients were copied for each row."""
    X, y = table(20_000, 40)
    groups = np.arange(20_000) % 7
    model = GroupRidge().fit(X, np.column_stack([y, -y, y]), groups=groups)
    tracemalloc.start()
    found = model.predict(X, np.where(groups == 3, 99, groups))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * X.nbytes
    for i in (0, 3, 11):
        at = np.where(groups == 3, -1, groups)[i]
        coef, constant = (
            (model.coef_, model.intercept_) if at < 0 else (model.group_coef_[at], model.group_intercept_[at])
        )
        assert apart(found[i], coef @ X[i] + constant) < 1e-12


def test_groups_are_never_taken_for_weights() -> None:
    X, y = table(60, 3)
    weight = np.arange(60) % 3 + 0.5
    with pytest.raises(TypeError, match="positional"):
        GroupRidge().fit(X, y, weight)  # type: ignore[misc]
    found = GroupRidge().fit(X, y, sample_weight=weight)
    assert apart(found.coef_, Ridge().fit(X, y, weight).coef_) < 1e-10


@pytest.mark.parametrize("kind", ["pandas", "polars", "arrow", "batch", "narwhals"])
@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_times_in_tables_are_seconds_as_everywhere(kind: str, zone: str | None) -> None:
    x, y = table(80, 1)
    when = pd.date_range("2024-03-30", periods=80, freq="53min", tz=zone)
    frame: Any = pd.DataFrame({"x": x[:, 0], "when": when, "since": when - when[0]}, index=np.arange(80)[::-1])
    seconds = (when - pd.Timestamp("1970-01-01", tz=zone and "UTC")).total_seconds()
    numbers = np.column_stack([x, seconds, seconds - seconds[0]])
    given = {
        "pandas": lambda: frame,
        "polars": lambda: pl.from_pandas(frame),
        "arrow": lambda: pa.Table.from_pandas(frame, preserve_index=False),
        "batch": lambda: pa.RecordBatch.from_pandas(frame, preserve_index=False),
        "narwhals": lambda: narwhals.from_native(frame),
    }[kind]()
    for model in (StreamingRidge(1.0, scale=True), GroupRidge(), Prototypes(0.5)):
        target = y > 3 if isinstance(model, Prototypes) else y
        found = clone(model).fit(given, target)
        wanted = clone(model).fit(numbers, target)
        assert apart(found.coef_, wanted.coef_) < 1e-6
        assert apart(found.predict(given), found.predict(pd.DataFrame(numbers, columns=["x", "when", "since"]))) < 1e-9
    assert frame["when"].dtype.kind == "M", "the table given is as it was"
    stamps = when.tz_localize(None).to_numpy()[:, None]
    assert apart(StreamingRidge(1.0).fit(stamps, y).moments_.mean[0], Moments(stamps, y).mean[0]) < 1e-12


@pytest.mark.parametrize("model", [StreamingRidge(), SlidingRidge(20), StreamingLogistic(), Prototypes()])
def test_a_column_of_texts_is_named(model: Any) -> None:
    x, y = table(40, 2)
    frame = pd.DataFrame(x, columns=["a", "b"]).assign(town=["here", "there"] * 20)
    with pytest.raises(BadData, match=r"column 'town' holds no numbers.*\n.*\n.*OneHotEncoder"):
        model.fit(frame, y > 3)
    model.fit(frame[["a", "b"]], y > 3)
    with pytest.raises(ValueError, match="column 'b' holds no numbers"):
        model.predict(frame[["a"]].assign(b="?"))


@pytest.mark.parametrize("model", [StreamingRidge(), GroupRidge(), ExactRFECV(), StreamingPCA(), SlidingRidge(20)])
def test_texts_in_a_file_are_refused_by_what_could_not_predict_from_them(model: Any, tmp_path: Path) -> None:
    x, y = table(40, 2)
    pd.DataFrame(x, columns=["a", "b"]).assign(town=["here", "there"] * 20).to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(BadData, match="'town' holds texts"):
        model.fit(tmp_path / "rows.parquet", y)


@pytest.mark.parametrize("kind", [lambda y: y, pl.from_pandas, pa.Table.from_pandas])
def test_targets_in_a_table_keep_their_names(kind: Any) -> None:
    x, y = table(60, 2)
    both = pd.DataFrame({"price": y, "rent": -y})
    assert Moments(x, kind(both)).targets == ["price", "rent"]
    assert Moments([(x, kind(both))] * 2).targets == ["price", "rent"]
    m = StreamingRidge(1.0).fit(x, kind(both)).partial_fit(x, both.to_numpy()).moments_
    assert m.targets == ["price", "rent"] and m.n == 120
    nameless = Moments(x, both.to_numpy())
    assert nameless.targets == ["y0", "y1"]
    assert (nameless + m).targets == (m + nameless).targets == ["price", "rent"]
    with pytest.raises(BadData, match="earlier ones had"):
        m.update(x, kind(both[["rent", "price"]]))
    with pytest.raises(BadData, match="row 3, column 'rent'"):
        Moments(x, kind(both.assign(rent=both.rent.where(both.index != 3))))


KINDS = [lambda frame: frame, pl.from_pandas, pa.Table.from_pandas]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", [StreamingRidge(), SlidingRidge(20), GroupRidge(), ExactRFECV(cv=KFold(4))])
def test_a_target_is_named_in_a_table_as_in_a_file(kind: Any, model: Any, tmp_path: Path) -> None:
    """It was a TypeError of scikit-learn's; and folds of a splitter counted the letters of its name."""
    x, y = table(60, 3)
    frame = pd.DataFrame(x, columns=["a", "b", "c"]).assign(price=y)
    wanted = clone(model).fit(frame.drop(columns="price"), frame["price"])
    found = clone(model).fit(kind(frame), "price")
    assert apart(found.coef_, wanted.coef_) < 1e-12 and list(found.feature_names_in_) == ["a", "b", "c"]
    frame.to_parquet(tmp_path / "rows.parquet")
    assert apart(clone(model).fit(tmp_path / "rows.parquet", "price").coef_, wanted.coef_) < 1e-12
    with pytest.raises(BadData, match=r"no column 'prise'.*\n.*\n.*'price'"):
        model.fit(kind(frame), "prise")
    with pytest.raises(BadData, match="the target 'price' holds texts"):
        model.fit(kind(frame.assign(price="dear")), "price")
    with pytest.raises(BadData, match="ndarray has no columns named"):
        model.fit(x, "price")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", [StreamingLogistic(), Prototypes()])
def test_classes_are_named_in_a_table(kind: Any, model: Any) -> None:
    x, y = table(60, 2)
    frame = pd.DataFrame(x, columns=["a", "b"])
    for labels in (np.where(y > 0, "dear", "cheap"), (y > 0) * 1):
        wanted = clone(model).fit(frame, labels)
        found = clone(model).fit(kind(frame.assign(label=labels)), "label")
        assert (found.classes_ == wanted.classes_).all() and (found.coef_ == wanted.coef_).all()
        assert list(found.feature_names_in_) == ["a", "b"]
    with pytest.raises(BadData, match="no column 'lable'"):
        model.fit(kind(frame.assign(label=labels)), "lable")
    with pytest.raises(BadData, match="ndarray has no columns named"):
        model.fit(x, "label")


@pytest.mark.parametrize("model", [SlidingRidge(20), StreamingRidge(1.0)])
def test_later_rows_of_a_file_with_columns_in_another_order_are_refused(model: Any, tmp_path: Path) -> None:
    """A window took them for the earlier ones, by their place."""
    x, y = table(60, 2)
    frame = pd.DataFrame(x, columns=["a", "b"]).assign(price=y)
    frame[["b", "a", "price"]].to_parquet(tmp_path / "other.parquet")
    model.fit(frame, "price")
    before = model.coef_.copy()
    with pytest.raises(BadData, match=r"columns \[b, a\].*earlier ones had \[a, b\]"):
        model.partial_fit(tmp_path / "other.parquet", "price")
    assert (model.coef_ == before).all()
