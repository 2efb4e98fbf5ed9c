"""What asking a dataset twice tells: is it the same every time, and does nothing else happen?"""

from __future__ import annotations

from collections import UserDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from hasten.data.probe import probe
from tests.data.common import Made

COUNTED = {"asked": 0}


class Own(Dataset[Any]):
    """Samples of one kind each."""

    shown = 0

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.random = np.random.default_rng(0) if kind == "its own generator" else None
        self.asked = 0

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> Any:
        x = torch.tensor(float(index))
        if self.random is not None and self.random.random() < 0.01:  # so rarely that six items do not show it
            x = x + 1
        if self.kind == "a counter":
            self.asked += 1
        if self.kind == "a counter of the class":
            Own.shown += 1
        if self.kind == "a counter of the module":
            COUNTED["asked"] += 1
        if self.kind == "words":
            print("asked")
        if self.kind == "torch's generator":
            x = x + torch.rand(())
        return UserDict(tokens=[1, 2], x=x) if self.kind == "a mapping of a library's" else x


def test_a_plain_dataset_is_the_same_every_time() -> None:
    found = probe(Own("nothing"))
    assert found.deterministic and found.random_free and not found.why_not


def test_samples_that_cannot_be_kept_are_told() -> None:
    """As those of Hugging Face's tokenizers, which hold more than their items."""
    found = probe(Own("a mapping of a library's"))
    assert found.deterministic and found.unkept == "a UserDict" and found.sample_bytes == 20
    assert not probe(Own("nothing")).unkept


@pytest.mark.parametrize(
    "kind",
    [
        "its own generator", "a counter", "a counter of the class", "a counter of the module", "words",
        "torch's generator",
    ],
)  # fmt: skip
def test_a_dataset_that_something_happens_in_is_neither_kept_nor_given_to_workers(kind: str) -> None:
    found = probe(Own(kind))
    assert not found.deterministic and not found.random_free


@pytest.mark.parametrize("below", [False, True])
def test_files_that_several_samples_are_read_from_are_told_and_those_of_one_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: bool
) -> None:
    if below:  # a path is told as the user writes it
        monkeypatch.chdir(tmp_path)
    for i in range(8):
        (tmp_path / f"{i}").write_text(str(i))
    (tmp_path / "scale").write_text("2")

    def read(i: int) -> Any:
        return torch.tensor(float((tmp_path / f"{i}").read_text()) * float((tmp_path / "scale").read_text()))

    found = probe(Made(8, read))
    assert found.deterministic and found.shared_files == ("scale" if below else str(tmp_path / "scale"),)
