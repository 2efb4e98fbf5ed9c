"""Fixtures that several tests share."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

from hasten.seams.forward import ForwardSeam, install
from hasten.seams.patch import Patches
from hasten.seams.watch import Watch

pytest.register_assert_rewrite("tests.scripts.lab")

from tests.scripts.lab import Lab  # noqa: E402

if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # begun in the background: tests send interrupts that must be heard
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("hasten", deadline=None)  # a shared machine pauses for longer than any test takes
settings.load_profile("hasten")


@pytest.fixture
def lab(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """``lab("script.py", …)``: a script of ``tests/scripts`` in a fresh folder. Its name is short: workers of a loader
    put sockets into it, and where the path of one is longer than 107 letters a script waits for ever, as by itself."""

    def make(script: str, **options: Any) -> Lab:
        return Lab(tmp_path_factory.mktemp("lab"), script, **options)

    return make


@pytest.fixture
def seam() -> Iterator[ForwardSeam]:
    """The watch on calls of models, in this process."""
    patches = Patches()
    seam = install(Watch(), patches)
    yield seam
    seam.release()
    patches.undo()
