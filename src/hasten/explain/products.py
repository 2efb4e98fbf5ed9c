"""How long would a step's matrix products and convolutions take at the rate of a large one?

Units for 16 bits speed up nothing else: where a step takes far longer, it is spent on other things, and on starting
small operations. What is multiplied is counted in a forked child by torch's own formulas, for one step.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from typing import Any

from hasten.seams import fork
from hasten.seams.batches import Batches
from hasten.seams.child import exchange_folder
from hasten.seams.record import record_batches
from hasten.seams.watch import Watch

LIMIT_SECONDS = 15.0  # a child is given up after this
SIDE, TIMES = 768, 5  # of the large product; the shortest of so many is its time
FUSED = ("mkldnn", "rnn", "lstm", "gru", "scaled_dot_product")  # in names of operations that multiply inside


def product_seconds(watch: Watch) -> float:
    """Seconds of a step; NaN where it could not be counted. The caller has checked that forking is safe."""
    if watch.compiled_by_script:
        return math.nan
    recorded = record_batches(watch)
    if recorded is not None and not recorded:  # the child must not ask the loader's workers
        return math.nan
    folder = exchange_folder(watch)
    path = os.path.join(folder, "products.json")

    def driver(sender: fork.Sender) -> _Counting:
        if recorded is not None:
            Batches(watch, recorded).take_over()
        return _Counting(sender, path)

    try:
        fork.go(watch, driver, allowed=(folder,), processes=False).drain(LIMIT_SECONDS)
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
        return float(found) if found is not None else math.nan
    except (OSError, ValueError):
        return math.nan
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Counting:
    """Counts the operations of one step of the child's loop."""

    def __init__(self, sender: fork.Sender, path: str) -> None:
        self.sender, self.path = sender, path
        self.rate = _rate()
        self.counter = counter()
        self.counter.__enter__()

    def beat(self) -> None:
        """A step has ended."""
        self.counter.__exit__(None, None, None)
        seconds = None if self.counter.unknown else self.counter.operations / self.rate
        with open(self.path, "w", encoding="utf-8") as file:
            json.dump(seconds, file)
        self.sender.row(fork.DONE)
        self.sender.leave()


def counter() -> Any:
    """A dispatch mode with the ``operations`` (additions and multiplications) of matrix products and convolutions, and
    whether one passed that may multiply and whose formula is ``unknown``."""
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import flop_registry

    class Counter(TorchDispatchMode):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.operations = 0
            self.unknown = False

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            packet = func._overloadpacket
            if packet in flop_registry:
                self.operations += flop_registry[packet](*args, **(kwargs or {}), out_val=out)
            elif any(word in packet.__name__ for word in FUSED):
                self.unknown = True
            return out

    return Counter()


def _rate() -> float:
    """Operations a second of a large product in float32, by as many threads as the script has."""
    import torch

    with torch.no_grad():
        a, b = torch.ones(SIDE, SIDE), torch.ones(SIDE, SIDE)
        out, times = torch.mm(a, b), []
        for _ in range(TIMES):
            start = time.perf_counter()
            torch.mm(a, b, out=out)
            times.append(time.perf_counter() - start)
    return float(2 * SIDE**3 / min(times))
