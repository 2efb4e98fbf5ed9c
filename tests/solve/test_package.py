"""The package loads nothing before it must, and says what to install."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hasten import solve
from hasten.solve import MissingExtra
from hasten.solve.problems import need


def test_importing_loads_neither_torch_nor_scikit_learn() -> None:
    code = "import sys, hasten, hasten.solve; hasten.solve.__all__; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not set(loaded) & {"torch", "sklearn", "scipy", "pandas", "numpy"}


@pytest.mark.parametrize("name", solve.__all__)
def test_every_name_is_there_and_documented(name: str) -> None:
    assert getattr(solve, name).__doc__


def test_no_other_name_is_there() -> None:
    with pytest.raises(AttributeError):
        _ = solve.nothing


def test_a_missing_package_is_named_with_what_to_type() -> None:
    with pytest.raises(MissingExtra, match="pip install no_such_package") as error:
        need("no_such_package", "a test")
    assert isinstance(error.value, ImportError)


def test_a_pass_over_a_file_does_not_import_masked_arrays(tmp_path: Path) -> None:
    path = tmp_path / "rows.npy"
    np.save(path, np.random.default_rng(0).standard_normal((50, 3)))
    code = "import sys; from hasten.solve import Moments; assert Moments.scan(sys.argv[1]).n == 50; print(*sys.modules)"
    words = [sys.executable, "-c", code, str(path)]
    loaded = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    assert "numpy.ma" not in loaded  # a third of the time that a small file takes
