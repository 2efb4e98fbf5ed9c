"""The state of a training: weights, buffers, optimizer state, random states; its digest and its distance."""

from __future__ import annotations

import hashlib
import random
import sys
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hasten.seams.watch import Watch


@dataclass
class Snapshot:
    """The objects whose state is compared: chosen once, before forking, so that both sides compare the same ones."""

    models: list[Any] = field(default_factory=list)
    optimizers: list[Any] = field(default_factory=list)

    @classmethod
    def of(cls, watch: Watch) -> Snapshot:
        models = [m for r in watch.models.values() if (m := r.module()) is not None]
        return cls(models, [r.optimizer for r in watch.optimizers.values()])

    def parameters(self) -> list[Any]:
        """Every parameter once, those of optimizers first."""
        seen: set[int] = set()
        found = []
        groups = [p for o in self.optimizers for g in o.param_groups for p in g["params"]]
        for p in (*groups, *(p for m in self.models for p in m.parameters())):
            if id(p) not in seen:
                seen.add(id(p))
                found.append(p)
        return found

    def write_weights(self, path: str) -> None:
        """All floating parameters as raw float32, in order."""
        import torch

        with open(path, "wb") as file:
            for p in self.parameters():
                if torch.is_floating_point(p):
                    file.write(p.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())

    def perturb(self) -> None:
        """Change every floating parameter by one unit in the last place, up or down (own random source)."""
        import torch

        generator = torch.Generator().manual_seed(20_26)
        with torch.no_grad():
            for p in self.parameters():
                if torch.is_floating_point(p):
                    sign = torch.randint(0, 2, p.shape, generator=generator).to(p.dtype).to(p.device) * 2 - 1
                    p.mul_(1 + sign * torch.finfo(p.dtype).eps)


def _feed(hasher: Any, value: Any) -> None:
    import torch

    if isinstance(value, torch.Tensor):
        hasher.update(f"{value.dtype}{tuple(value.shape)}".encode())
        if value.layout is not torch.strided:
            value = value.to_dense()
        hasher.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    elif isinstance(value, np.ndarray):
        hasher.update(f"{value.dtype}{value.shape}".encode())
        hasher.update(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, dict):
        for key in value:
            hasher.update(str(key).encode())
            _feed(hasher, value[key])
    elif isinstance(value, (list, tuple)):
        hasher.update(str(len(value)).encode())
        for item in value:
            _feed(hasher, item)
    else:
        hasher.update(repr(value).encode())


def _sha256(value: Any) -> str:
    hasher = hashlib.sha256()
    _feed(hasher, value)
    return hasher.hexdigest()


def random_states() -> dict[str, Any]:
    """The random states a script may draw from: Python's, torch's, and NumPy's once it is imported."""
    import torch

    states: dict[str, Any] = {"python": random.getstate(), "torch": torch.get_rng_state()}
    if "numpy" in sys.modules:
        states["numpy"] = np.random.get_state(legacy=True)
    return states


def random_digest() -> str:
    """sha256 over all random states."""
    return _sha256(random_states())


def digest(snapshot: Snapshot) -> dict[str, Any]:
    """sha256 of weights and buffers, of optimizer state, and of the random states."""
    optimizers = []
    for optimizer in snapshot.optimizers:
        params = [p for g in optimizer.param_groups for p in g["params"]]
        for p in params:
            state = optimizer.state.get(p, {})
            optimizers.append([(k, _plain_step(k, state[k])) for k in sorted(state, key=str)])
    weights = [p for p in snapshot.parameters()]
    buffers = [list(m.buffers()) for m in snapshot.models]
    return {"weights": _sha256([weights, buffers]), "optimizer": _sha256(optimizers), "random": random_digest()}


def _plain_step(key: Any, value: Any) -> Any:
    # Some implementations count steps in a tensor of another dtype; the count is what matters.
    return float(value) if key == "step" else value
