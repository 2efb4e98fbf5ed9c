"""C++ that is compiled at its first use, for this processor, and kept in the user's cache."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hasten.core.errors import HastenError
from hasten.measure import machine

FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared", "-w")
TARGETS = {  # best first; each with the processor's flags it needs and the compiler's
    "avx512": (
        {"avx512f", "avx512dq", "avx512bw", "avx512vl", "fma"},
        ("-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mfma", "-mprefer-vector-width=512"),
    ),
    "avx2": ({"avx2", "fma"}, ("-mavx2", "-mfma")),
    "baseline": (set[str](), ()),
}


class NoCompiler(HastenError):
    """The library cannot be built here; who asked for it does without."""


def target() -> str:
    """The widest instruction set of ``TARGETS`` that this processor has."""
    flags = machine.cpu_flags()
    return next(name for name, (needs, _) in TARGETS.items() if needs <= flags)


def compiler() -> str | None:
    """``$CXX``, or the first C++ compiler found; None where there is none."""
    names = (os.environ.get("CXX", ""), "g++", "clang++", "c++")
    return next((path for name in names if name and (path := shutil.which(name))), None)


@dataclass(frozen=True)
class Library:
    """Sources that become one shared library.

    Attributes:
        name: of the file in the cache.
        folder: where the sources lie.
        sources: their names; the first is compiled, the others are included by it.
        flags: of the compiler, beside ``FLAGS``.
    """

    name: str
    folder: Path
    sources: tuple[str, ...]
    flags: tuple[str, ...] = ()

    def load(self, isa: str = "") -> ctypes.CDLL:
        """The library, compiled unless it was before.

        Args:
            isa: one of ``TARGETS``; the best of this processor unless given.

        Raises:
            NoCompiler: there is no C++ compiler, it refuses the source, or what it has made cannot be loaded.
        """
        isa = isa or target()
        path = self.cached(isa)
        if not path.exists():
            self._compile(isa, path)
        try:
            return ctypes.CDLL(str(path))
        except OSError as error:
            raise NoCompiler(
                f"the compiled library cannot be loaded: {error}",
                "a cache folder from which nothing may be run, or one that another system has filled",
                f"remove {path}, or XDG_CACHE_HOME=/another/folder",
            ) from error

    def cached(self, isa: str) -> Path:
        """Where the library is kept: named after source, compiler, flags and processor.

        Raises:
            NoCompiler: there is no such place.
        """
        content = hashlib.blake2b(digest_size=12)
        for name in self.sources:
            content.update((self.folder / name).read_bytes())
        flags = (*FLAGS, *self.flags)
        content.update(repr((compiler(), flags, TARGETS[isa][1], platform.machine(), machine.cpu_model())).encode())
        try:
            home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        except RuntimeError:
            raise NoCompiler(
                "there is no folder to keep the compiled library in",
                "a user without a home folder, as in some containers",
                "XDG_CACHE_HOME=/a/writable/folder",
            ) from None
        return Path(home) / "hasten" / f"{self.name}-{isa}-{content.hexdigest()}.so"

    @property
    def compiling(self) -> str:
        """How names of folders begin in which a compiler is at work."""
        return f"{self.name}-compiling-"

    @contextlib.contextmanager
    def _alone(self, home: Path) -> Iterator[None]:
        """While no other process compiles; what compilations that were killed have left is removed.

        The lock ends with its process, however that ends. Where a file system knows no locks nothing is removed.
        """
        with open(home / f"{self.name}-compiling.lock", "a", encoding="ascii") as file:
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
                for left in home.glob(self.compiling + "*"):
                    shutil.rmtree(left, ignore_errors=True)
            yield

    def _tell(self) -> None:
        """Who looks on is told why nothing happens for a while."""
        if sys.stderr is not None and sys.stderr.isatty():
            said = f"hasten: compiling {self.name} for this processor; once, about half a minute"
            print(said, file=sys.stderr, flush=True)

    def _compile(self, isa: str, path: Path) -> None:
        command = compiler()
        if command is None:
            raise NoCompiler(
                "there is no C++ compiler", "none is installed, or it is not on PATH", "apt install g++, or set CXX"
            )
        source = self.folder / self.sources[0]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._alone(path.parent):
                if path.exists():  # another process has made it meanwhile
                    return
                with tempfile.TemporaryDirectory(prefix=self.compiling, dir=path.parent) as folder:
                    made = Path(folder) / "made.so"
                    self._tell()
                    subprocess.run(
                        [command, *FLAGS, *self.flags, *TARGETS[isa][1], str(source), "-o", str(made)],
                        check=True,
                        capture_output=True,
                        text=True,
                        timeout=300,
                    )
                    os.replace(made, path)
        except (OSError, subprocess.SubprocessError) as error:
            said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
            raise NoCompiler(
                f"{command} could not compile the kernel: {said[0] if said else error}",
                "an old compiler (GCC 9 or Clang 10 is needed), or a cache folder that cannot be written",
                "CXX=/path/to/another/compiler, or XDG_CACHE_HOME=/a/writable/folder",
            ) from error
