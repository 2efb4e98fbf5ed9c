"""The recipes of the corpus of public scripts, and the makers of its stand-in data."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bench.corpus_parts import by_hand, standins
from PIL import Image
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from bench import corpus

RECIPES, COMMITS, PACKAGES = corpus.load()
README = (Path(corpus.ROOT) / "bench" / "README.md").read_text(encoding="utf-8")
X, Y = torch.arange(30.0).reshape(10, 3), torch.arange(10)


# -- recipes -----------------------------------------------------------------------------------------------------------


def test_every_recipe_is_a_row_of_the_readme() -> None:
    row = r"^\| ([^|]+) \| ([^|]+) \| `(\w{12})` \| ([^|]+) \| `([^`]+)` \|"
    rows = {m[0]: m[1:] for m in re.findall(row, README, re.MULTILINE)}
    recipes = {r.name: (r.repo, COMMITS[r.repo][:12], r.folder, _shown(r.run)) for r in RECIPES}
    assert recipes == rows


def _shown(run: str) -> str:
    for placeholder, word in (("{data}", "DATA"), ("{out}", "OUT")):
        run = run.replace(placeholder, word)
    return run


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: r.name)
def test_a_recipe_names_what_there_is(recipe: corpus.Recipe) -> None:
    assert set(recipe.kinds()) <= set(standins.MAKERS)
    assert recipe.venv in ("", "numpy1")
    assert (recipe.edits is not None) == ("how" in recipe.rest)
    for _, old, new, *often in recipe.edits or []:
        assert old != new and len(old) < 120, "words are exchanged, code is not copied"
        assert all(isinstance(n, int) and n > 1 for n in often)
    for name in re.findall(r"by_hand\.(\w+)", " ".join(new for _, _, new, *_ in recipe.edits or [])):
        assert hasattr(by_hand, name)


def test_torch_is_never_installed_a_second_time() -> None:
    named = {re.split("[=<>]", p)[0] for p in PACKAGES["common"]}
    assert not named & {"torch", "torchvision", "lightning", "pytorch-lightning", "torchmetrics", "torch_geometric"}


def recipe(**more: Any) -> corpus.Recipe:
    common: dict[str, Any] = {"name": "x", "repo": "o/n", "folder": "f", "run": "main.py --a 1"}
    return corpus.Recipe.of({**common, **more})


def test_an_edited_copy_leaves_the_original_and_runs(tmp_path: Path) -> None:
    script = tmp_path / "repo" / "f" / "main.py"
    script.parent.mkdir(parents=True)
    source = '"""Doc."""\nfrom __future__ import annotations\nprint(__doc__, 1 + 1, "by_hand" in dir())\n'
    script.write_text(source, encoding="utf-8")
    edited = corpus.edit(
        recipe(edits=[["main.py", "1 + 1", "by_hand.Batches"]], pages=True), tmp_path / "repo", tmp_path / "e"
    )
    assert script.read_text(encoding="utf-8") == source
    done = subprocess.run([sys.executable, str(edited / "main.py")], capture_output=True, text=True, check=True)
    assert done.stdout == "Doc. <class 'by_hand.Batches'> True\n"


def test_an_edit_that_does_not_fit_is_told(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "main.py").write_text("a = 1\na = 1\n", encoding="utf-8")
    with pytest.raises(corpus.Failed, match="holds 'a = 1' 2 times"):
        corpus.edit(recipe(edits=[["main.py", "a = 1", "a = 2"]]), tmp_path, tmp_path / "e")


def test_a_mirror_gives_the_commit_it_has(tmp_path: Path) -> None:
    git = tmp_path / "mirror" / "o+n" / "repo"
    git.mkdir(parents=True)
    (git / "deep").mkdir()
    (git / "deep" / "a b.py").write_text("1\n", encoding="utf-8")
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], [*who, "commit", "-qm", "a"]):
        subprocess.run(["git", *command], cwd=git, check=True)
    repositories = corpus.Repositories(tmp_path / "repos", {"o/n": "0" * 40}, tmp_path / "mirror")
    assert (repositories.get("o/n") / "deep" / "a b.py").read_text(encoding="utf-8") == "1\n"
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=git, capture_output=True, text=True, check=True)
    assert repositories.commit("o/n") == head.stdout.strip()


# -- what edited copies use --------------------------------------------------------------------------------------------


def batches(loader: Any, n: int) -> list[list[torch.Tensor]]:
    """Two epochs at most, and what the global generator gives next."""
    torch.manual_seed(7)
    found = []
    for _ in range(2):
        for i, batch in enumerate(loader):
            found.append(batch)
            if i == n:
                break
    return [*found, [torch.rand(1)]]


def same(a: list[list[torch.Tensor]], b: list[list[torch.Tensor]]) -> bool:
    return len(a) == len(b) and all(
        torch.equal(x, y) for p, q in zip(a, b, strict=True) for x, y in zip(p, q, strict=True)
    )


@pytest.mark.parametrize("options", [{}, {"shuffle": True}, {"shuffle": True, "drop_last": True}])
def test_batches_are_those_of_a_loader(options: dict[str, Any]) -> None:
    ours = by_hand.whole(X, Y, batch_size=4, num_workers=0, **options)
    theirs = DataLoader(TensorDataset(X, Y), batch_size=4, **options)
    assert len(ours) == len(theirs)
    assert same(batches(ours, 9), batches(theirs, 9))


@pytest.mark.parametrize("size", [32, 64])
def test_endless_batches_are_those_of_a_loader(size: int) -> None:
    dataset = TensorDataset(X, Y)
    sampler = RandomSampler(dataset, replacement=True, num_samples=10**6)
    theirs = DataLoader(dataset, sampler=sampler, batch_size=size)
    assert same(batches(by_hand.stacked(dataset, endless=True, batch_size=size), 5), batches(theirs, 5))


class Series:
    """As the forecasting repositories write it."""

    seq_len, label_len, pred_len = 5, 2, 3

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.data_x, self.data_stamp = rng.normal(size=(20, 2)), rng.normal(size=(20, 4))

    def __len__(self) -> int:
        return len(self.data_x) - self.seq_len - self.pred_len + 1

    def __getitem__(self, i: int) -> tuple[np.ndarray, ...]:
        middle = i + self.seq_len
        x, y = slice(i, middle), slice(middle - self.label_len, middle + self.pred_len)
        return self.data_x[x], self.data_x[y], self.data_stamp[x], self.data_stamp[y]


@pytest.mark.parametrize("shuffle", [False, True])
def test_windows_are_those_of_a_loader(shuffle: bool) -> None:
    ours = by_hand.windows(Series(), batch_size=4, shuffle=shuffle)
    theirs: Any = DataLoader(Series(), batch_size=4, shuffle=shuffle)  # type: ignore[arg-type]
    assert same(batches(ours, 9), [[t.float() for t in batch] for batch in batches(theirs, 9)])


# -- stand-ins ---------------------------------------------------------------------------------------------------------


def test_digits_have_the_form_of_mnist(tmp_path: Path) -> None:
    standins.mnist(tmp_path, standins.Sources(tmp_path), train=20, test=10)
    raw = tmp_path / "MNIST" / "raw"
    images = (raw / "train-images-idx3-ubyte").read_bytes()
    assert images[:16] == bytes.fromhex("00000803 00000014 0000001c 0000001c") and len(images) == 16 + 20 * 28 * 28
    labels = np.frombuffer((raw / "t10k-labels-idx1-ubyte").read_bytes()[8:], np.uint8)
    assert len(labels) == 10 and labels.max() < 10
    again = tmp_path / "again"
    standins.mnist(again, standins.Sources(tmp_path), train=20, test=10)
    assert (again / "MNIST" / "raw" / "train-images-idx3-ubyte").read_bytes() == images


def test_photographs_are_cut_into_the_form_of_cifar(tmp_path: Path) -> None:
    given = tmp_path / "given" / "images"
    given.mkdir(parents=True)
    for i in range(3):
        Image.new("RGB", (300 + i, 260), (10 * i, 0, 200)).save(given / f"{i}.JPEG")
    sources = standins.Sources(tmp_path / "repos", given.parent)
    assert "--data" in standins.cifar10(tmp_path / "c", sources, train=10, test=4)
    held = np.load(tmp_path / "c" / "cifar-10-batches-py" / "test_batch", allow_pickle=True)
    assert held["data"].shape == (4, 3072) and held["data"].dtype == np.uint8 and len(held["labels"]) == 4
    assert "3 photographs" in standins.bsds(tmp_path / "b", sources)
    assert [len(list((tmp_path / "b" / part).glob("*.jpg"))) for part in ("train", "test")] == [2, 1]


def test_papers_have_the_form_of_cora() -> None:
    numbers = random.Random(0).sample(range(10**6), 9)
    lines = [line.rstrip("\n").split("\t") for line in standins.papers(np.array(numbers), words=50, held=4)]
    assert [int(line[0]) for line in lines] == numbers
    assert all(len(line) == 52 and sum(map(int, line[1:-1])) == 4 for line in lines)
