"""Many models that forget exponentially, stepped together: recursive least squares.

Haykin, Adaptive Filter Theory, 4th ed. 2002, p. 436-459.
"""

from __future__ import annotations

import ctypes
import math
from typing import Any

import numpy as np

from hasten.solve import gram
from hasten.solve.kernel import Array, Floats
from hasten.solve.problems import BadData
from hasten.solve.sliding import TINY, not_finite, square

BATCH_BYTES = 1 << 20  # inverses changed at a time by BLAS stay in the second-level cache
SHARED_BYTES = 32 << 20  # of inverses, from which on threads share the models
GROWTH = 1000.0  # by which an antisymmetric error may grow before an inverse is made symmetric again


class Recursive:
    """Many models that forget exponentially, stepped together: one row each a step.

    Minimises ``sum of forgetting^age * error² + forgetting^steps * alpha * |coef|²`` for every model.

    Args:
        models, features: how many, and of how many columns.
        forgetting: weight of a row after one step more, at most 1.
        alpha: initial ridge penalty, positive.
        check: steps between two measurements of the drift; the statistics are kept only if ``heal``.
        heal: keep sums of products, too (twice the memory), to measure drift and to solve anew past ``bound``.
        bound: relative drift past which all models are solved anew.
    """

    def __init__(
        self, models: int, features: int, *, forgetting: float = 1.0, alpha: float = 1.0, check: int = 1000,
        heal: bool = False, bound: float = 1e-8,
    ) -> None:  # fmt: skip
        if not 0 < forgetting <= 1 or not alpha > 0:
            raise BadData(f"forgetting={forgetting}, alpha={alpha}", "out of range", "forgetting=0.99, alpha=1.0")
        self.forgetting, self.check, self.bound = forgetting, check, bound
        self.steps = self.healed = 0
        self.drift = 0.0
        self._inverse: Any = np.tile(np.eye(features) / alpha, (models, 1, 1))
        self.coef: Any = np.zeros((models, features))
        turn = np.log(GROWTH) / -np.log(forgetting) if forgetting < 1 else np.inf
        self._evened = 0 if np.isinf(turn) else int(np.ceil(models / max(turn, 1.0)))
        self._sums = np.tile(np.eye(features) * alpha, (models, 1, 1)) if heal else None
        self._right = np.zeros((models, features))
        self._batch = max(1, BATCH_BYTES // (8 * features * features))

    def step(self, x: Array, y: Array) -> Floats:
        """One row for every model.

        Args:
            x: (models, features). y: (models,).

        Returns:
            (models,) what each model predicted before it saw its row.

        Raises:
            BadData: another shape, NaN or infinity; no model has taken the step.
        """
        x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
        if x.shape != self.coef.shape or y.shape != (len(x),):
            raise BadData(
                f"X has the shape {x.shape}, y {y.shape}", "rows of other models",
                f"X {self.coef.shape}: a row a model, y ({len(self.coef)},)",
            )  # fmt: skip
        if not (math.isfinite(square(x)) and math.isfinite(square(y))):
            raise not_finite("fill its row: all models step together")
        predicted = self._all(x, y)
        self._even()
        if self._sums is not None:
            _add_outer(self._sums, x.copy(), self.forgetting, 1.0)  # torch warns of memory that must not be written
            self._right = self._right * self.forgetting + x * y[:, None]
        self.steps += 1
        if self._sums is not None and self.steps % self.check == 0:
            self.measure()
        return predicted

    def _all(self, x: Array, y: Array) -> Floats:
        """P = (P - k k' / bottom) / forgetting with k = P x for all models, see ``recursive.inc``."""
        library = gram.kernel()
        if library is None:
            return self._by_blas(x, y)
        self._inverse, self.coef = (
            np.require(held, np.float64, ["C", "A", "W"]) for held in (self._inverse, self.coef)
        )
        x, y, predicted = np.ascontiguousarray(x), np.ascontiguousarray(y), np.empty(len(x))
        held = (self._inverse, self.coef, x, y, predicted)
        models = gram.Models(*(a.ctypes.data for a in held), *x.shape, self.forgetting)
        threads = gram.blas_threads() if self._inverse.nbytes >= SHARED_BYTES else 1
        if library.hasten_recursive(ctypes.byref(models), threads):
            raise MemoryError(f"a step of {len(x)} models")
        return predicted

    def _by_blas(self, x: Array, y: Array) -> Floats:
        predicted: Floats = np.einsum("mp,mp->m", x, self.coef)
        for i in range(0, len(x), self._batch):  # in pieces that stay in cache
            part = slice(i, i + self._batch)
            self._part(part, x[part], y[part] - predicted[part])
        return predicted

    def _part(self, part: slice, x: Array, error: Array) -> None:
        """P = (P - k k' / bottom) / forgetting with k = P x, for some of the models."""
        inverse = self._inverse[part]
        k = np.matmul(inverse, x[:, :, None])[:, :, 0]
        bottom = self.forgetting + np.einsum("mp,mp->m", x, k)
        self.coef[part] += k * (error / bottom)[:, None]
        k /= np.sqrt(self.forgetting * bottom)[:, None]  # both factors alike, so that P stays symmetric to the bit
        _add_outer(inverse, k, 1 / self.forgetting, -1.0)

    def _even(self) -> None:
        """Take the mean of some inverses with their transposes; all of them in turns.

        ``P x`` sees an antisymmetric error, but ``k k'`` never takes it away, and every step divides it by
        ``forgetting``: from rounding alone it passes 1 after 3700 steps at 0.99. None arises where BLAS rounds both
        triangles alike; here it cannot grow where one does not, or where healing left one.
        """
        if self._evened:
            at = (self.steps * self._evened + np.arange(self._evened)) % len(self._inverse)
            inverse = self._inverse[at]
            self._inverse[at] = 0.5 * (inverse + np.swapaxes(inverse, 1, 2))

    def measure(self) -> float:
        """The largest relative drift of a model's inverse and coefficients; past ``bound`` all are solved anew.

        Raises:
            BadData: sums were not kept.
        """
        if self._sums is None:
            raise BadData("drift cannot be measured", "heal=False keeps no sums", "Recursive(…, heal=True)")
        probe = np.random.default_rng(0).standard_normal(self.coef.shape[1])
        back = np.matmul(self._inverse, np.matmul(self._sums, probe)[:, :, None])[:, :, 0]
        inverse = float(np.max(np.linalg.norm(back - probe, axis=1)) / np.linalg.norm(probe))
        rest = self._right - np.matmul(self._sums, self.coef[:, :, None])[:, :, 0]
        step = np.linalg.norm(np.matmul(self._inverse, rest[:, :, None])[:, :, 0], axis=1)
        self.drift = max(inverse, float(np.max(step / np.maximum(np.linalg.norm(self.coef, axis=1), TINY))))
        if not self.drift <= self.bound:
            self.healed += 1
            self._inverse = np.linalg.inv(self._sums)
            self.coef = np.linalg.solve(self._sums, self._right[:, :, None])[:, :, 0]
        return self.drift


def _add_outer(matrices: Floats, x: Floats, beta: float, alpha: float) -> None:
    """``matrices = beta * matrices + alpha * x x'`` in place and in one pass: NumPy needs three.

    Args:
        matrices: (models, p, p). x: (models, p).
    """
    import torch

    rows = torch.from_numpy(x)
    torch.from_numpy(matrices).baddbmm_(rows[:, :, None], rows[:, None, :], beta=beta, alpha=alpha)
