"""Which files are the user's, and how their paths are shown."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hasten.seams import locate


@pytest.mark.parametrize(
    ("filename", "users"),
    [
        ("/home/someone/train.py", True),
        ("/home/someone/packages/nets.py", True),
        ("/opt/cluster/torch/lib/python3.11/site-packages/torch/nn/modules/module.py", False),  # by PYTHONPATH
        ("/opt/cluster/lib/python3/dist-packages/numpy/core.py", False),
        (torch.__file__, False),
        (locate.__file__, False),
        ("<string>", False),
        ("<ipython-input-3>", True),
        ("/tmp/torch.nn.modules.conv_propagate_31coniye.py", False),  # as torch_geometric writes what it generates
        ("/tmp/torch_trainer.py", True),
        ("/tmp/torchinductor_someone/jn/cjn25ggzrqaek3mll7.py", False),  # as torch.compile writes what it generates
        ("/tmp/v1.2_train.py", True),
    ],
)
def test_whose_a_file_is(filename: str, users: bool) -> None:
    assert locate.is_users(filename) is users


def test_what_torch_compiles_into_a_folder_that_the_user_named_is_no_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/scratch/me/compiled")
    asked = locate.is_users.__wrapped__
    assert not asked("/scratch/me/compiled/jn/cjn25ggzrqaek3mll7.py")
    assert asked("/scratch/me/compiled_models/train.py")


@pytest.mark.parametrize("alone", [True, False])
def test_a_module_that_is_run_in_a_folder_of_libraries_is_the_users(
    monkeypatch: pytest.MonkeyPatch, alone: bool
) -> None:
    libraries = "/opt/somewhere/site-packages/"
    monkeypatch.setattr(locate, "_main_root", lambda: libraries + ("package/" if alone else ""))
    asked = locate.is_users.__wrapped__
    assert asked(libraries + "package/loop.py") is alone
    assert asked(libraries + "another/loop.py") is False


def test_paths_are_shown_from_where_the_command_was_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locate, "_shown_from", None)
    monkeypatch.chdir(tmp_path)
    assert locate.shown(str(tmp_path / "project" / "train.py")) == "project/train.py"
    locate.show_from(str(tmp_path / "project"))  # and then the script has gone up
    assert locate.shown(str(tmp_path / "project" / "train.py")) == "train.py"
    assert locate.shown(str(tmp_path / "data.csv")) == str(tmp_path / "data.csv")
