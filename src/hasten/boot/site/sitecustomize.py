"""Loaded by Python itself before the user's script: arranges for torch to be watched right after it is imported.

Chains to a sitecustomize that stands behind this one. Imports nothing of hasten until torch has been imported.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_HERE = os.path.dirname(os.path.abspath(__file__))
_SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(_HERE)))
_WATCHED = ("torch", "sklearn.neural_network._multilayer_perceptron")


def _as_import(function):  # type: ignore[no-untyped-def]
    """Makes ``function`` look like a part of the import machinery, whose frames Python leaves out of tracebacks."""
    code = function.__code__
    function.__code__ = code.replace(co_filename="<frozen importlib._bootstrap>", co_name="_call_with_frames_removed")
    return function


def _install() -> None:

    class Finder:
        """Lets what is watched be imported as always and calls hasten right after."""

        @staticmethod
        @_as_import
        def find_spec(name, path=None, target=None):  # type: ignore[no-untyped-def]
            if name not in waiting or finder not in sys.meta_path:
                return None
            import importlib.util
            import time

            started = time.perf_counter_ns()
            waiting.remove(name)  # it is asked for again
            try:
                spec = importlib.util.find_spec(name)
            finally:
                waiting.add(name)  # who asks need not import: libraries look whether torch is there
            if spec is None or spec.loader is None:
                return spec
            original = spec.loader.exec_module

            @_as_import
            def exec_module(module):  # type: ignore[no-untyped-def]
                del spec.loader.exec_module  # type: ignore[union-attr]
                original(module)
                if name not in waiting:
                    return
                waiting.remove(name)
                if not waiting and finder in sys.meta_path:
                    sys.meta_path.remove(finder)
                import _signal as signal  # type: ignore[import-not-found]  # without the frames of the module around it

                blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
                _start(name, started, at_fork)
                signal.pthread_sigmask(signal.SIG_SETMASK, blocked)  # a Ctrl-C meanwhile is raised here

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
            return spec

    at_fork = _AtFork()
    waiting = set(_WATCHED)
    finder = Finder()
    sys.meta_path.insert(0, finder)


class _AtFork:
    """Does what is registered for forks, unless hasten holds it back."""

    holds_back = staticmethod(lambda call: False)

    def __init__(self) -> None:
        register = os.register_at_fork

        def register_at_fork(**calls):  # type: ignore[no-untyped-def]
            register(**{when: self.unless_held_back(call) for when, call in calls.items()})

        os.register_at_fork = register_at_fork

    def unless_held_back(self, call: Callable[[], object]) -> Callable[[], object]:
        return lambda: None if self.holds_back(call) else call()


def _start(name: str, started: int, at_fork: object) -> None:
    if not os.path.exists(os.path.join(os.environ.get("HASTEN_SESSION", ""), "config.json")):
        return  # a program that the script has left behind: the command line has gone, with its folder
    try:
        with _PastTheScript():
            try:
                import hasten.core
            except ImportError:
                sys.path.append(_SOURCE)
                import hasten.core  # noqa: F401

                sys.path.remove(_SOURCE)
            if name == "torch":
                import hasten.boot.agent as agent

                agent.start(started, at_fork)
            elif not os.environ.get("HASTEN_TRIAL"):
                import hasten.boot.fits as fits

                fits.start()
    except Exception as error:
        print(f"hasten: could not watch this process ({error!r}); the script goes on without it", file=sys.stderr)


class _PastTheScript:
    """Imports find nothing in the script's folders: they may hold a ``statistics.py`` of its own. What such a module
    would have been hidden by is forgotten at the end, so that the script gets its own."""

    def __enter__(self) -> None:
        self.path = list(sys.path)
        self.folders = [p for p in self.path if p not in _LIBRARY]
        self.before = set(sys.modules)
        sys.path[:] = [p for p in self.path if p in _LIBRARY]

    def __exit__(self, *_: object) -> None:
        sys.path[:] = self.path
        for name in set(sys.modules) - self.before:
            paths = [os.path.join(folder, name) for folder in self.folders if "." not in name]
            if any(os.path.exists(path + ".py") or os.path.isdir(path) for path in paths):
                del sys.modules[name]


def _chain() -> None:
    """The user's own sitecustomize, as Python itself would have run it."""
    mine = sys.modules.pop("sitecustomize", None)
    try:
        import sitecustomize  # type: ignore[import-not-found]  # noqa: F401
    except ImportError as error:
        if error.name != "sitecustomize":
            raise
    finally:
        sys.modules.setdefault("sitecustomize", mine)  # type: ignore[arg-type]


def _isolate() -> None:
    """A throw-away process of a trial: nothing that it does may be felt outside, from its first line on."""
    folder = os.path.dirname(os.environ["HASTEN_TRIAL"])
    sys.path.append(_SOURCE)
    import random

    from hasten.seams.isolate import isolate_process

    sys.path.remove(_SOURCE)
    isolate_process(folder)
    random.seed(0)  # as every other process of the trial; the rest is seeded when torch is there


_LIBRARY = frozenset(sys.path)  # before Python puts the script's folder first
sys.path[:] = [p for p in sys.path if os.path.abspath(p or ".") != _HERE or not p]
if os.environ.get("HASTEN_TRIAL"):
    try:
        _isolate()
    except BaseException:
        os._exit(1)
if os.environ.get("HASTEN_SESSION"):
    _install()
_chain()
