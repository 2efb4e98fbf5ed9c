"""What pages are made of: sections, tables, tiles, bars, places and quoted lines."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

from hasten.core.facts import Place
from hasten.report.figures import aligned
from hasten.report.layout import excerpt, shortened
from hasten.report.markup import Markup, el, joined

DIGIT_SPACE, POINT_SPACE = "\u2007", "\u2008"
LINE = 400  # characters of a source line before it is cut
PLACE = 32  # characters of a place in a table before it loses folders
MARKED = re.compile(r"`([^`\n]+)`|(?<!\S)(--[a-z][a-z-]*)")
COLOURS = ("fetch", "copy", "forward", "backward", "optimizer", "zero_grad", "wait", "log", "evaluation", "checkpoint")


def section(title: str, *inside: Markup | None) -> Markup:
    return el("section", el("h2", title), *inside)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = (), kind: str = "") -> Markup:
    """A table that scrolls in its own box where the window is narrow.

    Args:
        numbers: columns set flush right with their decimal points in one line.
        kind: how it is styled; of a ``plain`` one each row becomes a list in a narrow window.
    """
    columns = list(zip(*rows, strict=True))
    levelled = [_levelled(c) if i in numbers else c for i, c in enumerate(columns)]
    kinds = ["number" if i in numbers else None for i in range(len(heads))]
    labels = heads if kind == "plain" else [None] * len(heads)
    head = (el("th", h, class_=k, scope="col") for h, k in zip(heads, kinds, strict=True))
    lines = (
        el("tr", *(el("td", c, class_=k, data_label=x) for c, k, x in zip(cells, kinds, labels, strict=True)))
        for cells in zip(*levelled, strict=True)
    )
    inside = el("table", el("thead", el("tr", *head)), el("tbody", *lines), class_=kind or None)
    return el("div", inside, class_="scroll")


def _levelled(cells: Sequence[str]) -> list[str]:
    """Cells padded with spaces as wide as a digit or a point."""
    return [c if isinstance(c, Markup) else _figure_spaces(a, c) for a, c in zip(aligned(cells), cells, strict=True)]


def _figure_spaces(padded: str, cell: str) -> str:
    count = len(padded) - len(cell)
    return cell + (POINT_SPACE + DIGIT_SPACE * (count - 1) if count and "." not in cell else DIGIT_SPACE * count)


def pairs(said: Iterable[tuple[str, str]]) -> Markup | None:
    """Names with what is said of them; text in backticks is code."""
    items = [joined([el("dt", name), el("dd", prose(text))]) for name, text in said]
    return el("dl", *items) if items else None


def tile(name: str, value: str, below: str, kind: str = "") -> Markup:
    """One large figure with its name and what qualifies it."""
    return el(
        "div",
        el("span", name, class_="name"),
        el("span", value, class_="value"),
        el("span", below, class_="below"),
        class_=f"tile {kind}".strip(),
    )


def chart(labels: Sequence[str], drawn: Markup, left: str, right: str) -> Markup:
    """A drawing between its axes.

    Args:
        labels: of the upright axis, from the top down at equal distances.
        left, right: the ends of the other one.
    """
    return el(
        "div",
        el("div", *(el("span", text) for text in labels), class_="scale"),
        el("div", drawn, class_="plot"),
        el("div", el("span", left), el("span", right), class_="steps"),
        class_="chart",
    )


def prose(text: str) -> Markup:
    """A sentence in which what stands between backticks is code, and options are not broken at their dashes."""
    if isinstance(text, Markup):
        return text
    parts, end = list[str](), 0
    for found in MARKED.finditer(text):
        code, option = found.groups()
        parts += [text[end : found.start()], el("code", code) if code else el("span", option, class_="word")]
        end = found.end()
    return joined([*parts, text[end:]])


def bar(share: float, kind: str) -> Markup:
    """A share of the whole width."""
    width = f"width:{min(max(share, 0.0), 1.0) * 100:.2f}%" if math.isfinite(share) else "width:0"
    return el("div", el("i", class_=kind, style=width), class_="bar")


def colour(phase: str) -> str:
    """The class of a phase's colour, the same in every drawing."""
    return f"p{COLOURS.index(phase)}" if phase in COLOURS else "rest" if phase == "unaccounted" else "whole"


def key(kind: str, name: str) -> Markup:
    """A name with its colour before it."""
    return joined([el("i", class_=f"key {kind}"), name])


def located(place: Place | None) -> str:
    """A place in a table: without its first folders where they would widen it, broken behind a folder or a word
    rather than within; all of it where the pointer rests."""
    if place is None:
        return ""
    whole = f"{place.file}:{place.line}"
    short = shortened(whole, PLACE)
    kind = "short" if len(short) <= PLACE else None
    parts = (Markup(f"{joined([part])}<wbr/>") if part in "/_" else part for part in re.split("([/_])", short) if part)
    return el("code", *parts, class_=kind, title=whole if short != whole else None)


def quoted(place: Place | None, label: str) -> Markup | None:
    """The source line with the place marked in it."""
    if place is None:
        return None
    part = excerpt(place, LINE)
    where = el("figcaption", el("code", str(place)), el("span", prose(label), class_="label") if label else None)
    if part is None:
        return el("figure", where)
    if part.start < 0:
        line = joined([part.text])
    else:
        end = part.start + part.length
        line = joined([part.text[: part.start], el("mark", part.text[part.start : end]), part.text[end:]])
    number = el("span", str(place.line), class_="line")
    return el("figure", where, el("pre", number, el("code", line)))
