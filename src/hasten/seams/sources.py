"""The modules of the user's own that a script has imported, and what was in their files."""

from __future__ import annotations

import os
import sys

from hasten.core.plan import sha256_of_file
from hasten.seams.locate import is_users


def own_modules(folder: str, begun: float, script: bool) -> dict[str, str]:
    """sha256 of the files of all imported modules that are no library's, by their paths from ``folder``; without what
    was written since the import of torch began: torch up to 2.6 makes such a module in each run, in its own folder.

    Args:
        begun: when that was, in seconds since the epoch.
        script: whether the script itself is among them: one that was asked for as a module or a folder.
    """
    found = {}
    main = "" if script else os.path.realpath(getattr(sys.modules.get("__main__"), "__file__", None) or "")
    for module in list(sys.modules.values()):
        path = getattr(module, "__file__", None)
        if not isinstance(path, str) or not path.endswith(".py") or not is_users(path):
            continue
        if os.path.realpath(path) == main or not os.path.exists(path) or os.path.getmtime(path) >= begun:
            continue
        found[os.path.relpath(path, folder)] = sha256_of_file(path)
    return dict(sorted(found.items()))
