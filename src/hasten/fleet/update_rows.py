"""The optimizer step of a stack: every model with its own learning rate and its own count of steps."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from hasten.fleet.native.build import Config, NoCompiler, kernel
from hasten.fleet.recipe import OPTIMIZERS, Recipe
from hasten.fleet.state import Layout
from hasten.fleet.tasks import Job


class Updater:
    """One step for every row of a stack: in one pass by the kernel, or by torch where there is no compiler."""

    def __init__(self, recipe: Recipe, layout: Layout, width: int) -> None:
        self.recipe, self.layout = recipe, layout
        self.gradient = torch.zeros(width, layout.trained)
        try:
            self.lib: ctypes.CDLL | None = kernel()
        except NoCompiler:
            self.lib = None
        self.config = Config(
            0, 1, 0, OPTIMIZERS.index(recipe.optimizer), recipe.nesterov, 1, 1, 0, 0, 0,
            0.0, recipe.momentum, *recipe.betas, recipe.eps, recipe.clip or 0.0,
        )  # fmt: skip

    def __call__(
        self, flat: torch.Tensor, params: Mapping[str, torch.Tensor], jobs: Sequence[Job | None], taken: Sequence[int]
    ) -> None:
        """Update weights and moments in place.

        Args:
            flat: (3, models, total): weights, first and second moment.
            params: gradients in ``grad``, (models, …).
            jobs: None where there is no model.
            taken: steps including this one.
        """
        unused = []  # parameters without a gradient, which torch's optimizers leave alone, their decay too
        for e in self.layout.entries:
            if e.trains:
                grad = params[e.name].grad
                into = self.gradient[:, e.start : e.start + e.size]
                into.zero_() if grad is None else into.copy_(grad.reshape(len(into), -1))
                if grad is None:
                    place = flat[:, :, e.start : e.start + e.size]
                    unused.append((place, place.clone()))
        lr = np.array([job.lr if job else 0.0 for job in jobs])
        decay = np.array([job.weight_decay if job else 0.0 for job in jobs])
        idle = np.array([job is None for job in jobs], np.uint8)
        t = np.array(taken, np.int64)
        if self.lib is not None:
            self.lib.hasten_update(
                len(jobs), self.layout.trained, flat[0].data_ptr(), flat[1].data_ptr(), flat[2].data_ptr(),
                flat.stride(1), self.gradient.data_ptr(), idle.ctypes.data, lr.ctypes.data, decay.ctypes.data,
                t.ctypes.data, ctypes.byref(self.config),
            )  # fmt: skip
        else:
            with torch.no_grad():
                self._by_torch(flat, lr, decay, idle, t)
        for place, before in unused:
            place.copy_(before)

    def _by_torch(self, flat: torch.Tensor, lr: np.ndarray, decay: np.ndarray, idle: np.ndarray, t: np.ndarray) -> None:
        recipe, n = self.recipe, self.layout.trained
        w, m, v = (flat[k, :, :n] for k in range(3))
        g = self.gradient

        def column(values: object) -> torch.Tensor:
            return torch.as_tensor(values, dtype=torch.float32)[:, None]

        rate, wd, live = column(lr), column(decay), column(1 - idle) > 0
        if recipe.clip is not None:
            norm = torch.linalg.vector_norm(g, dim=1, keepdim=True)
            g = g * (recipe.clip / (norm + 1e-6)).clamp(max=1.0)
        old = (w.clone(), m.clone(), v.clone())
        if recipe.optimizer == "adamw":
            w.mul_(1 - rate * wd)
        else:
            g = g + wd * w
        if recipe.optimizer == "sgd":
            if recipe.momentum:
                m.copy_(torch.where(column(t) == 1, g, recipe.momentum * m + g))
                g = g + recipe.momentum * m if recipe.nesterov else m
            w.sub_(rate * g)
        else:
            b1, b2 = recipe.betas
            steps = np.maximum(t, 1)
            m.add_((g - m) * (1 - b1))
            v.mul_(b2).add_(g * g * (1 - b2))
            size, root = column(lr / (1 - b1**steps)), column(1 / np.sqrt(1 - b2**steps))
            w.sub_(size * m / (v.sqrt() * root + recipe.eps))
        for now, before in zip((w, m, v), old, strict=True):  # places without a model are left alone
            now.copy_(torch.where(live, now, before))
