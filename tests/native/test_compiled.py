"""Libraries are compiled once, kept by what they are made of, and their absence is told."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Any

import pytest

from hasten.native import compiled
from hasten.native.compiled import TARGETS, Library, NoCompiler, target


@pytest.fixture
def answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Library:
    """A library of one function, in a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "answer.cpp").write_text('#include "value.inc"\nextern "C" int answer() { return VALUE; }\n')
    (tmp_path / "value.inc").write_text("#define VALUE 42\n")
    return Library("answer", tmp_path, ("answer.cpp", "value.inc"))


def built(from_here: Library) -> ctypes.CDLL:
    if compiled.compiler() is None:
        pytest.skip("no C++ compiler here")
    return from_here.load()


def test_a_library_is_compiled_once_and_again_when_a_source_changes(answer: Library) -> None:
    assert built(answer).answer() == 42
    path = answer.cached(target())
    made = path.stat().st_mtime_ns
    assert built(answer).answer() == 42 and path.stat().st_mtime_ns == made
    (answer.folder / "value.inc").write_text("#define VALUE 43\n")
    assert answer.cached(target()) != path
    assert built(answer).answer() == 43


def test_who_looks_on_is_told_why_nothing_happens(answer: Library, capsys: Any, monkeypatch: Any) -> None:
    built(answer)
    assert not capsys.readouterr().err  # nobody looks on
    answer.cached(target()).unlink()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    built(answer)
    assert "compiling answer for this processor" in capsys.readouterr().err
    built(answer)
    assert not capsys.readouterr().err


def test_what_a_killed_compilation_left_is_removed(answer: Library) -> None:
    home = answer.cached(target()).parent
    left, others = home / f"{answer.compiling}x", home / "other-compiling-x"
    for folder in (left, others):
        folder.mkdir(parents=True)
    assert built(answer).answer() == 42
    assert not left.exists() and others.exists()


def test_flags_are_part_of_the_name_and_reach_the_compiler(answer: Library) -> None:
    other = Library("answer", answer.folder, ("answer.cpp",), ("-include", "cstdlib"))
    assert other.cached(target()) != answer.cached(target())
    assert built(other).answer() == 42


def test_every_target_needs_less_than_the_one_before() -> None:
    needs = [need for need, _ in TARGETS.values()]
    assert not needs[-1] and target() in TARGETS


def test_no_compiler_and_a_source_that_is_wrong_are_told(answer: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    if compiled.compiler() is not None:
        (answer.folder / "answer.cpp").write_text("this is no C++")
        with pytest.raises(NoCompiler, match="could not compile"):
            answer.load()
    monkeypatch.setattr(compiled, "compiler", lambda: None)
    with pytest.raises(NoCompiler, match="CXX"):
        answer.load()


def test_a_user_without_a_home_folder_is_told(answer: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 54321)
    with pytest.raises(NoCompiler, match="XDG_CACHE_HOME=/a/writable/folder"):
        answer.load()
