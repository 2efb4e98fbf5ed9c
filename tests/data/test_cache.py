"""Samples and prefixes of transform chains kept from pass to pass: what the script gets is what it would have got."""

from __future__ import annotations

import gc
import random
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

import hasten
from hasten.core.errors import Unsuited
from hasten.data import store
from hasten.data.chain import find_chain
from hasten.data.fingerprint import fingerprint
from hasten.data.probe import probe
from hasten.rules import d103_repeated_samples
from hasten.rules.d103_repeated_samples import cache_of
from tests.data.common import Made, Noted, note, noted, passes


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HASTEN_CACHE_DIR", str(tmp_path))


def test_every_sample_is_made_once() -> None:
    data = Noted(10, lambda i: torch.tensor(i))
    passes(hasten.CacheSamples()(DataLoader(data, batch_size=4, shuffle=True)), 4)
    asked = noted("asked")
    assert set(asked) == set(range(10))
    assert len(asked) <= 10 + 3  # one is compared at every further pass


def test_random_samples_are_not_kept() -> None:
    def loader() -> DataLoader[Any]:
        return DataLoader(Made(8, lambda i: torch.rand(2) + random.random() + np.random.rand()), batch_size=4)

    assert passes(hasten.CacheSamples()(loader()), 3) == passes(loader(), 3)


def test_what_the_script_does_to_a_batch_stays_with_that_batch() -> None:
    data = Made(4, lambda i: {"x": torch.full((2,), float(i)), "y": i % 3})
    loader = hasten.CacheSamples()(DataLoader(data, batch_size=2))
    for _ in range(3):
        seen = []
        for batch in loader:
            seen.append(batch.pop("y").tolist())
            batch["x"].zero_()
        assert seen == [[0, 1], [2, 0]]
    assert [b["x"][:, 0].tolist() for b in loader] == [[0, 1], [2, 3]]


def test_a_setting_that_changes_is_noticed() -> None:
    data = Made(4, lambda i: torch.tensor(i * data.factor))  # type: ignore[attr-defined]
    data.factor = 1  # type: ignore[attr-defined]
    loader = hasten.CacheSamples()(DataLoader(data, batch_size=4))
    assert [b.tolist() for b in loader] == [[0, 1, 2, 3]]
    loader.dataset.factor = 2
    assert [b.tolist() for b in loader] == [[0, 2, 4, 6]]


def test_a_setting_that_changes_within_a_pass_is_noticed() -> None:
    data = Made(8, lambda i: torch.tensor(i * data.factor))  # type: ignore[attr-defined]
    data.factor = 1  # type: ignore[attr-defined]
    seen: list[int] = []
    for _ in range(2):
        fetcher = DataLoader(data, batch_size=2)
        iterator = iter(fetcher)
        hasten.CacheSamples()(iterator._dataset_fetcher)  # type: ignore[attr-defined]
        for batch in iterator:
            seen += batch.tolist()
            data.factor = 10 if seen[-1] == 3 and len(seen) > 8 else 1  # type: ignore[attr-defined]
    assert seen == [*range(8), 0, 1, 2, 3, 40, 50, 6, 7]


CHANGES: dict[str, Callable[[Any], object]] = {
    "a label of a list": lambda data: data.labels.__setitem__(11_998, -1),
    "a label of an array": lambda data: data.array.__setitem__(11_998, -1),
    "one of lists, which cannot be hashed": lambda data: data.pairs.__setitem__(11_998, ["", -1]),
    "all of 24 MB": lambda data: data.large.__imul__(2),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_changes_within_a_pass_is_noticed(change: Callable[[Any], object]) -> None:
    """By a script that relabels what it has not yet seen in this pass."""
    data: Any = Made(
        12_000,
        lambda i: torch.tensor([data.labels[i], data.array[i], data.pairs[i][1], data.large[i * 250]]),
    )
    data.labels, data.array, data.large = list(range(12_000)), np.arange(12_000), np.arange(3_000_000.0)
    data.pairs = [["", i] for i in range(12_000)]
    for number in range(3):
        iterator = iter(DataLoader(data, batch_size=6000))
        hasten.CacheSamples()(iterator._dataset_fetcher)  # type: ignore[attr-defined]
        next(iterator)
        if number == 2:
            change(data)
        seen = next(iterator)[-2:]
    assert seen.tolist() == [data[i].tolist() for i in (11_998, 11_999)]


def test_samples_without_a_value_or_with_texts_are_kept_for_collates_of_the_scripts_own() -> None:
    def loader() -> DataLoader[Any]:
        return DataLoader(Noted(8, lambda i: (i, None, "é" * i)), batch_size=4, shuffle=True, collate_fn=list)

    found = passes(hasten.CacheSamples()(loader()), 3)
    assert len(noted("asked")) <= 8 + 2
    assert found == passes(loader(), 3)
    noted("asked")


class Padded(Made):
    """As long as the longest of its batch."""

    def __getitems__(self, indices: list[int]) -> list[Any]:
        return [torch.tensor([i, max(indices)]) for i in indices]


def test_samples_that_depend_on_their_batch_are_not_kept() -> None:
    def loader() -> DataLoader[Any]:
        return DataLoader(Padded(9, lambda i: torch.tensor([i, i])), batch_size=3, shuffle=True)

    kept = loader()
    remedy = hasten.CacheSamples()
    assert passes(remedy(kept), 3) == passes(loader(), 3)
    assert not remedy.broken()


def test_a_dataset_with_a_generator_of_its_own_is_refused() -> None:
    data = Made(4, lambda i: torch.tensor(data.rng.random()))  # type: ignore[attr-defined]
    data.rng = np.random.default_rng(1)  # type: ignore[attr-defined]
    with pytest.raises(Unsuited, match="generator of its own"):
        hasten.CacheSamples()(DataLoader(data, batch_size=2))


@pytest.mark.parametrize("remedy", [hasten.CacheSamples(), hasten.CachePrefix(1)])
def test_what_is_kept_of_a_dataset_goes_with_it(remedy: Any) -> None:
    """Folds and runs have datasets of their own, one after the other."""

    def fold() -> Any:
        data = Subset(Rows(torch.sin, torch.cos), [0, 1, 2, 3])
        passes(remedy(DataLoader(data, batch_size=2)))
        return weakref.ref(data)

    gone = fold()
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("remedy", [hasten.CacheSamples(), hasten.BatchedFetch()])
def test_workers_that_are_not_forked_are_refused(remedy: Any) -> None:
    data = TensorDataset(torch.arange(8))
    loader = DataLoader(data, batch_size=4, num_workers=1, multiprocessing_context="spawn")
    with pytest.raises(Unsuited, match="not forked"):
        remedy(loader)
    assert loader.dataset is data


def test_a_user_without_a_home_folder_has_samples_kept_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HASTEN_CACHE_DIR", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 54321)
    monkeypatch.setattr(store, "IN_MEMORY", -1)
    passes(hasten.CacheSamples()(DataLoader(Noted(8, torch.tensor), batch_size=4)), 3)
    assert len(noted("asked")) <= 8 + 2


# -- chains ------------------------------------------------------------------------------------------------------------


class Chain:
    def __init__(self, *transforms: Callable[[Any], Any]) -> None:
        self.transforms = list(transforms)

    def __call__(self, x: Any) -> Any:
        for transform in self.transforms:
            x = transform(x)
        return x


class Rows(Dataset[Any]):
    def __init__(self, *transforms: Callable[[Any], Any]) -> None:
        self.transform: Any = Chain(*transforms)
        self.calls = 0

    def __len__(self) -> int:
        return 6

    def __getitem__(self, i: int) -> Any:
        return self.transform(torch.tensor(float(i))), i


def noisy(x: Any) -> Any:
    return x + torch.rand(()) + random.random() + np.random.rand()


class Named(Rows):
    def __getitem__(self, i: int) -> Any:
        return {"row": i, "x": self.transform(torch.tensor(float(i)))}


def test_a_chain_inside_of_a_dictionary_is_cut() -> None:
    def loader() -> DataLoader[Any]:
        return DataLoader(Named(torch.sin, noisy), batch_size=3, shuffle=True)

    assert probe(Named(torch.sin, noisy)).prefix_exact
    assert passes(hasten.CachePrefix(1)(loader()), 3) == passes(loader(), 3)


def test_random_stages_after_a_kept_prefix_draw_what_they_would_have_drawn() -> None:
    def slow(x: Any) -> Any:
        note("made", float(x))
        return 2 * x

    plain, kept = (DataLoader(Rows(slow, noisy, torch.sqrt), batch_size=4, shuffle=True) for _ in range(2))
    expected = passes(plain, 3)
    noted("made")
    assert passes(hasten.CachePrefix(1)(kept), 3) == expected
    made = noted("made")
    assert sorted(set(made)) == [0, 1, 2, 3, 4, 5] and len(made) < 3 * 6


class Elsewhere(Rows):
    """The chain is kept under another name, as an object or as a plain list."""

    def __init__(self, kept_as: str, *transforms: Callable[[Any], Any]) -> None:
        super().__init__()
        self.transform = None
        self.labels = [str, int]  # callables that nothing applies
        setattr(self, kept_as, list(transforms) if kept_as == "steps" else Chain(*transforms))

    def __getitem__(self, i: int) -> Any:
        x = torch.tensor(float(i))
        return self.by_steps(x) if hasattr(self, "steps") else self.t(x), i  # type: ignore[attr-defined]

    def by_steps(self, x: Any) -> Any:
        for step in self.steps:  # type: ignore[attr-defined]
            x = step(x)
        return x


@pytest.mark.parametrize("kept_as", ["t", "steps"])
@pytest.mark.parametrize("wrap", [lambda data: data, lambda data: Subset(data, [4, 2, 0, 5])])
def test_a_chain_is_found_whatever_its_attribute_is_called(kept_as: str, wrap: Callable[[Any], Any]) -> None:
    def slow(x: Any) -> Any:
        note("made", float(x))
        return 2 * x

    plain, kept = (DataLoader(wrap(Elsewhere(kept_as, slow, noisy)), batch_size=3, shuffle=True) for _ in range(2))
    expected = passes(plain, 3)
    asked = probe(kept.dataset)
    assert asked.prefix_exact and asked.cacheable_stages == 1 and asked.stages == ("slow", "noisy")
    noted("made")
    assert passes(hasten.CachePrefix(1)(kept), 3) == expected
    assert len(noted("made")) < 3 * len(kept.dataset)  # type: ignore[arg-type]


def test_callables_of_which_each_sample_has_one_are_no_chain() -> None:
    class Makers(Rows):
        def __init__(self) -> None:
            self.makers: list[Callable[[Any], Any]] = [noisy] * 6

        def __getitem__(self, i: int) -> Any:
            return self.makers[i](torch.tensor(float(i)))

    assert not probe(Makers()).cacheable_stages
    assert find_chain(Made(3, torch.tensor)) is None


def test_a_prefix_that_draws_random_numbers_is_refused_and_draws_none() -> None:
    plain, other = (DataLoader(Rows(noisy, noisy), batch_size=4) for _ in range(2))

    def refuse(number: int) -> None:
        if number == 0:
            with pytest.raises(Unsuited, match="random"):
                hasten.CachePrefix(1)(other)

    assert passes(other, 2, refuse) == passes(plain, 2)


def test_a_chain_that_the_script_replaces_is_cut_anew() -> None:
    def change(loader: DataLoader[Any], number: int) -> None:
        if number == 1:
            loader.dataset.transform = Chain(lambda x: x + 100, noisy)  # type: ignore[attr-defined]

    plain, kept = (DataLoader(Rows(lambda x: x + 1, noisy), batch_size=4) for _ in range(2))
    hasten.CachePrefix(1)(kept)
    assert passes(kept, 3, lambda n: change(kept, n)) == passes(plain, 3, lambda n: change(plain, n))


def test_a_transforms_setting_below_a_subset_is_part_of_the_fingerprint() -> None:
    class Scale:
        factor = 1

        def __call__(self, x: Any) -> Any:
            return self.factor * x

    data = Rows(Scale())
    before = fingerprint(Subset(data, [0]))
    data.transform.transforms[0].factor = 2
    assert fingerprint(Subset(data, [0])) != before


def test_a_file_that_changes_between_passes_is_read_again(tmp_path: Any) -> None:
    path = tmp_path / "weight"

    def weigh(i: int) -> Any:
        return torch.tensor(float(path.read_text()) * i)

    def write(number: int) -> None:
        path.write_text(str(1.0 if number < 2 else 1.25))

    plain, kept = (DataLoader(Made(10, weigh), batch_size=4, shuffle=True) for _ in range(2))
    remedy = hasten.CacheSamples()
    assert passes(remedy(kept), 4, write) == passes(plain, 4, write)
    assert not remedy.broken()


def test_what_a_sample_prints_is_printed_every_time(capsys: pytest.CaptureFixture[str]) -> None:
    def talk(i: int) -> Any:
        if i == 7:
            print("seven")
        return torch.tensor(i)

    passes(hasten.CacheSamples()(DataLoader(Made(10, talk), batch_size=4, shuffle=True)), 4)
    assert capsys.readouterr().out == "seven\n" * 4


def test_a_dataset_that_is_another_one_in_every_pass_leaves_nothing_to_serve() -> None:
    data = Made(10, lambda i: torch.tensor(i))
    kept = DataLoader(data, batch_size=4)
    remedy = hasten.CacheSamples()
    cache = cache_of(data, kept.collate_fn)
    passes(remedy(kept), 3)
    assert not cache.why_idle

    def turn(number: int) -> None:
        data.epoch = number  # type: ignore[attr-defined]

    passes(kept, 3, turn)
    assert "another one in every pass" in cache.why_idle and remedy.idle()
    assert not remedy.broken()


def test_datasets_that_are_gone_after_a_pass_leave_nothing_to_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    data, remedy = Made(10, lambda i: torch.tensor(i)), hasten.CacheSamples()
    gc.collect()  # what other tests have left
    monkeypatch.setattr(d103_repeated_samples, "_once", 0)
    for _ in range(2):
        assert not remedy.idle()
        passes(remedy(DataLoader(Subset(data, range(5)), batch_size=4)), 1)
        gc.collect()
    assert "another one in every pass" in remedy.idle()
    passes(remedy(DataLoader(data, batch_size=4)), 2)  # one that stays
    assert not remedy.idle()
