"""A ``Solution`` as text: what was done, what was not and why, and how good it is."""

from __future__ import annotations

import math
from shlex import quote

from hasten.core.solution import Solution
from hasten.report.figures import UNKNOWN
from hasten.report.layout import Line, columns, plain

SHOWN = 8  # alphas and coefficients
MANY = 10**6  # passes, whose digits nobody counts


def render(solution: Solution) -> str:
    """The report of ``hasten solve``."""
    s = solution
    earlier = f" with {s.earlier:,} earlier ones" if s.earlier else ""
    files = f" ({s.files} files)" if s.files > 1 else ""
    head = f"{s.path}{files}: {s.rows - s.earlier:,} rows{earlier}, {s.features} features, {s.task} of {s.target}"
    parts = [head]
    if s.methods:
        parts.append(plain(columns(_methods(s), "lrr..rl")))
    parts.append(plain(columns(_alphas(s), "rrl")))
    parts.append(_facts(s))
    parts.append(plain(columns(_coefficients(s), "lr")))
    parts.append(_next(s))
    return "\n\n".join(part for part in parts if part) + "\n"


def _methods(s: Solution) -> list[Line]:
    rows: list[Line] = [[(t, "") for t in ("method", "passes", "flops", "predicted s", "actual s", "error ≤", "")]]
    for m in s.methods:
        rows.append(
            [(t, "") for t in (
                ("→ " if m.chosen else "  ") + m.name, _count(m.passes), _power(m.flops), _seconds(m.predicted),
                _seconds(m.seconds), _power(m.error), m.reason,
            )]
        )  # fmt: skip
    return rows


def _alphas(s: Solution) -> list[Line]:
    if len(s.alphas) < 2:
        return []
    best = next(i for i, a in enumerate(s.alphas) if a.chosen)
    first = min(max(best - SHOWN // 2, 0), max(len(s.alphas) - SHOWN, 0))
    rows: list[Line] = [[("alpha", ""), (f"{s.validation} error", ""), ("", "")]]
    for a in s.alphas[first : first + SHOWN]:
        error = f"{a.error:.6g}" if math.isfinite(a.error) else UNKNOWN
        rows.append([(f"{a.alpha:.3g}", ""), (error, ""), ("← chosen" if a.chosen else "", "")])
    return rows


def _facts(s: Solution) -> str:
    known = not math.isnan(s.score)
    alpha = next(a.alpha for a in s.alphas if a.chosen)
    lines = [
        f"{s.validation} {s.metric}  {_number(s.score)}   "
        + ("exact, on rows that were left out" if known else "the target does not vary, or a row cannot be left out"),
        f"alpha       {alpha:.3g}   a penalty for columns scaled to unit variance",
        f"method      {s.method}",
        f"condition   {_power(s.condition)}",
        f"error       ≤ {_power(s.error)}   of the coefficients, by rounding",
        f"time        {_seconds(s.read_seconds)} s reading, {_seconds(s.solve_seconds)} s after it",
    ]
    return "\n".join(lines)


def _coefficients(s: Solution) -> list[Line]:
    if not s.coefficients:
        return []
    of = f" of {s.outcome}" if s.task == "classification" else ""
    rows: list[Line] = [[(f"largest coefficients{of}", ""), ("per standard deviation", "")]]
    rows.extend([(c.name, ""), (f"{c.value:+.4g}", "")] for c in s.coefficients[:SHOWN])
    return rows


def _next(s: Solution) -> str:
    if not s.saved:
        path = "FILES" if "…" in s.path else quote(s.path)
        return f"next: hasten solve {path} --target {quote(s.target)} --save model.safetensors"
    return f"saved to {s.saved}\nnext: hasten solve MORE_ROWS --update {quote(s.saved)}"


def _power(x: float) -> str:
    return f"{x:.0e}" if math.isfinite(x) else UNKNOWN


def _count(x: int) -> str:
    return str(x) if x < MANY else _power(x)


def _seconds(x: float) -> str:
    return f"{x:.2g}" if math.isfinite(x) else UNKNOWN


def _number(x: float) -> str:
    return f"{x:.4f}" if math.isfinite(x) else UNKNOWN
