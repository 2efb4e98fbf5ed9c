"""Datasets of the script's own whose ``__getitem__`` is read: the same bytes, layouts and random states, or refused."""

from __future__ import annotations

import importlib.util
import random
import textwrap
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset, Subset

import hasten
from hasten.core.errors import Unsuited
from hasten.data.meaning import Unreadable
from hasten.data.probe import probe
from hasten.data.reading import read
from tests.data.common import Made, passes

LENGTH = 24


class Held(Dataset[Any]):
    """Arrays of many kinds; classes below pick from them."""

    scale = 2

    def __init__(self) -> None:
        picker = np.random.default_rng(0)
        self.x = torch.from_numpy(picker.normal(size=(LENGTH, 3)))
        self.y = torch.arange(LENGTH)
        self.a = np.asfortranarray(picker.normal(size=(LENGTH + 8, 3)))
        self.f = picker.normal(size=LENGTH).astype(np.float32)
        self.n = picker.integers(0, 9, LENGTH)
        self.pictures = torch.from_numpy(picker.integers(0, 255, (LENGTH, 2, 4, 4)).astype(np.uint8))
        self.mixed = self.pictures.contiguous(memory_format=torch.channels_last)
        self.labels = [int(i) % 5 for i in range(LENGTH)]
        self.weights = [i / 7 for i in range(LENGTH)]
        self.w = 5
        self.flag = "train"
        self.transform: Any = None
        self.args = Namespace(ahead=2)

    def __len__(self) -> int:
        return LENGTH


class Rows(Held):
    def __getitem__(self, index: int) -> Any:
        """Rows of tensors."""
        return self.x[index], self.y[index]


class Alone(Held):
    def __getitem__(self, i: int) -> Any:
        return self.pictures[i, :, :]


class Named(Held):
    def __getitem__(self, i: int) -> Any:
        picked = self.a[i]
        return {"a": picked, "again": picked, "f": self.f[i], "n": self.n[i], "i": i, "both": [self.y[i], 3 * i + 1]}


class Windows(Held):
    def __getitem__(self, index: int) -> Any:
        begin = index
        end = begin + self.w
        first = end - self.scale
        last = first + self.args.ahead + 1
        return self.a[begin:end], self.a[first:last]


class Tokens(Held):
    def __getitem__(self, i: int) -> Any:
        chunk = self.a[i : i + self.w + 1]
        x, y = chunk[:-1], chunk[1:]
        return x, y, chunk[0], chunk[-1, :]


class Converted(Held):
    def __getitem__(self, idx: int) -> Any:
        if torch.is_tensor(idx):
            idx = idx.tolist()
        x = torch.tensor(self.a[idx], dtype=torch.float32)
        y = torch.from_numpy(self.a[idx])
        z = self.x[idx].float()
        return x, y, z, np.float32(self.a[idx]), self.n[idx].astype(np.float64), torch.tensor(self.labels[idx])


class Listed(Held):
    def __getitem__(self, i: int) -> Any:
        return torch.FloatTensor(self.a[i]), self.labels[i], self.weights[i], torch.tensor(self.weights[i])


class Chosen(Held):
    def __getitem__(self, i: int) -> Any:
        x = self.x[i]
        if self.transform is not None:
            x = self.transform(x)
        if self.flag == "train" and not self.transform:
            return x, self.y[i]
        elif self.flag == "test":
            return x, self.n[i]
        return random.random(), x


READ: list[type[Held]] = [Rows, Alone, Named, Windows, Tokens, Converted, Listed, Chosen]


@given(
    kind=st.sampled_from(READ),
    batch_size=st.integers(1, 9),
    shuffle=st.booleans(),
    inside=st.booleans(),
    as_float64=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_batches_and_random_states_are_the_same_bits(
    kind: type[Held], batch_size: int, shuffle: bool, inside: bool, as_float64: bool
) -> None:
    def loader() -> DataLoader[Any]:
        dataset: Any = kind()
        if inside:
            dataset = Subset(dataset, [3, 3, 0, 7, 12, 1])
        return DataLoader(dataset, batch_size, shuffle=shuffle)

    torch.set_default_dtype(torch.float64 if as_float64 else torch.float32)
    try:
        assert passes(hasten.BatchedFetch()(loader())) == passes(loader())
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("kind", READ)
def test_two_samples_of_the_first_batch_are_asked_for_and_no_more(
    kind: type[Held], monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = read(kind())
    asked: list[int] = []
    original: Any = kind.__getitem__
    monkeypatch.setattr(kind, "__getitem__", lambda self, i: asked.append(i) or original(self, i))
    for start in (0, 5, 10):
        batch(np.arange(start, start + 5))
    assert asked == [0, 4]


def test_what_the_script_replaces_is_picked_from() -> None:
    def change(dataset: Any, number: int) -> None:
        if number == 1:
            dataset.x = dataset.x.float() + 1
        if number == 2:
            dataset.y[:] = 7
            dataset.transform = lambda x: x * torch.rand(1)  # draws, and is not read
        if number == 3:
            dataset.transform, dataset.flag = None, "test"

    found = []
    for remedy in (hasten.BatchedFetch(), lambda loader: loader):
        dataset = Chosen()
        loader = remedy(DataLoader(dataset, 5, shuffle=True))
        found.append(passes(loader, 4, lambda n, d=dataset: change(d, n)))  # type: ignore[misc]
    assert found[0] == found[1]


def outcome(loader: Any) -> Any:
    """What a pass gives, or the error it ends in."""
    try:
        return passes(loader, 1)
    except (AttributeError, IndexError, RuntimeError, TypeError) as error:
        return f"{type(error).__name__}: {error}"


@pytest.mark.parametrize("rows", [[-1, -LENGTH], [0, 3, -2], [1, LENGTH + 40]])
@pytest.mark.parametrize("kind", READ)
def test_rows_from_the_end_and_beyond_it(kind: type[Held], rows: list[int]) -> None:
    """Among them rows that do not exist, and windows that are cut off: the errors are the dataset's own."""
    batches = [[1, 2], rows]
    expected = outcome(DataLoader(kind(), batch_sampler=batches))
    assert outcome(hasten.BatchedFetch()(DataLoader(kind(), batch_sampler=batches))) == expected


class Asking(Held):
    def __getitem__(self, i: int) -> Any:
        if torch.is_tensor(i):
            return self.x[i]
        return self.y[i]


def test_samplers_that_give_no_plain_numbers() -> None:
    kinds: list[Any] = [[torch.tensor(3), torch.tensor(1)], list(np.arange(4)), [np.int32(2), np.int32(1)], [2, -1]]
    for rows in kinds:
        for kind in (Asking, Named):
            expected = outcome(DataLoader(kind(), 2, sampler=rows))
            assert outcome(hasten.BatchedFetch()(DataLoader(kind(), 2, sampler=rows))) == expected


def test_layouts_that_stacking_keeps_are_left_to_it() -> None:
    class Mixed(Held):
        def __getitem__(self, i: int) -> Any:
            return self.mixed[i]

    assert outcome(_gathered(DataLoader(Mixed(), 4))) == outcome(DataLoader(Mixed(), 4))


# -- what is not read --------------------------------------------------------------------------------------------------

HEAD = """
import random
import numpy as np
import torch
from torch.utils.data import Dataset

class Own(Dataset):
    def __init__(self):
        self.x = torch.arange(60.0).view(20, 3)
        self.calls = 0
    def __len__(self):
        return 20
"""


def written(folder: Path, method: str, head: str = HEAD) -> Any:
    path = folder / "own.py"
    path.write_text(head + textwrap.indent(textwrap.dedent(method), "    "))
    specification = importlib.util.spec_from_file_location("own", path)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.Own()


NOT_READ: dict[str, str] = {
    "draws": "def __getitem__(self, i):\n    return self.x[i] + torch.rand(3)",
    "draws and assigns": "def __getitem__(self, i):\n    r = random.random()\n    return self.x[i]",
    "counts": "def __getitem__(self, i):\n    self.calls += 1\n    return self.x[i]",
    "keeps": "def __getitem__(self, i):\n    self.last = i\n    return self.x[i]",
    "prints": "def __getitem__(self, i):\n    print(i)\n    return self.x[i]",
    "loops": "def __getitem__(self, i):\n    for j in range(2):\n        x = self.x[i]\n    return x",
    "tries": "def __getitem__(self, i):\n    try:\n        return self.x[i]\n    except IndexError:\n        return 0",
    "yields": "def __getitem__(self, i):\n    yield self.x[i]",
    "more arguments": "def __getitem__(self, i, j=0):\n    return self.x[i]",
    "any arguments": "def __getitem__(self, *i):\n    return self.x[i[0]]",
    "decorated": "@torch.no_grad()\ndef __getitem__(self, i):\n    return self.x[i]",
    "a property": "@property\ndef z(self):\n    return self.x\ndef __getitem__(self, i):\n    return self.z[i]",
    "a lambda": "__getitem__ = lambda self, i: self.x[i]",
    "batches": "def __getitems__(self, i):\n    return self.x[i]\ndef __getitem__(self, i):\n    return self.x[i]",
    "hooks": "def __getattribute__(self, n):\n    return object.__getattribute__(self, n)\n"
    "def __getitem__(self, i):\n    return self.x[i]",
    "floats": "def __getitem__(self, i):\n    return self.x[i] * 2",
    "rounds": "def __getitem__(self, i):\n    return self.x[i].long()",
    "by number": "def __getitem__(self, i):\n    if i == 3:\n        return self.x[0]\n    return self.x[i]",
    "by value": "def __getitem__(self, i):\n    return self.x[i] if self.x[i].sum() else self.x[0]",
    "nothing": "def __getitem__(self, i):\n    x = self.x[i]",
    "a constant": "def __getitem__(self, i):\n    return self.x[i], 1",
    "the same rows": "def __getitem__(self, i):\n    return self.x[i], self.x[0:2]",
    "steps": "def __getitem__(self, i):\n    return self.x[i : i + 4 : 2]",
    "a shadow": "def __getitem__(self, i):\n    torch = self\n    return torch.tensor(self.x[i])",
}


@pytest.mark.parametrize("name", NOT_READ)
def test_what_does_more_is_not_read(name: str, tmp_path: Path) -> None:
    dataset = written(tmp_path, NOT_READ[name])
    with pytest.raises(Unreadable):
        read(dataset)(np.arange(4))
    found = []
    for make in (lambda loader: loader, _gathered):
        dataset = written(tmp_path, NOT_READ[name])
        found.append((outcome(make(DataLoader(dataset, 4))), dataset.calls))
    assert found[0] == found[1]


def _gathered(loader: Any) -> Any:
    try:
        return hasten.BatchedFetch()(loader)
    except Unsuited:
        return loader


def test_source_that_is_not_what_runs_is_not_read(tmp_path: Path) -> None:
    """A script edited while it runs, or code that was never a file."""
    dataset = written(tmp_path, "def __getitem__(self, i):\n    return self.x[i]")
    path = tmp_path / "own.py"
    path.write_text(path.read_text().replace("return self.x[i]", "return self.x[i + 1]"))
    with pytest.raises(Unreadable, match="not what runs"):
        read(dataset)
    scope: dict[str, Any] = {}
    exec(compile(HEAD + "    def __getitem__(self, i):\n        return self.x[i]\n", "<nowhere>", "exec"), scope)
    with pytest.raises(Unreadable):
        read(scope["Own"]())


def test_a_rule_read_wrongly_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were a method misread, the samples that are asked for tell."""
    from hasten.data import picked

    original: Callable[..., Any] = picked.picked
    monkeypatch.setattr(
        "hasten.data.meaning.picked", lambda whole, numbers: original(whole, picked.Numbers(numbers.each[::-1].copy()))
    )
    batch = read(Rows())
    for _ in range(2):
        with pytest.raises(Unreadable, match="others than was read"):
            batch(np.arange(4))
    assert passes(hasten.BatchedFetch()(DataLoader(Rows(), 4))) == passes(DataLoader(Rows(), 4))


def test_the_probe_tells() -> None:
    assert all(probe(kind()).gatherable for kind in READ)
    assert probe(Subset(Rows(), [1, 2])).gatherable
    drawn = probe(Made(9, lambda i: torch.rand(3)))
    assert not drawn.gatherable and not probe(Subset(Made(9, float), [1])).gatherable
