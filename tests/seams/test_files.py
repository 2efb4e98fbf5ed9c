"""What a child writes is led to a private folder, and found there again by what the script asks next."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BEGIN = "import os, pathlib, sys\nfrom hasten.seams.files import PrivateFiles\n"
INSTALL = "PrivateFiles(sys.argv[1]).install()\n"


def child(tmp_path: Path, script: str, before: str = "") -> None:
    """Run what a child would, and see that it left nothing."""
    (tmp_path / "private").mkdir()
    (tmp_path / "work").mkdir()
    (tmp_path / "work/there.txt").write_text("there")
    words = [sys.executable, "-c", BEGIN + before + INSTALL + script, str(tmp_path / "private")]
    done = subprocess.run(words, cwd=tmp_path / "work", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [p.name for p in (tmp_path / "work").iterdir()] == ["there.txt"]


def test_a_folder_that_was_made_can_be_looked_into(tmp_path: Path) -> None:
    child(
        tmp_path,
        "os.makedirs('out/step-1')\n"
        "assert os.listdir('out') == ['step-1'] and os.listdir('out/step-1') == [] == list(os.scandir('out/step-1'))\n"
        "pathlib.Path('out/step-1/a.txt').write_text('a')\n"
        "assert os.listdir('out/step-1') == ['a.txt'] and os.listdir(b'out/step-1') == [b'a.txt']\n"
        "assert list(pathlib.Path('out').glob('step-*')) == []\n"  # what it made is not found by a pattern
        "assert sorted(os.listdir()) == ['out', 'there.txt'] and [e.name for e in os.scandir()] == ['there.txt']\n"
        "try:\n    os.listdir('nowhere')\nexcept FileNotFoundError:\n    pass\nelse:\n    sys.exit(1)\n",
    )


def test_safetensors_writes_into_the_private_folder(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    child(
        tmp_path,
        "save_file({'w': torch.ones(2)}, 'w.safetensors', metadata={'format': 'pt'})\n"
        "assert os.stat('w.safetensors').st_size > 8\n",
        before="import torch\nfrom safetensors.torch import save_file\n",
    )
