"""Hasten's own failures are one line; the script goes on."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from typing import Any

from hasten.seams.watch import Departed


def guarded(session: Any, call: Callable[[], None]) -> None:
    """Run hasten's own work; a failure is one line and the end of hasten's part."""
    try:
        call()
    except Departed:
        raise
    except Exception as error:
        session.watch.at_step = None
        session.watch.sampler.stop()
        if os.environ.get("HASTEN_DEBUG"):
            traceback.print_exc()
        say(f"stopped watching ({type(error).__name__}: {error}); the script goes on without it")


def say(text: str) -> None:
    """One line of hasten's own on stderr."""
    try:
        os.write(2, f"hasten: {text}\n".encode())
    except OSError:
        pass
