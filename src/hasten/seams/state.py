"""The state of a training: weights, buffers, optimizer state, random states; its digest and its distance."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hasten.measure.digest import random_digest, sha256
from hasten.seams.watch import Watch


@dataclass
class Snapshot:
    """The objects whose state is compared: chosen once, before forking, so that both sides compare the same ones."""

    models: list[Any] = field(default_factory=list)
    optimizers: list[Any] = field(default_factory=list)

    @classmethod
    def of(cls, watch: Watch) -> Snapshot:
        models = [m for r in watch.models.values() if (m := r.module()) is not None]
        return cls(models, [o for r in watch.optimizers.values() if (o := r.optimizer) is not None])

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

    def sizes(self) -> list[int]:
        """Elements of every floating parameter, in the order of :meth:`write_weights`."""
        import torch

        return [p.numel() for p in self.parameters() if torch.is_floating_point(p)]

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


def digest(snapshot: Snapshot) -> dict[str, Any]:
    """sha256 of weights and buffers, of optimizer state, and of the random states."""
    optimizers = []
    for optimizer in snapshot.optimizers:
        params = [p for g in optimizer.param_groups for p in g["params"]]
        for p in params:
            state = optimizer.state.get(p, {})
            optimizers.append([(k, _plain_step(k, state[k])) for k in sorted(state, key=str)])
    weights = list(snapshot.parameters())
    buffers = [list(m.buffers()) for m in snapshot.models]
    return {"weights": sha256([weights, buffers]), "optimizer": sha256(optimizers), "random": random_digest()}


def _plain_step(key: Any, value: Any) -> Any:
    # Some implementations count steps in a tensor of another dtype; the count is what matters.
    return float(value) if key == "step" else value
