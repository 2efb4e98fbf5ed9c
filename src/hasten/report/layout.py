"""Lines of text with roles: columns, wrapping, bars and excerpts that fit a width. Colours come later, or never."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from hasten.core.facts import Place
from hasten.report.figures import aligned

Span = tuple[str, str]  # text and its role; "" is plain
Line = list[Span]

EIGHTHS = " ▏▎▍▌▋▊▉█"
TAB = 4


def width_of(text: str) -> int:
    """Terminal cells that ``text`` takes."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def clean(text: str) -> str:
    """``text`` without control characters: what is quoted from a script must not steer the terminal."""
    return "".join("�" if unicodedata.category(c) in ("Cc", "Cs") else c for c in text)


def plain(lines: Sequence[Line]) -> str:
    """Lines without roles."""
    return "\n".join("".join(text for text, _ in line).rstrip() for line in lines)


def bar(share: float, width: int) -> str:
    """A bar of ``share`` (0 to 1) of ``width`` cells, to an eighth of a cell; anything above 0 shows."""
    eighths = round(min(max(share, 0.0), 1.0) * width * 8) if share == share else 0
    eighths = max(eighths, 1) if share > 0 else 0
    return "█" * (eighths // 8) + EIGHTHS[eighths % 8].strip()


def columns(rows: Sequence[Sequence[Span]], alignment: str, gap: int = 2, heads: int = 1) -> list[Line]:
    """Rows of cells as lines.

    Args:
        rows: all of one length.
        alignment: a letter a column: ``l`` left, ``r`` right, ``.`` right with decimal points in one column.
        heads: how many rows at the top are headings, which take no part in aligning decimal points.
    """
    if not rows:
        return []
    texts = [[clean(cell[0]) for cell in column] for column in zip(*rows, strict=True)]
    texts = [t[:heads] + aligned(t[heads:]) if a == "." else t for t, a in zip(texts, alignment, strict=True)]
    widths = [max(map(width_of, t)) for t in texts]
    out: list[Line] = []
    for i, row in enumerate(rows):
        line: Line = []
        for j, (_, role) in enumerate(row):
            text = texts[j][i]
            space = " " * (widths[j] - width_of(text))
            line += [(text, role), (space, "")] if alignment[j] == "l" else [(space, ""), (text, role)]
            line.append((" " * gap, ""))
        out.append(line[:-1])
    return out


def wrapped(first: Line, text: str, width: int, role: str = "") -> list[Line]:
    """``text`` behind ``first``, continued below its own beginning.

    A word longer than the line (a path, an address) is left whole.
    """
    indent = sum(width_of(t) for t, _ in first)
    pieces = textwrap.wrap(clean(text), max(width - indent, 20), break_long_words=False, break_on_hyphens=False)
    lines: list[Line] = [[*first, (pieces[0], role)] if pieces else list(first)]
    lines.extend([(" " * indent, ""), (piece, role)] for piece in pieces[1:])
    return lines


def shortened(path: str, width: int) -> str:
    """``path`` in at most ``width`` cells, without its first folders; the file's name is never cut."""
    if width_of(path) <= width:
        return path
    folders, _, name = path.rpartition("/")
    parts = folders.split("/") if folders else []
    for i in range(1, len(parts)):
        shorter = "/".join(["…", *parts[i:], name])
        if width_of(shorter) <= width:
            return shorter
    return f"…/{name}" if folders and width_of(name) + 2 <= width else name


def cut(text: str, width: int) -> str:
    """The beginning of ``text`` in at most ``width`` (> 0) cells."""
    if width_of(text) <= width:
        return text
    while width_of(text) >= width:
        text = text[:-1]
    return f"{text.rstrip()}…"


@dataclass(frozen=True)
class Excerpt:
    """A source line as quoted.

    Attributes:
        text: without its indentation, cut to fit.
        start, length: the marked part of ``text``, in characters; ``start`` is -1 where the column is unknown.
    """

    text: str
    start: int
    length: int

    @property
    def before(self) -> int:
        """Cells before the mark."""
        return width_of(self.text[: max(self.start, 0)])

    @property
    def cells(self) -> int:
        """Cells under the mark."""
        return max(1, width_of(self.text[self.start : self.start + self.length]))


def excerpt(place: Place, width: int) -> Excerpt | None:
    """The line at ``place`` in at most ``width`` cells; None where its text is unknown.

    Columns count bytes of UTF-8 from 1, as CPython counts them.
    """
    raw = place.text.rstrip()
    if not raw.strip():
        return None
    text = clean(raw.expandtabs(TAB))
    indent = len(text) - len(text.lstrip())
    if place.column <= 0:
        return _cut(text[indent:], -1, 0, width)
    start = len(_before(raw, place.column).expandtabs(TAB))
    end = max(len(_before(raw, place.end_column).expandtabs(TAB)), start + 1)
    return _cut(text[indent:], max(0, start - indent), end - max(start, indent), width)


def _before(raw: str, column: int) -> str:
    return raw.encode("utf-8", "replace")[: max(column - 1, 0)].decode("utf-8", "ignore")


def _cut(text: str, start: int, length: int, width: int) -> Excerpt:
    if start >= len(text):
        start, length = -1, 0
    if start + length > width:
        drop = min(start, max(0, start + min(length, width // 2) - width // 2)) if start > 0 else 0
        if drop:
            text, start = "…" + text[drop + 1 :], start - drop
    if width_of(text) > width:
        text = text[: width - 1] + "…"
    return Excerpt(text, start, min(length, len(text) - start) if start >= 0 else 0)
