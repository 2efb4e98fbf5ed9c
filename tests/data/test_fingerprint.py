"""Changes that the results of a dataset may follow are seen, wherever the dataset's code finds them."""

from __future__ import annotations

import ctypes
import os
import random
import textwrap
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hasten.data.effects import Effects
from hasten.data.fingerprint import (
    MOST_OBJECTS,
    close_fingerprint,
    draws_by_itself,
    fingerprint,
    quick_fingerprint,
    whole_fingerprint,
)
from hasten.seams.forward import install
from hasten.seams.patch import Patches
from hasten.seams.watch import Watch

MODULE = """
import numpy as np
import torch
from torch.utils.data import Dataset

LEVEL, TABLE, LABELS, UNUSED = 1.0, {"hard": set()}, list(range(100)), 0
ARRAY = np.zeros(8)
settings = type("Settings", (), {})()
settings.scale = 1.0

def helper(x):
    return x * LEVEL

class Transform:
    strength = 0.5
    def __call__(self, x):
        return helper(x) * self.strength + settings.scale

class Data(Dataset):
    shift = 0
    def __init__(self):
        self.transform = Transform()
        self.x = torch.zeros(10)
    def __len__(self):
        return 10
    def label(self, i):
        return LABELS[i] + (i in TABLE["hard"]) + ARRAY[i % 8]
    def __getitem__(self, i):
        return self.transform(self.x[i]) + self.shift, self.label(i)
"""


@pytest.fixture
def module(tmp_path: Path) -> Any:
    path = tmp_path / "data.py"
    path.write_text(textwrap.dedent(MODULE), encoding="utf-8")
    made = types.ModuleType("data")
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), vars(made))
    return made


CHANGES: dict[str, Callable[[Any, Any], object]] = {
    "a number of the module, read by a function that a transform calls": lambda m, d: setattr(m, "LEVEL", 2.0),
    "a set inside a dict of the module": lambda m, d: m.TABLE["hard"].add(3),
    "a label in a long list of the module": lambda m, d: m.LABELS.__setitem__(70, -1),
    "an array of the module": lambda m, d: m.ARRAY.__setitem__(3, 1.0),
    "an object of the module": lambda m, d: setattr(m.settings, "scale", 3.0),
    "an attribute of the dataset's class": lambda m, d: setattr(m.Data, "shift", 1),
    "an attribute of a transform's class": lambda m, d: setattr(m.Transform, "strength", 1.0),
    "a setting of the transform": lambda m, d: setattr(d.transform, "strength", 0.1),
    "a tensor, written to": lambda m, d: d.x.add_(1),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_seen(name: str, module: Any) -> None:
    dataset = module.Data()
    before = fingerprint(dataset)
    assert fingerprint(dataset) == before
    CHANGES[name](module, dataset)
    assert fingerprint(dataset) != before


def test_what_the_code_does_not_read_is_not_looked_at(module: Any) -> None:
    dataset = module.Data()
    before = fingerprint(dataset)
    module.UNUSED = 1
    dataset[0]
    assert fingerprint(dataset) == before


def test_an_attribute_is_no_name_of_the_module(module: Any) -> None:
    """A training loop at the script's top level has its ``x`` and ``data``; the dataset reads ``self.x``. Its cache was
    compared anew for every batch, and a generator of that name kept it from being made at all."""
    module.x, module.shift, module.strength = torch.zeros(3), iter([1]), random.Random(0)
    dataset = module.Data()
    marks = fingerprint(dataset), quick_fingerprint(dataset)
    module.x, module.shift = torch.ones(3), iter([2])
    assert (fingerprint(dataset), quick_fingerprint(dataset)) == marks
    assert not draws_by_itself(dataset)
    module.LEVEL = 3.0
    assert fingerprint(dataset) != marks[0] and quick_fingerprint(dataset) != marks[1]


@pytest.mark.parametrize(
    "generator",
    [
        random.Random(0),
        np.random.default_rng(0),
        np.random.RandomState(0),
        torch.Generator(),
        iter([1]),
        (n for n in "a"),
    ],
)
@pytest.mark.parametrize("where", ["dataset", "transform", "module"])
def test_generators_of_its_own_are_found(generator: Any, where: str, module: Any) -> None:
    dataset = module.Data()
    assert not draws_by_itself(dataset)
    {"dataset": dataset, "transform": dataset.transform, "module": module.settings}[where].source = generator
    assert draws_by_itself(dataset)


def test_words_and_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a").write_text("1")
    effects = Effects()
    with effects:
        assert (tmp_path / "a").read_text() == "1"
        with open(tmp_path / "a", "rb") as file:
            assert file.read() == b"1"
    assert not effects.acted and not effects.changed()
    (tmp_path / "a").write_text("22")
    assert effects.changed()
    with effects:
        print("said")
    assert effects.acted
    with effects:
        (tmp_path / "b").write_text("written")
    assert effects.acted
    with effects:
        pass
    assert not effects.acted
    assert capsys.readouterr().out == "said\n"
    assert open.__module__ in ("io", "_io") and "write" not in vars(effects)


ROWS = (0, 17, 4321, 19_999)


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("kind", ["list", "names", "dict", "array"])
def test_one_row_that_changes_within_a_pass_is_seen(kind: str, row: int) -> None:
    """Before every batch: labels of a script that relabels while it trains."""
    held: Any = {
        "list": list(range(1000, 21_000)),
        "names": [(f"{i}.png", i) for i in range(20_000)],
        "dict": {i: 1000 + i for i in range(20_000)},
        "array": np.arange(20_000),
    }[kind]
    dataset = types.SimpleNamespace(held=held)
    before = quick_fingerprint(dataset)
    assert quick_fingerprint(dataset) == before
    held[row] = ("other.png", 3) if kind == "names" else -1
    assert quick_fingerprint(dataset) != before


def test_lists_of_tensors_are_compared_by_what_they_are() -> None:
    dataset = types.SimpleNamespace(held=[torch.zeros(2) for _ in range(100)])
    before = quick_fingerprint(dataset)
    assert quick_fingerprint(dataset) == before
    dataset.held[50] = torch.zeros(2)
    assert quick_fingerprint(dataset) != before


class Scale(torch.nn.Module):  # type: ignore[misc]
    def forward(self, x: Any) -> Any:
        return x * 2


class Scaled(torch.utils.data.Dataset[Any]):
    def __init__(self) -> None:
        self.transform = Scale()

    def __len__(self) -> int:
        return 10

    def __getitem__(self, i: int) -> Any:
        return self.transform(torch.tensor([float(i)]))


def test_what_watches_a_transform_is_not_the_datasets() -> None:
    """hasten's wrapper around every module's call counts steps and goes away; a transform may be a module, too."""
    data, watch, patches = Scaled(), Watch(), Patches()
    seam = install(watch, patches)
    seam.discover()
    try:
        watched = fingerprint(data)
        watch.backwards += 1
        later = fingerprint(data)
    finally:
        seam.settle()
        patches.undo()
    assert watched == later == fingerprint(data)


class Holds:
    """Any class of the script's."""

    def __init__(self, value: Any) -> None:
        self.value = value


class Slotted:
    __slots__ = ("level",)

    def __init__(self) -> None:
        self.level = 0


def reads_environment(x: int) -> int:
    return x + int(os.environ.get("HASTEN_TEST_LEVEL", "0"))


def _write_rows(holder: Holds) -> None:
    holder.value.numpy()[3] = 7


@pytest.mark.parametrize(
    ("value", "change"),
    [
        ([Holds(i) for i in range(100)], lambda h: setattr(h.value[3], "value", 7)),
        ([torch.zeros(2) for _ in range(100)], lambda h: h.value[3].fill_(7)),
        ({i: [i] for i in range(100)}, lambda h: h.value[3].append(7)),
        (np.array([{"x": i} for i in range(100)]), lambda h: h.value[3].update(x=7)),
        (torch.zeros(100, 2), lambda h: h.value.data[3].fill_(7)),
        (torch.zeros(100, 2), _write_rows),
        (bytearray(100), lambda h: h.value.__setitem__(3, 7)),
        ((ctypes.c_int * 8)(), lambda h: h.value.__setitem__(3, 7)),
        (Slotted(), lambda h: setattr(h.value, "level", 7)),
        (reads_environment, lambda h: os.environ.__setitem__("HASTEN_TEST_LEVEL", "7")),
    ],
    ids=[
        "objects",
        "tensors",
        "lists",
        "array of objects",
        "past the version",
        "by NumPy",
        "bytes",
        "C",
        "slots",
        "environment",
    ],
)
def test_what_long_containers_and_tensors_hold_is_seen(
    value: Any, change: Callable[[Any], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HASTEN_TEST_LEVEL", "0")
    holder = Holds(value)
    before = fingerprint(holder), whole_fingerprint(holder)
    assert None not in before and before == (fingerprint(holder), whole_fingerprint(holder))
    change(holder)
    assert fingerprint(holder) != before[0] and whole_fingerprint(holder) != before[1]


def test_more_objects_than_are_looked_into_may_change_unseen() -> None:
    """The hash of an object says nothing of what it holds: workers that outlive a pass must not trust it."""
    assert whole_fingerprint([Holds(i) for i in range(MOST_OBJECTS + 1)]) is None


@pytest.mark.parametrize("mark", [fingerprint, close_fingerprint])
def test_a_path_is_what_it_says_whether_or_not_it_was_asked_before(mark: Callable[[Any], Any]) -> None:
    """It notes its text at its first use, so a cache of files was thrown away after the pass that filled it."""
    dataset = types.SimpleNamespace(files=[Path("photos") / f"{number}.jpg" for number in range(600)])
    before = mark(dataset)
    assert [os.fspath(path) for path in dataset.files] and mark(dataset) == before
    dataset.files[7] = Path("photos") / "other.jpg"
    assert mark(dataset) != before
