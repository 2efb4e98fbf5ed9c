"""Tables of many files: folders, patterns and lists of paths."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hasten.cli.main import main
from hasten.report.solution import render
from hasten.solve import BadData, Moments, StreamingPCA, StreamingRidge, command, open_source
from hasten.solve.source import Source
from tests.solve.data import apart

KINDS: dict[str, Callable[[pd.DataFrame, Path], Any]] = {
    "parquet": lambda frame, path: frame.to_parquet(path, index=False),
    "csv": lambda frame, path: frame.to_csv(path, index=False),
    "csv.gz": lambda frame, path: frame.to_csv(path, index=False),
    "npy": lambda frame, path: np.save(path, np.ascontiguousarray(frame[["a", "b", "y"]].to_numpy(np.float64))),
}


def rows(n: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"a": rng.standard_normal(n) + 1e3, "b": rng.standard_normal(n)})
    frame["town"] = np.where(np.arange(n) < n // 2, "x", rng.choice(["x", "y", "z"], n))
    frame["y"] = frame["a"] + (frame["town"] == "x") + rng.standard_normal(n)
    return frame


def parts(folder: Path, frame: pd.DataFrame, kind: str = "parquet", cuts: Any = (300, 310, 800)) -> Path:
    folder.mkdir(exist_ok=True)
    for i, (first, last) in enumerate(zip([0, *cuts], [*cuts, len(frame)], strict=True)):
        KINDS[kind](frame.iloc[first:last], folder / f"part-{i:04}.{kind}")
    (folder / "_SUCCESS").touch()
    return folder


@pytest.mark.parametrize("kind", [*KINDS])
def test_a_folder_a_pattern_and_a_list_are_one_table(tmp_path: Path, kind: str) -> None:
    frame = rows(1000)
    folder = parts(tmp_path / "parts", frame, kind)
    columns = ["a", "b", "y"] if kind == "npy" else list(frame)
    target = "2" if kind == "npy" else "y"
    whole = Moments(frame[columns], "y", folds=4)
    for given_as in (
        folder, str(folder), str(folder / f"part-*.{kind}"), sorted(folder.glob("part*")),
        [*map(str, folder.glob("p*"))],
    ):  # fmt: skip
        for m in (Moments(given_as, target=target), Moments.scan(given_as, target)):
            assert m.n == 1000 and m.p == whole.p
            order = [m.names.index(name) if kind != "npy" else i for i, name in enumerate(whole.names)] + [m.p]
            assert apart(m.scatter[np.ix_(order, order)], whole.scatter) < 1e-13
    beside = Moments(sorted(folder.glob("part*")), frame["y"].to_numpy()) if kind == "npy" else None
    assert beside is None or (beside.p, beside.q) == (3, 1)


@pytest.mark.parametrize("kind", ["parquet", "csv", "npy"])
@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(1, 49), min_size=1, max_size=4, unique=True), first=st.integers(0, 50))
def test_rows_are_counted_through_all_files(tmp_path_factory: Any, kind: str, cuts: list[int], first: int) -> None:
    frame = rows(50)[["a", "b", "y"]]
    source = open_source(parts(tmp_path_factory.mktemp("parts") / "p", frame, kind, sorted(cuts)), target=None)
    assert isinstance(source, Source)
    for _ in range(2):  # files whose rows are counted as they pass are counted then
        blocks = [block for block in source.blocks(first) if len(block.x)]
        starts = [block.start for block in blocks]
        assert starts == list(np.cumsum([first, *(len(block.x) for block in blocks)])[:-1])
        found = np.vstack([block.x[:, :2] for block in blocks]) if blocks else np.zeros((0, 2))
        np.testing.assert_allclose(found, frame[["a", "b"]].to_numpy()[first:], rtol=1e-15)


def test_a_pass_over_many_files_goes_on_with_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, state = parts(tmp_path / "parts", rows(1000)), tmp_path / "state"
    whole = Moments.scan(folder, "y", folds=3)
    add, seen = Moments._add_block, list[int]()

    def killed(self: Moments, *args: Any) -> None:
        seen.append(1)
        if len(seen) == 3:
            raise MemoryError
        add(self, *args)

    monkeypatch.setattr(Moments, "_add_block", killed)
    with pytest.raises(MemoryError):
        Moments.scan(folder, "y", folds=3, checkpoint=state, every=0.0)
    again = Moments.scan(folder, "y", folds=3, checkpoint=state, every=0.0)
    assert np.array_equal(again.scatter, whole.scatter) and len(seen) == 3 + 2
    seen.clear()
    with pytest.raises(MemoryError):
        Moments.scan(folder, "y", folds=3, checkpoint=state, every=0.0)
    rows(100, 5).to_parquet(folder / "part-0009.parquet")
    with pytest.raises(BadData, match="belongs to another file"):
        Moments.scan(folder, "y", folds=3, checkpoint=state)


def test_a_part_that_was_written_twice_is_refused(tmp_path: Path) -> None:
    folder = parts(tmp_path / "parts", rows(1000), "npy", (500,))  # of one size, which is no copy
    assert Moments(folder).n == 1000
    shutil.copy(folder / "part-0001.npy", folder / "part-0001-retry.npy")
    with pytest.raises(BadData, match=r"part-0001.npy holds the same bytes as .*part-0001-retry"):
        Moments(folder)


def test_a_file_that_is_named_twice_is_not_to_be_removed(tmp_path: Path) -> None:
    folder = parts(tmp_path / "parts", rows(1000), "npy", (500,))
    part, link = folder / "part-0001.npy", folder / "part-0002.npy"
    link.symlink_to(part)
    for paths in ([part, part], [link, part], folder):
        with pytest.raises(BadData, match="is given twice") as said:
            Moments(paths)
        assert "rm " not in str(said.value)


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    folder = parts(tmp_path / "parts", rows(1000))
    rows(10)[["b", "a", "town", "y"]].to_parquet(folder / "part-0007.parquet", index=False)
    with pytest.raises(BadData, match=r"part-0007.parquet: these rows have the columns"):
        Moments(folder, "y")
    rows(10)[["a", "town", "y"]].to_parquet(folder / "part-0007.parquet", index=False)
    with pytest.raises(BadData, match=r"part-0007.parquet: "):
        Moments(folder, "y")
    (folder / "part-0007.parquet").write_bytes(b"PAR1")
    with pytest.raises(BadData, match=r"part-0007.parquet"):
        Moments(folder, "y")
    (folder / "part-0007.parquet").unlink()
    rows(10).iloc[:0].to_parquet(folder / "part-0000-none.parquet", index=False)  # as Spark writes them
    assert Moments(folder, "y").n == 1000
    (folder / "more.csv").write_text("a,b\n1,2\n")
    with pytest.raises(BadData, match=r"several kinds: .csv, .parquet"):
        Moments(folder, "y")
    with pytest.raises(BadData, match="no file is called"):
        Moments(str(folder / "none-*.parquet"), "y")
    with pytest.raises(BadData, match="there is no file"):
        Moments([str(folder / "none.parquet")], "y")
    (tmp_path / "outer" / "monday").mkdir(parents=True)
    with pytest.raises(BadData, match="folders inside it"):
        Moments(tmp_path / "outer", "y")


def test_estimators_read_folders(tmp_path: Path) -> None:
    frame = rows(1000)[["a", "b", "y"]]
    folder, numbers = parts(tmp_path / "parts", frame), parts(tmp_path / "numbers", frame, "npy")
    found = StreamingRidge(alphas=[0.1, 1.0]).fit(folder, "y")
    wanted = StreamingRidge(alphas=[0.1, 1.0]).fit(frame[["a", "b"]], frame["y"])
    assert found.alpha_ == wanted.alpha_ and apart(found.coef_, wanted.coef_) < 1e-12
    assert list(found.feature_names_in_) == ["a", "b"]
    assert StreamingPCA().fit(numbers).n_features_in_ == 3  # no last column is a target


def test_the_command_reads_many_files_and_learns_each_once(tmp_path: Path) -> None:
    frame, model = rows(1000), str(tmp_path / "m")
    folder = parts(tmp_path / "parts", frame)
    frame.to_parquet(tmp_path / "all.parquet", index=False)
    whole, _ = command.solve(str(tmp_path / "all.parquet"), "y")
    found, _ = command.solve(str(folder), "y", save=model)
    assert (found.rows, found.files, found.path) == (1000, 4, str(folder))
    assert found.score == pytest.approx(whole.score, rel=1e-12)
    assert f"{folder} (4 files): 1,000 rows" in render(found)
    frame.iloc[:0].to_parquet(folder / "part-0000-none.parquet")
    rows(100, 7).to_parquet(folder / "part-0008.parquet", index=False)
    rows(100, 8).to_parquet(folder / "part-0009.parquet", index=False)
    with pytest.raises(BadData, match=r"part-0000.parquet, .*\(4\) were learned before"):
        command.solve(str(folder), "", update=model)
    new = [str(folder / "part-0008.parquet"), str(folder / "part-0009.parquet")]
    assert main(["solve", *new, "--update", model, "--quiet"]) == 0
    with pytest.raises(BadData, match=r"part-0009.parquet.* learned before"):
        command.solve(new[1], "", update=model)
    assert Moments.load(model).n == 1200
    assert main(["solve", "--target", "y", "--features", "a", "b", *new, "--quiet"]) == 0
    text = render(command.solve(new, "y")[0])
    assert "part-0009.parquet (2 files): 200 rows" in text and "next: hasten solve FILES --target y" in text
    named = [folder / "part-0000.parquet", folder / "part-0003.parquet"]
    assert command.solve([*map(str, named)], "town")[0].task == "classification"
