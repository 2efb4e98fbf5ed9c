"""Ridge, Tikhonov, regression tables, components, discriminants, elimination, groups: against plain references."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.feature_selection import RFE, RFECV, f_regression
from sklearn.linear_model import LinearRegression, Ridge

from hasten.solve import (
    BadData,
    ExactRFECV,
    Moments,
    components,
    discriminant,
    eliminate,
    ridge,
    solve_groups,
    summary,
    whitening,
)
from hasten.solve.elimination import kept_scores
from hasten.solve.linear import FewDigits, Normal
from tests.solve.data import apart, table


def test_ridge_of_many_targets() -> None:
    X, y = table(200, 5, offset=4.0)
    Y = np.column_stack([y, X[:, 1] - y])
    theirs = Ridge(2.5).fit(X, Y)
    fit = ridge(Moments(X, Y), 2.5)
    assert apart(fit.coef.T, theirs.coef_) < 1e-11 and apart(fit.intercept, theirs.intercept_) < 1e-11


def test_tikhonov_penalises_what_it_is_given() -> None:
    X, y = table(60, 6)
    D = np.diff(np.eye(6), axis=0) * 3
    C, d = X - X.mean(axis=0), y - y.mean()
    wanted = np.linalg.solve(C.T @ C + D.T @ D, C.T @ d)
    assert apart(ridge(Moments(X, y), penalty=D).coef[:, 0], wanted) < 1e-12
    with pytest.raises(BadData, match="shape"):
        ridge(Moments(X, y), penalty=np.ones((2, 5)))
    with pytest.raises(BadData, match="NaN"):
        ridge(Moments(X, y), penalty=np.full(6, np.nan))


def test_summary_is_that_of_the_textbook() -> None:
    X, y = table(80, 3, offset=2.0)
    s = summary(Moments(X, y))
    A = np.column_stack([np.ones(80), X])
    _, rest, *_ = np.linalg.lstsq(A, y)
    sigma2 = rest[0] / 76
    errors = np.sqrt(np.diag(np.linalg.inv(A.T @ A)) * sigma2)
    assert apart(s.standard_error[:, 0], errors[1:]) < 1e-11 and s.intercept_error[0] == pytest.approx(errors[0])
    assert s.sigma2[0] == pytest.approx(sigma2) and s.freedom == 76
    for j in range(3):
        others = np.delete(np.arange(3), j)
        r2 = LinearRegression().fit(X[:, others], X[:, j]).score(X[:, others], X[:, j])
        assert s.vif[j] == pytest.approx(1 / (1 - r2))
    one = summary(Moments(X[:, :1], y))
    f, p = f_regression(X[:, :1], y)
    assert one.f[0] == pytest.approx(f[0]) and one.f_p_value[0] == pytest.approx(p[0])
    with pytest.raises(BadData, match="leave nothing over"):
        summary(Moments(X[:3], y[:3]))


def test_components_are_those_of_an_svd() -> None:
    X, _ = table(300, 6, offset=100.0)
    theirs, ours = PCA(4).fit(X), components(Moments(X), 4)
    assert apart(ours.variance, theirs.explained_variance_) < 1e-10
    assert apart(np.abs(ours.components), np.abs(theirs.components_)) < 1e-10
    assert ours.left == pytest.approx(theirs.noise_variance_)


def test_whitened_data_have_no_correlation() -> None:
    X, _ = table(300, 4)
    X = np.column_stack([X, X[:, 0] * 2])
    mean, W = whitening(Moments(X))
    covariance = np.cov((X - mean) @ W, rowvar=False)
    values = np.linalg.eigvalsh(covariance)
    assert values[0] == pytest.approx(0, abs=1e-6) and np.allclose(values[1:], 1)


def test_discriminants_classify_like_scikit_learn() -> None:
    X, y = table(400, 4)
    labels = np.digitize(y, [1, 5])
    ours = discriminant(Moments(X, groups=labels))
    found = np.array(ours.classes)[np.argmax(X @ ours.coef + ours.intercept, axis=1)]
    assert (found == LinearDiscriminantAnalysis(solver="lsqr").fit(X, labels).predict(X)).all()
    with pytest.raises(BadData, match="classes"):
        discriminant(Moments(X))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("alpha", [0.0, 5.0])
def test_elimination_has_the_order_of_rfe(seed: int, alpha: float) -> None:
    X, y = table(150, 9, seed)
    model = Ridge(alpha) if alpha else LinearRegression()
    theirs = RFE(model, n_features_to_select=1).fit(X, y)
    ours = eliminate(Normal.from_moments(Moments(X, y)), alpha)
    assert (ours.ranking == theirs.ranking_).all()


def test_elimination_refreshes_over_many_columns() -> None:
    X, y = table(400, 130, 1)
    theirs = RFE(LinearRegression(), n_features_to_select=1).fit(X, y)
    assert (eliminate(Normal.from_moments(Moments(X, y))).ranking == theirs.ranking_).all()


@pytest.mark.parametrize(("step", "least"), [(70, 1), (3, 1), (0.05, 7)])
def test_elimination_of_several_columns_at_a_time_has_the_order_of_rfe(step: float, least: int) -> None:
    X, y = table(200, 80, 1)
    X[:, 60:] *= 1e-4  # of another unit
    theirs = RFE(LinearRegression(), n_features_to_select=least, step=step).fit(X, y)
    ours = eliminate(Moments(X, y), step=step, least=least)
    assert (ours.ranking == theirs.ranking_).all() and sorted(ours.order) == list(range(80))
    copied = np.column_stack([X[:, :9], X[:, 3]])  # a pseudo-inverse has no update
    kept = eliminate(Moments(copied, y), step=4, keep_coefs=True, tell=False)
    assert [len(left) for left, _ in kept.coefs] == kept.counts[::-1] == [1, 2, 6, 10]


def test_elimination_by_f_drops_the_least_useful_column() -> None:
    X, y = table(200, 4)
    dropped = eliminate(Normal.from_moments(Moments(X, y)), by="f").order[0]
    rests = [np.linalg.lstsq(np.column_stack([np.ones(200), np.delete(X, j, 1)]), y)[1][0] for j in range(4)]
    assert dropped == int(np.argmin(rests))


def test_scores_of_rfecv() -> None:
    X, y = table(200, 6)
    theirs = RFECV(LinearRegression(), cv=4).fit(X, y)
    scores, _ = kept_scores(Moments(X, y, folds=4))
    assert np.abs(scores.mean(axis=0) - theirs.cv_results_["mean_test_score"]).max() < 1e-12


def test_groups_are_ridges_of_their_rows() -> None:
    X, y = table(300, 3, offset=5.0)
    labels = np.arange(300) % 4
    m = Moments(X, y, groups=labels)
    found = solve_groups(m, 2.0)
    for i, label in enumerate(found.labels):
        theirs = Ridge(2.0).fit(X[labels == label], y[labels == label])
        assert apart(found.coef[i, :, 0], theirs.coef_) < 1e-10
        assert found.intercept[i, 0] == pytest.approx(theirs.intercept_)
    pulled = solve_groups(m, 2.0, toward=1e12)
    assert np.abs(pulled.coef - pulled.common[0]).max() < 1e-6
    assert np.abs(pulled.intercept - pulled.common[1]).max() < 1e-6


def test_groups_without_full_rank_are_solved_too() -> None:
    X, y = table(20, 6)
    found = solve_groups(Moments(X, y, groups=np.arange(20) // 4), 0.0)
    assert np.isfinite(found.coef).all()


def test_only_columns_that_depend_on_others_have_infinite_inflation() -> None:
    X, y = table(80, 3)
    single = summary(Moments(X, y)).vif
    with pytest.warns(FewDigits, match="rank 3"):
        found = summary(Moments(np.column_stack([X, X[:, 0] * 2, np.ones(80)]), y)).vif
    assert np.isinf(found[[0, 3, 4]]).all()
    assert apart(found[1:3], single[1:3]) < 1e-8


def test_a_class_or_group_whose_rows_were_removed_is_none() -> None:
    X, y = table(300, 3)
    labels = np.digitize(y, [1, 5])
    gone = labels == 1
    m = Moments(X, y, groups=labels) - Moments(X[gone], y[gone], groups=labels[gone])
    assert set(discriminant(m).classes) == {0, 2}
    assert discriminant(m, priors=[0.2, 0.3, 0.5]).coef.shape == (3, 2)
    found = solve_groups(m, 1.0)
    at = found.labels.index(1)
    assert np.array_equal(found.coef[at], found.common[0]) and np.array_equal(found.intercept[at], found.common[1])


@pytest.mark.parametrize("options", [{"shrinkage": 1.5}, {"shrinkage": -0.1}, {"priors": [1.0]}, {"priors": [-1, 2]}])
def test_discriminants_of_numbers_out_of_range(options: dict[str, Any]) -> None:
    X, y = table(50, 2)
    with pytest.raises(BadData):
        discriminant(Moments(X, groups=y > 3), **options)


def test_a_class_whose_prior_is_nought_is_never_the_answer() -> None:
    """It had 1e-16, which a distance of a few deviations outweighs."""
    X = table(300, 3)[0]
    X[:100] += 40
    labels = np.repeat(["far", "a", "b"], 100)
    m = Moments(X, groups=labels)
    priors = [{"far": 0.0}.get(str(label), 0.5) for label in m.by_group[0]]
    found = discriminant(m, priors=priors)
    assert found.classes[int(np.argmax(X[0] @ found.coef + found.intercept))] != "far"
    with pytest.raises(BadData, match="priors"):
        discriminant(m, priors=[0.0, 0.0, 0.0])
    theirs = LinearDiscriminantAnalysis(solver="lsqr").fit(X, labels)
    ours = np.asarray(discriminant(m).classes)[np.argmax(X @ discriminant(m).coef + discriminant(m).intercept, axis=1)]
    assert (ours == theirs.predict(X)).all()


@pytest.mark.parametrize("unit", [1e-9, 1e9])
def test_the_order_by_f_does_not_depend_on_units(unit: float) -> None:
    X, y = table(300, 5)
    scales = np.array([unit, 1, unit, 1, unit])
    assert eliminate(Moments(X * scales, y), by="f").order == eliminate(Moments(X, y), by="f").order


def test_scores_of_a_fold_of_one_target_are_those_of_rfecv() -> None:
    """They were minus infinity, for every number of columns, and the least one was taken."""
    X, y = table(200, 6)
    y[:40] = 1.5  # the first fold
    theirs = RFECV(LinearRegression(), cv=5).fit(X, y)
    ours = ExactRFECV(cv=5).fit(X, y)
    assert ours.n_features_ == theirs.n_features_ and (ours.ranking_ == theirs.ranking_).all()
    for key in ("mean_test_score", "split0_test_score"):
        assert np.abs(ours.cv_results_[key] - theirs.cv_results_[key]).max() < 1e-10


@pytest.mark.parametrize("digits", [False, True])
def test_a_regression_table_says_when_it_has_no_digits(digits: bool) -> None:
    """Without an intercept an offset of 1e6 left two digits of the coefficients, and nobody told."""
    X, y = table(60, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        summary(Moments(X + 1e6, y))
        summary(Moments(X + 1e2, y), fit_intercept=False)
        summary(Moments(np.column_stack([X, np.ones(60)]), y))  # a constant column is known to be one
    with pytest.warns(FewDigits, match="to a share of" if digits else "rank 3"):
        summary(Moments(X + 1e6, y), fit_intercept=False) if digits else summary(Moments(X[:, [0, 1, 2, 2]], y))
