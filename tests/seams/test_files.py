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
        "assert sorted(os.listdir()) == ['out', 'there.txt']\n"
        "assert [e.name for e in os.scandir()] == ['there.txt', 'out']\n"
        "try:\n    os.listdir('nowhere')\nexcept FileNotFoundError:\n    pass\nelse:\n    sys.exit(1)\n",
    )


def test_what_was_written_is_found_by_patterns(tmp_path: Path) -> None:
    """The last checkpoint, however the script looks for it."""
    child(
        tmp_path,
        "os.makedirs('out/step-1')\n"
        "for name in ('b.pt', 'a.pt'):\n    pathlib.Path('out/step-1', name).write_text(name)\n"
        "found = [str(p) for p in sorted(pathlib.Path('out').glob('step-*/*.pt'))]\n"
        "assert found == sorted(glob.glob('out/*/*.pt')) == ['out/step-1/a.pt', 'out/step-1/b.pt'], found\n"
        "assert [(r, d, sorted(f)) for r, d, f in os.walk('out')][1] == ('out/step-1', [], ['a.pt', 'b.pt'])\n"
        "with os.scandir(b'out') as entries:\n    (entry,) = entries\n"
        "assert entry.is_dir() and not entry.is_file() and os.fspath(entry) == b'out/step-1'\n"
        "assert [e.stat().st_size for e in os.scandir('out/step-1')] == [4, 4]\n"
        "shutil.rmtree('out/step-1')\n"
        "assert glob.glob('out/*') == [] and not os.path.exists('out/step-1')\n",
        before="import glob, shutil\n",
    )


def test_safetensors_writes_into_the_private_folder_and_reads_there(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    child(
        tmp_path,
        "save_file({'w': torch.ones(2)}, 'w.safetensors', metadata={'format': 'pt'})\n"
        "assert os.stat('w.safetensors').st_size > 8\n"
        "assert load_file('w.safetensors')['w'].tolist() == [1.0, 1.0]\n"
        "with safe_open('w.safetensors', 'pt') as file:\n    assert list(file.keys()) == ['w']\n",
        before="import torch\nfrom safetensors import safe_open\nfrom safetensors.torch import load_file, save_file\n",
    )
