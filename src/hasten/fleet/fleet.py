"""The trained fleet: a module for every key."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from hasten.core.errors import UsageError, in_a_line
from hasten.fleet.arrays import Array, as_floats, standardised
from hasten.fleet.described import own_ways
from hasten.fleet.modules import Factory, blank, copied
from hasten.fleet.naive import SeasonalNaive
from hasten.fleet.recipe import Recipe
from hasten.fleet.state import Floats, Layout
from hasten.fleet.summary import Summary
from hasten.fleet.taken import refusal
from hasten.fleet.tasks import by_name, name_of
from hasten.fleet.workers import Kind

ROWS = 4096  # of one forward pass


class Fleet(Mapping[str, nn.Module]):
    """One network a key.

    ``fleet["0412"]`` is a plain ``nn.Module`` in evaluation mode, with its own copy of the weights.

    Attributes:
        recipe: how it was trained.
        kinds: modules that differ only in their numbers, by name.
        weights: (models, total), float32, by kind; rows as in ``places``.
        places: key to (kind, row) of its own weights.
        stand_ins: key to (kind, row) of what predicts in place of its own weights (a baseline that was kept).
        scales: key to (shift, scale) where series were standardised.
        settings: a key's own settings, as given.
        session: the call of ``fit`` it came from, with its data; None in a loaded fleet that was not updated yet.
        notes: plain values that a file keeps.
        factory: what makes its modules.
    """

    def __init__(
        self,
        recipe: Recipe,
        kinds: Mapping[str, Kind],
        weights: Mapping[str, Floats],
        places: Mapping[str, tuple[str, int]],
        summary: Summary,
        scales: Mapping[str, tuple[float, float]],
        settings: Mapping[str, Mapping[str, Any]],
        session: Any = None,
    ) -> None:
        self.recipe, self.kinds, self.weights, self.places = recipe, dict(kinds), dict(weights), dict(places)
        self.scales, self.settings, self.session = dict(scales), dict(settings), session
        self.stand_ins: dict[str, tuple[str, int]] = {}
        self.notes: dict[str, Any] = {}
        self.factory: Factory | None = session.factory if session is not None else None
        self._summary = summary
        self._growing: Any = None
        self._predicting = threading.Lock()  # modules are given a key's weights in turns
        self._stood: dict[Path, tuple[int, int, int, int]] = {}  # files it was loaded from or saved to, as they were
        self._reopen: Callable[[Fleet], None] | None = None

    # -- a mapping of modules ------------------------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> nn.Module:
        kind, row = self._place(key)
        held = self.kinds[kind]
        if self.factory is not None and own_ways(held.prototype):  # what hangs on the prototype may hold on to it
            own = self.settings.get(name_of(key), {})
            module = blank(self.factory, name_of(key), held.row, own, self.recipe.seed)
        else:
            module = copied(held.prototype)
        self.kinds[kind].layout.write(self.weights[kind][row], module)
        return module.eval()

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)

    def __repr__(self) -> str:
        return f"<Fleet of {len(self)} models, {len(self.failed)} failed>"

    def __contains__(self, key: object) -> bool:
        return name_of(key) in self.places

    def _place(self, key: Any) -> tuple[str, int]:
        name = name_of(key)
        if name in self.places:
            return self.stand_ins.get(name) or self.places[name]
        if name in self.failed:
            raise KeyError(f"{name!r} was not trained: {self.failed[name]}")
        raise KeyError(f"there is no key {name!r} among the fleet's {len(self)}")

    def weights_of(self, key: Any) -> Floats:
        """One key's weights as a flat row, parameters first, in the module's own order. (total,), float32."""
        kind, row = self._place(key)
        found: Floats = self.weights[kind][row]
        return found

    def own_weights(self, key: str, weights: Floats) -> None:
        """Replace a key's own weights, which predict for it from now on. weights: (total,)."""
        kind, row = self.places[key]
        self.weights[kind][row] = weights
        if self.stand_ins.pop(key, None):
            rows = tuple(replace(r, source="own") if r.key == key else r for r in self._summary.rows)
            self._summary = replace(self._summary, rows=rows)

    def naive_kind(self, window: int, horizon: int, season: int) -> str:
        """The name of the seasonal-naive forecast among the kinds; it has one row of no weights."""
        name = f"naive-{window}-{horizon}-{season}"
        if name not in self.kinds:
            module = SeasonalNaive(horizon, season).eval()
            self.kinds[name] = Kind(name, module, Layout.of(module), (window,))
            self.weights[name] = np.empty((1, 0), np.float32)
        return name

    def is_naive(self, key: str) -> bool:
        """Whether the seasonal-naive forecast stands in for a key's own network."""
        return isinstance(self.kinds[self._place(key)[0]].prototype, SeasonalNaive)

    @property
    def failed(self) -> dict[str, str]:
        """Cause of each key that could not be trained."""
        return self._summary.failed

    def summary(self) -> Summary:
        """What training came to: ``print`` it, or read its fields."""
        return self._summary

    # -- predictions ---------------------------------------------------------------------------------------------------

    def predict(self, keys: Any, X: Any) -> Any:
        """Predictions of many models in one call.

        Args:
            keys: one key, or a sequence of them.
            X: for one key (rows, …); for several (keys, rows, …), a sequence of one array a key, or a mapping of keys
                to arrays. float32.

        Returns:
            for one key (rows, outputs); for several (keys, rows, outputs), or a list where their rows differ. float32.
            Series are taken and given in their own units.

        Raises:
            KeyError: a key was not trained.
            UsageError: there are not as many arrays as keys, or their rows are not what the models take.
        """
        if isinstance(X, Mapping):
            X = _by_key(keys, X, self._is_one(keys))
        if self._is_one(keys):
            return self._predict_one(keys, X)
        keys = list(keys)
        if len(X) != len(keys):
            raise UsageError(
                f"{len(keys)} keys and {len(X)} arrays",
                "one X was given for all keys",
                "predict(keys, [X for key in keys]), or predict(keys, X) with X: (keys, rows, features)",
            )
        found = [self._predict_one(key, x) for key, x in zip(keys, X, strict=True)]
        alike = len({f.shape for f in found}) == 1
        return np.stack(found) if alike else found

    def _is_one(self, keys: Any) -> bool:
        """Whether this is one key, as a word, a number, a date or a tuple may be, and no sequence of them."""
        return isinstance(keys, str | bytes) or not isinstance(keys, Iterable) or name_of(keys) in self

    def _predict_one(self, key: Any, given: Any) -> Floats:
        kind, row = self._place(key)
        held = self.kinds[kind]
        scaled = name_of(key) in self.scales
        X = _rows(key, given, held, np.float64 if scaled else np.float32)
        shift, scale = self.scales.get(name_of(key), (0.0, 1.0))
        if scaled:
            X = standardised(X, shift, scale)
        tensors = held.layout.views(self.weights[kind][row])
        module = held.prototype.eval()
        asked = X if len(X) else np.zeros_like(X, shape=(1, *X.shape[1:]))  # for the width of what comes out
        pieces = []
        with self._predicting, torch.no_grad():
            for start in range(0, len(asked), ROWS):
                rows = torch.from_numpy(np.array(asked[start : start + ROWS], order="C"))  # modules may write to it
                try:
                    given = torch.func.functional_call(module, tensors, (rows,))
                    pieces.append(given.numpy() if isinstance(given, torch.Tensor) else _no_tensor(key, given))
                except UsageError:
                    raise
                except Exception as error:
                    why = refusal(module, tensors, np.asarray(X), np.arange(len(X)))
                    raise _not_taken(key, held, X, error, why) from error
        out: npt.NDArray[np.float32] = np.concatenate(pieces)[: len(X)]
        return (out * np.float64(scale) + shift).astype(np.float32) if scaled else out

    def __reduce__(self) -> NoReturn:
        raise UsageError(
            "a fleet is not pickled",
            "pickle, copy or a process pool was given one; its factory is code, which no file of a fleet holds",
            "fleet.save(path), and Fleet.load(path, make_model) there",
        )

    # -- files ---------------------------------------------------------------------------------------------------------

    def save(self, path: str | Path, history: bool = True) -> None:
        """Write the fleet to ``path`` (safetensors), and a copy of its table of keys to ``path`` + ``.parquet``.

        The first file holds everything and takes an older one's place whole or not at all, whenever the process is
        killed. The second is for people. Where this fleet was loaded from ``path``, or saved there before, a file that
        another process has put there since is not replaced: what that one has learned would be lost.

        Args:
            history: keep the rows, and what updates have learned from, so that a loaded fleet can be updated. The file
                then grows by the data's size in float32; series are kept as they are, not as windows.

        Raises:
            UsageError: the extra ``hasten[fleet]`` is not installed; or the file has changed since, or another process
                is at work on it. Nothing was written; the fleet can be saved under another name.
            HastenError: the disk is full; what was there before is untouched.
        """
        from hasten.fleet import files

        files.save(self, Path(path), history)

    @classmethod
    def load(cls, path: str | Path, make_model: Any = None, loss: Any = None, optimizer: Any = None) -> Fleet:
        """Read what ``save`` has written.

        Args:
            make_model: the factory the fleet was trained with; its modules are given the weights of the file. Code is
                never loaded from the file. Not needed where the command has trained a model of its own.
            loss, optimizer: the callables it was trained with, where it is to be updated and they were no names.

        Raises:
            UsageError: a file is missing or no fleet, or ``make_model`` makes other modules.
        """
        from hasten.fleet import files

        return files.load(Path(path), make_model, loss, optimizer)

    def reopen(self) -> None:
        """Bring back the data and the state of updates from the file the fleet was loaded from.

        Raises:
            UsageError: the file holds no history, or not all that training needs.
        """
        if self.session is not None:
            return
        if self._reopen is None:
            raise UsageError(
                "this fleet has no history to draw from", "it was saved with history=False", "save(path, history=True)"
            )
        self._reopen(self)

    def prove(self, count: int = 8) -> tuple[Mapping[str, Any], ...]:
        """Train ``count`` sampled keys again by the plain loop and compare; see ``prove.prove``. The summary tells it.

        Raises:
            UsageError: the fleet is no longer what ``fit`` has trained: it was loaded from a file, or has learned more.
        """
        from hasten.fleet import prove as proving

        if self.session is None or self.session.store is None or self._growing is not None:
            raise UsageError(
                "this fleet is not as it was trained", "it was loaded from a file, or updated", "fit(…, prove=8)"
            )
        self._summary = replace(self._summary, proof=proving.prove(self, self.session, count))
        return self._summary.proof

    # -- growing windows -----------------------------------------------------------------------------------------------

    def update(self, new_rows: Any, **options: Any) -> Any:
        """Go on training with new rows, at a cost that does not grow with the history. See ``growing.update``."""
        from hasten.fleet import growing

        return growing.update(self, new_rows, **options)


def _by_key(keys: Any, X: Mapping[Any, Any], one: bool) -> Any:
    """The arrays of a mapping in the order of ``keys``."""
    named = by_name(X)
    keys = [keys] if one else list(keys)
    missing = [key for key in keys if name_of(key) not in named]
    if missing:
        raise UsageError(f"X has nothing for key {missing[0]!r}", "a typing error", "X = {key: rows for key in keys}")
    found = [named[name_of(key)] for key in keys]
    return found[0] if one else found


def _rows(key: Any, given: Any, kind: Kind, dtype: Any) -> Array:
    try:
        X = as_floats(given, dtype)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"X of key {key!r} holds what is no number: {error}", "text, or a mapping", "an array"
        ) from None
    if X.ndim <= len(kind.row):
        raise UsageError(
            f"X of key {key!r} has the shape {X.shape}, and a row is {kind.row}",
            "one row, without the dimension that counts rows",
            "X[None] for a single row",
        )
    if X.ndim > len(kind.row) + 1:
        raise UsageError(
            f"X of key {key!r} has the shape {X.shape}, and a row is {kind.row}",
            "for one key X is (rows, …), without a dimension that counts keys",
            f"predict([{key!r}], X) for one array a key, predict({key!r}, X[0]) for its rows",
        )
    return X


def _no_tensor(key: Any, given: Any) -> NoReturn:
    raise UsageError(
        f"the model of {key!r} gives a {type(given).__name__}, and no tensor",
        "predict puts the predictions of all rows together",
        f"fleet[{key!r}](X), which gives it as it is",
    )


def _not_taken(key: Any, kind: Kind, X: Array, error: Exception, why: str) -> UsageError:
    if X.shape[1:] == kind.row:
        return UsageError(
            f"the model of {key!r} does not take these rows: {why or in_a_line(error)}",
            "they hold something that no row it was trained on has held",
            "rows as those it was trained on",
        )
    said = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return UsageError(
        f"the model of {key!r} does not take rows of shape {X.shape[1:]}: {said}",
        f"it was trained on rows of shape {kind.row}",
        f"X: (rows, {', '.join(map(str, kind.row))})",
    )
