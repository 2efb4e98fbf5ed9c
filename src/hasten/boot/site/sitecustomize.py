"""Loaded by Python itself before the user's script: arranges for torch to be watched right after it is imported.

Chains to a sitecustomize that stands behind this one. Imports nothing of hasten until torch has been imported.
"""

import os
import sys


def _install() -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [p for p in sys.path if os.path.abspath(p or ".") != here or not p]
    source = os.path.dirname(os.path.dirname(os.path.dirname(here)))

    class Finder:
        """Lets torch be imported as always and calls hasten right after."""

        @staticmethod
        def find_spec(name, path=None, target=None):  # type: ignore[no-untyped-def]
            if name != "torch" or finder not in sys.meta_path:
                return None
            sys.meta_path.remove(finder)
            import importlib.util
            import time

            started = time.perf_counter_ns()
            spec = importlib.util.find_spec("torch")
            if spec is None or spec.loader is None:
                return spec
            original = spec.loader.exec_module

            def exec_module(module):  # type: ignore[no-untyped-def]
                del spec.loader.exec_module  # type: ignore[union-attr]
                original(module)
                _start(source, started)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
            return spec

    finder = Finder()
    sys.meta_path.insert(0, finder)


def _start(source: str, started: int) -> None:
    try:
        try:
            import hasten.boot.agent as agent
        except ImportError:
            sys.path.append(source)
            import hasten.boot.agent as agent

            sys.path.remove(source)
        agent.start(started)
    except Exception as error:
        print(f"hasten: could not watch this process ({error!r}); the script goes on without it", file=sys.stderr)


def _chain() -> None:
    import importlib.util

    mine = sys.modules.pop("sitecustomize", None)
    try:
        if importlib.util.find_spec("sitecustomize") is not None:
            import sitecustomize  # type: ignore[import-not-found]  # noqa: F401  the user's own
    except ImportError:
        pass
    finally:
        sys.modules.setdefault("sitecustomize", mine)  # type: ignore[arg-type]


def _isolate() -> None:
    """A throw-away process of a trial: nothing that it does may be felt outside, from its first line on."""
    folder = os.path.dirname(os.environ["HASTEN_TRIAL"])
    source = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    sys.path.append(source)
    from hasten.seams.isolate import isolate_process

    sys.path.remove(source)
    isolate_process(folder)


if os.environ.get("HASTEN_TRIAL"):
    try:
        _isolate()
    except BaseException:
        os._exit(1)
if os.environ.get("HASTEN_SESSION"):
    _install()
_chain()
