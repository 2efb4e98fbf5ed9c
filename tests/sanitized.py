"""Tests of the compiled libraries with the compiler's own checks in them: ``python -m tests.sanitized address``.

``address`` finds what is read or written outside of an array (NumPy's and torch's, too: their memory is then the
sanitizer's) and ``undefined`` what C++ leaves open, as sums beyond an integer's range. Either ends the tests at once,
and is printed with file and line. Both also check the indices of ``std::vector``. GCC is needed; words behind the first
go to pytest, in place of the files below.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from hasten.fleet.native import build
from hasten.measure import machine
from hasten.native.compiled import FLAGS, TARGETS, Library
from hasten.solve import gram

ROOT = Path(__file__).parent.parent
TESTS = (
    "tests/native", "tests/fleet/tape", "tests/fleet/test_native.py", "tests/fleet/test_native_conv.py",
    "tests/fleet/test_native_graph.py", "tests/fleet/test_native_recurrent.py", "tests/fleet/test_streams.py",
    "tests/solve/test_gram.py", "tests/solve/test_sliding.py",
)  # fmt: skip
CHECKS = {
    "address": ("-fsanitize=address",),
    "undefined": ("-fsanitize=undefined", "-fno-sanitize=null,object-size,vptr"),  # these take GCC minutes, and a null
}  # pointer is a crash by itself
SLOWER = ("-O1", "-g", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all", "-D_GLIBCXX_ASSERTIONS")
WRAPPER = '#!/bin/sh\nexec g++ "$@" {}\n'


def main(check: str, *words: str) -> int:
    """Compile, run, and print what was found.

    Returns:
        pytest's exit code.
    """
    home = ROOT / ".venv" / "sanitized" / check
    home.mkdir(parents=True, exist_ok=True)
    compiler = home / "g++"
    compiler.write_text(WRAPPER.format(" ".join((*SLOWER, *CHECKS[check]))), encoding="ascii")
    compiler.chmod(0o755)
    os.environ |= {"CXX": str(compiler), "XDG_CACHE_HOME": str(home)}
    for library in (build.LIBRARY, gram.LIBRARY):
        for isa, (needs, _) in TARGETS.items():
            if needs <= machine.cpu_flags():
                made(library, isa, compiler)
    with tempfile.TemporaryDirectory() as logs:
        found = f"log_path={logs}/found:abort_on_error=1"
        own = {"ASAN_OPTIONS": f"{found}:detect_leaks=0", "UBSAN_OPTIONS": f"{found}:print_stacktrace=1"}
        if check == "address":  # must be there before Python is; and C++'s own library, for exceptions of others
            own["LD_PRELOAD"] = " ".join(where(name) for name in ("libasan.so", "libstdc++.so.6"))
        command = [sys.executable, "-m", "pytest", "-q", "--timeout", "3000", *(words or TESTS)]
        code = subprocess.run(command, cwd=ROOT, env={**os.environ, **own}, check=False).returncode
        for log in sorted(Path(logs).iterdir()):
            print(log.read_text(encoding="utf-8", errors="replace"))
    return code


def made(library: Library, isa: str, compiler: Path) -> None:
    """Compile a library ahead, however long it takes: when it is asked for there is a limit."""
    path = library.cached(isa)
    if not path.exists():
        print(f"compiling {path.name}", flush=True)
        path.parent.mkdir(exist_ok=True)
        part, source = path.with_suffix(".part"), library.folder / library.sources[0]
        flags = (*FLAGS, *library.flags, *TARGETS[isa][1])
        subprocess.run([compiler, *flags, source, "-o", part], check=True)
        part.replace(path)


def where(name: str) -> str:
    """The path of one of GCC's libraries."""
    return subprocess.run(
        ["g++", f"-print-file-name={name}"], check=True, capture_output=True, text=True
    ).stdout.strip()  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
