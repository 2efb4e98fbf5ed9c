"""What makes two calls of ``fit`` the same: a journal may answer for no other data, model or recipe than its own."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hasten.fleet.arrays import Array, shared
from hasten.fleet.described import code_of, described, signature
from hasten.fleet.files import recipe_json, repr_of
from hasten.fleet.native.build import made_of
from hasten.fleet.store import ROUNDING
from hasten.fleet.tasks import Task, Windows

if TYPE_CHECKING:
    from hasten.fleet.session import Session

PIECE = 1 << 20  # rows' numbers hashed at once where they do not lie side by side


def of(session: Session) -> dict[str, Any]:
    """Plain values that a resume must agree with: the data's bits and the model's code as digests, and what rounds."""
    kinds = {kind.name: kind for kind in session.kinds}
    modules = [(name, signature(kind.prototype), code_of(kind.prototype)) for name, kind in sorted(kinds.items())]
    recipe = session.recipe
    code = [described(value) for value in (session.factory.make_model, recipe.loss, recipe.optimizer)]
    return {
        "keys": [[job.key, job.rows, len(job.held)] for job in session.jobs],
        "data": _digest(part for job in session.jobs for part in _parts(job.task)),
        "recipe": recipe_json(recipe),
        "model": f"{repr_of(session.factory.make_model)} {_digest([repr((modules, code)).encode()])}",
        "settings": {k: {n: described(v) for n, v in own.items()} for k, own in session.settings.items()},
        "engines": {name: choice.engine for name, choice in session.choices.items()},
        ROUNDING: rounding({choice.engine for choice in session.choices.values()}),
    }


def rounding(engines: Collection[str]) -> dict[str, str]:
    """What decides the bits that engines make of the same data, model and recipe, by name."""
    sources = sorted(Path(__file__).parent.rglob("*.py"))
    found = {
        "hasten": _digest(path.read_bytes() for path in sources),
        "torch": f"{torch.__version__} {torch.backends.cpu.get_cpu_capability()}",
    }
    return {**found, "kernel": made_of()} if set(engines) - {"loop"} else found


def _digest(parts: Iterable[Any]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _parts(task: Task) -> Iterable[Any]:
    """The bytes of a task; of windows those of their series."""
    arrays = [task.values] if isinstance(task, Windows) else [shared(task.X), shared(task.y)]
    for array in arrays:
        yield f"{array.dtype.str} {array.shape} {task.gap} {task.shift!r} {task.scale!r} {task.breaks}".encode()
        yield from _bytes(array)


def _bytes(array: Array) -> Iterable[Any]:
    if array.dtype.hasobject:
        yield repr(array.tolist()).encode()
        return
    rows = max(1, PIECE // max(1, array[:1].size))
    for start in range(0, len(array), rows):
        yield np.ascontiguousarray(array[start : start + rows]).view(np.uint8).reshape(-1).data
