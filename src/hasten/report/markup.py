"""HTML by construction: text is escaped unless it was made here."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from importlib import resources

VOID = frozenset({"meta", "br", "line", "circle", "polyline", "path", "rect"})


class Markup(str):
    """Text that is already HTML."""

    __slots__ = ()


def el(name: str, /, *inside: str | None, **attributes: object) -> Markup:
    """One element. Plain strings and attribute values are escaped; ``class_`` is ``class``, ``a_b`` ``a-b``."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_printable(str(value)))}"'
        for key, value in attributes.items()
        if value is not None
    )
    body = joined(inside)
    return Markup(f"<{name}{given}/>" if name in VOID and not body else f"<{name}{given}>{body}</{name}>")


def joined(parts: Iterable[str | None]) -> Markup:
    """Parts one after the other, each escaped unless it is markup."""
    return Markup("".join(p if isinstance(p, Markup) else escape(_printable(p)) for p in parts if p))


def _printable(text: str) -> str:
    """Without what XML forbids: control characters and lone surrogates (undecodable bytes of a path)."""
    return "".join(c if (c >= " " and not "\ud800" <= c <= "\udfff") or c in "\n\t" else "�" for c in text)


def whole(title: str, body: Markup) -> str:
    """One self-contained page."""
    style = resources.files("hasten.report").joinpath("page.css").read_text(encoding="utf-8")
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", f"{title} · hasten"),
        el("style", Markup(style)),
    )
    return f"<!doctype html>\n{el('html', head, el('body', el('main', body)), lang='en')}\n"
