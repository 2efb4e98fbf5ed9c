"""Ending OpenMP's threads before a fork, where the runtimes that torch has mapped can do so.

A plain ``fork()`` after a parallel region dead-locks the child at its next one: libgomp believes in threads that no
longer exist. ``omp_pause_resource_all(omp_pause_hard)`` (OpenMP 5.0, 3.2.44) ends them first, on both sides; they come
back by themselves at the next parallel region, with the same number of threads and so the same sums.
"""

from __future__ import annotations

import ctypes
import functools
import os


@functools.cache
def openmp_libraries() -> tuple[ctypes.CDLL, ...]:
    """The OpenMP runtimes of this process whose threads can be ended."""
    paths = set()
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
        for line in file:
            path = line.rstrip("\n").split(" ", 5)[-1].strip()
            if any(name in os.path.basename(path) for name in ("libgomp", "libiomp", "libomp.", "libomp-")):
                paths.add(path)
    libraries = []
    for path in sorted(paths):
        try:
            library = ctypes.CDLL(path)
            library.omp_pause_resource_all  # noqa: B018
            libraries.append(library)
        except (OSError, AttributeError):
            continue
    return tuple(libraries)


def pause_openmp() -> None:
    """End the OpenMP threads of every runtime in this process; they come back when needed."""
    for library in openmp_libraries():
        library.omp_pause_resource_all(2)
