"""Fixtures that several tests share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.scripts.lab import Lab


@pytest.fixture
def lab(tmp_path: Path) -> Any:
    """``lab("script.py", …)``: a script of ``tests/scripts`` in a fresh folder."""

    def make(script: str, **options: Any) -> Lab:
        return Lab(tmp_path, script, **options)

    return make
