"""Principal components of data that are hard for a Gram matrix: against moments in extended precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.linalg import subspace_angles

from hasten.solve import BadData, Moments, StreamingPCA, components
from hasten.solve.spread import FEW
from tests.solve.data import apart, moments_of

EPS = float(np.finfo(float).eps)


def hard(kind: str, dtype: Any) -> Any:
    """(2000, 48) rows."""
    random = np.random.default_rng(3)
    X = random.standard_normal((2000, 48))
    if kind == "scales":
        X *= 10.0 ** random.uniform(-6, 6, 48)
    elif kind == "offset":
        X += 1e4
    elif kind == "rank":
        X = X[:, :5] @ random.standard_normal((5, 48))
    elif kind == "tail":
        X *= np.geomspace(1, 1e-7, 48)
    elif kind == "constant":
        X[:, 7:] = 3.0
    return X.astype(dtype)


KINDS = ["plain", "scales", "offset", "rank", "tail", "constant"]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_variances_are_exact_to_rounding_of_the_largest_few_or_all(kind: str, dtype: Any) -> None:
    X = hard(kind, dtype)
    mean, scatter = moments_of(X)
    wanted = np.linalg.eigvalsh((scatter / (len(X) - 1)).astype(float))[::-1]
    for k in (1, 48 // FEW, 20, 48):  # by inverse iteration up to 48 // FEW, by the whole decomposition beyond
        pca = StreamingPCA(k).fit(X)
        assert np.abs(pca.explained_variance_ - wanted[:k]).max() <= 48 * EPS * wanted[0]
        assert np.abs(pca.components_ @ pca.components_.T - np.eye(k)).max() < 1e-13
        assert apart(pca.mean_, mean) < 1e-12
        assert abs(pca.explained_variance_ratio_.sum() + (48 - k) * pca.noise_variance_ / wanted.sum() - 1) < 1e-12
        left = pca.components_ @ (scatter / (len(X) - 1)).astype(float) - pca.explained_variance_[:, None] * (
            pca.components_
        )
        assert np.abs(left).max() <= 48 * EPS * wanted[0]


@pytest.mark.parametrize("kind", KINDS)
def test_few_components_span_what_the_first_of_all_do(kind: str) -> None:
    X = hard(kind, float)
    few, every = components(Moments(X), 5), components(Moments(X), 48)
    gap = (every.variance[4] - every.variance[5]) / every.variance[0]
    assert np.sin(subspace_angles(few.components.T, every.components[:5].T).max()) < 1e-13 / gap
    assert apart(few.ratio, every.ratio[:5]) < 1e-13
    assert abs(few.left - every.variance[5:].mean()) <= 48 * EPS * every.variance[0]
    largest = np.abs(few.components).argmax(axis=1)
    assert (few.components[np.arange(5), largest] > 0).all()


def test_variances_that_are_all_alike_or_nought_have_orthonormal_components() -> None:
    alike = np.vstack([np.eye(32), -np.eye(32)])
    for X, variance in ((alike, 2 / 63), (np.full((10, 32), 5.0), 0.0)):
        found = components(Moments(X), 3)
        np.testing.assert_allclose(found.variance, variance, rtol=1e-14)
        assert np.abs(found.components @ found.components.T - np.eye(3)).max() < 1e-14


@pytest.mark.parametrize("kind", KINDS)
def test_products_in_float32_stay_within_their_bound(kind: str) -> None:
    """Sums of 128 products in float32: each element is within 130 units of rounding of the product of two lengths."""
    X = hard(kind, np.float32)
    exact = StreamingPCA(48).fit(X)
    single = StreamingPCA(48, precision="float32").fit(X)
    bound = 130 * 2.0**-24 * 4 * exact.explained_variance_.sum()
    assert np.abs(single.explained_variance_ - exact.explained_variance_).max() <= bound


def test_whitened_scores_of_data_without_full_rank() -> None:
    X = hard("rank", float)
    scores = StreamingPCA(5, whiten=True).fit(X).transform(X)
    np.testing.assert_allclose(np.cov(scores.T), np.eye(5), atol=1e-10)
    assert StreamingPCA().fit(X).n_components_ == 5


def test_a_missing_value_is_named_and_the_model_stays() -> None:
    X = hard("plain", float)
    pca = StreamingPCA(2).fit(X[:1000])
    before = pca.components_.copy()
    X[1234, 5] = np.nan
    for learn in (pca.fit, pca.partial_fit):
        with pytest.raises(BadData, match="NaN: row 1234, column 'x5'"):
            learn(X)
        assert pca.moments_.n == 1000 and np.array_equal(pca.components_, before)
    X[1234, 5] = np.inf
    with pytest.raises(BadData, match="infinity: row 1234"):
        pca.fit(X)


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize("count", [None, 2, 0.9])
def test_rows_may_come_one_at_a_time_from_the_first_on(count: Any, whiten: bool) -> None:
    """The first one raised an error, and was counted all the same."""
    X = hard("offset", float)[:60]
    pca = StreamingPCA(count, whiten=whiten)
    for i in range(60):
        pca.partial_fit(X[i : i + 1])
        assert pca.n_samples_seen_ == i + 1 and np.isfinite(pca.transform(X[:3])).all()
        if i == 0:
            assert not pca.explained_variance_.any() and np.array_equal(pca.mean_, X[0])
    whole = StreamingPCA(count, whiten=whiten).fit(X)
    assert apart(pca.explained_variance_, whole.explained_variance_) < 1e-12
    with pytest.raises(BadData, match="n_samples = 1"):
        StreamingPCA(count).fit(X[:1])


def test_a_number_of_components_that_cannot_be_had_adds_no_rows() -> None:
    X = hard("plain", float)
    pca = StreamingPCA(2).fit(X)
    pca.n_components = 99
    for learn in (pca.fit, pca.partial_fit):
        with pytest.raises(BadData, match="99 components of 48 columns"):
            learn(X)
        assert pca.moments_.n == len(X)


def test_all_columns_of_a_npy_have_components(tmp_path: Path) -> None:
    """The last one was taken for a target, and left out."""
    X = np.random.default_rng(0).standard_normal((300, 5)) * np.arange(1, 6)
    np.save(tmp_path / "x.npy", X)
    found, wanted = StreamingPCA(3).fit(tmp_path / "x.npy"), StreamingPCA(3).fit(X)
    assert found.n_features_in_ == 5 and apart(found.explained_variance_, wanted.explained_variance_) < 1e-12
    assert apart(found.transform(X), wanted.transform(X)) < 1e-12
    weight = np.arange(300.0)
    ours = StreamingPCA(3).fit(tmp_path / "x.npy", None, weight).explained_variance_
    assert apart(ours, StreamingPCA(3).fit(X, None, weight).explained_variance_) < 1e-12
