"""A fleet on disk: one safetensors file with all weights, one table with what is known of each key. No pickles."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from hasten.core.errors import HastenError, UsageError
from hasten.fleet.extras import need
from hasten.fleet.fleet import Fleet
from hasten.fleet.losses import Loss
from hasten.fleet.modules import Factory
from hasten.fleet.recipe import EarlyStop, Recipe
from hasten.fleet.state import Layout, settings_json
from hasten.fleet.summary import Row, Summary
from hasten.fleet.tasks import Job, Task
from hasten.fleet.workers import Kind

FORMAT = "hasten fleet 1"


def save(fleet: Fleet, path: Path) -> None:
    """See ``Fleet.save``."""
    safetensors, pa = need("safetensors.numpy", "saving a fleet"), need("pyarrow", "saving a fleet")
    parquet = need("pyarrow.parquet", "saving a fleet")
    kinds = {}
    tensors = {}
    for name, kind in fleet.kinds.items():
        example = next((k for k, (held, _) in fleet.places.items() if held == name), None)
        if example is None:  # all of this kind failed
            continue
        kinds[name] = {"row": kind.row, "example": example, "settings": settings_json(fleet.settings.get(example, {}))}
        for e in kind.layout.entries:
            stacked = fleet.weights[name][:, e.start : e.start + e.size].reshape(-1, *e.shape)
            tensors[f"{name}/{e.name}"] = np.ascontiguousarray(stacked)
    recipe = recipe_json(fleet.recipe)
    head = {"kinds": kinds, "recipe": recipe, "summary": _summary_json(fleet.summary())}
    rows = [_table_row(fleet, row) for row in fleet.summary().rows]
    table = pa.Table.from_pylist(rows)
    _whole(path.with_name(path.name + ".parquet"), lambda to: parquet.write_table(table, to))
    _whole(path, lambda to: safetensors.save_file(tensors, to, {"format": FORMAT, "fleet": json.dumps(head)}))


def load(path: Path, make_model: Any) -> Fleet:
    """See ``Fleet.load``."""
    safetensors = need("safetensors", "loading a fleet")
    parquet = need("pyarrow.parquet", "loading a fleet")
    try:
        with safetensors.safe_open(str(path), "numpy") as file:
            said = file.metadata() or {}
            if said.get("format") != FORMAT:
                raise UsageError(f"{path} is no fleet", "another safetensors file", "a path given to Fleet.save")
            head = json.loads(said["fleet"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        rows = parquet.read_table(path.with_name(path.name + ".parquet")).to_pylist()
    except (OSError, safetensors.SafetensorError) as error:
        raise UsageError(
            f"cannot read the fleet {path}: {error}", "a file is missing or torn", "both files of Fleet.save"
        ) from None
    factory = Factory(make_model)
    kinds, weights = {}, {}
    for name, saved in head["kinds"].items():
        kind = kinds[name] = _kind(name, saved, factory)
        parts = [_part(tensors, f"{name}/{e.name}", e.shape, path) for e in kind.layout.entries]
        weights[name] = np.concatenate(parts, axis=1).astype(np.float32) if parts else np.empty((0, 0), np.float32)
    places = {r["key"]: (r["weights"], r["place"]) for r in rows if r["place"] >= 0}
    scales = {r["key"]: (r["shift"], r["scale"]) for r in rows if r["scale"] != 1.0 or r["shift"]}
    settings = {r["key"]: json.loads(r["settings"]) for r in rows if r["settings"] != "{}"}
    fields = Row.__dataclass_fields__
    summary = Summary(tuple(Row(**{k: r[k] for k in fields}) for r in rows), **head["summary"])
    return Fleet(recipe_of(head["recipe"]), kinds, weights, places, summary, scales, settings)


def _kind(name: str, saved: dict[str, Any], factory: Factory) -> Kind:
    empty = np.zeros((0, *saved["row"]), np.float32)
    job = Job(saved["example"], 0, 0, Task(empty, empty), 0, 0.0, 0.0, settings=saved["settings"])
    module = factory(job).eval()
    return Kind(name, module, Layout.of(module), tuple(saved["row"]))


def _part(tensors: dict[str, Any], name: str, shape: tuple[int, ...], path: Path) -> Any:
    found = tensors.get(name)
    if found is None or found.shape[1:] != shape:
        has = "nothing" if found is None else str(tuple(found.shape[1:]))
        raise UsageError(
            f"make_model has {name.split('/', 1)[1]} of shape {shape}, {path} has {has}",
            "another factory than the one the fleet was trained with",
            "the same make_model",
        )
    return found.reshape(len(found), -1)


def _table_row(fleet: Fleet, row: Row) -> dict[str, Any]:
    kind, place = fleet.places.get(row.key, ("", -1))
    shift, scale = fleet.scales.get(row.key, (0.0, 1.0))
    settings = json.dumps(settings_json(fleet.settings.get(row.key, {})))
    return {**asdict(row), "weights": kind, "place": place, "shift": shift, "scale": scale, "settings": settings}


def _summary_json(summary: Summary) -> dict[str, Any]:
    document = asdict(summary)
    document.pop("rows")
    return json.loads(json.dumps(document, default=str))  # type: ignore[no-any-return]


def recipe_json(recipe: Recipe) -> dict[str, Any]:
    """A recipe as plain values; callables by their names."""
    found = {k: getattr(recipe, k) for k in Recipe.__dataclass_fields__}
    found["loss"] = asdict(recipe.loss) if isinstance(recipe.loss, Loss) else repr_of(recipe.loss)
    found["stop"] = asdict(recipe.stop) if recipe.stop else None
    found["betas"] = list(recipe.betas)
    if not isinstance(recipe.optimizer, str):
        found["optimizer"] = repr_of(recipe.optimizer)
    return found


def recipe_of(saved: dict[str, Any]) -> Recipe:
    """The recipe of a file. Callables are not kept: their names become the defaults, to be given again if needed."""
    loss = Loss(**saved["loss"]) if isinstance(saved["loss"], dict) else "mse"
    stop = EarlyStop(**saved["stop"]) if saved["stop"] else None
    optimizer = saved["optimizer"] if saved["optimizer"] in ("sgd", "adam", "adamw") else "adam"
    return Recipe(**{**saved, "loss": loss, "stop": stop, "optimizer": optimizer, "betas": tuple(saved["betas"])})


def repr_of(function: Any) -> str:
    """A callable's name, without an address."""
    return getattr(function, "__qualname__", type(function).__qualname__)


def _whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write to a name beside ``path``, then rename: whole or not at all."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(beside)
        with open(beside, "rb") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
    except Exception as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise HastenError(
            f"cannot write {path}: {error}",
            "the disk is full, or the folder is missing or cannot be written",
            "a path on another disk; the fleet is still in memory and an older file is untouched",
        ) from error
