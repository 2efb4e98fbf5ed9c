"""What people give: NumPy's numbers, wrong shapes, columns with holes, factories that fail for one key."""

from __future__ import annotations

import copy
import os
import pickle
import stat
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hasten import fleet
from hasten.core.errors import UsageError
from tests.fleet.common import mlp, ragged, rows, weights
from tests.fleet.test_fit import series_net, waves

pd = pytest.importorskip("pandas")


def frame(keys: tuple[str, ...] = ("a", "b")) -> Any:
    pieces = []
    for i, key in enumerate(keys):
        X, y = rows(30, i)
        pieces.append(pd.DataFrame({"k": key, "t": range(30), **{f"x{j}": X[:, j] for j in range(6)}, "y": y}))
    return pd.concat(pieces, ignore_index=True)


COLUMNS: dict[str, Any] = {"by": "k", "features": [f"x{j}" for j in range(6)], "target": "y", "epochs": 1}
SERIES: dict[str, Any] = {"window": 8, "horizon": 3, "epochs": 1}


# -- numbers -----------------------------------------------------------------------------------------------------------


def test_numpys_numbers_are_numbers(tmp_path: Path) -> None:
    plain = {"seed": 3, "lr": 0.125, "epochs": 2, "batch_size": 16, "clip": 0.5, "weight_decay": 0.25}
    theirs = {"seed": np.int64(3), "lr": np.float32(0.125), "epochs": np.int64(2), "batch_size": np.int32(16)}
    theirs |= {"clip": np.float32(0.5), "weight_decay": np.float64(0.25), "betas": tuple(np.float32([0.5, 0.75]))}
    own = {"s0": {"lr": np.float32(0.25), "seed": np.int64(1)}}
    stop = fleet.EarlyStop(np.int64(2), np.float32(0.0), np.float32(0.25))  # type: ignore[arg-type]
    tried = fleet.fit(
        mlp, ragged(2), **theirs, settings=own, stop=stop, loss=fleet.Huber(np.float32(0.5)), journal=tmp_path / "j"
    )  # fmt: skip
    known = fleet.fit(
        mlp, ragged(2), **plain, betas=(0.5, 0.75), settings={"s0": {"lr": 0.25, "seed": 1}},
        stop=fleet.EarlyStop(2, 0.0, 0.25), loss=fleet.Huber(0.5), journal=tmp_path / "j",
    )  # fmt: skip
    assert weights(tried) == weights(known)
    tried.save(tmp_path / "f.safetensors")
    again = fleet.Fleet.load(tmp_path / "f.safetensors", mlp)
    assert again.recipe == known.recipe and again.settings == known.settings
    series = fleet.fit(series_net, waves(), window=np.int64(8), horizon=np.int64(3), epochs=1, workers=np.int64(1))
    assert weights(series) == weights(fleet.fit(series_net, waves(), **SERIES))


@pytest.mark.parametrize(("options", "said"), [
    ({"workers": -1}, "workers=-1"), ({"prove": -3}, "prove=-3"), ({"seed": None}, "seed=None"),
    ({"lr": "fast"}, "lr='fast'"), ({"stop": True}, "stop=True"), ({"stop": "soon"}, "EarlyStop"),
    ({"betas": 0.9}, "betas"), ({"optimizer": None}, "no optimizer None"), ({"epochs": "2"}, "epochs='2'"),
    ({"settings": {"s0": {"lr": "fast"}}}, r"settings\['s0'\]: lr"), ({"settings": {"s0": {"lr": -1.0}}}, "lr=-1.0"),
], ids=str)  # fmt: skip
def test_what_is_no_number_is_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        fleet.fit(mlp, ragged(2), **options)


def test_a_number_stops_early() -> None:
    by_number = fleet.fit(mlp, ragged(2), epochs=3, stop=1)
    assert by_number.recipe.stop == fleet.EarlyStop(patience=1)
    assert weights(by_number) == weights(fleet.fit(mlp, ragged(2), epochs=3, stop=fleet.EarlyStop(patience=1)))


# -- factories ---------------------------------------------------------------------------------------------------------


def test_a_factory_that_fails_for_one_key_fails_that_key_alone() -> None:
    def make(key: str) -> nn.Module:
        if key == "s1":
            raise RuntimeError("boom\nand more")
        return mlp().double() if key == "s3" else mlp()

    trained = fleet.fit(make, ragged(5), epochs=1)
    assert set(trained.failed) == {"s1", "s3"} and trained.failed["s1"] == "RuntimeError: boom"
    assert "float64" in trained.failed["s3"]
    assert weights(trained) == {k: w for k, w in weights(fleet.fit(mlp, ragged(5), epochs=1)).items() if k in trained}
    settings = {"s0": {"widht": 3}}
    tried = fleet.fit(lambda width=4: nn.Linear(6, 1), ragged(3), epochs=1, settings=settings)
    assert list(tried) == ["s1", "s2"] and "widht" in tried.failed["s0"]


def test_a_factory_that_fails_for_every_key_is_an_error() -> None:
    with pytest.raises(UsageError, match="'s0' with ZeroDivisionError") as raised:
        fleet.fit(lambda: 1 / 0, ragged(2))  # type: ignore[arg-type, return-value]
    assert isinstance(raised.value.__cause__, ZeroDivisionError)
    for given, said in ((mlp(), "factory|makes networks"), (3, "a int"), (lambda: None, "NoneType")):
        with pytest.raises(UsageError, match=said):
            fleet.fit(given, ragged(2))  # type: ignore[arg-type]


# -- series and frames -------------------------------------------------------------------------------------------------


def test_a_series_is_one_column() -> None:
    wave = waves(1)["w0"]
    column = fleet.fit(series_net, {"a": wave[:, None]}, **SERIES)
    assert weights(column) == weights(fleet.fit(series_net, {"a": wave}, **SERIES))
    with pytest.raises(UsageError, match=r"series of 'b'.*\(90, 2\)"):
        fleet.fit(series_net, {"a": wave, "b": np.stack([wave, wave], axis=1)}, **SERIES)
    with pytest.raises(UsageError, match="no number"):
        fleet.fit(series_net, {"a": ["x"] * 90}, **SERIES)


def test_features_do_not_go_with_a_window() -> None:
    for named in (["x0"], ["nowhere"], "x0"):
        with pytest.raises(UsageError, match=r"features=.*window=8"):
            fleet.fit(series_net, frame(), by="k", target="y", features=named, **SERIES)


def test_columns_by_name() -> None:
    one = fleet.fit(lambda: nn.Linear(1, 1), frame(), by="k", features="x0", target="y", epochs=1)
    assert one["a"].in_features == 1
    two = fleet.fit(lambda: nn.Linear(1, 2), frame(), by="k", features=["x0"], target=["y", "x1"], epochs=1)
    assert two.predict("a", np.zeros((3, 1))).shape == (3, 2) and two.session.tasks["a"].y.shape == (30, 2)
    assert two.update(frame(("a",))).rows == 30


@pytest.mark.parametrize(("changed", "options", "said"), [
    ({"k": [None, *"a" * 59]}, {}, "1 of 60 rows have no key in column 'k', first row 0"),
    ({"k": ["", *"a" * 59]}, {}, "1 of 60 rows have no key"), ({"k": [np.nan, *range(59)]}, {}, "no key"),
    ({"t": [*range(59), None]}, {"time_column": "t"}, "no time in column 't', first row 59"),
    ({"t": ["x", *range(59)]}, {"time_column": "t"}, "cannot be sorted"),
    ({"x0": "red"}, {}, "column 'x0' holds what is no number"), ({"y": "red"}, {}, "classes to learn from 0 on"),
    ({"x0": pd.Timestamp(0)}, {}, "column 'x0'"), ({}, {"by": ["k"]}, "keys are one column"),
    ({}, {"target": "x0"}, "one of the features"), ({}, {"target": ["y", "x0"]}, "target=.x0. is one of the features"),
    ({}, {"batch_size": 64.0}, "batch_size=64$"),
], ids=str)  # fmt: skip
def test_columns_with_holes_or_text_are_named(changed: dict[str, Any], options: dict[str, Any], said: str) -> None:
    spoilt = frame().assign(**{name: pd.Series(values, index=range(60)) if isinstance(values, list) else values
                               for name, values in changed.items()})  # fmt: skip
    with pytest.raises(UsageError, match=said):
        fleet.fit(mlp, spoilt, **{**COLUMNS, **options})


@pytest.mark.parametrize("named", [{"by": "k"}, {"target": ["y"]}, {"time_column": "t"}], ids=str)
def test_a_mapping_has_no_columns(named: Any) -> None:
    with pytest.raises(UsageError, match="names columns, and tasks is a mapping"):
        fleet.fit(mlp, ragged(2), epochs=1, **named)


def test_two_columns_of_one_name_are_refused() -> None:
    with pytest.raises(UsageError, match="cannot be read: DuplicateError"):
        fleet.fit(mlp, pd.concat([frame(), frame()[["y"]]], axis=1), **COLUMNS)


# -- predictions and files ---------------------------------------------------------------------------------------------


def test_predictions_of_a_mapping_and_of_wrong_rows() -> None:
    trained, X = fleet.fit(mlp, ragged(2), epochs=1), ragged(2)["s0"][0][:4]
    both = trained.predict(["s1", "s0"], {"s0": X, "s1": X[::-1]})
    assert (both[1] == trained.predict("s0", X)).all() and (both[0] == trained.predict("s1", X[::-1])).all()
    assert (trained.predict("s0", {"s0": X}) == both[1]).all()
    for given, said in (
        (X[:, :5], r"rows of shape \(5,\)"), (X[0], r"X\[None\]"), ({"s1": X}, "nothing for key 's0'"),
        ("x", "no number"), (X[None], r"predict\('s0', X\[0\]\)"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=said):
            trained.predict("s0", given)


def test_a_fleet_is_saved_and_not_pickled() -> None:
    trained = fleet.fit(mlp, ragged(1), epochs=1)
    for way in (pickle.dumps, copy.deepcopy):
        with pytest.raises(UsageError, match="save"):
            way(trained)


def test_a_file_may_be_read_by_whom_the_umask_says(tmp_path: Path) -> None:
    trained, path = fleet.fit(mlp, ragged(1), epochs=1), tmp_path / "f.safetensors"
    before = os.umask(0o027)
    try:
        trained.save(path)
        assert {stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir()} == {0o640}
        path.chmod(0o604)
        trained.save(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o604
    finally:
        os.umask(before)


# -- the proof ---------------------------------------------------------------------------------------------------------


def test_the_proof_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    trained = fleet.fit(mlp, ragged(3), epochs=2, prove=2)
    said = capsys.readouterr().out
    assert said.count("proof s") == 2 and "holds" in said and "the plain loop's" in said
    assert said.strip() in str(trained.summary())
    assert fleet.fit(mlp, ragged(3), epochs=2).prove(3)[0]["holds"] and not capsys.readouterr().out
    trained.update({"s0": rows(5, 3)})
    with pytest.raises(UsageError, match="not as it was trained"):
        trained.prove(1)


# -- keys --------------------------------------------------------------------------------------------------------------


def test_a_key_is_whatever_reads_as_one() -> None:
    keys = [("DE", 1), 1.5, 7]
    trained = fleet.fit(mlp, {key: rows(20, i) for i, key in enumerate(keys)}, epochs=1)
    X = rows(4, 9)[0]
    for key in keys:
        assert key in trained and trained.predict(key, X).shape == (4, 1)
        assert trained.predict(key, {key: X}).shape == (4, 1)
    assert trained.predict(keys, [X] * 3).shape == (3, 4, 1) and "x" not in trained
    with pytest.raises(KeyError, match=r"no key '2\.5'"):
        trained.predict(2.5, X)


@pytest.mark.parametrize("key", [None, float("nan"), pd.NA, pd.NaT], ids=str)
def test_a_missing_key_is_refused(key: Any) -> None:
    with pytest.raises(UsageError, match="a key is"):
        fleet.fit(mlp, {"s0": rows(20, 0), key: rows(20, 1)}, epochs=1)
    with pytest.raises(UsageError, match="a key is"):
        fleet.fit(series_net, {key: waves(1)["w0"]}, **SERIES)
    assert list(fleet.fit(mlp, {"nan": rows(20, 1)}, epochs=1)) == ["nan"]


def test_two_series_of_one_name_are_refused() -> None:
    with pytest.raises(UsageError, match="two keys read '1'"):
        fleet.fit(series_net, {1: waves()["w0"], "1": waves()["w1"]}, **SERIES)


# -- times -------------------------------------------------------------------------------------------------------------


def test_text_orders_rows_only_where_it_is_a_date() -> None:
    days = pd.date_range("2024-01-01", periods=60)
    data = pd.DataFrame({"k": "a", "day": days.strftime("%Y-%m-%d"), "y": waves(1, 60)["w0"]})
    of: dict[str, Any] = {"by": "k", "target": "y", "time_column": "day", **SERIES}
    shuffled = data.sample(frac=1.0, random_state=0)
    assert weights(fleet.fit(series_net, shuffled, **of)) == weights(fleet.fit(series_net, data, **of))
    with pytest.raises(UsageError, match="'day' cannot be sorted"):
        fleet.fit(series_net, data.assign(day=days.strftime("%d/%m/%Y")), **of)


def days(*kept: slice, count: int = 60) -> Any:
    """A daily series without some of its days."""
    found = pd.DataFrame({"k": "a", "day": pd.date_range("2024-01-01", periods=count), "y": waves(1, count)["w0"]})
    return pd.concat([found[part] for part in kept])


BY_DAY: dict[str, Any] = {"by": "k", "target": "y", "time_column": "day", **SERIES}


def test_windows_over_missing_rows_are_told() -> None:
    """Eleven rows make a window and what follows it: ten of them go over each gap."""
    for lacks, count in ((days(slice(30), slice(31, 60)), 10), (days(slice(20), slice(30, 40), slice(45, 60)), 20)):
        zoned = lacks.assign(day=lacks["day"].dt.tz_localize("Europe/Berlin"))
        text = lacks.assign(day=lacks["day"].dt.strftime("%Y-%m-%d"))
        for given in (lacks.sample(frac=1.0, random_state=0), zoned, text):
            summary = fleet.fit(series_net, given, **BY_DAY).summary()
            (told,) = summary.remarks
            assert f"1 key lacks rows in time: {count} of their" in told and told in str(summary)
    assert fleet.fit(series_net, days(slice(60)), **BY_DAY).summary().remarks == ()
    months = days(slice(60)).assign(day=pd.date_range("2020-01-31", periods=60, freq="ME"))
    working = days(slice(60)).assign(day=pd.bdate_range("2024-01-01", periods=60))
    assert not any(fleet.fit(series_net, each, **BY_DAY).summary().remarks for each in (months, working))


def test_periods_are_times_like_their_first_days() -> None:
    """They have a year as dates have, and are none."""
    hours = days(slice(60)).assign(day=pd.period_range("2024-01-01", periods=60, freq="h"))
    assert fleet.fit(series_net, hours, **BY_DAY).summary().remarks == ()


def test_several_rows_of_one_time_are_told_and_make_no_gaps() -> None:
    twice = pd.concat([days(slice(60))] * 20)
    (told,) = fleet.fit(series_net, twice, **BY_DAY).summary().remarks
    assert "1 key has several rows of one time: 1140 rows" in told


def test_rows_that_are_not_in_the_order_of_dates_are_told_where_no_column_of_times_is_named() -> None:
    untimed = {**BY_DAY, "time_column": ""}
    newest_first = days(slice(None, None, -1))
    text = newest_first.assign(day=newest_first["day"].dt.strftime("%Y-%m-%d"))
    for given in (newest_first, text):
        (told,) = fleet.fit(series_net, given, **untimed).summary().remarks
        assert "rows of 1 key (a) are not in the order of column 'day'" in told
    sold = newest_first.assign(sold=days(slice(60))["day"].to_numpy())  # in order of one column of dates
    for given in (days(slice(60)), sold, newest_first.drop(columns="day"), newest_first.assign(day="x-y")):
        assert fleet.fit(series_net, given, **untimed).summary().remarks == ()


def test_features_that_float32_does_not_hold_are_told() -> None:
    seconds = 1.7e9 + 10.0 * np.arange(200)
    X = np.column_stack([np.sin(seconds), seconds])
    frame = pd.DataFrame({"k": "a", "x": X[:, 0], "at": X[:, 1], "y": X[:, 0] ** 2})
    small = {"epochs": 1, "batch_size": 50}

    def net() -> nn.Module:
        return nn.Linear(2, 1)

    for given, name in ((frame, "'at'"), ({"a": (X, frame["y"].to_numpy())}, "X[:, 1]")):
        ways: dict[str, Any] = {"by": "k", "features": ["x", "at"], "target": "y"} if given is frame else {}
        (told,) = fleet.fit(net, given, **ways, **small).summary().remarks
        assert f"float32, which rounds {name} (a)" in told
    years = frame.assign(at=1.7e9 + 1e6 * np.arange(200), constant=0.1)
    ways = {"by": "k", "features": ["constant", "at"], "target": "y"}
    assert fleet.fit(net, years, **ways, **small).summary().remarks == ()
    assert fleet.fit(net, {"a": (X - X[0], frame["y"].to_numpy())}, **small).summary().remarks == ()


def test_a_task_is_looked_at_like_a_pair() -> None:
    X, y = rows(30, 0)
    given = {"a": fleet.Task(X.astype(np.float64), y.tolist()), "b": fleet.Task(X * np.nan, y)}  # type: ignore[arg-type]
    found = fleet.fit(mlp, given, epochs=1)
    assert weights(found) == weights(fleet.fit(mlp, {"a": (X, y)}, epochs=1)) and "NaN" in found.failed["b"]


def test_what_is_no_number_is_refused_and_what_is_masked_is_missing() -> None:
    X, y = rows(30, 0)
    for strange in (X.astype(complex), X.astype("datetime64[s]")):
        with pytest.raises(UsageError, match=f"holds what is no number: it holds {strange.dtype}".replace("[", r"\[")):
            fleet.fit(mlp, {"a": (strange, y)}, epochs=1)
    masked = np.ma.masked_array(X, np.arange(X.size).reshape(X.shape) == 8)
    assert "1 of 30 rows, first in row 1" in fleet.fit(mlp, {"a": (masked, y)}, epochs=1).failed["a"]
    half = torch.tensor(X).bfloat16()
    whole = fleet.fit(mlp, {"a": (half.float().numpy(), y)}, epochs=1)
    assert weights(fleet.fit(mlp, {"a": (half, y)}, epochs=1)) == weights(whole)
    assert whole.predict("a", X[:0]).shape == (0, 1)
    with pytest.raises(UsageError, match=r"settings\['a'\] is a float"):
        fleet.fit(mlp, {"a": (X, y)}, epochs=1, settings={"a": 0.1})  # type: ignore[dict-item]


def test_keys_that_read_alike_are_told_apart_or_refused() -> None:
    data = frame(("a", "b"))
    mixed = data.assign(k=pd.Series([1 if key == "a" else "1" for key in data["k"]], dtype=object))
    with pytest.raises(UsageError, match="two keys read '1'"):
        fleet.fit(mlp, mixed, **COLUMNS)
    numbers = data.assign(k=pd.Series([1 if key == "a" else "2" for key in data["k"]], dtype=object))
    trained = fleet.fit(mlp, numbers, **COLUMNS)
    assert list(trained) == ["1", "2"]
    X, y = rows(30, 0)
    for call in (
        lambda: trained.update({1: (X, y), "1": (X, y)}),
        lambda: trained.predict(["1"], {1: X, "1": X}),
        lambda: fleet.fit(mlp, {"1": (X, y)}, epochs=1, settings={1: {"lr": 0.1}, "1": {"lr": 0.2}}),
    ):
        with pytest.raises(UsageError, match="two keys read '1'"):
            call()


# -- settings and options ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "said"), [
    ({"betas": (0.9, 1.0)}, "below 1"), ({"optimizer": "sgd", "nesterov": True}, "momentum"),
    ({"optimizer": lambda p: torch.optim.SGD(p, 0.1), "settings": {"s0": {"lr": 1.0}}}, "callable"),
])  # fmt: skip
def test_what_an_optimizer_would_not_do_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        fleet.fit(mlp, ragged(2), epochs=1, **options)


class Several(nn.Module):
    """More than a prediction."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(6, 1)

    def forward(self, x: torch.Tensor) -> Any:
        return self.last(x), x


@pytest.mark.parametrize(("make", "options", "said"), [
    (mlp, {"loss": nn.SmoothL1Loss()}, r"targets of all rows: the model gives \(rows, 1\), the target has \(rows,\)"),
    (mlp, {"loss": lambda p, y: ((p - y) ** 2).sum()}, "targets of all rows"),
    (mlp, {"optimizer": torch.optim.Adam(mlp().parameters())}, "an Adam that was made for some parameters"),
], ids=str)  # fmt: skip
def test_what_would_not_be_learned_is_refused(make: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        fleet.fit(make, {"a": rows(64, 0), "b": rows(64, 1)}, epochs=1, **options)


@pytest.mark.parametrize(("make", "options", "said"), [
    (mlp, {"loss": lambda p, y: (p[:, 0] - y) ** 2}, "the loss of a batch has the shape (64,)"),
    (Several, {}, "the model gives a tuple, and no tensor"),
], ids=str)  # fmt: skip
def test_what_cannot_be_learned_is_named_for_each_key(make: Any, options: dict[str, Any], said: str) -> None:
    assert fleet.fit(make, {"a": rows(64, 0)}, epochs=1, **options).failed["a"].startswith(said)


def test_losses_that_reshape_or_get_what_has_one_shape_are_taken() -> None:
    flat = {"a": rows(20, 0)}
    column = {"a": (flat["a"][0], flat["a"][1][:, None])}
    for loss, tasks in ((nn.SmoothL1Loss(), column), (lambda p, y: (p.squeeze() - y).abs().mean(), flat),
                        (lambda p, y: nn.functional.mse_loss(p, y.reshape(p.shape)), flat)):  # fmt: skip
        assert fleet.fit(mlp, tasks, loss=loss, epochs=1).failed == {}


def test_settings_that_no_file_holds_are_named_before_it_is_written(tmp_path: Path) -> None:
    def make(act: Any = nn.ReLU, of: Any = None) -> nn.Module:
        return nn.Sequential(nn.Linear(6, 4), act(), nn.Linear(4, 1))

    trained = fleet.fit(make, ragged(2), epochs=1, settings={"s0": {"act": nn.Tanh}, "s1": {"of": {"a": [1]}}})
    with pytest.raises(UsageError, match="the setting act="):
        trained.save(tmp_path / "f.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("numbers", [torch.ones(2, dtype=torch.complex64), torch.tensor([2**24 + 1])], ids=str)
def test_buffers_that_float32_does_not_hold_are_refused(numbers: torch.Tensor) -> None:
    def make() -> nn.Module:
        module = nn.Linear(6, 1)
        module.register_buffer("numbers", numbers)
        return module

    with pytest.raises(UsageError, match="numbers "):
        fleet.fit(make, ragged(2), epochs=1)


# -- predictions -------------------------------------------------------------------------------------------------------


def test_predicting_leaves_what_was_given_alone() -> None:
    trained = fleet.fit(lambda: nn.Sequential(nn.ReLU(inplace=True), nn.Linear(6, 1)), ragged(2), epochs=1)
    X = rows(10, 0)[0]
    before = X.copy()
    trained.predict("s0", X)
    assert np.array_equal(X, before)


def test_threads_predict_side_by_side() -> None:
    def make() -> nn.Module:
        return nn.Sequential(nn.Linear(6, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, 1))

    trained, X = fleet.fit(make, ragged(5), epochs=1), rows(100, 0)[0]
    expected = {key: trained.predict(key, X) for key in trained}
    same: list[bool] = []

    def ask(first: int) -> None:
        for i in range(60):
            key = f"s{(first + i) % 5}"
            same.append(np.array_equal(trained.predict(key, X), expected[key]))

    threads = [threading.Thread(target=ask, args=(2 * i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(same) == 240 and all(same)


def test_a_far_off_series_is_predicted_as_finely_as_it_was_learned() -> None:
    near = waves(1)["w0"]
    found = []
    for shift in (0.0, 2.0**27):  # float32 holds multiples of 16 there
        series = np.round(near, 1) + shift
        trained = fleet.fit(series_net, {"w": series}, **SERIES)
        found.append(trained.predict("w", series[None, :8]) - shift)
    assert np.allclose(found[0], found[1], atol=17)
    shifted = trained.scales["w"]
    asked = ((np.round(near, 1)[None, :8] + 2.0**27 - shifted[0]) / shifted[1]).astype(np.float32)
    with torch.no_grad():
        own = trained["w"](torch.from_numpy(asked)).numpy().astype(np.float64) * shifted[1] + shifted[0]
    assert np.array_equal(trained.predict("w", series[None, :8]), own.astype(np.float32))


@pytest.mark.parametrize("given", [{"features": ["x"]}, {"window": 3, "horizon": 1}])
def test_a_frame_without_rows_is_an_error(given: Any) -> None:
    frame = pd.DataFrame({"key": pd.Series([], dtype=str), "x": np.zeros(0), "y": np.zeros(0)})
    with pytest.raises(UsageError, match="no rows"):
        fleet.fit(mlp, frame, by="key", target="y", **given)


def test_an_optimizer_that_wants_a_closure_is_an_error() -> None:
    with pytest.raises(UsageError, match="LBFGS evaluates the loss several times a step"):
        fleet.fit(mlp, ragged(2), optimizer=lambda p: torch.optim.LBFGS(p), epochs=1)
