"""Stands in for a script in a throw-away process: reads what it is asked for, leaves a result at once, or sends rows.

What it does is set by its arguments: "unseeded" differs from run to run, "dies" leaves nothing, "hangs" too, and "over"
after it has said that the script's last step is taken.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

WITH = {"Threads": 0.5, "ForeachOptimizer": 2.0, "ChannelsLast": 1.0, "Autocast": 1.0, "Allocator": 0.5}


def main() -> None:
    order = json.loads(Path(os.environ["HASTEN_TRIAL"]).read_text(encoding="utf-8"))
    folder = Path(os.environ["HASTEN_CACHE_DIR"])
    names = [name for name, _ in order["remedies"]]
    ways = sys.argv[1:]
    if "over" in ways:
        from hasten.seams.fork import LAST
        from hasten.seams.thrown import sender

        sender(order).row(LAST)
    if "dies" in ways or ("dies with" in ways and (names or order.get("on"))):
        raise SystemExit(1)
    if "hangs" in ways:
        time.sleep(600)
    seed = os.getpid() if "unseeded" in ways else order.get("seed", 0)
    random = np.random.default_rng(seed)
    seconds = 1e-3 * (1 + 0.01 * np.random.default_rng().random())
    for name in names:
        seconds *= WITH.get(name, 1.0)
    if "on" in order:
        by_turns(folder, order, "unsuited" in ways)
    ones, update = np.ones(100, np.float32), random.random(100, np.float32)
    weights = ones + order["steps"] * update
    if order["moved_by"] is not None:
        (ones + update).tofile(folder / "moved")  # after the first step
        weights *= 1 + 32 * 2.0**-23
    if "ChannelsLast" in names:
        weights *= 1 + 2.0**-22
    if names and "rounds" in ways:
        weights *= 1 + 2.0**-20
    if "Threads" in names and "wrong" in ways:
        weights *= 1.01
    weights.tofile(folder / "weights")
    digest = str(hash(weights.tobytes())) if "unseeded" in ways else weights.tobytes().hex()
    result = {
        "wall": seconds,
        "cpu": seconds,
        "unsuited": "no convolution" if "unsuited" in ways and names else "",
        "losses": (random.random(order["steps"]) + 0.1 * ("far" in ways and bool(names))).tolist(),
        "layout": {"parameters": [60, 40], "buffers": [], "dtype": "float32"},
        "weights": digest,
        "optimizer": "o",
        "random": "r",
    }
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")


def by_turns(folder: Path, order: dict[str, Any], unsuited: bool) -> None:
    """Rows of steps without and with what is to be switched on; each pair drifts by itself."""
    from hasten.seams.thrown import sender

    line = sender(order)
    if unsuited:
        (folder / "result.json").write_text(json.dumps({"unsuited": "no convolution"}), encoding="utf-8")
        line.leave()
    for pair in range(40):
        seconds = 1e-3 * (1 + 0.1 * pair)
        times = {0: seconds, 1: seconds}
        for name, _ in order["on"]:
            times[1] *= WITH.get(name, 1.0)
        for kind in (0, 1) if pair % 2 else (1, 0):
            line.row(kind, times[kind], times[kind])
    line.row(-1)
    line.leave()


if __name__ == "__main__":
    main()
