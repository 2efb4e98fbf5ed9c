"""A fleet on disk: one safetensors file with everything, and a copy of its table of keys beside it. No pickles."""

from __future__ import annotations

import functools
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from hasten.core.errors import UsageError
from hasten.fleet import keeping, models, whole
from hasten.fleet.described import parts
from hasten.fleet.extras import need
from hasten.fleet.fleet import Fleet
from hasten.fleet.losses import Loss
from hasten.fleet.modules import Factory, blank
from hasten.fleet.naive import SeasonalNaive
from hasten.fleet.recipe import OPTIMIZERS, EarlyStop, Recipe
from hasten.fleet.state import Layout, settings_json
from hasten.fleet.summary import Row, Summary
from hasten.fleet.workers import Kind

FORMAT = "hasten fleet 1"
TABLE = "table"  # what is known of each key, as the bytes of a Parquet file


def save(fleet: Fleet, path: Path, history: bool) -> None:
    """See ``Fleet.save``."""
    safetensors, pa = need("safetensors.numpy", "saving a fleet"), need("pyarrow", "saving a fleet")
    parquet = need("pyarrow.parquet", "saving a fleet")
    kinds: dict[str, Any] = {}
    tensors: dict[str, Any] = {}
    for name, kind in fleet.kinds.items():
        example = next((k for k, (held, _) in fleet.places.items() if held == name), None)
        if isinstance(kind.prototype, SeasonalNaive):
            kinds[name] = {"row": kind.row, "naive": [kind.prototype.horizon, kind.prototype.season]}
        elif example is not None:  # else all of this kind failed
            settings = settings_json(fleet.settings.get(example, {}))
            kinds[name] = {"row": kind.row, "example": example, "settings": settings, "parts": parts(kind.prototype)}
        for e in kind.layout.entries if name in kinds else ():
            stacked = fleet.weights[name][:, e.start : e.start + e.size].reshape(-1, *e.shape)
            tensors[f"{name}/{e.name}"] = np.ascontiguousarray(stacked)
    head = {"kinds": kinds, "recipe": recipe_json(fleet.recipe), "summary": _summary_json(fleet.summary())}
    head["notes"] = fleet.notes
    rows = [_table_row(fleet, row) for row in fleet.summary().rows]
    if history and (fleet.session is not None or fleet._reopen is not None):
        fleet.reopen()
        head["history"] = keeping.write(fleet, rows, tensors)
    table = pa.BufferOutputStream()
    parquet.write_table(pa.Table.from_pylist(rows), table)
    written = table.getvalue().to_pybytes()
    tensors[TABLE] = np.frombuffer(written, np.uint8)
    words, before = {"format": FORMAT, "fleet": json.dumps(head)}, fleet._stood.get(path.resolve())
    now = whole.written(path, lambda to: safetensors.save_file(tensors, to, words), before)
    fleet._stood |= {path.resolve(): now} if now else {}
    whole.written(path.with_name(path.name + ".parquet"), lambda to: to.write_bytes(written))


def load(path: Path, make_model: Any, loss: Any, optimizer: Any) -> Fleet:
    """See ``Fleet.load``."""
    parquet, pa = need("pyarrow.parquet", "loading a fleet"), need("pyarrow", "loading a fleet")
    before = None
    while before is None or before != whole.stood(path):  # until none took its place meanwhile
        before = whole.stood(path)
        head, tensors = _read(path)
    with parquet.ParquetFile(pa.BufferReader(tensors.pop(TABLE).tobytes())) as table:
        # One in a hundred processes that end soon after pyarrow has started threads is aborted by them.
        rows = table.read(use_threads=False).to_pylist()
    factory = Factory(_of_the_command(head["notes"], path) if make_model is None else make_model)
    kinds, weights = {}, {}
    for name, saved in head["kinds"].items():
        kind = kinds[name] = _kind(name, saved, factory, head["recipe"]["seed"])
        _same_parts(kind, saved, path)
        held = [_part(tensors, f"{name}/{e.name}", e.shape, path) for e in kind.layout.entries]
        weights[name] = np.concatenate(held, axis=1).astype(np.float32) if held else np.empty((1, 0), np.float32)
    places = {r["key"]: (r["weights"], r["place"]) for r in rows if r["place"] >= 0}
    scales = {r["key"]: (r["shift"], r["scale"]) for r in rows if r["scale"] != 1.0 or r["shift"]}
    settings = {r["key"]: json.loads(r["settings"]) for r in rows if r["settings"] != "{}"}
    fields = Row.__dataclass_fields__
    summary = Summary(tuple(Row(**{k: r[k] for k in fields}) for r in rows), **head["summary"])
    recipe = recipe_of(head["recipe"], loss, optimizer)
    fleet = Fleet(recipe, kinds, weights, places, summary, scales, settings)
    fleet.stand_ins = {r["key"]: (r["stand_in"], r["stand_in_place"]) for r in rows if r["stand_in"]}
    fleet.notes, fleet.factory = head["notes"], factory
    fleet._stood[path.resolve()] = before
    if "history" in head:
        lost = _lost(head["recipe"], loss, optimizer)
        fleet._reopen = functools.partial(keeping.read, saved=head["history"], rows=rows, tensors=tensors,
                                          factory=factory, lost=lost)  # fmt: skip
    return fleet


def notes(path: Path) -> dict[str, Any]:
    """What was noted with a saved fleet.

    Raises:
        UsageError: a file is missing or no fleet.
    """
    found: dict[str, Any] = _read(path, tensors=False)[0]["notes"]
    return found


def _read(path: Path, tensors: bool = True) -> tuple[dict[str, Any], dict[str, Any]]:
    safetensors = need("safetensors", "loading a fleet")
    try:
        with safetensors.safe_open(str(path), "numpy") as file:
            said = file.metadata() or {}
            if said.get("format") != FORMAT:
                _refuse(path, said.get("format", ""))
            names = file.keys() if tensors else ()
            return json.loads(said["fleet"]), {name: file.get_tensor(name) for name in names}
    except (OSError, safetensors.SafetensorError) as error:
        raise UsageError(
            f"cannot read the fleet {path}: {error}", "the file is missing or torn", "a path given to Fleet.save"
        ) from None


def _refuse(path: Path, form: str) -> NoReturn:
    if form.startswith("hasten fleet"):
        raise UsageError(
            f"{path} is of the form {form!r}, and this version of hasten reads {FORMAT!r}", "another version wrote it",
            "the version that wrote it",
        )  # fmt: skip
    raise UsageError(f"{path} is no fleet", "another safetensors file", "a path given to Fleet.save")


def _of_the_command(notes: dict[str, Any], path: Path) -> Any:
    found = models.of_notes(notes)
    if found is None:
        raise UsageError(
            f"{path} holds no code, and its modules are made by code", "it was trained with a factory of your own",
            "Fleet.load(path, make_model)",
        )  # fmt: skip
    return found


def _kind(name: str, saved: dict[str, Any], factory: Factory, seed: int) -> Kind:
    if "naive" in saved:
        naive = SeasonalNaive(*saved["naive"]).eval()
        return Kind(name, naive, Layout.of(naive), tuple(saved["row"]))
    module = blank(factory, saved["example"], tuple(saved["row"]), saved["settings"], seed)
    return Kind(name, module, Layout.of(module), tuple(saved["row"]))


def _same_parts(kind: Kind, saved: dict[str, Any], path: Path) -> None:
    """Tensors of the same shapes may belong to another activation, whose predictions would be others."""
    then, now = saved.get("parts", {}), parts(kind.prototype)
    for name in {**then, **now} if then else ():
        if then.get(name) != now.get(name):
            raise UsageError(
                f"make_model has {now.get(name, 'nothing')} at {name!r}, {path} has {then.get(name, 'nothing')}",
                "another factory than the one the fleet was trained with",
                "the same make_model",
            )


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
    stand_in, stand_in_place = fleet.stand_ins.get(row.key, ("", -1))
    settings = json.dumps(settings_json(fleet.settings.get(row.key, {})))
    return {
        **asdict(row), "weights": kind, "place": place, "stand_in": stand_in, "stand_in_place": stand_in_place,
        "shift": shift, "scale": scale, "settings": settings,
    }  # fmt: skip


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


def recipe_of(saved: dict[str, Any], loss: Any = None, optimizer: Any = None) -> Recipe:
    """The recipe of a file. Callables are not kept: what is given takes their place, or else a default."""
    stop = EarlyStop(**saved["stop"]) if saved["stop"] else None
    lost = _lost(saved, None, None)
    own = {
        "loss": loss or "mse" if "loss" in lost else Loss(**saved["loss"]),
        "optimizer": optimizer or "adam" if "optimizer" in lost else saved["optimizer"],
    }
    return Recipe(**{**saved, **own, "stop": stop, "betas": tuple(saved["betas"])})


def _lost(saved: dict[str, Any], loss: Any, optimizer: Any) -> tuple[str, ...]:
    """Which of loss and optimizer were callables and have not been given again."""
    callable_loss, callable_optimizer = not isinstance(saved["loss"], dict), saved["optimizer"] not in OPTIMIZERS
    missing = {"loss": callable_loss and loss is None, "optimizer": callable_optimizer and optimizer is None}
    return tuple(name for name, is_missing in missing.items() if is_missing)


def repr_of(function: Any) -> str:
    """A callable's name, without an address."""
    return getattr(function, "__qualname__", type(function).__qualname__)
