"""Running a user's script plainly and under hasten, each in a folder of its own, and comparing all that is left."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).parent
SOURCE = SCRIPTS.parent.parent / "src"
HOOKS = SCRIPTS / "hooks"
LIMIT = 200  # seconds after which a script is given up; a machine that others use is slow
EVERY_WAY = ("step", "child", "loader")


@dataclass(frozen=True)
class Ran:
    """What one run of a script left behind.

    Attributes:
        err: stderr without hasten's own lines.
        said: hasten's own lines.
        tree: what every file and folder below the working folder is, by its relative path.
        document: hasten's report, None for a plain run.
    """

    code: int
    out: str
    err: str
    said: tuple[str, ...] = ()
    tree: dict[str, str] = field(default_factory=dict)
    document: dict[str, Any] | None = None

    @property
    def trials(self) -> list[dict[str, Any]]:
        """Trials that measured something."""
        run = (self.document or {}).get("run") or {}
        return [t for t in run.get("trials", ()) if t["pairs"]]

    @property
    def why(self) -> str:
        """What hasten says about trials that did not happen, for the message of a failed test."""
        run = (self.document or {}).get("run") or {}
        trials = [(t["remedy"], t["verdict"], t["why"], t["fidelity_found"]) for t in run.get("trials", ())]
        return f"{trials}\n{run.get('message')}\n{self.said}\n{self.err[-2000:]}"


@dataclass(frozen=True)
class Lab:
    """One script in one folder, to be run in several ways.

    Args:
        hooks: what the test's sitecustomize changes inside hasten (see ``hooks/sitecustomize.py``); None for nothing.
        budget: seconds for trials.
    """

    folder: Path
    script: str
    args: tuple[str, ...] = ()
    stdin: str = ""
    env: dict[str, str] = field(default_factory=dict)
    hooks: dict[str, Any] | None = field(default_factory=lambda: {"remedies": EVERY_WAY})
    budget: float = 5.0
    allow: str = "identical"
    path: tuple[str, ...] = ()

    def plain(self) -> Ran:
        return self.finish("plain", self.start("plain"))

    def explain(self) -> Ran:
        return self.finish("explain", self.start("explain"))

    def run(self) -> Ran:
        return self.finish("run", self.start("run"))

    def all(self, ways: Sequence[str] = ("plain", "explain", "run")) -> list[Ran]:
        """Every way, at the same time."""
        with ThreadPoolExecutor(len(ways)) as pool:
            return list(pool.map(lambda way: self.finish(way, self.start(way)), ways))

    def home(self, way: str) -> Path:
        """The working folder of a run."""
        return self.folder / way

    def start(self, way: str) -> subprocess.Popen[str]:
        home = self.home(way)
        home.mkdir(parents=True, exist_ok=True)
        shutil.copy(SCRIPTS / self.script, home / "train.py")
        (self.folder / f"{way}.tmp").mkdir(exist_ok=True)
        with open(self.folder / f"{way}.out", "w") as out, open(self.folder / f"{way}.err", "w") as err:
            return subprocess.Popen(
                [sys.executable, *self._hasten(way), "train.py", *self.args],
                cwd=home,
                env=self._environment(way),
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                text=True,
                start_new_session=True,  # signals to its process group reach nobody else
            )

    def await_words(self, way: str, words: str) -> None:
        """Wait until hasten or the script says ``words`` on stderr or stdout."""
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            if any(words in (self.folder / f"{way}.{stream}").read_text() for stream in ("err", "out")):
                return
            time.sleep(0.02)
        raise AssertionError(f"never said {words!r}: {(self.folder / f'{way}.err').read_text()}")

    def finish(self, way: str, process: subprocess.Popen[str]) -> Ran:
        late = ""
        try:
            process.communicate(self.stdin, timeout=LIMIT)
        except subprocess.TimeoutExpired:
            late = "\nthe test gave up waiting\n"
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            assert way != "plain", (
                f"{self.script} does not end by itself: {(self.folder / 'plain.err').read_text()[-2000:]}"
            )
        home = str(self.home(way))
        out, err = ((self.folder / f"{way}.{stream}").read_text().replace(home, "HOME") for stream in ("out", "err"))
        lines = (err + late).splitlines(keepends=True)
        report = self.folder / f"{way}.json"
        return Ran(
            process.returncode,
            out,
            "".join(line for line in lines if not line.startswith("hasten: ")),
            tuple(line for line in lines if line.startswith("hasten: ")),
            tree(self.home(way)),
            json.loads(report.read_text()) if report.exists() else None,
        )

    def _hasten(self, way: str) -> list[str]:
        if way == "plain":
            return []
        words = ["-m", "hasten", way, "--quiet", "--json", str(self.folder / f"{way}.json")]
        if way == "run":
            words += ["--budget", str(self.budget), "--allow", self.allow, "--no-save-plan"]
        return words

    def _environment(self, way: str) -> dict[str, str]:
        env = {k: v for k, v in os.environ.items() if not k.startswith(("HASTEN", "LAB"))}
        hooks = [str(HOOKS)] if self.hooks is not None else []
        env["PYTHONPATH"] = os.pathsep.join([*self.path, *hooks, str(SOURCE)])
        env["OMP_NUM_THREADS"] = "1"
        env["TMPDIR"] = str(self.folder / f"{way}.tmp")
        if self.hooks is not None:
            env["LAB"] = json.dumps(self.hooks)
        return {**env, **self.env}


def tree(root: Path) -> dict[str, str]:
    """Every path below ``root`` with its kind, its permissions and the sha256 of its bytes (with
    ``root`` itself, where a traceback names it, replaced)."""
    found = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        mode = oct(stat.S_IMODE(status.st_mode))
        if path.is_symlink():
            found[str(path.relative_to(root))] = f"link to {os.readlink(path)}"
        elif path.is_file():
            content = path.read_bytes().replace(bytes(root), b"HOME")
            found[str(path.relative_to(root))] = f"file {mode} {hashlib.sha256(content).hexdigest()}"
        else:
            found[str(path.relative_to(root))] = f"folder {mode}"
    return found


def assert_untouched(plain: Ran, other: Ran) -> None:
    """All that a user can see is as it is without hasten."""
    assert other.code == plain.code, other.err[-3000:]
    assert other.out == plain.out
    assert other.err == plain.err
    assert other.tree == plain.tree


def assert_tried(ran: Ran) -> None:
    """At least one trial ran, so the comparison means something."""
    assert ran.trials, ran.why


def sessions(lab: Lab) -> list[str]:
    """Folders of hasten's that belong to this lab and are still there."""
    found = []
    for base in ("/dev/shm", *map(str, lab.folder.glob("*.tmp"))):
        for path in Path(base).glob("hasten-*"):
            try:
                text = (path / "config.json").read_text()
            except OSError:
                text = str(lab.folder) if base != "/dev/shm" else ""
            if str(lab.folder) in text:
                found.append(str(path))
    return found


def processes(lab: Lab) -> list[str]:
    """Processes that still run in one of this lab's folders."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            inside = entry.name.isdigit() and os.readlink(entry / "cwd").startswith(str(lab.folder))
            if inside and (line := (entry / "cmdline").read_bytes()):  # one that has given its memory back is ending
                found.append(f"{entry.name} {line!r}")
        except OSError:
            continue
    return found
