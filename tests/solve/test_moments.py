"""Moments: whatever the source, order, weights and offsets, they are those of the rows."""

from __future__ import annotations

import copy
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, TensorDataset

from hasten.core.errors import HastenError
from hasten.solve import BadData, Moments, device, discriminant, kfold, ridge, solve_groups
from hasten.solve.elimination import kept_scores
from hasten.solve.kernel import Sums
from hasten.solve.source import open_source
from tests.solve.data import apart, moments_of, table


def assert_moments(m: Moments, Z: Any, weight: Any = None, most: float = 1e-11) -> None:
    mean, scatter = moments_of(Z, weight)
    assert apart(m.mean, mean) < 1e-13
    assert apart(m.scatter, scatter) < most


@given(
    rows=st.integers(2, 300),
    features=st.integers(1, 7),
    offset=st.sampled_from([0.0, 1.0, -1e3, 1e6]),
    cut=st.integers(0, 300),
    weighted=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_parts_in_any_order_are_the_whole(
    rows: int, features: int, offset: float, cut: int, weighted: bool, seed: int
) -> None:
    X, y = table(rows, features, seed, offset)
    w = np.random.default_rng(seed).random(rows) + 0.1 if weighted else None
    cut = min(cut, rows)
    parts = [Moments(X[s], y[s], sample_weight=None if w is None else w[s]) for s in (slice(cut), slice(cut, None))]
    Z = np.column_stack([X, y])
    for m in (parts[0] + parts[1], parts[1] + parts[0]):
        assert_moments(m, Z, w, 1e-8 if offset == 1e6 else 1e-11)
        assert m.n == rows
    if 0 < cut < rows - 1:
        left = (parts[0] + parts[1]) - parts[0]
        assert left.n == rows - cut
        assert apart(left.scatter, parts[1].scatter) < 1e-6


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("offset", [0.0, 1e4, 1e6])
def test_offsets_cost_no_digits(dtype: Any, offset: float) -> None:
    X, y = table(5000, 4, offset=offset)
    X = X.astype(dtype)
    assert_moments(Moments(X, y), np.column_stack([X.astype(float), y]), most=1e-12)


def test_rows_far_from_the_first_ones() -> None:
    X, _ = table(20_000, 3)
    far = np.vstack([X[:100], X + 1e7])
    mean, scatter = moments_of(far)
    m = Moments(far)
    assert apart(m.mean, mean) < 1e-14
    assert apart(m.scatter, scatter) < 1e-13


def test_folds_are_those_of_kfold_and_groups_are_kept_apart() -> None:
    X, y = table(103, 3)
    m = Moments(X, y, folds=5)
    assert m.parts.rows.tolist() == [21, 21, 21, 20, 20]
    assert_moments(m, np.column_stack([X, y]))
    labels = np.array(["a", "b", "c"])[np.arange(103) % 3]
    g = Moments(X, y, groups=labels)
    assert sorted(map(str, g.labels)) == ["a", "b", "c"]
    at = g.cells["b"]
    mean, scatter = moments_of(np.column_stack([X, y])[labels == "b"])
    assert apart(g.parts.mean[at], mean) < 1e-13 and apart(g.parts.scatter[at], scatter) < 1e-12


def test_folds_of_groups_are_folds_and_groups(tmp_path: Path) -> None:
    X, y = table(103, 3)
    labels = np.array(["a", "b", "c"])[np.arange(103) % 3]
    both = Moments(X, y, folds=5, groups=labels)
    assert len(both.labels) == 15 and (0, "a") in both.labels
    folds, groups = Moments(X, y, folds=5), Moments(X, y, groups=labels)
    both.save(tmp_path / "m")
    again = Moments.load(tmp_path / "m")
    streamed = Moments(folds=5).update([(X[:50], y[:50]), (X[50:], y[50:])], groups=labels)
    parts = sum(Moments(X[i::2], y[i::2], folds=np.arange(103)[i::2] % 5, groups=labels[i::2]) for i in range(2))
    for m in (both, again):
        assert apart(kfold(m, [0.1, 1.0]).mse, kfold(folds, [0.1, 1.0]).mse) < 1e-11
        assert apart(kept_scores(m)[0], kept_scores(folds)[0]) < 1e-11
    for m in (both, again, streamed, parts):
        found, wanted = solve_groups(m, 1.0, 2.0), solve_groups(groups, 1.0, 2.0)
        order = [found.labels.index(label) for label in wanted.labels]
        assert apart(found.coef[order], wanted.coef) < 1e-11
        assert sorted(discriminant(m).classes) == ["a", "b", "c"]
        assert_moments(m, np.column_stack([X, y]))
    with pytest.raises(BadData, match="folds and groups"):
        both + folds
    with pytest.raises(BadData, match="folds and groups"):
        both.update(X, y)
    assert both.n == 103


@pytest.mark.parametrize("offset", [0.0, 1e6, 1e8])
@pytest.mark.parametrize("rows", [1, 2, 10])
def test_offsets_cost_no_digits_of_shards(offset: float, rows: int) -> None:
    """Means are as far from nought as the data: rounded, they cost the scatter of shards half of its digits."""
    X, y = table(200 * rows, 3, offset=offset)
    shards = [Moments(X[i : i + rows], y[i : i + rows]) for i in range(0, len(X), rows)]
    random = np.random.default_rng(0)
    random.shuffle(shards)
    total = sum(shards)
    assert_moments(total, np.column_stack([X, y]), most=1e-13)
    assert_moments(total - shards[3] + shards[3], np.column_stack([X, y]), most=1e-13)
    assert_moments(Moments(X, y, groups=np.arange(len(X)) // rows), np.column_stack([X, y]), most=1e-13)


def test_the_digits_of_shards_are_saved(tmp_path: Path) -> None:
    X, y = table(60, 2, offset=1e8)
    a, b = Moments(X[:30], y[:30]) + Moments(X[30:40], y[30:40]), Moments(X[40:], y[40:])
    a.save(tmp_path / "m")
    assert np.array_equal((Moments.load(tmp_path / "m") + b).scatter, (a + b).scatter)


def test_forgetting_everything_leaves_no_rows() -> None:
    X, y = table(50)
    m = Moments(X, y).decay(0)
    assert m.n == m.weight == 0 and not m.scatter.any()
    assert_moments(m.update(X, y), np.column_stack([X, y]))


def test_shards_are_named_by_anything_that_can_be_saved(tmp_path: Path) -> None:
    X, y = table(50)
    m = Moments(X, y, shard=3) + Moments(X, y, shard="a")  # type: ignore[arg-type]
    m.save(tmp_path / "m")
    assert Moments.load(tmp_path / "m").shards == {3, "a"}
    with pytest.raises(BadData, match="added before"):
        m + m
    with pytest.raises(BadData, match="cannot be saved"):
        Moments(X, y, shard=b"a").save(tmp_path / "m")  # type: ignore[arg-type]


def test_no_scratch_memory_is_kept_and_pieces_share_theirs() -> None:
    X, y = table(20_000, 4)
    m = Moments(X + 5.0, y)
    assert m._sums is not None and m._sums._products is None
    pieces = Moments()
    for i in range(0, 20_000, 3000):
        pieces.update(X[i : i + 3000] + 5.0, y[i : i + 3000])
    assert apart(pieces.scatter, m.scatter) < 1e-12 and not np.tril(m._sums.sums.scatter, -1).any()


def test_decay_halves_what_was_there() -> None:
    X, y = table(200)
    w = np.repeat([0.5, 1.0], 100)
    m = Moments(X[:100], y[:100]).decay(0.5).update(X[100:], y[100:])
    assert_moments(m, np.column_stack([X, y]), w)
    with pytest.raises(BadData, match="forgetting"):
        m.decay(1.5)


def test_every_source_gives_the_same() -> None:
    X, y = table(300, 3)
    wanted = Moments(X, y).scatter
    frame = pd.DataFrame(X, columns=list("abc")).assign(y=y)
    tensors = torch.from_numpy(X), torch.from_numpy(y)
    loader = DataLoader(TensorDataset(*tensors), batch_size=32)
    tables = [frame, pl.from_pandas(frame), pa.Table.from_pandas(frame)]
    sources: list[Any] = [
        *(open_source(t, target="y") for t in tables),
        open_source(*tensors),
        open_source(loader),
        open_source((X[i : i + 7], y[i : i + 7]) for i in range(0, 300, 7)),
        open_source(frame[list("abc")], frame["y"]),
    ]
    for source in sources:
        assert apart(Moments().update(source).scatter, wanted) < 1e-12


def test_products_on_a_device_are_those_of_the_host() -> None:
    X, y = table(500, 3, offset=1e3)
    w = np.random.default_rng(0).random(500)
    for weight in (None, w):
        tensors = [None if a is None else torch.from_numpy(a) for a in (X, y[:, None], weight)]
        beside = tensors[0], y[:, None], weight  # targets and weights in the host's memory
        for rows in (tensors, beside):
            sums = Sums(3, 1)
            assert device.add(sums, *rows, 0)  # a stand-in: the same calls on the CPU
            assert apart(sums.stats().scatter[0], Moments(X, y, sample_weight=weight).scatter) < 1e-12


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_tensors_on_a_gpu() -> None:
    X, y = table(5000, 3, offset=1e3)
    m = Moments(torch.from_numpy(X).cuda(), torch.from_numpy(y).cuda())
    assert apart(m.scatter, Moments(X, y).scatter) < 1e-12


def test_missing_values_are_imputed_by_the_mean_of_all_shards() -> None:
    X, y = table(300, 4, offset=50.0)
    X[np.random.default_rng(1).random(X.shape) < 0.2] = np.nan
    holes = np.isnan(X)
    m = Moments(X[:120], y[:120], missing="mean") + Moments(X[120:], y[120:], missing="mean")
    filled = np.where(holes, np.nanmean(X, axis=0), X)
    order = [int(name.split()[0][1:]) for name in m.names[4:]]
    assert_moments(m, np.column_stack([filled, holes[:, order], y]))
    assert apart(m.imputed, np.nanmean(X, axis=0)) < 1e-14


def test_categories_become_columns_that_are_never_dense() -> None:
    X, y = table(500, 2)
    random = np.random.default_rng(0)
    frame = pd.DataFrame(X, columns=["a", "b"]).assign(town=random.choice(["x", "y", None], 500), y=y)
    w = random.random(500)
    m = Moments().update(open_source(frame, None, w, target="y"))
    towns = {"town is missing": frame["town"].isna()} | {f"town={t}": frame["town"] == t for t in "xy"}
    dense = np.column_stack([towns[n] for n in m.names[2:]])
    assert_moments(m, np.column_stack([X, dense, y]), w)


def test_categories_of_columns_whose_names_hold_an_equals_sign_stay_apart(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "v=w": np.where(random.random(200) < 0.3, np.nan, 1.0),
            "a": random.choice(["b=c", "d"], 200),
            "a=b": random.choice(["c", "e"], 200),
            "v": random.choice(["w is missing", "w"], 200),
            "y": random.standard_normal(200),
        }
    )
    m = Moments(missing="mean").update(frame, "y")
    marks = {
        'a=b=c': frame["a"] == "b=c", "a=d": frame["a"] == "d", '"a=b"=c': frame["a=b"] == "c",
        '"a=b"=e': frame["a=b"] == "e", "v=w is missing": frame["v"] == "w is missing", "v=w": frame["v"] == "w",
        '"v=w" is missing': frame["v=w"].isna(),
    }  # fmt: skip
    assert sorted(m.names[1:]) == sorted(marks)
    assert_moments(m, np.column_stack([np.ones(200), *(marks[name] for name in m.names[1:]), frame["y"]]))
    m.save(tmp_path / "m")
    assert (Moments.load(tmp_path / "m") + m).names == m.names


def test_unknown_categories_of_a_later_shard_find_their_place() -> None:
    frames = [pd.DataFrame({"a": [1.0, 2, 3], "t": t, "y": [1.0, 0, 2]}) for t in (["p", "q", "p"], ["r", "q", "r"])]
    a, b = (Moments().update(open_source(f, target="y")) for f in frames)
    both, turned = a + b, b + a
    assert set(both.names) == {"a", "t=p", "t=q", "t=r"}
    order = [turned.names.index(n) for n in both.names] + [4]
    assert apart(turned.scatter[np.ix_(order, order)], both.scatter) < 1e-14
    assert ((both - b).scatter[:3, :3] == pytest.approx(a.scatter[:3, :3]))  # fmt: skip


def test_a_thousand_shards_in_any_order_and_no_shard_twice() -> None:
    X, y = table(20_000, 5, offset=1e6)
    shards = [Moments(X[i::1000], y[i::1000], shard=f"part-{i}") for i in range(1000)]
    one = Moments(X, y)
    for seed in range(2):
        order = np.random.default_rng(seed).permutation(1000)
        total = Moments()
        for i in order:
            total = total + shards[i]
        assert apart(total.scatter, one.scatter) < 1e-11
    assert len(total.shards) == 1000
    with pytest.raises(BadData, match="added before"):
        total + shards[7]
    with pytest.raises(BadData, match="never added"):
        (total - shards[7]) - shards[7]
    again = (total - shards[7]) + shards[7]
    assert again.shards == total.shards and again.n == 20_000


def test_save_and_load_are_the_same_bits_and_go_on_alike(tmp_path: Path) -> None:
    X, y = table(300, 4)
    m = Moments(X[:200], y[:200], folds=3, shard="s")
    m.save(tmp_path / "m.st")
    again = Moments.load(tmp_path / "m.st")
    assert again.shards == {"s"} and again.labels == m.labels
    m.update(X[200:], y[200:])
    again.update(X[200:], y[200:])
    assert np.array_equal(m.parts.scatter, again.parts.scatter)
    assert np.array_equal(m.parts.mean, again.parts.mean)


@pytest.mark.parametrize("damage", ["cut", "other", "missing"])
def test_a_torn_file_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "m.st"
    Moments(*table()).save(path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-20])
    elif damage == "other":
        path.write_bytes(b"something else entirely")
    else:
        path.unlink()
    with pytest.raises(BadData, match="cannot read moments"):
        Moments.load(path)


@pytest.mark.parametrize(
    ("X", "y", "says"),
    [
        (np.array([[1.0], [np.nan]]), [1, 2], "NaN: row 1, column 'x0'"),
        (np.array([[1.0], [2.0]]), [1, np.nan], "y contains NaN: row 1"),
        (np.array([[1.0], [np.inf]]), [1, 2], "infinity"),
        (np.array([1.0, 2.0]), [1, 2], "Reshape"),
        (np.array([["a"], ["b"]]), [1, 2], "cannot be taken for numbers"),
        (np.array([[1j]]), [1], "Complex"),
        (np.ones((3, 2)), [1, 2], "3 rows, y has 2"),
        (np.array([[1.0], [1e300]]), [1, 2], "too large"),
        ("no/such/file.parquet", None, "no file"),
        (object(), None, "cannot be read"),
    ],
)
def test_bad_input_says_what_and_where(X: Any, y: Any, says: str) -> None:
    with pytest.raises(BadData, match=says) as error:
        Moments(X, y)
    assert isinstance(error.value, ValueError) and isinstance(error.value, HastenError)


def test_a_bad_value_leaves_the_moments_as_they_were() -> None:
    X, y = table(20_000, 8)
    m = Moments(X, y)
    before = m.scatter.copy()
    X[-1, 3] = np.nan
    with pytest.raises(BadData, match="row 19999"):
        m.update(X, y)
    assert m.n == 20_000 and np.array_equal(m.scatter, before)


def test_shards_of_other_columns_are_refused() -> None:
    with pytest.raises(BadData, match="different columns"):
        Moments(np.ones((3, 2)), np.ones(3)) + Moments(np.ones((3, 3)), np.ones(3))
    with pytest.raises(BadData, match="earlier ones had"):
        Moments(np.ones((3, 2)), np.ones(3)).update(np.ones((3, 3)), np.ones(3))


def test_negative_weights_are_refused_and_zero_weights_are_no_rows() -> None:
    X, y = table(50)
    with pytest.raises(BadData, match="negative"):
        Moments(X, y, sample_weight=np.full(50, -1.0))
    w = np.repeat([1.0, 0.0], 25)
    m = Moments(X, y, sample_weight=w)
    assert m.n == 25 and apart(m.scatter, Moments(X[:25], y[:25]).scatter) < 1e-13


def test_rows_without_weight_cost_no_digits() -> None:
    """Their level became the shift."""
    X, y = table(3000, 3)
    weight = (np.arange(3000) >= 1000).astype(float)
    far, tiny = X + 1e9 * (1 - weight)[:, None], np.maximum(weight, 1e-12)
    wanted = Moments(X[1000:], y[1000:])
    for m in (
        Moments(far, y, sample_weight=weight),
        Moments(far[:1000], y[:1000], sample_weight=weight[:1000]).update(far[1000:], y[1000:], weight[1000:]),
    ):
        assert apart(m.scatter, wanted.scatter) < 1e-12 and m.n == 2000
    exact = moments_of(np.column_stack([far, y]), tiny)[1]
    assert apart(Moments(far, y, sample_weight=tiny).scatter, exact) < 1e-9


@pytest.mark.parametrize("factor", [1e-6, 1 / 400, 0.5])
def test_a_common_factor_of_small_weights_changes_no_covariance(factor: float) -> None:
    X, y = table(400, 3)
    m = Moments(X, y, sample_weight=np.full(400, factor))
    assert apart(m.covariance, np.cov(np.column_stack([X, y]).T)) < 1e-12
    twice = Moments(X, y, sample_weight=np.full(400, 2.0))
    assert apart(twice.covariance, Moments(np.vstack([X, X]), np.append(y, y)).covariance) < 1e-12


def test_rows_without_labels_join_no_group() -> None:
    X, y = table(90, 2)
    m = Moments(X, y, groups=["b", "a", "c"] * 30)
    before = m.parts.weight.copy()
    with pytest.raises(BadData, match="neither folds nor groups"):
        m.update(X, y)
    assert np.array_equal(m.parts.weight, before)


def test_forgetting_changes_nothing_that_was_given_away() -> None:
    X, y = table(100, 2)
    m = Moments(X, y).decay(0.9)
    other, total = copy.copy(m), m.total
    m.decay(0.5)
    assert total.weight[0] == other.weight == 2 * m.weight
    assert np.array_equal(other.scatter, 2 * m.scatter)


def test_a_device_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    thread = threading.Thread(target=lambda: read.append(pipe.read_bytes()), daemon=True)
    thread.start()
    m = Moments(*table(50, 2))
    m.save(pipe)
    thread.join(20)
    assert pipe.is_fifo() and os.listdir(tmp_path) == ["pipe"]
    (tmp_path / "m").write_bytes(read[0])
    assert np.array_equal(Moments.load(tmp_path / "m").scatter, m.scatter)


def test_rows_without_labels_are_not_those_of_the_first_fold(tmp_path: Path) -> None:
    X, y = table(100, 2)
    plain, folds, groups = Moments(X, y), Moments(X, y, folds=5), Moments(X, y, groups=np.zeros(100, int))
    for a, b in ((plain, folds), (folds, plain), (plain, groups), (folds, groups)):
        for call in (lambda a=a, b=b: a + b, lambda a=a, b=b: a - b):
            with pytest.raises(BadData, match="cannot join"):
                call()
    with pytest.raises(BadData, match="labels of groups cannot join rows with labels of neither"):
        plain.update(X, y, groups=np.zeros(100, int))
    with pytest.raises(BadData, match="labels of neither folds nor groups cannot join rows with labels of groups"):
        groups.update(X, y)
    assert plain.n == groups.n == 100
    folds.save(tmp_path / "m")
    assert (Moments.load(tmp_path / "m") + folds + Moments()).by_fold[1].rows.tolist() == [40] * 5
    with pytest.raises(BadData, match="cannot join"):
        _ = Moments.load(tmp_path / "m") + plain


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_what_is_too_large_to_be_squared_is_named(precision: str) -> None:
    X, y = table(3000, 3)
    far, columns = X.copy(), ["a", "b", "c"]
    far[2500, 1] = -1e200
    for rows, target, says in (
        (pd.DataFrame(far, columns=columns), y, "X holds -1e.200, too large .*: row 2500, column 'b'"),
        (X, np.where(np.arange(3000) == 7, 1e200, y), "y holds 1e.200, too large .*: row 7, column 'y'"),
    ):
        for options in ({}, {"missing": "mean"}, {"groups": np.arange(3000) % 3}):
            with pytest.raises(BadData, match=says):
                Moments(rows, target, precision=precision, **options)
    with pytest.raises(BadData, match=r"X holds .* with the weight 1e\+308, too large to be squared in .*: row 5"):
        Moments(X * 1e5, y, sample_weight=np.where(np.arange(3000) == 5, 1e308, 1.0), precision=precision)
    huge = np.full((3000, 1), 1e308)
    huge[::2] *= 0.5
    with pytest.raises(BadData, match="too large"):  # their sum was told to be NaN
        Moments(huge)


def test_imputation_of_float32_is_that_of_float64() -> None:
    """The value that stands in was rounded to float32, by more than the column varies."""
    random = np.random.default_rng(0)
    X = (1e6 + random.standard_normal((2000, 2)) / 4).astype(np.float32)
    X[random.random(X.shape) < 0.3] = np.nan
    wanted = Moments(X.astype(np.float64), missing="mean")
    found = Moments(X[:700], missing="mean").update(X[700:])
    assert np.array_equal(found.names, wanted.names)
    assert apart(found.imputed - 1e6, wanted.imputed - 1e6) < 1e-8
    assert apart(found.scatter, wanted.scatter) < 1e-9


def test_a_shard_without_gaps_costs_those_of_others_no_digits() -> None:
    random = np.random.default_rng(0)
    X = 1e8 + random.standard_normal((400, 2))
    holes = X.copy()
    holes[random.random(X.shape) < 0.3] = np.nan
    wanted = Moments(np.vstack([X, holes]), missing="mean")
    for m in (Moments(X) + Moments(holes, missing="mean"), Moments(holes, missing="mean") + Moments(X)):
        assert m.names == wanted.names and apart(m.scatter, wanted.scatter) < 1e-7


def test_sums_of_both_precisions_have_the_lower_one() -> None:
    X, y = table(100, 2)
    for one, other in (("float32", "float64"), ("float64", "float32")):
        assert (Moments(X, y, precision=one) + Moments(X, y, precision=other)).precision == "float32"


@pytest.mark.parametrize("weight", [1e6, 1e12, 1e15])
@pytest.mark.parametrize("columns", [2, 3, 40])
def test_a_row_that_outweighs_all_others_costs_no_digits(weight: float, columns: int) -> None:
    """Its own values are the mean then, however near they are to the others' by these others' spread."""
    X, y = table(300, columns)
    w = np.append(np.ones(299), weight)
    m = Moments(X, y, sample_weight=w)
    assert_moments(m, np.column_stack([X, y]), w, 1e-14)
    scatter = moments_of(np.column_stack([X, y]), w)[1].astype(float)
    assert apart(ridge(m).coef, np.linalg.solve(scatter[:-1, :-1], scatter[:-1, -1:])) < 1e-12


def test_nothing_forgets_nothing() -> None:
    """A loop that forgets and adds may begin with no rows."""
    X, y = table(60, 2)
    m = Moments()
    for i in range(0, 60, 20):
        m.decay(0.5).update(X[i : i + 20], y[i : i + 20])
    assert apart(m.scatter, moments_of(np.column_stack([X, y]), 0.5 ** (2 - np.arange(60) // 20))[1]) < 1e-13
