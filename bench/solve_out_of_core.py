"""A file three times larger than the memory that the process may have: seconds against the disk, peak memory, kill -9.

    python bench/solve_out_of_core.py [--gigabytes 1.0]

Makes a ``.npy`` of float32 in ``--folder``, drops it from the page cache, and in turns reads it with large sequential
reads and nothing else ("disk": through the page cache and past it, the faster of both counts) and makes its moments.
The child's data segment is limited to a third of the file by ``ulimit -d`` (which Linux applies to all private writable
memory). The Gram roofline is what the kernel makes of blocks that lie in the cache, of 2048 rows (the second level) or
8192, the faster of both, as many times as the file has them, before each pass and after it: the clock of a shared
machine changes by a third within seconds, so each pass is compared with what was measured around it. Whichever of disk
and roofline is slower in the median binds. Then the pass is killed by SIGKILL half-way and resumed, and the bits of
both results are compared. One thread multiplies, one reads.
"""

from __future__ import annotations

from solve_common import fix_threads, median

fix_threads()

import argparse  # noqa: E402
import hashlib  # noqa: E402
import json  # noqa: E402
import math  # noqa: E402
import mmap  # noqa: E402
import os  # noqa: E402
import resource  # noqa: E402
import signal  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
from common import RESULTS, child_environment, head, ratio, save, say  # noqa: E402

CLAIM = "A file 3× the memory limit (goal: 85 % of disk or Gram roofline, peak under 300 MB, same bits after kill -9)"
NAME = "solve-out-of-core"
COLUMNS = 200


def make(path: Path, gigabytes: float) -> None:
    rows = int(gigabytes * 1e9 / 4 / COLUMNS)
    header = {"descr": "<f4", "fortran_order": False, "shape": (rows, COLUMNS)}
    random = np.random.default_rng(0)
    block = random.standard_normal((1 << 14, COLUMNS), dtype=np.float32)
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, rows, len(block)):
            (block[: min(len(block), rows - start)] + np.float32(start % 7)).tofile(file)
        file.flush()
        os.fsync(file.fileno())


def cold(path: Path) -> None:
    """Drop the file from the page cache."""
    handle = os.open(path, os.O_RDONLY)
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(handle)


def disk(path: Path, direct: bool) -> float:
    """Seconds of reading it."""
    buffer = mmap.mmap(-1, 4 << 20)  # begins on a page, as reading past the page cache wants it
    handle = os.open(path, os.O_RDONLY | (os.O_DIRECT if direct else 0))
    start = time.perf_counter()
    while os.readv(handle, [buffer]):
        pass
    seconds = time.perf_counter() - start
    os.close(handle)
    return seconds


def roofline(rows: int) -> float:
    """Seconds of the products alone, of blocks that lie in the cache, as the kernel makes them."""
    from hasten.solve.kernel import Sums

    found = []
    for step in (2048, 8192):
        x = np.random.default_rng(0).standard_normal((step, COLUMNS), dtype=np.float32)
        sums, times = Sums(COLUMNS - 1, 1), []
        for _ in range(30):
            start = time.perf_counter()
            sums.add(x[:, :-1], x[:, -1:])
            times.append(time.perf_counter() - start)
        found.append(median(times) * rows / step)
    return min(found)


def child(path: Path, state: Path | None, every: float, limit: int) -> subprocess.Popen[str]:
    words = [sys.executable, __file__, "--child", str(path), "--state", str(state or ""), "--every", str(every)]
    return subprocess.Popen(
        words, env=child_environment(), stdout=subprocess.PIPE, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit)),
    )  # fmt: skip


def inside(path: Path, state: str, every: float) -> None:
    """In the child: one pass."""
    from hasten.solve import Moments

    start = time.perf_counter()
    m = Moments.scan(path, checkpoint=state or None, every=every)
    seconds = time.perf_counter() - start
    with open("/proc/self/status", encoding="utf-8") as file:
        peak = next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))
    digest = hashlib.sha256(m.scatter.tobytes() + m.mean.tobytes()).hexdigest()
    print(json.dumps({"seconds": seconds, "peak": peak, "digest": digest, "rows": m.n}))


def measured(path: Path, rounds: int, rows: int) -> dict[str, Any]:
    limit = path.stat().st_size // 3
    found: dict[str, Any] = {"disk": [], "pass": [], "roofline": [], "peak": []}
    for _ in range(rounds):
        ways = []
        for direct in (False, True):
            cold(path)
            ways.append(disk(path, direct))
        found["disk"].append(min(ways))
        before = roofline(rows)
        cold(path)
        out = json.loads(child(path, None, 1e9, limit).communicate()[0])
        found["roofline"].append(math.sqrt(before * roofline(rows)))
        found["pass"].append(out["seconds"])
        found["peak"].append(out["peak"])
        found["digest"] = out["digest"]
    state = path.with_suffix(".state")
    victim = child(path, state, 0.2, limit)
    while victim.poll() is None and not state.exists():
        time.sleep(0.01)
    time.sleep(median(found["pass"]) / 4)
    killed = victim.poll() is None
    os.kill(victim.pid, signal.SIGKILL)
    victim.communicate()
    again = json.loads(child(path, state, 1e9, limit).communicate()[0])
    found["killed"] = killed
    found["same_bits"] = again["digest"] == found["digest"]
    found["resumed_seconds"] = again["seconds"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--folder", type=Path, help="where the file is made; a temporary one unless given")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--state", default="", help=argparse.SUPPRESS)
    parser.add_argument("--every", type=float, default=1e9, help=argparse.SUPPRESS)
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.child:
        inside(args.child, args.state, args.every)
        return
    head(f"{args.gigabytes:g} GB of float32, {COLUMNS} columns; memory limited to a third of it")
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = Path(folder) / "rows.npy"
        make(path, args.gigabytes)
        rows = int(args.gigabytes * 1e9 / 4 / COLUMNS)
        found = measured(path, args.rounds, rows)
    binds = max(("disk", "roofline"), key=lambda k: median(found[k]))
    share = ratio([math.log(a / b) for a, b in zip(found[binds], found["pass"], strict=True)])
    peak = max(found["peak"]) / 1e6
    summary = (
        f"{args.gigabytes:g} GB in {median(found['pass']):.2f} s: {100 * share.value:.0f} % "
        f"({100 * share.low:.0f}–{100 * share.high:.0f}) of the {'disk' if binds == 'disk' else 'Gram roofline'} "
        f"({median(found[binds]):.2f} s), peak {peak:.0f} MB, limit "
        f"{args.gigabytes * 1e3 / 3:.0f} MB; killed{'' if found['killed'] else ' (too late)'} and resumed with "
        f"{'the same bits' if found['same_bits'] else 'OTHER BITS'}"
    )
    say(summary)
    save(NAME, summary, {"share": share, "binds": binds, "peak": peak * 1e6}, found, args.results)


if __name__ == "__main__":
    main()
