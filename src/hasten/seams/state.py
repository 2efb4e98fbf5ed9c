"""The state of a training: weights, buffers, optimizer state, random states; its digest and its distance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from hasten.measure.digest import random_digest, sha256
from hasten.seams.watch import Watch


@dataclass(frozen=True)
class Layout:
    """What lies in a file of :meth:`Snapshot.write`: elements of each tensor, in order.

    Attributes:
        parameters, buffers: the buffers follow the parameters.
        dtype: of all of them, as NumPy names it.
    """

    parameters: list[int]
    buffers: list[int]
    dtype: str

    @property
    def total(self) -> int:
        return sum(self.parameters) + sum(self.buffers)


@dataclass
class Snapshot:
    """The objects whose state is compared: chosen once, before forking, so that both sides compare the same ones."""

    models: list[Any] = field(default_factory=list)
    optimizers: list[Any] = field(default_factory=list)

    @classmethod
    def of(cls, watch: Watch) -> Snapshot:
        models = [m for r in watch.models.values() if (m := r.module()) is not None]
        return cls(models, [o for r in watch.optimizers.values() if (o := r.optimizer) is not None])

    def __post_init__(self) -> None:
        import torch

        places = {
            (id(module), name): (module, name)
            for model in self.models
            for module in model.modules()
            for name, buffer in module.named_buffers(recurse=False)
            if _dense(buffer)
        }
        self._buffers = list(places.values())
        self._sizes = [getattr(module, name).numel() for module, name in self._buffers]
        double = any(p.dtype == torch.float64 for p in self._floating())
        self._dtype = torch.float64 if double else torch.float32

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

    def _floating(self) -> list[Any]:
        import torch

        return [p for p in self.parameters() if torch.is_floating_point(p)]

    def layout(self) -> Layout:
        """What :meth:`write` writes."""
        sizes = [p.numel() for p in self._floating()]
        return Layout(sizes, list(self._sizes), str(self._dtype).removeprefix("torch."))

    def write(self, path: str) -> None:
        """All floating parameters, then all buffers, as raw numbers. A buffer that the script has dropped or given
        another size since becomes NaN."""
        import torch

        with open(path, "wb") as file:
            for p in self._floating():
                _write(file, p.to("cpu", self._dtype))
            for (module, name), size in zip(self._buffers, self._sizes, strict=True):
                buffer: Any = getattr(module, name, None)
                if not _dense(buffer) or buffer.numel() != size:
                    buffer = torch.full((size,), float("nan"))
                _write(file, buffer.to("cpu", self._dtype))

    def perturb(self, units: int, draw: int = 0) -> None:
        """Change every floating parameter by so many units in the last place, up or down, by a random source of its
        own."""
        import torch

        generator = torch.Generator().manual_seed(20_26 + draw)
        with torch.no_grad():
            for p in self._floating():
                sign = torch.randint(0, 2, p.shape, generator=generator).to(p.dtype).to(p.device) * 2 - 1
                p.mul_(1 + sign * (units * torch.finfo(p.dtype).eps))


def optimizers() -> Iterator[Any]:
    """Every optimizer that the script holds, those that have not stepped, too."""
    import gc

    import torch

    return (value for value in gc.get_objects() if issubclass(type(value), torch.optim.Optimizer))


def _dense(buffer: Any) -> bool:
    import torch

    return isinstance(buffer, torch.Tensor) and buffer.layout is torch.strided and not buffer.is_complex()


def _write(file: BinaryIO, tensor: Any) -> None:
    file.write(tensor.detach().contiguous().numpy().tobytes())


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
