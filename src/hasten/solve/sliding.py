"""Models that follow a stream: add a row, drop the oldest, always exact, with the drift of rounding measured.

The inverse of the normal matrix is changed by the new row and the row that leaves together (a rank-2 change: Woodbury
1950), the window itself is kept, and every so often inverse and coefficients are probed against it; past a bound they
are solved anew. They are probed at once when a row leaves whose rounding may stay: what is taken away again leaves
behind its own size times the unit of rounding, and a row that alone decides a direction takes the digits of it along.
"""

from __future__ import annotations

import ctypes
import math
from typing import Any

import numpy as np

from hasten.solve import gram
from hasten.solve.kernel import Array, Floats
from hasten.solve.linear import EPS, Factor
from hasten.solve.problems import BadData, need

INFINITY = float("inf")
TINY = 1e-300
LARGEST = 1e150  # what can be squared
SMALLEST = 1e-100  # penalty whose inverse can be squared
MOST_COLUMNS = 512  # beyond, the inverse leaves the second-level cache, and BLAS may take several threads
NOT_FINITE = 1  # what the kernel returns where nothing was changed
FADED = 1e-14  # of the largest target that counts as usual is left after a window's rows


class Window:
    """Ridge over the last ``size`` rows.

    No intercept of its own: give a column of ones (not penalised differently), or centre.

    Args:
        features, targets: numbers of columns.
        size: rows of the window.
        alpha: ridge penalty, or (features,) penalties, 1e-100 or more: they keep the inverse finite while the window
            fills. Where columns depend on each other, a small one lets the rows' own rounding into the coefficients,
            about 1e-16 times their squares over alpha, and the window is solved anew at nearly every row.
        check: slides between two measurements of the drift.
        bound: relative drift past which the model is solved anew from the window.

    Rows that hold NaN or infinity are refused by ``BadData``, and the window is as it was.
    """

    def __init__(
        self, features: int, targets: int = 1, size: int = 1000, alpha: Any = 1.0, check: int = 10_000,
        bound: float = 1e-10,
    ) -> None:  # fmt: skip
        penalty = np.broadcast_to(np.asarray(alpha, dtype=np.float64), (features,)).copy()
        whole = isinstance(size, int | np.integer)
        if not ((penalty >= SMALLEST) & (penalty < INFINITY)).all() or not whole or size < 1 or check < 1:
            raise BadData(
                f"alpha={alpha}, size={size}, check={check}", f"a number that is not positive, or below {SMALLEST:g}"
                if whole else "a size that is no whole number",
                "alpha=1e-3, size=1000",
            )  # fmt: skip
        self.p, self.q, self.size, self.penalty, self.check, self.bound = features, targets, size, penalty, check, bound
        self.rows = np.zeros((size, features + targets))
        self.filled = self.at = self.slides = self.healed = 0
        self.drift = 0.0
        self._left = self._usual = 0.0  # rounding that rows left behind since the last measurement; size of targets
        self._lost = 0.0  # relative rounding of the inverse since then: rows of much leverage take digits along
        self._steep = 0.0  # largest part of the inverse times a row's squares, when it was last solved
        self._most = max(bound, 1e4 * EPS)  # of what is usual; less is left behind by any row
        self._fade = min(FADED ** (1 / size), 0.9)
        self._inverse = np.diag(1 / penalty)
        self._coef = np.zeros((features, targets))
        self._probe = np.random.default_rng(0).standard_normal(features)
        self._change: _Change = _made(self)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_change"}  # it points to the others

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._change = _made(self)

    @property
    def coef(self) -> Floats:
        """(p, q) of the rows in the window; they change with the next row, so copy what is to be kept."""
        return self._coef

    def coef_without(self, column: int) -> Floats:
        """(p, q) as if the one ``column`` were not penalised: exact, by Sherman and Morrison's formula."""
        penalty, turned = self.penalty[column], self._inverse[:, column]
        found: Floats = self._coef + np.outer(turned, penalty * self._coef[column] / (1 - penalty * turned[column]))
        return found

    @property
    def held(self) -> Floats:
        """(filled, p + q) the rows in the window."""
        first = (self.at - self.filled) % self.size
        if self.filled in (0, self.size) or first < self.at:
            return self.rows[first : self.at] if self.filled < self.size else self.rows
        return self.rows[(first + np.arange(self.filled)) % self.size]

    def slide(self, x: Array, y: Any) -> None:
        """Add a row; the oldest one leaves when the window is full.

        Args:
            x: (features,). y: a number, or (targets,).
        """
        at, p, come = self.at, self.p, self._change.come
        if len(x) != p:
            raise _shape(np.shape(x), p)
        come[:p], come[p:] = x, y
        if self.filled == self.size:
            self._exchange(at)
        else:
            self._add(come[:p, None], come[None, p:])
            self.rows[at] = come
            self.filled += 1
        self.at = at + 1 if at + 1 < self.size else 0
        self.slides += 1
        if self.slides % self.check == 0 or self._left > self._most * self._usual or self._lost > self._most:
            self.measure()

    def add(self, x: Array, y: Any) -> None:
        """Add a row (features,) or a block (block, features): as ``slide`` or ``extend``."""
        self.slide(x, y) if np.ndim(x) == 1 else self.extend(x, y)

    def drop(self, rows: int = 1) -> None:
        """Take the oldest rows away; others can take their place later.

        Raises:
            BadData: there are not so many.
        """
        if not 0 <= rows <= self.filled:
            raise BadData(f"{rows} rows cannot leave a window of {self.filled}", "they have left", "window.filled")
        if rows == 0:
            return
        first = (self.at - self.filled) % self.size
        old = self.rows[(first + np.arange(rows)) % self.size]
        self.filled -= rows
        if rows > self.p:  # cheaper solved anew
            self._solve()
        elif not self._add(old[:, : self.p].T, old[:, self.p :], -1.0):
            self._heal()
        self._count(rows)

    def _exchange(self, at: int) -> None:
        """The row that has come takes the place of row ``at``."""
        code = self._change(at)
        if code == NOT_FINITE:
            raise not_finite()
        if code:  # the row that leaves was so large that no digit of the others is left
            self._heal()
            return
        a, d, left, usual = self._change.found.tolist()
        # -d is 1 less the leverage of the row that leaves; what a change of the inverse rounds is of its largest part
        self._lost += EPS * (a + 1 / (d * d) + self._steep * (1 - 1 / a)) if d else INFINITY
        self._remember(left, usual)

    def _add(self, rows: Floats, y: Floats, sign: float = 1.0) -> bool:
        """Add (or drop) a block: rows (features, block), y (block, targets).

        Returns:
            False where no digit would be left; nothing was changed.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            k = self._inverse @ rows
            middle = np.eye(rows.shape[1]) * sign + rows.T @ k
            error = y - rows.T @ self._coef
        size = math.sqrt(square(error))
        if not (size < LARGEST and math.isfinite(float(middle.sum()))):
            raise not_finite()
        try:
            root = np.linalg.cholesky(sign * middle)
            turned = np.linalg.solve(middle, k.T).T
        except np.linalg.LinAlgError:
            return False
        self._inverse -= turned @ k.T
        self._coef += turned @ error
        pivots = float(np.sum(np.diagonal(root) ** (2 if sign > 0 else -4)))
        self._lost += EPS * (pivots + float(np.trace(self._inverse) * np.max(np.sum(rows * rows, axis=0), initial=0.0)))
        if sign < 0:
            self._remember(size, self._usual)
        else:
            self._remember(0.0, math.sqrt(square(y)), self._fade ** len(y))
        return True

    def _remember(self, left: float, usual: float, fade: float = 0.0) -> None:
        """How large was what left, and what is usual of those that came."""
        if EPS * left > self._left:
            self._left = EPS * left
        faded = (fade or self._fade) * self._usual
        self._usual = usual if usual > faded else faded

    def _count(self, rows: int) -> None:
        before, self.slides = self.slides, self.slides + rows
        due = before // self.check != self.slides // self.check
        if due or self._left > self._most * self._usual or self._lost > self._most:
            self.measure()

    def extend(self, x: Array, y: Array) -> None:
        """Add a block of rows, oldest first; as many of the oldest leave as do not fit.

        Args:
            x: (block, features). y: (block,) or (block, targets).
        """
        x = np.asarray(x, dtype=np.float64)
        if x.ndim != 2 or x.shape[1] != self.p:
            raise _shape(x.shape, self.p)
        y = np.asarray(y, dtype=np.float64).reshape(len(x), self.q)
        if not (math.isfinite(square(x)) and math.isfinite(square(y))):
            raise not_finite()
        if len(x) >= self.size or len(x) > self.p:
            self._refill(x, y)
            return
        leaving = (self.at + np.arange(len(x)))[self.size - self.filled :] % self.size
        old = self.rows[leaving].copy()
        self._add(x.T, y)
        kept = not len(old) or self._add(old[:, : self.p].T, old[:, self.p :], -1.0)
        self._store(x, y)
        if not kept:
            self._heal()
        self._count(len(x))

    def _store(self, x: Array, y: Array) -> None:
        where = (self.at + np.arange(len(x))) % self.size
        self.rows[where, : self.p], self.rows[where, self.p :] = x, y
        self.at = (self.at + len(x)) % self.size
        self.filled = min(self.filled + len(x), self.size)

    def _refill(self, x: Array, y: Array) -> None:
        """A block of more rows than columns is cheaper solved anew."""
        self._store(x[-self.size :], y[-self.size :])
        self.slides += len(x)
        self._solve()

    def measure(self) -> float:
        """The relative drift of inverse and coefficients against the window; past ``bound`` all is solved anew.

        The inverse is probed by one vector; of the coefficients it is the Newton step that is left to the minimum.
        """
        x, y = self.held[:, : self.p], self.held[:, self.p :]
        image = x.T @ (x @ self._probe) + self.penalty * self._probe
        inverse = float(np.linalg.norm(self._inverse @ image - self._probe) / np.linalg.norm(self._probe))
        step = self._inverse @ (x.T @ (y - x @ self._coef) - self.penalty[:, None] * self._coef)
        self.drift = max(inverse, float(np.linalg.norm(step)) / max(float(np.linalg.norm(self._coef)), TINY))
        self._left = self._lost = 0.0
        if not self.drift <= self.bound:
            self._heal()
        return self.drift

    def _heal(self) -> None:
        self.healed += 1
        self._solve()

    def move(self, by: Array) -> None:
        """Subtract ``by`` (features + targets,) from all rows in the window, and solve anew."""
        self.rows -= by
        self._solve()

    def _solve(self) -> None:
        rows = self.held
        x, y = rows[:, : self.p], rows[:, self.p :]
        factor = Factor(x.T @ x + np.diag(self.penalty))
        if EPS * factor.condition**2 > self.bound:
            inverse, coef = _by_qr(x, y, self.penalty)
        else:
            inverse, coef = factor.inverse(), factor.solve(x.T @ y)
        self._inverse[:], self._coef[:] = inverse, coef
        self._steep = float(np.trace(inverse)) * square(x) / max(len(x), 1)
        self._left = self._lost = 0.0


def _by_qr(x: Array, y: Array, penalty: Floats) -> tuple[Floats, Floats]:
    """(p, p) inverse and (p, q) coefficients without squares of a condition that float64 does not hold."""
    p = len(penalty)
    below = np.hstack([np.diag(np.sqrt(penalty)), np.zeros((p, y.shape[1]))])
    r: Any = np.linalg.qr(np.vstack([np.hstack([x, y]), below]), mode="r")
    half = np.linalg.inv(r[:p, :p])
    return half @ half.T, half @ r[:p, p:]


def square(x: Floats) -> float:
    """Sum of squares: finite where all numbers are, and can be squared."""
    flat = x.ravel()
    with np.errstate(over="ignore", invalid="ignore"):
        return float(flat @ flat)


class _Kernel:
    """One row for another by the compiled kernel, see ``slide.inc``.

    Attributes:
        come: (p + q,) the row that comes; the caller fills it.
        found: (4,) 1 more than the leverage of the row that comes, the leverage of the one that leaves less 1, the size
            of the latter's error, and that of the new targets.
    """

    def __init__(self, window: Window, library: Any) -> None:
        p, q = window.p, window.q
        self.come, self.found, self._work = np.zeros(p + q), np.zeros(4), np.empty(5 * p + 2 * q)
        self._held = (window._inverse, window._coef, window.rows, self.come, self._work, self.found)
        self._slide = gram.Slide(*(held.ctypes.data for held in self._held), p, q)
        self._call, self._where = library.hasten_slide, ctypes.byref(self._slide)

    def __call__(self, at: int) -> int:
        code: int = self._call(self._where, at, LARGEST)
        return code


class _Blas:
    """The same by BLAS: P -= (P U) (C⁻¹ + U'P U)⁻¹ (P U)' with U = [new, old], C = diag(1, -1)."""

    def __init__(self, window: Window) -> None:
        self._gemm = need("scipy.linalg.blas", "a sliding window").dgemm
        self._window = window
        self.come, self.found = np.zeros(window.p + window.q), np.zeros(4)
        self._pair = np.zeros((window.p, 2), order="F")
        self._core = np.empty((2, 2), order="F")

    def __call__(self, at: int) -> int:
        window, gemm, pair, core = self._window, self._gemm, self._pair, self._core
        p, row, come = window.p, window.rows[at], self.come
        pair[:, 0], pair[:, 1] = come[:p], row[:p]
        inverse = window._inverse.T  # as BLAS has it; the two are equal but for rounding
        k = gemm(1.0, inverse, pair)
        g = gemm(1.0, pair, k, trans_a=1).tolist()
        a, b, d = 1.0 + g[0][0], g[0][1], g[1][1] - 1.0
        det = a * d - b * b
        error = np.stack([come[p:], row[p:]]) - pair.T @ window._coef
        if not (-INFINITY < a < INFINITY and _size(error[0]) < LARGEST):
            return NOT_FINITE
        row[:] = come
        if not -INFINITY < det < 0:
            return NOT_FINITE + 1
        core[0, 0], core[1, 1] = d / det, a / det
        core[0, 1] = core[1, 0] = -b / det
        turned = gemm(1.0, k, core)
        gemm(-1.0, turned, k, 1.0, inverse, 0, 1, 1)
        window._coef += turned @ error
        self.found[:] = a, d, _size(error[1]), _size(come[p:])
        return 0


_Change = _Kernel | _Blas


def _made(window: Window) -> _Change:
    for name in ("_inverse", "_coef", "rows"):  # unpickled ones may lie in a file that must not be written to
        setattr(window, name, np.require(getattr(window, name), np.float64, ["C", "A", "W"]))
    library = gram.kernel() if window.p <= MOST_COLUMNS else None
    return _Blas(window) if library is None else _Kernel(window, library)


def _size(x: Floats) -> float:
    """Its length; one number may be too large to be squared."""
    return abs(float(x[0])) if len(x) == 1 else math.sqrt(square(x))


def not_finite(change: str = "skip or fill such rows") -> BadData:
    return BadData("a row holds NaN, infinity or a number too large to be squared", "gaps in the stream", change)


def _shape(shape: tuple[int, ...], features: int) -> BadData:
    return BadData(f"X has the shape {shape} for {features} features", "another X", f"({features},), or a block of it")
