"""An independent witness inside a script under test: counts and stamps optimizer steps, hashes the final weights.

Put on PYTHONPATH by bench/public_scripts.py in every arm alike, with and without hasten, and knows nothing of it.
Does nothing unless WITNESS names a folder. WITNESS_STEPS ends the script after so many optimizer steps,
WITNESS_SECONDS at the first step that many seconds after the first one, but not before WITNESS_LEAST steps (by
SystemExit, as a script's own sys.exit). In scripts without any optimizer calls of backward are the steps.
"""

import os
import sys

WITHOUT_OPTIMIZER = 32  # calls of backward after which a script without an optimizer's step has none


class Witness:
    """Stamps of every optimizer's steps, in nanoseconds; of ``backward`` where no optimizer ever steps."""

    def __init__(self, folder: str) -> None:
        from time import perf_counter_ns

        self.now = perf_counter_ns
        self.pid = os.getpid()
        self.folder = folder
        self.most_steps = int(os.environ.get("WITNESS_STEPS") or 0)
        self.least_steps = int(os.environ.get("WITNESS_LEAST") or 0)
        self.most_seconds = float(os.environ.get("WITNESS_SECONDS") or 0)
        self.optimizers = []
        self.stamps = []
        self.backwards = []
        self.steps = 0
        self.first = 0
        self.stopped = False

    def stepped(self, optimizer, _args, _kwargs) -> None:
        if os.getpid() != self.pid:
            return
        now = self.now()
        for known, stamps in zip(self.optimizers, self.stamps):  # noqa: B905  old Pythons, too
            if known is optimizer:
                stamps.append(now)
                break
        else:
            self.optimizers.append(optimizer)
            self.stamps.append([now])
        self.steps += 1
        self.first = self.first or now
        self.end_if_due(self.steps, now)

    def end_if_due(self, steps, now) -> None:
        """End the script where that was asked for."""
        late = self.most_seconds and now - self.first > self.most_seconds * 1e9 and steps >= self.least_steps
        if not self.stopped and (late or (self.most_steps and steps >= self.most_steps)):
            self.stopped = True
            raise SystemExit(0)

    def watch_backward(self, torch) -> None:
        original = torch.autograd.backward

        def backward(*args, **kwargs):
            out = original(*args, **kwargs)
            if not self.steps and os.getpid() == self.pid:
                now = self.now()
                self.first = self.first or now
                self.backwards.append(now)
                if len(self.backwards) >= WITHOUT_OPTIMIZER:
                    self.end_if_due(len(self.backwards), now)
            return out

        torch.autograd.backward = backward

    def weights(self, torch) -> str:
        """sha256 over the parameters of all optimizers, in the order in which they first stepped."""
        import hashlib

        digest = hashlib.sha256()
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                for p in group["params"]:
                    digest.update(f"{p.dtype}{tuple(p.shape)}".encode())
                    flat = p.detach().to("cpu").contiguous().reshape(-1)
                    digest.update(flat.view(torch.uint8).numpy().tobytes())
        return digest.hexdigest() if self.optimizers else ""

    def write(self) -> None:
        if os.getpid() != self.pid or not (self.steps or self.backwards):
            return
        import json

        content = {
            "steps": self.steps or len(self.backwards),
            "stopped": self.stopped,
            "stamps": self.stamps or [self.backwards],
            "weights": self.weights(sys.modules["torch"]),
        }
        with open(os.path.join(self.folder, f"{self.pid}.json"), "w", encoding="utf-8") as file:
            json.dump(content, file)


def _after_import(name, call):
    """Have ``call(module)`` called right after the module ``name`` has been imported, however it is imported."""

    class Finder:
        asking = False

        @staticmethod
        def find_spec(asked, path=None, target=None):
            if asked != name or finder.asking or finder not in sys.meta_path:
                return None
            import importlib.util

            finder.asking = True
            try:
                spec = importlib.util.find_spec(name)
            finally:
                finder.asking = False  # who asks need not import: libraries look whether torch is there
            if spec is None or spec.loader is None:
                return spec
            original = spec.loader.exec_module

            def exec_module(module):
                sys.meta_path.remove(finder)
                original(module)
                call(module)

            spec.loader.exec_module = exec_module
            return spec

    finder = Finder()
    sys.meta_path.insert(0, finder)


def _witness(torch) -> None:
    import atexit

    from torch.optim.optimizer import register_optimizer_step_post_hook

    witness = Witness(os.environ["WITNESS"])
    register_optimizer_step_post_hook(witness.stepped)
    witness.watch_backward(torch)
    atexit.register(witness.write)


def _chain() -> None:
    """Load the sitecustomize that stands behind this one, if there is one."""
    import importlib.util

    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [p for p in sys.path if os.path.abspath(p or ".") != here]
    mine = sys.modules.pop("sitecustomize", None)
    try:
        if importlib.util.find_spec("sitecustomize") is not None:
            import sitecustomize  # noqa: F401
    except ImportError:
        pass
    finally:
        sys.modules.setdefault("sitecustomize", mine)


if os.environ.get("WITNESS"):
    _after_import("torch", _witness)
_chain()
