"""What a process in which the script begins anew is given to read, and where it could not read what the script has."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hasten.seams import thrown
from hasten.seams.thrown import INPUT_GONE, Command, await_end


@pytest.fixture
def as_input() -> Iterator[Any]:
    """``as_input(descriptor)``: what this process reads from, until the test is over."""
    before = os.dup(0)
    yield lambda descriptor: os.dup2(descriptor, 0)
    os.dup2(before, 0)
    os.close(before)


COPY = "import os, sys; open(os.environ['HASTEN_CACHE_DIR'] + '/read', 'w').write(sys.stdin.read())"


def test_a_file_is_read_again_from_its_beginning(tmp_path: Path, as_input: Any) -> None:
    (tmp_path / "rows").write_text("all of it")
    with open(tmp_path / "rows", "rb") as rows:
        as_input(rows.fileno())
    os.read(0, 4)  # by the script, so far
    with Command(str(tmp_path), 0.1, [sys.executable, "-c", COPY]).begun({}) as (child, folder):
        await_end(child, 60.0, 60.0)
        assert Path(folder, "read").read_text() == "all of it"
    assert os.read(0, 9) == b"of it"


@pytest.mark.parametrize(
    ("text", "gone"),
    [
        ("rows = sys.stdin.read()", True),
        ("from sys import stdin", True),
        ("name = input('name? ')", True),
        ("y = self.input(x)", False),
        ("subprocess.run(command, stdin=subprocess.DEVNULL)", False),
    ],
)
def test_what_came_through_a_pipe_is_gone_where_the_script_reads_it(
    text: str, gone: bool, tmp_path: Path, as_input: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "train.py"
    script.write_text(text)
    monkeypatch.setattr(thrown, "own_modules", lambda *_args, **_more: [os.path.relpath(script, "/")])
    near, far = os.pipe()
    as_input(near)
    assert thrown._input_is_gone() == gone
    with open(os.devnull, "rb") as nothing:
        as_input(nothing.fileno())
    assert not thrown._input_is_gone()
    os.close(near)
    os.close(far)


def test_a_script_whose_input_is_gone_is_not_tried_as_another(lab: Any) -> None:
    """A network of 512 units by ``echo 512 |`` was told the speed-up of one of 16, which it is unless told."""
    ran = lab("asked.py", stdin="24").run()
    assert ran.out == "24\n" and not ran.trials
    assert ran.document and ran.document["run"]["message"].endswith(f", and {INPUT_GONE}"), ran.why
