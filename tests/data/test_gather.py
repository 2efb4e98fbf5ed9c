"""Whole batches gathered at once are the batches that were put together sample by sample."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset, WeightedRandomSampler

import hasten
from hasten.core.errors import Unsuited
from tests.data.common import passes

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.complex64]


class Counted(TensorDataset):
    """Not a plain TensorDataset, so never gathered from: its class may do anything."""


def tensors(rows: int, shapes: list[tuple[int, ...]], dtypes: list[Any]) -> list[Any]:
    generator = torch.Generator().manual_seed(rows)
    made = [torch.randn(rows, *shape, generator=generator) * 3 for shape in shapes]
    return [t.to(d) for t, d in zip(made, dtypes, strict=False)]


def below(dataset: Any, depth: int, picker: np.random.Generator) -> Any:
    """Wrapped in subsets, with repeated rows and some counted from the end."""
    for level in range(depth):
        rows = picker.integers(-len(dataset), len(dataset), len(dataset) + level)
        kinds: list[Any] = [rows.tolist(), rows, torch.from_numpy(rows)]
        dataset = Subset(dataset, kinds[level % 3])
    return dataset


def options(kind: str, dataset: Any, batch_size: int, drop_last: bool) -> dict[str, Any]:
    length = len(dataset)
    own = torch.Generator().manual_seed(3)
    plain = {"batch_size": batch_size, "drop_last": drop_last}
    backwards = [-1 - i for i in range(length)]
    return {
        "in order": plain,
        "shuffled": {**plain, "shuffle": True},
        "own generator": {**plain, "shuffle": True, "generator": own},
        "weighted": {**plain, "sampler": WeightedRandomSampler([1.0 + i for i in range(length)], 2 * length)},
        "backwards": {**plain, "sampler": backwards},
        "tensors": {**plain, "sampler": [torch.tensor(i) for i in range(length)]},
        "numpy": {**plain, "sampler": list(np.arange(length, dtype=np.int32))},
        "batches": {"batch_sampler": [backwards[:3], [0], [length - 1, 0, 0]]},
    }[kind]


KINDS = ["in order", "shuffled", "own generator", "weighted", "backwards", "tensors", "numpy", "batches"]


@given(
    rows=st.integers(1, 23),
    shapes=st.lists(st.sampled_from([(), (3,), (0,), (2, 4), (1, 3, 3)]), min_size=1, max_size=3),
    dtypes=st.permutations(DTYPES),
    depth=st.integers(0, 3),
    kind=st.sampled_from(KINDS),
    batch_size=st.integers(1, 9),
    drop_last=st.booleans(),
)
@settings(max_examples=120)
def test_batches_and_random_states_are_the_same_bits(
    rows: int, shapes: Any, dtypes: Any, depth: int, kind: str, batch_size: int, drop_last: bool
) -> None:
    def loader() -> DataLoader[Any]:
        dataset = below(TensorDataset(*tensors(rows, shapes, dtypes)), depth, np.random.default_rng(rows))
        return DataLoader(dataset, **options(kind, dataset, batch_size, drop_last))

    assert passes(hasten.BatchedFetch()(loader())) == passes(loader())


@pytest.mark.parametrize("kind", KINDS)
def test_no_sample_is_made(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    original = TensorDataset.__getitem__
    monkeypatch.setattr(TensorDataset, "__getitem__", lambda self, i: asked.append(i) or original(self, i))
    dataset = below(TensorDataset(*tensors(12, [(3,), ()], DTYPES)), 2, np.random.default_rng(0))
    loader = DataLoader(dataset, **options(kind, dataset, 4, False))
    undo = hasten.BatchedFetch().on(loader)
    with_ = passes(loader)
    assert not asked
    undo()
    assert loader.dataset is dataset
    options(kind, dataset, 4, False)["generator"] if kind == "own generator" else None
    if kind == "own generator":
        loader.generator.manual_seed(3)
        loader.sampler.generator.manual_seed(3)
    assert passes(loader) == with_
    assert asked


def test_undo_leaves_nothing_behind() -> None:
    loader = DataLoader(TensorDataset(torch.arange(6)), batch_size=4)
    before = dict(vars(loader))
    hasten.BatchedFetch().on(loader)()
    assert vars(loader) == before


def test_worker_processes_gather_too() -> None:
    def loader() -> DataLoader[Any]:
        return DataLoader(TensorDataset(*tensors(20, [(3,), ()], DTYPES)), batch_size=6, shuffle=True, num_workers=2)

    assert passes(hasten.BatchedFetch()(loader()), 1) == passes(loader(), 1)


def test_what_the_script_replaces_is_gathered_from() -> None:
    """Tensors and indices of another epoch, as curricula and active learning have them."""

    def loader() -> DataLoader[Any]:
        return DataLoader(Subset(TensorDataset(torch.arange(20), torch.arange(20.0)), [0, 1, 2]), batch_size=4)

    def change(loader: DataLoader[Any], number: int) -> None:
        subset: Any = loader.dataset
        if number == 1:
            subset.indices.extend([19, 18])
        if number == 2:
            subset.dataset.tensors = (torch.arange(100, 120), torch.arange(20.0).double())
        if number == 3:
            subset.dataset.tensors = (torch.arange(100, 120).to_sparse(), torch.arange(20.0))

    plain, gathered = loader(), hasten.BatchedFetch()(loader())
    expected = passes(plain, 3, lambda n: change(plain, n))
    assert passes(gathered, 3, lambda n: change(gathered, n)) == expected


def test_rows_that_do_not_exist_raise_as_before() -> None:
    for dataset in (TensorDataset(torch.arange(5)), Subset(TensorDataset(torch.arange(5)), [0, 7])):
        said = []
        for remedy in (hasten.BatchedFetch(), lambda loader: loader):
            with pytest.raises(IndexError) as caught:
                list(remedy(DataLoader(dataset, batch_size=3, sampler=[0, 1, 5])))
            said.append(str(caught.value))
        assert said[0] == said[1]


def test_copies_of_the_loader_and_its_dataset_go_on() -> None:
    loader = hasten.BatchedFetch()(DataLoader(TensorDataset(torch.arange(9)), batch_size=4))
    assert len(copy.copy(loader.dataset)) == 9
    assert passes(copy.deepcopy(loader)) == passes(loader)
    assert loader.dataset.tensors[0][3] == 3 and loader.dataset[3] == (torch.tensor(3),)


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        yield from torch.arange(4)


REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    (TensorDataset(torch.arange(4)), {"collate_fn": list}, "collate function of its own"),
    (TensorDataset(torch.arange(4)), {"batch_size": None}, "does not put batches together"),
    (TensorDataset(torch.eye(4).to_sparse()), {}, "not plain tensors"),
    (Counted(torch.arange(4)), {}, "neither a TensorDataset nor"),
    (Subset(Counted(torch.arange(4)), [1]), {}, "neither a TensorDataset nor"),
    (Stream(), {}, "iterated, not indexed"),
    ([1, 2, 3], {}, "neither a TensorDataset nor"),
]


@pytest.mark.parametrize(("dataset", "options", "said"), REFUSED)
def test_what_cannot_be_gathered_is_refused(dataset: Any, options: dict[str, Any], said: str) -> None:
    loader = DataLoader(dataset, **options)
    before = dict(vars(loader))
    with pytest.raises(Unsuited, match=said):
        hasten.BatchedFetch()(loader)
    assert vars(loader) == before


def test_a_second_time_is_refused() -> None:
    loader = hasten.BatchedFetch()(DataLoader(TensorDataset(torch.arange(4))))
    for remedy in (hasten.BatchedFetch(), hasten.CacheSamples()):
        with pytest.raises(Unsuited, match="another way already"):
            remedy(loader)


# -- pictures ----------------------------------------------------------------------------------------------------------


class ToTensor:
    """torchvision's, for the arrays and 8-bit pictures that its datasets hold."""

    def __call__(self, picture: Any) -> Any:
        array = np.array(picture)
        planes = torch.from_numpy(array[:, :, None] if array.ndim == 2 else array).permute(2, 0, 1).contiguous()
        return planes.to(torch.get_default_dtype()).div(255)


class Normalize:
    def __init__(self, mean: list[float], std: list[float]) -> None:
        self.mean, self.std = mean, std

    def __call__(self, x: Any) -> Any:
        mean, std = (torch.as_tensor(v, dtype=x.dtype).view(-1, 1, 1) for v in (self.mean, self.std))
        return x.clone().sub_(mean).div_(std)


class Compose:
    def __init__(self, transforms: list[Any]) -> None:
        self.transforms = transforms

    def __call__(self, x: Any) -> Any:
        for transform in self.transforms:
            x = transform(x)
        return x


class Pictures(Dataset[Any]):
    label: Callable[[int], Any]

    def __init__(self, data: Any, targets: Any, transform: Any, target_transform: Any = None) -> None:
        self.data, self.targets = data, targets
        self.transform, self.target_transform = transform, target_transform

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Any:
        from PIL import Image

        label = self.label(index)
        picture = self.transform(Image.fromarray(np.asarray(self.data[index])))
        return picture, label if self.target_transform is None else self.target_transform(label)


class MNIST(Pictures):
    def label(self, index: int) -> int:
        return int(self.targets[index])


class CIFAR10(Pictures):
    def label(self, index: int) -> Any:
        return self.targets[index]


@pytest.fixture
def _as_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-ins above under the names of the modules that hold the real ones; gathering goes by these names."""
    homes = {MNIST: "datasets.mnist", CIFAR10: "datasets.cifar"}
    for kind in (ToTensor, Normalize, Compose):
        homes[kind] = "transforms.transforms"
    for kind, home in homes.items():
        monkeypatch.setattr(kind, "__module__", f"torchvision.{home}")
        monkeypatch.setitem(sys.modules, f"torchvision.{home}", ModuleType(home))


def mnist(**changes: Any) -> Any:
    data = torch.randint(0, 256, (30, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    plain = {"data": data, "targets": torch.arange(30) % 10, "transform": ToTensor()}
    return MNIST(**{**plain, **changes})


def cifar(**changes: Any) -> Any:
    data = np.random.default_rng(2).integers(0, 256, (30, 8, 8, 3), dtype=np.uint8)
    chain = Compose([ToTensor(), Normalize([0.5, 0.4, 0.3], [0.2, 0.3, 0.4])])
    return CIFAR10(**{"data": data, "targets": [i % 10 for i in range(30)], "transform": chain, **changes})


@pytest.mark.parametrize("make", [mnist, cifar])
@pytest.mark.usefixtures("_as_torchvision")
def test_pictures_in_memory_are_gathered(make: Any) -> None:
    def relabel(loader: DataLoader[Any], number: int) -> None:
        if number == 1:
            loader.dataset.targets[3] = 7  # type: ignore[attr-defined]
        if number == 2:
            loader.dataset.transform = lambda x: torch.tensor(float(np.array(x).sum()))  # type: ignore[attr-defined]

    plain, gathered = (DataLoader(make(), batch_size=7, shuffle=True) for _ in range(2))
    hasten.BatchedFetch()(gathered)
    assert passes(gathered, 3, lambda n: relabel(gathered, n)) == passes(plain, 3, lambda n: relabel(plain, n))


@pytest.mark.parametrize(
    "targets",
    [
        [i / 7 for i in range(30)],
        np.arange(30),
        np.arange(30, dtype=np.int32),
        torch.arange(30) / 7,
        torch.eye(30),
        list(torch.eye(30)),
        np.eye(30, dtype=np.float32),
    ],
    ids=["floats", "array", "int32", "tensor", "one-hot", "rows", "one-hot array"],
)
@pytest.mark.usefixtures("_as_torchvision")
def test_labels_of_other_kinds_stay_what_they_are(targets: Any) -> None:
    plain, gathered = (DataLoader(cifar(targets=targets), batch_size=7, shuffle=True) for _ in range(2))
    assert passes(hasten.BatchedFetch()(gathered)) == passes(plain)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"target_transform": abs}, "labels are transformed"),
        ({"transform": None}, "not ToTensor and Normalize"),
        ({"transform": Compose([Normalize([0.5], [0.5]), ToTensor()])}, "not ToTensor and Normalize"),
        ({"transform": Compose([ToTensor(), ToTensor()])}, "not element-wise"),
        ({"data": torch.zeros(4, 8, 8)}, "not 8-bit"),
    ],
)
@pytest.mark.usefixtures("_as_torchvision")
def test_other_pictures_are_not(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(Unsuited, match=said):
        hasten.BatchedFetch()(DataLoader(mnist(**changes)))
