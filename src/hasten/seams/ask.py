"""Asking a dataset in a forked child, where it can do no harm."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from typing import Any

from hasten.core.codec import decode, encode
from hasten.core.facts import Probe
from hasten.seams import fork
from hasten.seams.child import exchange_folder
from hasten.seams.watch import Watch

LIMIT_SECONDS = 10.0
IN_ALL_SECONDS = 5.0  # after which no further dataset is asked, while the script waits
Examine = Callable[[Any, Any], Probe]  # of a dataset and its loader


def probe_loaders(watch: Watch, examine: Examine) -> dict[int, Probe]:
    """A probe for every loader, by the key of :attr:`Watch.loaders`, each made in a forked child."""
    return probes_of(watch, lambda dataset, loader: probe_in_child(watch, dataset, loader, examine))


def probes_of(watch: Watch, examine: Examine) -> dict[int, Probe]:
    """A probe for every loader that has been asked, made here: first of those that are trained on and waited for most,
    until :data:`IN_ALL_SECONDS` have passed."""
    from torch.utils.data import IterableDataset

    found: dict[int, Probe] = {}
    end = time.monotonic() + IN_ALL_SECONDS
    asked = [(key, record) for key, record in watch.loaders.items() if record.batches]
    for key, record in sorted(asked, key=lambda x: (x[1].role == "training", x[1].fetched), reverse=True):
        loader = record.loader()
        if loader is None:
            continue
        if found and time.monotonic() > end:
            break
        if isinstance(loader.dataset, IterableDataset):
            found[key] = Probe(why_not="an IterableDataset has no items to ask for")
            continue
        found[key] = examine(loader.dataset, loader)
    return found


def probe_in_child(watch: Watch, dataset: Any, loader: Any, examine: Examine) -> Probe:
    """Probe a dataset in a forked child; the caller has checked that forking is safe."""
    folder = exchange_folder(watch)
    path = os.path.join(folder, "probe.json")

    def driver(sender: fork.Sender) -> Any:
        result = examine(dataset, loader)
        with open(path, "w", encoding="utf-8") as file:
            json.dump(encode(result), file)
        sender.row(fork.DONE)
        sender.leave()

    child = fork.go(watch, driver, allowed=(folder,))
    try:
        end = time.monotonic() + LIMIT_SECONDS
        while not child.ended and time.monotonic() < end:
            if any(r[0] == fork.DONE for r in child.rows(0.5)):
                break
        child.kill()
        with open(path, encoding="utf-8") as file:
            return decode(Probe, json.load(file))
    except (OSError, ValueError):
        return Probe(why_not="asking the dataset twice failed or took too long")
    finally:
        child.kill() if not child.ended else None
        shutil.rmtree(folder, ignore_errors=True)
