"""Switching a remedy on for everything of its seam: what is there now, and what will come."""

from __future__ import annotations

import weakref
from typing import Any

from hasten.core.errors import Unsuited
from hasten.core.remedy import Remedy, Seam, Undo, undo_all
from hasten.seams.forward import ForwardSeam
from hasten.seams.guard import say
from hasten.seams.watch import Watch


class Switchboard:
    """The remedies that are on in this process.

    Attributes:
        active: in order; new loaders, fetchers, optimizers and models get them as they appear.
    """

    def __init__(self, watch: Watch, forward: ForwardSeam) -> None:
        self.watch = watch
        self.forward = forward
        self.active: list[Remedy] = []
        self._undos: dict[int, list[Undo]] = {}
        self._taken: set[int] = set()  # remedies that something has taken, by id
        watch.new_target = self._new

    def on(self, remedy: Remedy, *, required: bool = True) -> Undo:
        """Switch on for all present targets.

        Raises:
            Unsuited: no present target took it (only if ``required``); nothing was changed.
        """
        undos: list[Undo] = []
        reason = "nothing here that it could be applied to"
        for target in self.targets(remedy.seam, remedy.of_frozen):
            try:
                self._switch(remedy, target, undos)
            except Unsuited as error:
                reason = str(error)
        if required and not undos:
            raise Unsuited(reason)
        self.active.append(remedy)
        self._undos[id(remedy)] = undos

        def undo() -> None:
            if remedy in self.active:
                self.active.remove(remedy)
            undo_all(self._undos.pop(id(remedy), []))()

        return undo

    def unused(self, remedy: Remedy) -> bool:
        """Whether nothing has taken it so far. What worker processes do is not known here: for fetchers never."""
        return remedy.seam is not Seam.FETCHER and id(remedy) not in self._taken

    def _switch(self, remedy: Remedy, target: Any, undos: list[Undo]) -> None:
        """On for one object, with a way back as long as that lives: a way back may hold a dataset, and all it holds."""
        undo = self._apply(remedy, target)
        undos.append(undo)
        self._taken.add(id(remedy))
        if target is not None:
            weakref.finalize(target, _drop, undos, undo).atexit = False

    def _apply(self, remedy: Remedy, target: Any) -> Undo:
        inside = getattr(remedy, "on_seam", None)
        if inside is not None:  # remedies that wrap calls rather than change an object
            return inside(self.forward, target)  # type: ignore[no-any-return]
        return remedy.on(target)

    def targets(self, seam: Seam, frozen: bool = False) -> list[Any]:
        """The objects of a seam that exist now.

        Args:
            frozen: also models that are called and never trained.
        """
        watch = self.watch
        if seam in (Seam.PROCESS, Seam.LAUNCH):
            return [None]
        if seam is Seam.OPTIMIZER:
            return [o for r in watch.optimizers.values() if (o := r.optimizer) is not None]
        if seam is Seam.MODEL:
            return [m for r in watch.models.values() if (m := r.module()) is not None and (r.trained or frozen)]
        loaders = [x for r in watch.loaders.values() if (x := r.loader()) is not None]
        if seam is Seam.LOADER:
            return loaders
        fetchers = []
        for record in watch.loaders.values():
            fetcher = getattr(record.iterator, "_dataset_fetcher", None)
            if fetcher is not None:
                fetchers.append(fetcher)
        return fetchers

    def _new(self, kind: str, target: Any) -> None:
        for remedy in self.active:
            before = getattr(remedy, "before_workers", None)
            if kind == "loader" and before is not None and target.num_workers:
                try:
                    before(target)
                except Unsuited:
                    continue
                except Exception as error:
                    self._failed(remedy, error)
                    continue
            with_iterator = getattr(remedy, "with_iterator", None)
            if kind == "iterator" and with_iterator is not None:
                try:
                    with_iterator(target)
                except Exception as error:
                    self._failed(remedy, error)
            if remedy.seam.value == kind:
                try:
                    self._switch(remedy, target, self._undos.setdefault(id(remedy), []))
                except Unsuited:
                    continue
                except Exception as error:
                    self._failed(remedy, error)

    def _failed(self, remedy: Remedy, error: Exception) -> None:
        """The script asked for something of its own and must get it, with the remedy or without."""
        say(f"{remedy} could not be applied ({type(error).__name__}: {error}); the script goes on without it")


def _drop(undos: list[Undo], undo: Undo) -> None:
    if undo in undos:
        undos.remove(undo)
