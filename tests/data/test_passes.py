"""Passes by other worker processes than the script asked for: the same batches, the same random states after each."""

from __future__ import annotations

import copy
import os
import random
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Sampler, TensorDataset

import hasten
from hasten.core.errors import Unsuited
from hasten.data import passes as data_passes
from hasten.data.probe import kind_of
from tests.data.common import Made, passes, seed

OWN: dict[str, dict[str, Any]] = {
    "none": {},
    "new": {"num_workers": 1},
    "persistent": {"num_workers": 1, "persistent_workers": True},
}


class Eager(Sampler[int]):
    """Draws when it is asked for an iterator, not when that is asked for the first row."""

    def __len__(self) -> int:
        return 9

    def __iter__(self) -> Iterator[int]:
        first = random.randrange(9)
        return iter([first, *torch.randperm(9).tolist()[1:]])


def sample(i: int) -> Any:
    return torch.tensor(float(i)), i


def loader(own: str, sampler: str) -> DataLoader[Any]:
    options: dict[str, Any] = {
        "shuffled": {"shuffle": True},
        "given": {"shuffle": True, "generator": torch.Generator().manual_seed(1)},
        "eager": {"sampler": Eager()},
    }[sampler]
    return DataLoader(Made(9, sample), batch_size=4, **options, **OWN[own])


@pytest.mark.parametrize("sampler", ["shuffled", "given", "eager"])
@pytest.mark.parametrize(
    ("own", "workers"),
    [("none", 1), ("none", 2), ("new", 0), ("new", 1), ("new", 2), ("persistent", 0), ("persistent", 2)],
)
def test_batches_and_random_states_are_the_same(own: str, workers: int, sampler: str) -> None:
    changed = hasten.LoaderWorkers(workers)(loader(own, sampler))
    assert passes(changed, 3) == passes(loader(own, sampler), 3)


@pytest.mark.parametrize("name", ["_try_put_index", "_process_data"])
def test_a_torch_that_makes_passes_in_another_way_is_left_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(f"torch.utils.data.dataloader._MultiProcessingDataLoaderIter.{name}")
    monkeypatch.setattr(data_passes, "missing_names", data_passes.missing_names.__wrapped__)
    made = loader("none", "shuffled")
    before = dict(vars(made))
    with pytest.raises(Unsuited, match=f"no {name} in torch"):
        hasten.LoaderWorkers(2)(made)
    assert vars(made) == before


class Hard(Sampler[int]):
    """Gives the rows with the largest losses so far, as the training loop notes them."""

    def __init__(self) -> None:
        self.losses = torch.rand(9)

    def __len__(self) -> int:
        return 9

    def __iter__(self) -> Iterator[int]:
        for _ in range(9):
            yield int(self.losses.argmax())


class Wrapped(Sampler[int]):
    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __iter__(self) -> Iterator[int]:
        return iter(self.inner)


@pytest.mark.parametrize("sampler", [Hard(), Wrapped(Hard())])
def test_a_sampler_that_may_look_at_the_training_is_asked_as_far_ahead_as_before(sampler: Any) -> None:
    data = TensorDataset(torch.arange(9))
    for options, workers in (({}, 1), ({"num_workers": 1}, 2), ({"num_workers": 2}, 1)):
        made: Any = DataLoader(data, sampler=sampler, **options)
        with pytest.raises(Unsuited, match="ahead"):
            hasten.LoaderWorkers(workers)(made)
    for workers in (0, 1):
        made = DataLoader(data, sampler=sampler, num_workers=1)
        hasten.LoaderWorkers(workers)(made)
    hasten.LoaderWorkers(1)(DataLoader(data, sampler=Wrapped([1, 2])))


def outliving(data: Any) -> DataLoader[Any]:
    return DataLoader(data, batch_size=2, shuffle=True, num_workers=1, persistent_workers=True)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("begun", [False, True])
def test_workers_that_outlive_passes_do_not_see_what_the_dataset_becomes(workers: int, begun: bool) -> None:
    def changing(loader: DataLoader[Any]) -> Any:
        return lambda number: setattr(loader.dataset, "mode", 1) if number == 2 else None

    changed, plain = outliving(Switched(0)), outliving(Switched(0))
    if begun:
        assert passes(changed, 1) == passes(plain, 1)
    hasten.LoaderWorkers(workers)(changed)
    assert passes(changed, 4, changing(changed)) == passes(plain, 4, changing(plain))


def test_workers_that_hold_what_cannot_be_compared_stay() -> None:
    data = Switched(0)
    data.pictures = np.zeros(1 << 25, np.uint8)  # type: ignore[attr-defined]
    with pytest.raises(Unsuited, match="cannot be seen"):
        hasten.LoaderWorkers(0)(outliving(data))


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_that_outlive_passes_are_changed_between_two(workers: int) -> None:
    plain, changed = loader("persistent", "shuffled"), loader("persistent", "shuffled")
    assert passes(plain, 1) == passes(changed, 1)
    hasten.LoaderWorkers(workers)(changed)
    assert passes(changed, 2) == passes(plain, 2)


def test_a_loop_inside_of_a_loop_has_an_iterator_of_its_own() -> None:
    def rows(loader: DataLoader[Any]) -> Any:
        seed(3)
        found = []
        for _ in range(2):
            for number, (_, outer) in enumerate(loader):
                found.append(outer.tolist())
                if number == 1:
                    found.append([inner.tolist() for _, inner in loader])
            found += [(a.tolist(), b.tolist()) for (_, a), (_, b) in zip(loader, loader, strict=True)]
        return found

    assert rows(hasten.LoaderWorkers(1)(loader("none", "shuffled"))) == rows(loader("none", "shuffled"))


def processes(loader: DataLoader[Any]) -> set[int]:
    return {pid for batch in loader for pid in batch.tolist()}


def pids() -> DataLoader[Any]:
    return DataLoader(Made(4, lambda i: os.getpid()), batch_size=2)


def test_workers_outlive_their_pass_and_what_the_dataset_was_then() -> None:
    loader = hasten.LoaderWorkers(1)(pids())
    first = processes(loader)
    assert len(first) == 1 and first != {os.getpid()}
    assert processes(loader) == first
    loader.dataset.length = 2  # type: ignore[attr-defined]
    assert processes(loader) != first
    assert not loader.persistent_workers


def test_what_the_script_changes_between_passes_holds() -> None:
    def change(loader: DataLoader[Any]) -> Any:
        def between(number: int) -> None:
            loader.dataset.make = lambda i: torch.tensor(i * number)  # type: ignore[attr-defined]

        return between

    changed = hasten.LoaderWorkers(1)(loader("none", "shuffled"))
    plain = loader("none", "shuffled")
    assert passes(changed, 3, change(changed)) == passes(plain, 3, change(plain))


class Noise:
    def __call__(self, i: int) -> Any:
        return torch.rand(()) + i


class Scale:
    def __call__(self, i: int) -> Any:
        return torch.tensor(float(i))


def test_only_datasets_of_the_kind_that_was_asked() -> None:
    def loader() -> DataLoader[Any]:
        return DataLoader(Made(6, Scale()), batch_size=2, shuffle=True)  # type: ignore[arg-type]

    remedy = hasten.LoaderWorkers(1, kind_of(Made(6, Scale())))
    with pytest.raises(Unsuited, match="nothing is known"):
        remedy(DataLoader(Made(6, Noise())))

    def noisy(loader: DataLoader[Any]) -> Any:
        return lambda number: setattr(loader.dataset, "make", Noise() if number == 1 else Scale())

    changed, plain = remedy(loader()), loader()
    assert passes(changed, 3, noisy(changed)) == passes(plain, 3, noisy(plain))


class Switched(Made):
    """Draws random numbers once a setting says so."""

    def __init__(self, off: Any) -> None:
        super().__init__(6, Scale())
        self.folder = "/tmp/one"
        self.mode = off

    def __getitem__(self, index: int) -> Any:
        return torch.rand(()) if self.mode in (1, 2, "train", 0.5, True) else super().__getitem__(index)


@pytest.mark.parametrize("remedy", ["workers", "cache"])
@pytest.mark.parametrize(("off", "on"), [(0, 1), (3, 2), ("test", "train"), (None, "train"), (0.0, 0.5), (False, True)])
def test_a_setting_that_switches_randomness_on_is_noticed(remedy: str, off: Any, on: Any) -> None:
    def loader() -> DataLoader[Any]:
        return DataLoader(Switched(off), batch_size=2, shuffle=True)

    def switching(loader: DataLoader[Any]) -> Any:
        return lambda number: setattr(loader.dataset, "mode", on if number == 1 else off)

    asked = hasten.CacheSamples() if remedy == "cache" else hasten.LoaderWorkers(1, kind_of(Switched(off)))
    changed, plain = asked(loader()), loader()
    assert passes(changed, 3, switching(changed)) == passes(plain, 3, switching(plain))


def test_where_a_dataset_lies_is_no_part_of_its_kind() -> None:
    one, other = Switched("test"), Switched("test")
    other.folder, other.length = "/tmp/other", 60_000
    one.length = 10_000
    assert kind_of(one) == kind_of(other)


def test_many_workers_are_no_reason_to_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(list(hasten.LoaderWorkers(1 + (os.cpu_count() or 1))(loader("none", "shuffled")))) == 3


class Broken:
    def __call__(self, i: int) -> Any:
        if i == 5:
            raise KeyError(i)
        return torch.tensor(i)


def test_an_error_is_the_one_that_the_script_knows() -> None:
    def outcome(loader: DataLoader[Any]) -> Any:
        seed(1)
        found: list[Any] = []
        for _ in range(2):
            iterator = iter(loader)
            for _ in range(3):
                try:
                    found.append(next(iterator).tolist())
                except KeyError as error:
                    found.append(repr(error))
        return found

    def loader() -> DataLoader[Any]:
        return DataLoader(Made(9, Broken()), batch_size=3, shuffle=True)  # type: ignore[arg-type]

    assert outcome(hasten.LoaderWorkers(2)(loader())) == outcome(loader())


class Gathered:
    """Passes of which batches are gathered, as `BatchedFetch` has it from outside."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[Any]:
        iterator: Any = iter(self.loader)
        hasten.BatchedFetch().on(iterator._dataset_fetcher)
        hasten.BatchedFetch().with_iterator(iterator)
        return iterator  # type: ignore[no-any-return]


@pytest.mark.parametrize("workers", [0, 2])
def test_gathering_asks_no_sampler_again(workers: int) -> None:
    """Workers ask for rows ahead, and so do passes without them in their place."""

    def loader() -> DataLoader[Any]:
        data = TensorDataset(torch.arange(70), torch.rand(70, 2))
        return DataLoader(data, batch_size=4, shuffle=True, num_workers=workers)

    seed(3)
    plain = passes(loader(), 3)
    seed(3)
    ours = loader()
    if workers:
        hasten.LoaderWorkers(0)(ours)
    assert passes(Gathered(ours), 3) == plain


def test_undo_brings_the_scripts_own_back() -> None:
    made = loader("persistent", "shuffled")
    before = dict(vars(made))
    hasten.LoaderWorkers(2).on(made)()
    assert vars(made) == before


class Curriculum(torch.utils.data.Dataset[torch.Tensor]):
    """
    Attributes:
        hardness: a setting. labels: a few numbers, of which some may change. images: too many to look at all of them.
        names: a long list.
    """

    def __init__(self) -> None:
        self.hardness = 0
        self.labels = np.arange(12.0)
        self.images = np.ones((12, 1 << 15))
        self.names = [float(i) for i in range(1 << 15)]

    def __len__(self) -> int:
        return 12

    def __getitem__(self, i: int) -> torch.Tensor:
        return torch.tensor([float(i), self.hardness, self.labels[i], self.images[i, 5], self.names[i]])

    def become(self, what: str) -> None:
        if what == "setting":
            self.hardness += 1
        elif what == "rows":
            self.labels[3:9] += 1.0
        elif what == "array":
            self.images *= 1.5
        elif what == "list":
            self.names[:] = [x + 1 for x in self.names]


@pytest.mark.parametrize("what", ["setting", "rows", "array", "list"])
def test_what_the_script_changes_within_a_pass_is_seen_by_the_next_batch(what: str) -> None:
    def seen(workers: int) -> list[list[float]]:
        seed(0)
        loader = DataLoader(Curriculum(), batch_size=2, shuffle=True)
        if workers:
            hasten.LoaderWorkers(workers)(loader)
        found = []
        for _ in range(3):
            for i, batch in enumerate(loader):
                found += batch.tolist()
                if i % 4 == 2:
                    loader.dataset.become(what)  # type: ignore[attr-defined]
        return found

    assert seen(2) == seen(0)


class Keeps(torch.utils.data.Dataset[Any]):
    """Hands out objects that it keeps, or copies of them."""

    def __init__(self, what: str, copies: bool) -> None:
        rows = {
            "lists": [[float(i)] for i in range(6)],
            "dictionaries": [{"x": torch.ones(2)} for _ in range(6)],
            "tensors": list(torch.ones(6, 2)),
            "arrays": list(np.ones((6, 2))),
        }
        self.rows: list[Any] = rows[what]
        self.copies = copies

    def __len__(self) -> int:
        return 6

    def __getitem__(self, i: int) -> Any:
        return copy.deepcopy(self.rows[i]) if self.copies else self.rows[i]


def together(samples: list[Any]) -> Any:
    return tuple(zip(*[(sample, i) for i, sample in enumerate(samples)], strict=True))


@pytest.mark.parametrize("what", ["lists", "dictionaries", "tensors", "arrays"])
def test_batches_that_are_the_datasets_own_objects_come_from_workers(what: str) -> None:
    """They come as copies from there, and a script that changes them changes nothing else."""
    each: list[dict[str, Any]] = [{"batch_size": 3, "collate_fn": together}]
    if what != "lists":  # of which torch makes others
        each.append({"batch_size": None})
    for options in each:
        with pytest.raises(Unsuited, match="own objects"):
            hasten.LoaderWorkers(0)(DataLoader(Keeps(what, False), num_workers=1, **options))
        hasten.LoaderWorkers(0)(DataLoader(Keeps(what, True), num_workers=1, **options))
        hasten.LoaderWorkers(2)(DataLoader(Keeps(what, False), num_workers=1, **options))
    hasten.LoaderWorkers(0)(DataLoader(Keeps(what, False), num_workers=1, batch_size=3))


class Masks:
    """A collate function with a generator of its own, of which each worker of each pass has a copy."""

    def __init__(self) -> None:
        self.draws = random.Random(0)

    def __call__(self, samples: list[Any]) -> Any:
        return [self.draws.random() for _ in samples]


@pytest.mark.parametrize(("own", "workers"), [(0, 2), (1, 0), (1, 2)])
def test_who_collates_with_a_generator_of_its_own_stays_where_it_is(own: int, workers: int) -> None:
    made = DataLoader(Made(9, sample), batch_size=3, num_workers=own, collate_fn=Masks())
    with pytest.raises(Unsuited, match="collate function"):
        hasten.LoaderWorkers(workers)(made)


def test_who_looks_whether_batches_are_the_datasets_own_draws_nothing() -> None:
    seed(0)
    drawn = DataLoader(Made(9, lambda i: torch.rand(3)), num_workers=1, batch_size=3, collate_fn=together)
    before = torch.get_rng_state()
    hasten.LoaderWorkers(0)(drawn)
    assert torch.equal(torch.get_rng_state(), before)


class OfItsOwn(DataLoader[Any]):
    """As torchdata's StatefulDataLoader, which can be resumed within a pass, by as many workers as before."""

    def _get_iterator(self) -> Any:
        return super()._get_iterator()  # type: ignore[misc]


def test_a_loader_that_makes_its_passes_itself_is_left_alone() -> None:
    own = OfItsOwn(Made(9, sample), batch_size=4)
    with pytest.raises(Unsuited, match="way of its own"):
        hasten.LoaderWorkers(1)(own)
    assert own.num_workers == 0


scale = 1


class Scaled(Made):
    def __getitem__(self, index: int) -> Any:
        return torch.tensor(index * scale)


def test_workers_of_a_loader_with_kept_samples_see_what_its_code_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = hasten.LoaderWorkers(1)(hasten.CacheSamples()(DataLoader(Scaled(4, sample), batch_size=4)))
    assert [b.tolist() for b in kept] == [[0, 1, 2, 3]]
    monkeypatch.setattr(sys.modules[__name__], "scale", 10)
    assert [b.tolist() for b in kept] == [[0, 10, 20, 30]]


def test_workers_of_a_loader_with_kept_samples_outlive_a_pass() -> None:
    kept = hasten.LoaderWorkers(1)(hasten.CacheSamples()(DataLoader(Made(4, sample), batch_size=4)))
    first, second = ([w.pid for w in iter(kept)._workers] for _ in range(2))  # type: ignore[attr-defined]
    assert first == second
