"""What a script does to its dataset between passes is seen, and takes none of its time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from torch.utils.data import DataLoader, Dataset

from hasten.explain.changing import MOST_PASSES, Changing
from hasten.seams import loader as seam
from hasten.seams.facts import loader_facts
from hasten.seams.patch import Patches
from hasten.seams.watch import Watch


class Pairs(Dataset[Any]):  # type: ignore[misc]
    """Positive pairs, and negative ones that are drawn before each pass."""

    def __init__(self) -> None:
        self.positive = [[i, i] for i in range(300)]
        self.all = self.positive
        self.asked = 0

    def draw(self) -> None:
        self.all = self.positive + [[i, i + 1] for i in range(300)]

    def __len__(self) -> int:
        return len(self.all)

    def __getitem__(self, i: int) -> Any:
        return self.all[i]


@pytest.fixture
def watch() -> Iterator[Watch]:
    watch, patches = Watch(), Patches()
    seam.install(watch, patches)
    Changing(watch)
    yield watch
    patches.undo()


@pytest.mark.parametrize(
    ("between", "changing"),
    [(Pairs.draw, True), (lambda data: None, False), (lambda data: setattr(data, "asked", data.asked + 1), True)],
    ids=["drawn anew", "left alone", "counted"],
)
def test_what_is_done_between_passes_is_seen(watch: Watch, between: Callable[[Pairs], None], changing: bool) -> None:
    data = Pairs()
    loader = DataLoader(data, batch_size=100)
    for _ in range(3):
        between(data)
        assert len(list(loader)) == len(data) // 100
    (record,) = watch.loaders.values()
    assert loader_facts(record).changing is changing


def test_no_more_than_some_passes_are_looked_at(watch: Watch) -> None:
    data = Pairs()
    loader = DataLoader(data, batch_size=100)
    for _ in range(MOST_PASSES):
        next(iter(loader))
    data.draw()
    next(iter(loader))
    (record,) = watch.loaders.values()
    assert not record.changing


@pytest.mark.parametrize("changing", [True, False])
def test_a_loader_made_anew_for_every_pass_is_the_same_loader(watch: Watch, changing: bool) -> None:
    """Beside another one that looks at what is trained on once the epoch is over."""
    data = Pairs()
    for _ in range(3):
        if changing:
            data.draw()
        for _ in DataLoader(data, batch_size=100, shuffle=True):
            record = watch.feeding
        list(DataLoader(data, batch_size=100))
    assert record is not None and record.changing is changing


@pytest.mark.parametrize("anew", [True, False])
@pytest.mark.parametrize("passes", [1, 2])
def test_a_dataset_made_anew_for_every_pass_keeps_nothing(watch: Watch, anew: bool, passes: int) -> None:
    records, data = [], Pairs()
    for _ in range(4):
        if anew:
            data = Pairs()
        for _ in range(passes):
            loader = DataLoader(data, batch_size=30)
            records.append(watch.record_of(loader))
            for _ in loader:
                pass
    assert [x.changing for x in records] == [anew and passes == 1] * len(records)
    assert [x.before for x in records] == [i % passes if anew else i for i in range(len(records))]


def test_a_look_takes_no_time_of_the_scripts(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0

    def slow(_dataset: Any) -> int:
        nonlocal now
        now += 10**9
        return 1

    monkeypatch.setattr("hasten.explain.changing.close_fingerprint", slow)
    monkeypatch.setattr(watch.clock, "now", lambda: now)
    watch.clock.last = watch.step_started = now
    iter(DataLoader(Pairs(), batch_size=100))
    assert now == 10**9 == watch.step_started and not sum(watch.clock.spent)


def test_what_cannot_be_looked_at_is_left_alone(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_dataset: Any) -> int:
        raise RuntimeError("the dataset's own")

    monkeypatch.setattr("hasten.explain.changing.close_fingerprint", refuse)
    loader = DataLoader(Pairs(), batch_size=100)
    assert [len(list(loader)) for _ in range(2)] == [3, 3]
    (record,) = watch.loaders.values()
    assert not record.changing


def test_what_is_kept_once_it_was_asked_for_is_no_change(watch: Watch) -> None:
    """As a path keeps its text: after the first pass, and never again."""
    data = Pairs()
    loader = DataLoader(data, batch_size=100)
    for _ in range(3):
        list(loader)
        data.text = "kept"  # type: ignore[attr-defined]
    (record,) = watch.loaders.values()
    assert not record.changing
