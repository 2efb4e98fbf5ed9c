"""Forks, and what is told of how a child ended."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hasten.seams.fork import ERROR, _note_error
from hasten.seams.isolate import Stray


def test_a_fork_is_a_fork() -> None:
    """Also where it is not Python's own: its hooks run on both sides."""
    code = """
import os, threading, warnings
warnings.simplefilter("error")
threading.Thread(target=threading.Event().wait, daemon=True).start()
from hasten.seams.silent import silent_fork
ran = []
os.register_at_fork(before=lambda: ran.append("before"), after_in_child=lambda: ran.append("child"),
                    after_in_parent=lambda: ran.append("parent"))
pid = silent_fork()
if not pid:
    os._exit(7 if ran == ["before", "child"] and threading.active_count() == 1 else 1)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), *ran)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (ran.stdout, ran.stderr) == ("7 before parent\n", "")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (Stray(), "it was about to start a program or to open a connection"),  # workers that are spawned, say
        (ValueError("one\ntwo"), "ValueError: one"),
        (KeyError(), "KeyError"),
    ],
)
def test_what_ended_a_child_is_told_in_words(tmp_path: Path, error: BaseException, told: str) -> None:
    _note_error(str(tmp_path), type(error), error)
    assert (tmp_path / ERROR).read_text(encoding="utf-8") == told
