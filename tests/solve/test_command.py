"""What ``hasten solve`` remembers of the files that it has learned."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hasten.report.solution import render
from hasten.solve import BadData, Moments, choice, command
from hasten.solve.digest import READ_BYTES, Digest
from hasten.solve.files import ParquetSource
from hasten.solve.reading import PAGE
from hasten.solve.source import Block
from tests.solve.data import table


def rows(path: Path, seed: int = 0) -> str:
    np.save(path, np.column_stack(table(300, 3, seed)))
    return str(path)


@pytest.mark.parametrize("size", [0, 1, PAGE, READ_BYTES, READ_BYTES + 77])
def test_a_digest_is_of_every_byte(tmp_path: Path, size: int) -> None:
    content = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8).tobytes()
    (tmp_path / "file").write_bytes(content)
    with Digest(str(tmp_path / "file")) as digest:
        assert digest.results() == [hashlib.blake2b(content, digest_size=16).hexdigest()]


def test_a_digest_that_nobody_waits_for_ends(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(READ_BYTES * 3))
    with pytest.raises(ZeroDivisionError), Digest(str(tmp_path / "file")):
        _ = 1 / 0
    assert not [t for t in threading.enumerate() if t.name == "hasten-digest"]
    with pytest.raises(BadData, match="cannot read"):
        Digest(str(tmp_path / "none"))


def test_the_same_bytes_are_refused_and_one_other_value_is_not(tmp_path: Path) -> None:
    first, model, state = rows(tmp_path / "a.npy"), str(tmp_path / "m"), str(tmp_path / "state")
    command.solve(first, "", save=model)
    saved = Path(model).read_bytes()
    copy = rows(tmp_path / "b.npy")
    with pytest.raises(BadData, match="learned before"):
        command.solve(copy, "", update=model, checkpoint=state)
    assert Path(model).read_bytes() == saved and not Path(state).exists()
    other = np.load(copy)
    other[150, 1] += 1e-9
    np.save(copy, other)
    found, _ = command.solve(copy, "", update=model, checkpoint=state)
    assert found.rows == 600


def test_the_file_is_opened_for_its_digest_only_where_moments_are_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "Digest", None)
    command.solve(rows(tmp_path / "a.npy"), "")


@pytest.mark.parametrize(("classes", "passes"), [(2, 3), (40, 3), (0, 2)])
def test_what_is_predicted_counts_all_that_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, classes: int, passes: int
) -> None:
    """Validation was left out, and the targets' own products: for 1000 classes most of the work."""
    monkeypatch.setattr(choice, "speeds", lambda: dict.fromkeys(("double", "single", "vector", "many", "qr"), 1e6))
    n, p = 400, 5
    X, y = table(n, p)
    names = np.array([f"k{i % max(classes, 1)}" for i in range(n)])
    frame = pd.DataFrame(X).rename(columns=str).assign(y=names if classes else y)
    frame.to_parquet(tmp_path / "d.parquet")
    read = 0
    real = ParquetSource.blocks

    def counted(self: ParquetSource, first: int = 0) -> Iterator[Block]:
        nonlocal read
        yield from real(self, first)
        read += self.features != ["y"]  # not the pass over labels

    monkeypatch.setattr(ParquetSource, "blocks", counted)
    monkeypatch.setattr(command, "_reading_seconds", lambda _: 1.0)
    found, _ = command.solve(str(tmp_path / "d.parquet"), "y")
    done, q, alphas = found.methods[0], max(classes, 1), len(found.alphas)
    assert done.name == "Gram in float64" and done.passes == passes == read
    assert done.flops > n * (p + q) ** 2 + 2 * n * p * (p + alphas * q)
    assert done.flops / 1e6 < done.predicted - passes * n < 4 * done.flops / 1e6


def test_flops_of_many_targets_are_those_of_all_columns() -> None:
    few, many = (
        {c.name: c for c in choice.ranked(1000.0, 10, q, 10.0, True)}["Gram in float64"].flops for q in (1, 1000)
    )
    assert many / few == pytest.approx((1011 / 12) ** 2)


def test_two_updates_at_once_lose_no_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ended well, and the moments held the rows of the later one only."""
    model, real = str(tmp_path / "m"), command.scan_source
    command.solve(rows(tmp_path / "a.npy"), "", save=model)
    more, other = rows(tmp_path / "b.npy", 1), rows(tmp_path / "c.npy", 2)
    said = []

    def meanwhile(*words: Any, **options: Any) -> Moments:
        monkeypatch.setattr(command, "scan_source", real)
        with pytest.raises(BadData, match="another run adds rows to") as told:
            command.solve(other, "", update=model)
        said.append(str(told.value))
        command.solve(other, "", update=model, save=str(tmp_path / "n"))  # which leaves them alone
        return real(*words, **options)

    monkeypatch.setattr(command, "scan_source", meanwhile)
    found = command.solve(more, "", update=model)[0]
    assert found.rows == 600 and found.earlier == 300 and said
    assert render(found).startswith(f"{more}: 300 rows with 300 earlier ones, ")
    assert command.solve(other, "", update=model)[0].rows == 900
    with pytest.raises(BadData, match="cannot read moments"):
        command.solve(other, "", update=str(tmp_path / "none"))
