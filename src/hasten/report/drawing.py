"""Small SVG drawings without axes of their own: bars, dot and whisker, a curve. Colours come from the page."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hasten.core.interval import Interval
from hasten.report.figures import bounded
from hasten.report.markup import Markup, el, joined

WIDTH, HEIGHT, EDGE = 190.0, 22.0, 8.0
DOT = 4.0
APART = 30.0  # pixels between two labels of an axis
ROUND = (1.0, 2.0, 0.5, 10.0, 0.1, 100.0, 0.01, 5.0, 0.2, 3.0, 1.5, 0.75, 1.2, 0.9, 1.1)


class LogScale:
    """Ratios to pixels, so that 2x and 1/2x are equally far from 1x."""

    def __init__(self, ratios: Sequence[Interval]) -> None:
        ends = [e for r in ratios if r.known for e in ((r.low, r.high) if bounded(r) else (r.value,)) if e > 0]
        reach = [math.log(e) for e in ends] or [0.0]
        self.low, self.high = min(*reach, math.log(0.9)), max(*reach, math.log(1.25))

    def x(self, ratio: float) -> float:
        """Pixels from the left; beyond the scale, its edge."""
        at = (math.log(max(ratio, 1e-6)) - self.low) / (self.high - self.low)
        return EDGE + min(max(at, 0.0), 1.0) * (WIDTH - 2 * EDGE)

    def ticks(self) -> list[float]:
        """Round ratios on the scale, the roundest first, as many as stand apart."""
        out: list[float] = []
        for tick in ROUND:
            inside = self.low <= math.log(tick) <= self.high
            if inside and all(abs(self.x(tick) - self.x(other)) >= APART for other in out):
                out.append(tick)
        return sorted(out)


def whisker(scale: LogScale, measured: Interval | None, predicted: Interval | None, kind: str) -> Markup:
    """Prediction as a pale band, measurement as dot and whisker, and the line at 1x."""
    inside = [_upright(scale.x(1.0), "one")]
    if predicted is not None and predicted.known:
        a, b = scale.x(predicted.low), scale.x(predicted.high)
        inside.append(el("rect", class_="predicted", x=_n(a), y="5", width=_n(max(b - a, 1.5)), height="12", rx="3"))
    if measured is not None and measured.known:
        if bounded(measured):
            a, b = scale.x(measured.low), scale.x(measured.high)
            inside.append(el("line", class_="whisker", x1=_n(a), x2=_n(b), y1="11", y2="11"))
            if b - a > 3 * DOT:
                inside += [el("line", class_="whisker", x1=_n(x), x2=_n(x), y1="7", y2="15") for x in (a, b)]
        inside.append(el("circle", class_="dot", cx=_n(scale.x(measured.value)), cy="11", r=f"{DOT:g}"))
    return _svg(f"whiskers {kind}", WIDTH, HEIGHT, *inside)


def axis(scale: LogScale) -> Markup:
    """The ratios under a column of whiskers."""
    inside: list[Markup] = []
    for tick in scale.ticks():
        x = scale.x(tick)
        inside.append(_upright(x, "one" if tick == 1 else "tick", 0, 5))
        anchor = "end" if x > WIDTH - 16 else "start" if x < 12 else "middle"
        inside.append(el("text", f"{tick:g}×", x=_n(x), y="17", text_anchor=anchor))
    return _svg("whiskers", WIDTH, HEIGHT, *inside)


def above(x: float) -> float:
    """The next round number at or above ``x`` (> 0): where an axis may end."""
    scale = 10.0 ** math.floor(math.log10(x))
    return next(r * scale for r in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if r * scale >= x * (1 - 1e-9))


def reach(values: Sequence[float]) -> float:
    """Where an axis for ascending ``values`` may end: one in fifty may leave the picture."""
    return above(max(values[math.ceil(len(values) * 0.98) - 1] * 1.1, 1e-9))


def curve(values: Sequence[float], top: float, said: str) -> Markup:
    """Values (0 to ``top``) from left to right, stretched to whatever box they are put in.

    Args:
        said: what they are, for those who cannot see it.
    """
    width = max(len(values) - 1, 1)
    points = " ".join(f"{i / width * 1000:.1f},{100 - v / top * 100:.2f}" for i, v in enumerate(values) if v == v)
    area = f"0,100 {points} 1000,100"
    return el(
        "svg",
        el("polygon", class_="area", points=area),
        el("polyline", class_="curve", points=points, vector_effect="non-scaling-stroke"),
        viewBox="0 0 1000 100",
        preserveAspectRatio="none",
        role="img",
        aria_label=said,
    )


def _upright(x: float, kind: str, top: float = 0, bottom: float = HEIGHT) -> Markup:
    return el("line", class_=kind, x1=_n(x), x2=_n(x), y1=_n(top), y2=_n(bottom))


def _svg(kind: str, width: float, height: float, *inside: Markup) -> Markup:
    size = {"width": f"{width:g}", "height": f"{height:g}"}
    return el("svg", joined(inside), class_=kind, viewBox=f"0 0 {width:g} {height:g}", aria_hidden="true", **size)


def _n(x: float) -> str:
    return f"{x:.1f}"
