"""Where the script prints and logs."""

from __future__ import annotations

import builtins
import logging

from hasten.measure.clock import timed
from hasten.seams.patch import Patches, StandIn
from hasten.seams.wait import only_outside
from hasten.seams.watch import Watch


def install(watch: Watch, patches: Patches) -> None:
    """Wrap ``print`` and ``Logger.handle``."""
    patches.set(builtins, "print", StandIn(only_outside(watch, "log", builtins.print), builtins.print))
    patches.set(logging.Logger, "handle", timed(watch.clock, "log", logging.Logger.handle))
