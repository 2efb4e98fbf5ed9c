"""Whose code it is."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from hasten.seams import locate


@pytest.mark.parametrize("folder", ["site-packages", "dist-packages"])
def test_libraries_of_another_environment_are_libraries(folder: str) -> None:
    assert not locate.is_users(os.path.join(os.sep, "opt", "other", folder, "torch", "optim", "sgd.py"))
    assert not locate.is_users(torch.optim.__file__)
    assert locate.is_users(os.path.join(os.sep, "home", "me", "train.py"))


def test_a_script_that_was_installed_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    root = tmp_path / "site-packages"
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__file__=str(root / "mine" / "train.py")))
    for call in (locate.is_users, locate._main_root):
        call.cache_clear()
    try:
        assert locate.is_users(str(root / "mine" / "data.py"))
        assert not locate.is_users(str(root / "other" / "data.py"))
    finally:
        for call in (locate.is_users, locate._main_root):
            call.cache_clear()
