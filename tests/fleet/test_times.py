"""When rows were: windows do not go over gaps unless they are told to; days and months written as numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from hasten import fleet
from hasten.core.errors import UsageError
from hasten.fleet import growing
from tests.fleet.common import weights
from tests.fleet.test_fit import series_net, waves

pd = pytest.importorskip("pandas")

BY_DAY: dict[str, Any] = {"by": "k", "target": "y", "time_column": "day", "window": 8, "horizon": 3, "epochs": 1}
WIDTH = 11  # rows of a window and what follows it


def days(*kept: slice, count: int = 60) -> Any:
    """A daily series without some of its days."""
    found = pd.DataFrame({"k": "a", "day": pd.date_range("2024-01-01", periods=count), "y": waves(1, count)["w0"]})
    return pd.concat([found[part] for part in kept])


def over(starts: Any, *breaks: int) -> bool:
    return any(start < at < start + WIDTH for start in starts for at in breaks)


def test_windows_do_not_go_over_gaps() -> None:
    lacks = days(slice(30), slice(31, 60))
    trained = fleet.fit(series_net, lacks, **BY_DAY)
    shift, scale = trained.scales["a"]
    values = ((lacks["y"].to_numpy() - shift) / scale).astype(np.float32)
    whole = [start for start in range(len(values) - WIDTH + 1) if not over([start], 30)]
    X, y = (np.stack([values[start + a : start + b] for start in whole]) for a, b in ((0, 8), (8, 11)))
    assert weights(trained) == weights(fleet.fit(series_net, {"a": (X, y)}, epochs=1))
    assert trained.summary().rows[0].rows == len(whole) == 39
    assert "10 of their 49 windows" in str(trained.summary()) and "left out" in str(trained.summary())


def test_windows_go_over_gaps_where_that_is_asked_for() -> None:
    lacks = days(slice(30), slice(31, 60))
    trained = fleet.fit(series_net, lacks, **BY_DAY, gaps="join")
    assert weights(trained) == weights(fleet.fit(series_net, {"a": lacks["y"]}, window=8, horizon=3, epochs=1))
    assert "10 of their 49 windows" in str(trained.summary()) and "learned like others" in str(trained.summary())
    with pytest.raises(UsageError, match="gaps='fill'"):
        fleet.fit(series_net, lacks, **BY_DAY, gaps="fill")


@pytest.mark.parametrize("split", ["last", "random"])
@pytest.mark.parametrize("parts", [(slice(100), slice(101, 200)), (slice(160), slice(170, 185), slice(190, 200))])
def test_no_part_of_a_split_goes_over_gaps(split: str, parts: tuple[slice, ...]) -> None:
    lacks = days(*parts, count=200)
    trained = fleet.fit(series_net, lacks, **BY_DAY, stop=fleet.EarlyStop(split=split))
    (job,) = trained.session.jobs
    breaks = np.cumsum([part.stop - (part.start or 0) for part in parts])[:-1].tolist()
    assert not over(job.train, *breaks) and not over(job.held, *breaks) and len(job.train) > 3 * len(job.held) > 0
    if split == "last":
        assert job.train.max() + WIDTH <= job.held.min() + 8  # no target is in both
        known = lacks["y"].to_numpy()[: job.held.min() + 8]
        assert trained.scales["a"] == pytest.approx((known.mean(), known.std()))


def test_a_series_of_short_pieces_says_what_it_lacks() -> None:
    lacks = pd.concat([days(*(slice(i, i + 9) for i in range(0, 60, 10))), days(slice(60)).assign(k="b")])
    trained = fleet.fit(series_net, lacks, **BY_DAY)
    assert list(trained) == ["b"]
    assert "take 11 rows, and no more than 9 follow without a gap" in trained.failed["a"]
    assert len(fleet.fit(series_net, lacks, **BY_DAY, gaps="join")) == 2


@pytest.mark.parametrize("refit", ["flat", "full"])
def test_an_update_learns_no_windows_over_gaps(refit: str, tmp_path: Path) -> None:
    """Neither over one among its rows, nor over one before them; nor does the next one, in a fleet that was saved."""
    whole = days(slice(200), count=200)
    trained = fleet.fit(series_net, whole[:100], **BY_DAY)
    first = trained.update(whole[110:140], refit=refit)
    assert first.rows == 30 - WIDTH + 1  # none over the gap in front
    trained.save(tmp_path / "f.safetensors")
    again = fleet.Fleet.load(tmp_path / "f.safetensors", series_net)
    for each in (trained, again):
        assert each.update(whole[140:145], refit=refit).rows == 5
        assert each.update(pd.concat([whole[145:150], whole[160:180]]), refit=refit).rows == 5 + 20 - WIDTH + 1
        line = each._growing.lines["a"]
        assert line.breaks == [100, 140] and not over(line.task().learnable(), 100, 140)
    assert weights(again) == weights(trained)
    joined = fleet.fit(series_net, whole[:100], **BY_DAY, gaps="join")
    assert joined.update(whole[110:140], refit=refit).rows == 30


def test_an_update_that_fails_leaves_no_gap_behind() -> None:
    whole = days(slice(60))
    trained = fleet.fit(series_net, whole[:30], **BY_DAY)
    assert trained.update(whole[40:].assign(y=np.nan)).failed
    assert trained.update(whole[30:]).rows == 30 and trained._growing.lines["a"].breaks == []


def test_an_update_that_is_interrupted_leaves_no_gap_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = days(slice(90), count=90)
    trained = fleet.fit(series_net, whole[:30], **BY_DAY)
    trained.update(whole[30:40])

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(growing, "_train", interrupted)
        with pytest.raises(KeyboardInterrupt):
            trained.update(whole[60:])
    assert trained.update(whole[40:]).rows == 50 and trained._growing.lines["a"].breaks == []


@pytest.mark.parametrize("form", ["%Y%m%d", "%Y%m"])
def test_days_and_months_as_numbers_are_no_distances(form: str) -> None:
    """Between 20240131 and 20240201 lies a day."""
    freq = "D" if "d" in form else "MS"
    whole = days(slice(60)).assign(day=pd.date_range("2022-01-01", periods=60, freq=freq))
    lacks = whole.drop(index=30)
    for given, count in ((whole, 0), (lacks, 10)):
        for kind in (int, str):
            numbers = given.assign(day=given["day"].dt.strftime(form).astype(kind)).sample(frac=1.0, random_state=0)
            found = fleet.fit(series_net, numbers, **BY_DAY)
            assert weights(found) == weights(fleet.fit(series_net, given, **BY_DAY))
            assert len(found.summary().remarks) == bool(count)


def weeks(count: int) -> list[int]:
    """202301, 202302, … over the long year 2026."""
    return [int(day.strftime("%G%V")) for day in pd.date_range("2025-01-06", periods=count, freq="7D")]


def test_weeks_as_numbers_are_no_distances() -> None:
    """From 202552 to 202601 is one, and in 2026 there is a 202653."""
    named = weeks(120)
    assert {202552, 202601, 202653, 202701} <= set(named)
    dated = days(slice(120), count=120).assign(day=pd.date_range("2025-01-06", periods=120, freq="7D"))
    for given, lacks in ((dated, False), (dated.drop(index=60), True)):
        for kind in (int, str, float):
            numbers = given.assign(day=np.array(named)[given.index].astype(kind)).sample(frac=1.0, random_state=0)
            found = fleet.fit(series_net, numbers, **BY_DAY)
            assert weights(found) == weights(fleet.fit(series_net, given, **BY_DAY))
            assert len(found.summary().remarks) == lacks


@pytest.mark.parametrize("form", ["%G-W%V", "%GW%V", "%G-W%V-1", "%GW%V1"])
def test_weeks_as_text_are_dates(form: str) -> None:
    dated = days(slice(120), count=120).assign(day=pd.date_range("2025-01-06", periods=120, freq="7D"))
    texts = dated.assign(day=dated["day"].dt.strftime(form)).sample(frac=1.0, random_state=0)
    found = fleet.fit(series_net, texts, **BY_DAY)
    assert weights(found) == weights(fleet.fit(series_net, dated, **BY_DAY)) and found.summary().remarks == ()
    with pytest.raises(UsageError, match="cannot be sorted"):
        fleet.fit(series_net, texts.assign(day="2024-W61"), **BY_DAY)


@pytest.mark.parametrize(("last", "wrong"), [(202452, 202453), (20240229, 20240230)])
def test_numbers_that_are_no_week_and_no_day_stay_numbers(last: int, wrong: int) -> None:
    """Read as dates the week would be the one after it, 202501, and the day a 1 March."""
    whole = days(slice(29), count=29).assign(day=range(last - 28, last + 1))
    trained = fleet.fit(series_net, whole, **BY_DAY)
    assert trained.session.columns["read"] == ("weeks" if last < 10**6 else "days")
    with pytest.raises(UsageError, match="these rows hold numbers"):
        trained.update(whole[:1].assign(day=wrong))


@pytest.mark.parametrize("first", [52, 11])
def test_new_rows_are_read_as_those_before(first: int, tmp_path: Path) -> None:
    """202601 to 202610 by themselves could be months."""
    whole = days(slice(120), count=120).assign(day=weeks(120))
    fleet.fit(series_net, whole[:first], **BY_DAY).save(tmp_path / "f")
    trained = fleet.Fleet.load(tmp_path / "f", series_net)
    if first == 52:  # with weeks beyond the 12th
        found = trained.update(whole[52:62])
        assert found.rows == 10 and found.remarks == () and not found.failed
    else:
        with pytest.raises(UsageError, match="was read as months when the fleet was trained, and these rows hold"):
            trained.update(whole[12:40])
        assert trained.update(whole[52:60]).remarks  # months still


def test_numbers_stay_numbers() -> None:
    whole = days(slice(60)).assign(day=range(199950, 200010))
    trained = fleet.fit(series_net, whole, **BY_DAY)
    assert trained.update(whole[:10].assign(day=range(200010, 200020))).rows == 10
    assert trained.update(whole[:10].assign(day=range(200101, 200111))).remarks  # a gap of 81, and no months
    with pytest.raises(UsageError, match="read as numbers"):
        trained.update(whole[:10].assign(day=pd.date_range("2024-01-01", periods=10)))


def events(count: int, draw: str) -> Any:
    """A series whose steps in time have no period."""
    random = np.random.default_rng(0)
    steps = {"exponential": random.exponential(size=count), "uniform": random.random(count),
             "lognormal": random.lognormal(0, 0.6, count)}[draw]  # fmt: skip
    hours = pd.to_timedelta(np.cumsum(steps), "h")
    return days(slice(count), count=count).assign(day=pd.Timestamp("2024-01-01") + hours)


@pytest.mark.parametrize("draw", ["exponential", "uniform", "lognormal"])
def test_events_lose_no_windows(draw: str) -> None:
    """Where steps have no period none of them is a gap, and that is said."""
    data = events(400, draw)
    trained = fleet.fit(lambda: nn.Linear(60, 20), data[:300], **{**BY_DAY, "window": 60, "horizon": 20})
    assert trained.summary().rows[0].rows == 300 - 80 + 1
    (told,) = trained.summary().remarks
    assert "1 key has no usual step in time (a" in told and "all windows are learned" in told
    assert trained.update(data[300:]).rows == 100
    joined = fleet.fit(series_net, data, **{**BY_DAY, "gaps": "join"})
    assert not any("no usual step" in told for told in joined.summary().remarks)


@pytest.mark.parametrize("calendar", ["working days", "months", "jitter", "hours of work"])
def test_a_period_is_one_also_where_steps_differ(calendar: str) -> None:
    random = np.random.default_rng(0)
    start = pd.Timestamp("2024-01-01")
    day = {
        "working days": pd.bdate_range(start, periods=200),
        "months": pd.date_range(start, periods=200, freq="MS"),
        "jitter": start + pd.to_timedelta(np.arange(200) * 60 + 8 * random.normal(size=200), "s"),
        "hours of work": [d + pd.Timedelta(h, "h") for d in pd.bdate_range(start, periods=20) for h in range(12)][:200],
    }[calendar]
    whole = days(slice(200), count=200).assign(day=day)
    assert fleet.fit(series_net, whole, **BY_DAY).session.tasks["a"].irregular is False
    lacks = whole.drop(index=range(84, 90))
    breaks = fleet.fit(series_net, lacks, **BY_DAY).session.tasks["a"].breaks
    assert 84 in breaks and (calendar == "hours of work" or len(breaks) == 1)


def test_other_numbers_are_what_they_are() -> None:
    whole = days(slice(60))
    for numbers in (range(60), range(200001, 200061), 20240101 + np.arange(60), 1.7e9 + 60.0 * np.arange(60)):
        found = fleet.fit(series_net, whole.assign(day=numbers).sample(frac=1.0, random_state=0), **BY_DAY)
        assert found.summary().remarks == () and found.session.tasks["a"].rows == 50


def test_a_missing_key_of_pandas_own_is_named() -> None:
    for kind in ("string", "object", "Int64", "category"):
        keys = pd.Series([1, 2, None] * 20) if kind == "Int64" else pd.Series(["a", "b", None] * 20)
        with pytest.raises(UsageError, match="20 of 60 rows have no key"):
            fleet.fit(series_net, days(slice(60)).assign(k=keys.astype(kind)), **BY_DAY)


@pytest.mark.filterwarnings("error")
def test_text_with_a_zone_is_read_in_silence() -> None:
    hours = pd.date_range("2024-03-30", periods=60, freq="h", tz="Europe/Berlin")  # over the change to summer time
    text = days(slice(60)).assign(day=[hour.isoformat() for hour in hours])
    found = fleet.fit(series_net, text, **BY_DAY)
    assert found.summary().remarks == ()
    assert weights(found) == weights(fleet.fit(series_net, days(slice(60)), **BY_DAY))
