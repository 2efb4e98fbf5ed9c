"""What torch.compile has made in trials, kept in the user's cache for the next runs with the plan.

Compiling takes from ten seconds to minutes; tracing a model again and finding its code takes a few. torch names its
files by what they were made from (graph, settings, versions, processor), so what no longer fits is not found. They are
code: only a folder is used that belongs to this user and that nobody else may write to.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
import stat
import tempfile
import time
from pathlib import Path

from hasten.core.plan import Plan, write_atomically
from hasten.data.store import cache_folder

VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
MOST_FOLDERS = 16  # of different scripts, versions and machines; those not used for longest go first
STARTED = "start-seconds"  # a file of ours beside torch's
_STALE_SECONDS = 3600.0  # what a process that was killed has left half copied


def folder_of(plan: Plan) -> Path | None:
    """Where this plan's code is kept, made if missing; None where no folder is private to this user."""
    parent = Path(cache_folder()) / "compiled"
    content = json.dumps([plan.script_sha256 or plan.script, plan.versions, plan.machine], sort_keys=True)
    folder = parent / hashlib.sha256(content.encode()).hexdigest()[:24]
    try:
        for path in (parent, folder):
            path.mkdir(mode=0o700, exist_ok=True)
            status = path.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
                return None
        os.utime(folder)
    except OSError:
        return None
    return folder


def found(plan: Plan) -> bool:
    """Whether code may be there for this plan; where the user has named another folder, nobody knows."""
    folder = folder_of(plan)
    return _named() or (folder is not None and any(entry.name != STARTED for entry in os.scandir(folder)))


def started(plan: Plan) -> float | None:
    """Seconds that the last start with code that was found has taken here; None where there was none."""
    folder = folder_of(plan)
    try:
        seconds = float((folder / STARTED).read_text(encoding="ascii")) if folder is not None else math.nan
    except (OSError, ValueError):
        return None
    return seconds if 0 <= seconds < math.inf else None


def note_start(plan: Plan, seconds: float) -> None:
    """Keep for the next run with the plan what this start has taken."""
    folder = folder_of(plan)
    if folder is not None:
        with contextlib.suppress(OSError):
            write_atomically(folder / STARTED, f"{seconds:.3f}\n")


def keep(made: str, plan: Plan) -> str:
    """Move the code that trials have left in ``made`` to where it is kept.

    Returns:
        the folder that torch is to use from now on; ``made`` itself where nothing can be kept.
    """
    folder = folder_of(plan)
    if folder is None:
        return made
    if not any(os.scandir(made)):  # trials in processes of their own leave nothing here; what was kept before stays
        return str(folder)
    _tidy(folder)
    try:
        with tempfile.TemporaryDirectory(prefix=".new-", dir=folder.parent, ignore_cleanup_errors=True) as place:
            new, old = Path(place, "new"), Path(place, "old")
            shutil.copytree(made, new)
            new.chmod(0o700)
            os.replace(folder, old)
            os.replace(new, folder)
    except OSError:  # a full disk, or another run of the same script was quicker
        return made
    return str(folder)


def use(folder: str | Path | None) -> None:
    """Let torch look for compiled code in ``folder`` and leave it there, unless the user has named another."""
    if folder is not None and not _named():
        os.environ[VARIABLE] = str(folder)


def _named() -> bool:
    """Whether the user has named a folder: torch notes its own in the variable as soon as there is an optimizer."""
    named = os.environ.get(VARIABLE)
    return named is not None and os.path.abspath(named) != _torchs_own()


def _torchs_own() -> str:
    try:
        from torch._inductor.runtime.cache_dir_utils import default_cache_dir
    except ImportError:  # another version: what is noted is left alone
        return ""
    return os.path.abspath(str(default_cache_dir()))


def _tidy(folder: Path) -> None:
    """Remove what was left half copied, and the folders that were not used for longest."""
    with contextlib.suppress(OSError):
        found = sorted((p.stat().st_mtime, p) for p in folder.parent.iterdir() if p != folder)
        half = [p for at, p in found if p.name.startswith(".") and time.time() - at > _STALE_SECONDS]
        whole = [p for _, p in found if not p.name.startswith(".")]
        for path in [*half, *whole[: max(0, len(whole) + 1 - MOST_FOLDERS)]]:
            shutil.rmtree(path, ignore_errors=True)
