"""What is given beside rows is used or refused; kinds of data that people have; words that say where and what."""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset
import pytest
import torch
from scipy import sparse
from sklearn.model_selection import KFold
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler, TensorDataset

from hasten.core.errors import HastenError
from hasten.solve import (
    BadData,
    ExactRFECV,
    GroupRidge,
    Hinges,
    Moments,
    RandomFeatures,
    SlidingRidge,
    StreamingLogistic,
    StreamingPCA,
    StreamingRidge,
    choose,
    components,
    dealing,
    eliminate,
    kfold,
    leave_one_out,
    lstsq,
    newton,
    open_source,
    ridge,
    solve_groups,
    storage,
    summary,
    whitening,
)
from hasten.solve.source import Block
from tests.solve.data import apart, table

X, Y = table(300, 3)
W = np.random.default_rng(0).random(300)
FRAME = pd.DataFrame(X, columns=list("abc"))
WHOLE = FRAME.assign(y=Y)
WEIGHTED = Moments(X, Y, sample_weight=W)


@pytest.fixture(params=["parquet", "csv", "npy"])
def write(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[pd.DataFrame], str]:
    def written(frame: pd.DataFrame) -> str:
        path = tmp_path / f"data.{request.param}"
        if request.param == "npy":
            np.save(path, np.ascontiguousarray(frame.to_numpy()))
        elif request.param == "csv":
            frame.to_csv(path, index=False)
        else:
            frame.to_parquet(path, row_group_size=70)
        return str(path)

    return written


def test_targets_and_weights_beside_a_file(write: Callable[[pd.DataFrame], str]) -> None:
    path = write(WHOLE)
    target = "3" if path.endswith("npy") else "y"
    for m in (
        Moments(path, target, sample_weight=W),
        Moments(path, target=target, sample_weight=W),
        Moments.scan(path, target, sample_weight=W),
        Moments(open_source(path, weight=W, target=target)),
        Moments(open_source(path, target=target), sample_weight=W),
    ):
        assert m.p == 3 and apart(m.scatter, WEIGHTED.scatter) < 1e-12
    coef = lstsq(X, Y, sample_weight=W).coef_
    assert apart(lstsq(path, target=target, sample_weight=W).coef_, coef) < 1e-11
    assert apart(StreamingRidge(1e-12).fit(path, target, sample_weight=W).coef_, coef[:, 0]) < 1e-9
    path = write(FRAME)
    assert apart(Moments(path, Y, sample_weight=W).scatter, WEIGHTED.scatter) < 1e-12
    labels = (Y > 3).astype(float)
    wanted = newton(X, labels, sample_weight=W).coef
    assert apart(newton(path, labels, sample_weight=W).coef, wanted) < 1e-9
    assert apart(StreamingLogistic(solver="stream").fit(path, labels, W).coef_[0], wanted) < 1e-6
    for y in (Y[:-1], np.append(Y, Y)):
        with pytest.raises(BadData, match="y has"):
            Moments(path, y)
        with pytest.raises(BadData, match="sample_weight has"):
            Moments(path, Y, sample_weight=np.abs(y))
    with pytest.raises(BadData, match="both given"):
        Moments(path, Y, target=target)


def test_the_columns_of_a_npy_that_are_asked_for(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", np.column_stack([X, Y]))
    m = Moments(open_source(tmp_path / "d.npy", target="3", features=["2", "0"]))
    assert m.names == ["x2", "x0"] and apart(m.scatter, Moments(X[:, [2, 0]], Y).scatter) < 1e-12


def batches(*parts: Any) -> Iterator[Any]:
    for i in range(0, 300, 70):
        yield tuple(part[i : i + 70] for part in parts) if len(parts) > 1 else parts[0][i : i + 70]


def test_targets_and_weights_beside_batches() -> None:
    tensors = torch.from_numpy(X), torch.from_numpy(Y)
    for source, y in (
        (batches(X, Y), None),
        (list(batches(X, Y)), None),
        ([list(batch) for batch in batches(X, Y)], None),
        ([(x.tolist(), y.tolist()) for x, y in batches(X, Y)], None),
        (batches(X), Y),
        (list(batches(X)), Y),
        ([WHOLE[:100], WHOLE[100:]], "y"),
        (DataLoader(TensorDataset(*tensors), batch_size=32), None),
        (DataLoader(tensors[0], batch_size=32), Y),
    ):
        assert apart(Moments(source, y, sample_weight=W).scatter, WEIGHTED.scatter) < 1e-11
    wanted = StreamingRidge(1.0).fit(X, Y, W).coef_
    for source in (list(batches(X, Y)), DataLoader(TensorDataset(*tensors), batch_size=32)):
        assert apart(StreamingRidge(1.0).fit(source, sample_weight=W).coef_, wanted) < 1e-11
    with pytest.raises(BadData, match="bring their own"):
        Moments(batches(X, Y), Y)
    with pytest.raises(BadData, match="bring their own"):
        Moments(batches(X, Y, W), sample_weight=W)
    with pytest.raises(BadData, match="RandomSampler"):
        Moments(DataLoader(tensors[0], batch_size=32, shuffle=True), Y)
    with pytest.raises(BadData, match="RandomSampler"):
        Moments(DataLoader(TensorDataset(*tensors), batch_size=32, shuffle=True), groups=np.arange(300) % 3)
    for count in (299, 301):
        with pytest.raises(BadData, match="labels of folds or groups"):
            Moments(batches(X, Y), groups=np.arange(count))
    with pytest.raises(BadData, match="with the keys x, y"):
        Moments([{"x": X, "y": Y}])
    with pytest.raises(BadData, match="4 parts"):
        Moments(batches(X, X, Y, W))


@pytest.mark.parametrize(
    "given",
    [
        lambda: (WHOLE, "y"),
        lambda: (pd.DataFrame(X), Y),
        lambda: (pl.from_pandas(WHOLE).lazy(), "y"),
        lambda: (sparse.csr_array(X), Y),
        lambda: (sparse.coo_matrix(X), Y),
        lambda: (sparse.dok_array(X), Y),
        lambda: (X, np.ma.masked_array(Y, mask=False)),
    ],
)
def test_tables_and_matrices_of_other_kinds(given: Callable[[], tuple[Any, Any]]) -> None:
    assert apart(Moments(*given(), sample_weight=W).scatter, WEIGHTED.scatter) < 1e-12
    assert choose(*given()).features == 3


def test_half_precision_is_taken() -> None:
    short = [torch.from_numpy(a).bfloat16() for a in (X, Y, W)]
    wanted = Moments(*(a.float().numpy() for a in short[:2]), sample_weight=short[2].float().numpy())
    assert np.array_equal(Moments(short[0], short[1], sample_weight=short[2]).scatter, wanted.scatter)
    assert np.isfinite(StreamingRidge().fit(short[0], short[1]).coef_).all()


def test_masked_values_are_missing() -> None:
    masked = np.ma.masked_array(np.where(X > 1, 1e6, X), mask=X > 1)
    wanted = Moments(np.where(X > 1, np.nan, X), Y, missing="mean")
    assert np.array_equal(Moments(masked, Y, missing="mean").scatter, wanted.scatter)
    for call in (lambda: lstsq(masked, Y), lambda: StreamingRidge().fit(masked, Y), lambda: Moments(X, masked[:, 0])):
        with pytest.raises(ValueError, match="NaN"):
            call()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: Moments(pd.DataFrame(X, columns=["a", "b", "a"]), Y), "2 columns are called 'a'"),
        (lambda: Moments(WHOLE["a"], Y), "Reshape"),
        (lambda: Moments({"a": X}), "dictionary"),
        (lambda: Moments(X, Y, sample_weight="w"), "sample_weight is"),
        (lambda: Moments(X, "y"), "no columns named"),
        (lambda: Moments(WHOLE, "z"), "no column 'z'"),
        (lambda: Moments(WHOLE, Y, target="y"), "both given"),
        (lambda: Moments(open_source(WHOLE, target="y", features=["a", "y"])), "among the features"),
        (lambda: Moments(open_source(X, Y), Y), "bring their own"),
        (lambda: lstsq(Moments(X, Y)), r"solve\.ridge"),
        (lambda: choose(Moments(X, Y)), r"solve\.ridge"),
        (lambda: StreamingRidge().fit(Moments(X, Y)), r"solve\.ridge"),
        (lambda: ridge(X, Y), r"ridge\(solve\.Moments\(X, y\), alpha\)"),
        (lambda: kfold(X, [1.0]), "no Moments"),
        (lambda: summary(X), "no Moments"),
        (lambda: whitening(X), "no Moments"),
        (lambda: components(X), "no Moments"),
        (lambda: solve_groups(X), "no Moments"),
        (lambda: leave_one_out(X, Moments(X, Y), [1.0]), r"open_source\(X, y\)"),
        (lambda: lstsq(WHOLE.assign(t="x"), target="y"), r"solve\.Moments\(table, y\)"),
        (lambda: lstsq(np.where(X > 1, np.nan, X), Y), r"SimpleImputer"),
        (lambda: Moments(X, Y, groups=[None, "a", "b"] * 100), "groups holds no label for row 0"),
        (lambda: Moments(X, Y, groups=np.where(np.arange(300) == 7, np.nan, 1.0)), "no label for row 7"),
        (lambda: Moments(X, Y, groups=pd.Series([1, pd.NA, 2] * 100, dtype="Int64")), "no label for row 1"),
        (lambda: Moments(X, Y, groups=pa.array(["a", None, "b"] * 100).dictionary_encode()), "no label for row 1"),
        (lambda: Moments(X, Y, groups=[("a", 1)] * 300), "shape"),
    ],
)
def test_refusals_name_a_way_that_exists(call: Callable[[], Any], says: str) -> None:
    with pytest.raises(BadData, match=says):
        call()


def test_the_order_of_elimination_from_moments() -> None:
    assert len(eliminate(Moments(X, Y)).order) == 3


@pytest.mark.parametrize(
    "call",
    [
        lambda: lstsq(X[:0], Y[:0]),
        lambda: lstsq(np.zeros((0, 300)), Y[:0]),
        lambda: choose(X[:0], Y[:0]),
        lambda: newton(X[:0], Y[:0]),
        lambda: StreamingRidge().fit(iter([])),
        lambda: ExactRFECV().fit(iter([])),
        lambda: SlidingRidge().fit(iter([])),
        lambda: GroupRidge().fit(iter([])),
        lambda: StreamingPCA().fit(iter([])),
        lambda: Hinges().fit(iter([])),
        lambda: RandomFeatures().fit(iter([])),
        lambda: kfold(Moments(folds=5), [1.0]),
    ],
)
def test_no_rows_are_an_error_of_words(call: Callable[[], Any]) -> None:
    with pytest.raises(BadData, match=r"no rows|0 rows"):
        call()


@pytest.mark.parametrize("options", [{}, {"folds": 5}, {"folds": np.arange(300) % 5}, {"groups": np.arange(300) % 7}])
def test_the_row_that_is_wrong_is_named_by_its_number(tmp_path: Path, options: dict[str, Any]) -> None:
    y = np.where(np.arange(300) == 237, np.nan, Y)
    WHOLE.assign(y=y).to_csv(tmp_path / "d.csv", index=False)
    WHOLE.assign(y=y).to_parquet(tmp_path / "d.parquet", row_group_size=40)
    rows = list(batches(X, y))
    for source, target in ((X, y), (WHOLE.assign(y=y), "y"), (rows, None), (tmp_path / "d.csv", "y"),
                           (tmp_path / "d.parquet", "y")):  # fmt: skip
        with pytest.raises(BadData, match="row 237"):
            Moments(source, target, **options)


def test_rows_of_rows_keep_their_numbers() -> None:
    rows = Block(X, Y[:, None], None, ["a", "b", "c"], ["y"], start=1000)
    part = rows.taken(slice(100, 300)).taken(np.arange(5, 200, 10)).taken(slice(3, 12)).taken(slice(4, None))
    wrong = replace(part, y=np.where(np.arange(len(part.y)) == 1, np.nan, part.y[:, 0])[:, None])
    with pytest.raises(BadData, match=f"row {1000 + 100 + 5 + 80}"):
        wrong.raise_where(wrong.names, wrong.targets)


def test_a_checkpoint_of_other_weights_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    WHOLE.to_parquet(tmp_path / "d.parquet")
    real = Moments._release

    def dies(_: Moments) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Moments, "_release", dies)
    with pytest.raises(KeyboardInterrupt):
        Moments.scan(tmp_path / "d.parquet", "y", sample_weight=W, checkpoint=tmp_path / "state", every=0)
    monkeypatch.setattr(Moments, "_release", real)
    with pytest.raises(BadData, match="another file"):
        Moments.scan(tmp_path / "d.parquet", "y", sample_weight=W[::-1], checkpoint=tmp_path / "state")
    found = Moments.scan(tmp_path / "d.parquet", "y", sample_weight=W, checkpoint=tmp_path / "state")
    assert np.array_equal(found.scatter, Moments.scan(tmp_path / "d.parquet", "y", sample_weight=W).scatter)


def test_a_share_of_the_variance_is_scikit_learns() -> None:
    from sklearn.decomposition import PCA

    for share in (0.3, 0.6, 0.95, 0.9999):
        assert StreamingPCA(share).fit(X).n_components_ == PCA(share, svd_solver="full").fit(X).n_components_
    with pytest.raises(BadData, match="components"):
        StreamingPCA(1.5).fit(X)
    with pytest.raises(BadData, match="components"):
        StreamingPCA("mle").fit(X)  # type: ignore[arg-type]


def test_a_full_disk_is_named_and_its_number_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    Moments(X, Y).save(tmp_path / "m")
    before = (tmp_path / "m").read_bytes()
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(HastenError, match="No space left") as failed:
        Moments(X).save(tmp_path / "m")
    error = failed.value
    assert isinstance(error, OSError) and error.errno == errno.ENOSPC and "try:" in str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert [p.name for p in tmp_path.iterdir()] == ["m"] and (tmp_path / "m").read_bytes() == before


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_files_have_the_mode_that_the_user_wants(tmp_path: Path, mask: int) -> None:
    old = os.umask(mask)
    try:
        Moments(X).save(tmp_path / "m")
    finally:
        os.umask(old)
    assert (tmp_path / "m").stat().st_mode & 0o777 == 0o666 & ~mask


def test_only_what_killed_saves_left_is_swept(tmp_path: Path) -> None:
    kept = [".m.", ".m.toolong00", ".m.short", "m.0a1b2c3d", ".n.0a1b2c3d", ".m.0a1b2c3D", "m"]
    for name in [*kept, ".m.0a1b2c3d", ".m.ab_cd012"]:
        (tmp_path / name).write_text("")
    storage.sweep(tmp_path / "m")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(kept)


class Once:
    """Gives its batches once, though it can be asked again."""

    def __init__(self, *later: Any) -> None:
        self.passes = iter([list(batches(X @ [[1, 1, 1], [0, 1, 1], [0, 0, 0.1]], Y)), *later])

    def __iter__(self) -> Iterator[Any]:
        yield from next(self.passes, [])


@pytest.mark.parametrize("later", [[], [[(X[:100], Y[:100])]]])
@pytest.mark.parametrize(
    "call",
    [lambda rows: StreamingRidge().fit(rows), lstsq, lambda rows: lstsq(rows, fit_intercept=False)],
)
def test_a_second_pass_over_other_rows_is_refused(later: list[Any], call: Callable[[Any], Any]) -> None:
    with pytest.raises(BadData, match="later"):
        call(Once(*later))


class Augmented:
    """Adds noise to its rows, other noise in each pass."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(0)

    def __iter__(self) -> Iterator[Any]:
        for x, y in batches(X @ [[1, 1, 1], [0, 1, 1], [0, 0, 0.1]], Y):
            yield x + 0.3 * self.random.standard_normal(x.shape), y


@pytest.mark.parametrize("method", ["auto", "refined", "tsqr"])
def test_rows_that_are_others_in_each_pass_are_refused(method: str) -> None:
    """The error of a QR was promised for a mixture of both."""
    with pytest.raises(BadData, match="other means"):
        lstsq(Augmented(), method=method)
    with pytest.raises(BadData, match="other means"):
        StreamingRidge().fit(Augmented())
    assert np.isfinite(StreamingRidge(1.0, cv=3).fit(iter(Augmented())).coef_).all()
    rows = TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    for drop, says in ((True, "drop_last=False"), (False, "")):
        loader = DataLoader(
            rows, batch_size=70, shuffle=True, drop_last=drop, generator=torch.Generator().manual_seed(0)
        )
        with pytest.raises(BadData, match=says) if drop else contextlib.nullcontext():
            StreamingRidge().fit(loader)


def test_leave_one_out_of_texts_and_gaps() -> None:
    frame = WHOLE.assign(t=np.where(X[:, 0] > 0, "u", "v"))
    frame.loc[::7, "b"] = np.nan
    m = Moments(frame, "y", missing="mean")
    dense = frame.drop(columns="y").assign(b=frame["b"].fillna(frame["b"].mean()), gap=frame["b"].isna(), t=X[:, 0] > 0)
    wanted = leave_one_out(open_source(dense.astype(float).to_numpy(), Y), Moments(dense.astype(float), Y), [0.0])[0]
    found = leave_one_out(open_source(frame, target="y"), m, [0.0])[0]
    assert found.mse == pytest.approx(wanted.mse, rel=1e-9)
    with pytest.raises(BadData, match="later"):
        leave_one_out(open_source(X, Y), WEIGHTED, [1.0])


def test_a_loader_with_a_sampler_of_batches_has_its_own_order() -> None:
    rows = torch.from_numpy(X)
    for sampler in (BatchSampler(RandomSampler(rows), 50, False), [[2, 1], [0]]):
        with pytest.raises(BadData, match="order of its own"):
            Moments(DataLoader(rows, batch_sampler=sampler), Y)
    plain = BatchSampler(SequentialSampler(rows), 50, False)
    assert apart(Moments(DataLoader(rows, batch_sampler=plain), Y).scatter, Moments(X, Y).scatter) < 1e-12


def test_objects_that_are_numbers_are_numbers() -> None:
    gaps = [None if i % 50 == 0 else v for i, v in enumerate(X[:, 0])]
    frame = pd.DataFrame({"a": pd.Series(gaps, dtype=object), "b": [Decimal(str(v)) for v in X[:, 1]], "y": Y})
    m = Moments(frame, "y", missing="mean")
    assert m.names == ["a", "b", "a is missing"]
    assert Moments(frame.assign(a=["u", 1, None] * 100), "y").p == 4


def test_folds_of_some_rows_need_no_array_of_all() -> None:
    for rows, folds in ((10, 3), (12, 4), (7, 7), (1000, 9)):
        whole = dealing.fold_numbers(rows, folds)
        wanted = [k for k, (_, test) in enumerate(KFold(folds).split(np.zeros(rows))) for _ in test]
        assert whole.tolist() == wanted
        assert dealing.fold_numbers(rows, folds, 3, 6).tolist() == wanted[3:6]
    assert dealing.fold_numbers(10**15, 10, 10**15 - 2, 10**15).tolist() == [9, 9]


@pytest.mark.parametrize("kind", ["pandas", "polars", "arrow", "parquet"])
def test_a_missing_category_is_no_other_one(tmp_path: Path, kind: str) -> None:
    """Of Arrow's dictionaries it was the last one."""
    frame = pd.DataFrame({"t": pd.Categorical(["a", None, "b", "c"] * 5), "y": np.arange(20.0)})
    table: Any = frame
    if kind == "parquet":
        table = tmp_path / "d.parquet"
        frame.to_parquet(table, row_group_size=7)
    elif kind != "pandas":
        table = pl.from_pandas(frame) if kind == "polars" else pa.Table.from_pandas(frame)
    m = Moments(table, "y")
    assert set(m.names) == {"t=a", "t=b", "t=c", "t is missing"} and np.allclose(m.mean[:4], 0.25)


def test_columns_of_other_kinds_are_told(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="'a' is of the kind period"):
        Moments(pd.DataFrame({"a": pd.period_range("2024", periods=3, freq="M")}))
    with pytest.raises(BadData, match="'a' is of the kind Struct"):
        Moments(pa.table({"a": [{"u": 1}] * 3}))
    with pytest.raises(BadData, match="'a' holds no value"):
        Moments(pa.table({"a": pa.nulls(3)}))


def test_a_missing_category_is_not_the_text_missing(tmp_path: Path) -> None:
    frame = pd.DataFrame({"t": ["missing", None, "b", "b"] * 5, "y": np.arange(20.0)})
    m = Moments(frame, "y")
    assert dict(zip(m.names, m.mean, strict=False)) == {"t=missing": 0.25, "t is missing": 0.25, "t=b": 0.5}


def test_a_number_whose_name_a_category_has_is_in_quotes() -> None:
    frame = pd.DataFrame({"a=b": np.arange(20.0), "a is missing": 1.0, "a": ["b", None] * 10, "y": np.arange(20.0)})
    m = Moments(frame, "y")
    assert m.names == ['"a=b"', '"a is missing"', "a=b", "a is missing"]
    assert (m + Moments(frame, "y")).names == m.names


def test_times_are_labels_in_any_unit() -> None:
    days = np.array(["2024-01-01", "2024-01-02"] * 150, dtype="datetime64[D]")
    model = GroupRidge().fit(X, np.where(np.arange(300) % 2, Y, -Y), groups=days)
    for unit in ("D", "s", "us", "ns"):
        assert apart(model.predict(X, groups=days.astype(f"datetime64[{unit}]")), model.predict(X, groups=days)) == 0
    assert apart(model.predict(X, groups=days), model.predict(X)) > 0.1


def test_missing_objects_are_missing_values() -> None:
    gaps = np.array([[None if i % 3 else v for v in row] for i, row in enumerate(X)], dtype=object)
    assert Moments(gaps, missing="mean").n == 300
    for call, says in (
        (lambda: Moments(gaps, Y), "X contains NaN: row 1, column 'x0'"),
        (lambda: Moments(X, pd.Series([1, None, 3] * 100, dtype="Float64")), "y contains NaN: row 1"),
        (lambda: Moments(X, [1, None, 3] * 100), "y contains NaN: row 1"),
        (lambda: Moments(X, pl.Series([True, None, False] * 100)), "y contains NaN: row 1"),
        (lambda: Moments(X, ["a"] * 300), r"StreamingLogistic for classes; or y\.astype"),
        (lambda: Moments(np.array([[10**400]], dtype=object)), "cannot be taken for numbers"),
        (lambda: Moments(torch.eye(3).to_sparse()), r"tensor\.to_dense\(\)"),
        (lambda: StreamingRidge().fit(torch.eye(300).to_sparse(), Y), r"tensor\.to_dense\(\)"),
    ):
        with pytest.raises(BadData, match=says):
            call()


def test_arrows_batches_readers_and_datasets(tmp_path: Path) -> None:
    whole = pa.Table.from_pandas(WHOLE)
    for rows in (whole.to_batches()[0], whole.to_reader(max_chunksize=70), whole.to_batches(max_chunksize=70)):
        m = Moments(rows, "y")
        assert m.names == ["a", "b", "c"] and apart(m.scatter, Moments(X, Y).scatter) < 1e-12
    WHOLE.to_parquet(tmp_path / "d.parquet")
    dataset = pa.dataset.dataset(tmp_path / "d.parquet")
    assert apart(Moments(dataset, "y").scatter, Moments(X, Y).scatter) < 1e-12
    assert apart(StreamingRidge().fit(dataset, "y").coef_, StreamingRidge().fit(X, Y).coef_) < 1e-12
    with pytest.raises(BadData, match="cannot be read from a TensorDataset"):
        StreamingRidge().fit(TensorDataset(torch.from_numpy(X)), Y)
