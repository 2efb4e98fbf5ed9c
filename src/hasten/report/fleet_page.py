"""The report of a fleet as one page: figures, the worst keys, proofs, and forecasts beside what came."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from hasten.report import drawing, fleet
from hasten.report.figures import duration
from hasten.report.fleet import Document
from hasten.report.markup import Markup, el, joined, whole
from hasten.report.parts import chart, key, pairs, prose, section, table, tile

WIDE, HIGH = 220, 80  # of one small multiple
MANY = 10  # keys from which on their losses are drawn, too


def page(document: Document) -> str:
    """One self-contained page.

    Args:
        document: also with ``forecasts`` of some keys: ``key``, ``group``, ``held`` or ``loss``, ``seen``, ``came``,
            ``predicted``.
    """
    title = f"{document['trained']} of {document['models']} models trained"
    head = el("header", el("p", "hasten fleet", class_="eyebrow"), el("h1", title))
    tiles = el("div", *_tiles(document), class_="tiles")
    return whole(title, joined([head, tiles, *_sections(document), *_multiples(document)]))


def _tiles(d: Document) -> Iterator[Markup]:
    yield tile("trained", f"{d['trained']} of {d['models']}", f"{d['stopped_early']} stopped early")
    if d["failed"]:
        yield tile("failed", str(d["failed"]), "causes stand below", "bad")
    older = fleet.before_updates(d)
    yield tile("took", duration(d["seconds"]), " ".join(filter(None, (f"on {fleet.workers(d)}", older))))
    if d["loop_seconds"]:
        times, kind = (
            fleet.times(d["loop_seconds"], d["seconds"]),
            "good" if d["loop_seconds"] > d["seconds"] else "bad",
        )
        yield tile("against one at a time", times, f"expected {duration(d['loop_seconds'])}", kind)
    what, known = fleet.losses(d)
    if known:
        middle = statistics.median(row[what] for row in known)
        yield tile(f"median {fleet.measured(d)}", f"{middle:.4g}", f"of {len(known)} keys")
    if d["proof"]:
        holds = sum(found["holds"] for found in d["proof"])
        kind = "good" if holds == len(d["proof"]) else "bad"
        yield tile("proof", f"{holds} of {len(d['proof'])}", "keys as the plain loop trains them", kind)


def _sections(d: Document) -> Iterator[Markup]:
    if d["updates"]:
        yield section("Updated", *_sentences(fleet.updated(d)))
    yield from _losses(d)
    facts = [fleet.against_bound(d).removeprefix("; "), *d["remarks"]]
    if d["before"]:
        facts.append(f"{d['before']} of them were trained by a run before this one; times do not count them")
    if any(facts) or d["engines"]:
        yield section(
            " ".join(filter(None, ("How it was trained", fleet.before_updates(d)))),
            *_sentences(facts),
            pairs(fleet.engines(d)),
        )
    if d["proof"]:
        yield section("Proof", table(fleet.PROOF, map(fleet.proved, d["proof"]), (1, 2), "plain"))
    failed = fleet.failed(d)
    if failed:
        yield section("Failed", pairs((name.removeprefix("failed ") or name, cause) for name, cause in failed))


def _sentences(said: Sequence[str]) -> Iterator[Markup]:
    return (el("p", prose(text)) for text in said if text)


def _losses(d: Document) -> Iterator[Markup]:
    what, known = fleet.losses(d)
    if not known:
        return
    named = fleet.measured(d)
    values = [float(row[what]) for row in reversed(known)]
    drawn = list(_ascending(values, named)) if len(values) >= MANY and values[-1] > 0 else []
    rows = [fleet.cells(row) for row in known[: fleet.WORST]]
    yield section(f"The worst by {named}", table(fleet.HEADS, rows, range(1, 6), "plain"))
    if drawn:
        yield section(f"{named.capitalize()} of all keys", *drawn)


def _ascending(values: Sequence[float], what: str) -> Iterator[Markup]:
    top = drawing.reach(values)
    labels = [f"{top * part:.4g}" for part in (1.0, 0.5, 0.0)]
    shown = [min(max(v, 0.0), top) for v in values]
    yield chart(labels, drawing.curve(shown, top, f"{what} of each key, ascending"), "best", f"worst of {len(values)}")
    higher = sum(v > top for v in values)
    if higher:
        yield el("p", f"{higher} of {len(values)} keys lie higher, the highest at {values[-1]:.4g}", class_="legend")


def _multiples(d: Document) -> Iterator[Markup]:
    forecasts, older = d["forecasts"], fleet.before_updates(d)
    keys = (key("whole", "seen"), " ", key("came", "came"), " ", key("p0", "forecast"))
    for group in dict.fromkeys(f["group"] for f in forecasts):
        mine = [f for f in forecasts if f["group"] == group]
        legend = el("p", *keys, class_="legend")
        yield section(
            f"Forecasts: {group} keys", legend, el("div", *(_multiple(f, older) for f in mine), class_="tiles")
        )


def _multiple(f: Document, older: str) -> Markup:
    values = [*f["seen"], *f["came"], *f["predicted"]]
    low, high = min(values), max(values)
    count = len(f["seen"]) + len(f["came"])

    def points(series: Sequence[float], start: int) -> str:
        return " ".join(
            f"{WIDE * (start + i) / max(count - 1, 1):.1f},{HIGH * (1 - (v - low) / ((high - low) or 1.0)):.1f}"
            for i, v in enumerate(series)
        )

    last = len(f["seen"])
    lines = [
        el("polyline", points=points(f["seen"], 0), fill="none", stroke="var(--whole)"),
        el("polyline", points=points(f["came"], last), fill="none", stroke="var(--ink)"),
        el("polyline", points=points(f["predicted"], last), fill="none", stroke="var(--p0)", stroke_width="2"),
    ]
    loss = f"held-out loss {f['held']:.3g}" if "held" in f else f"training loss {f['loss']:.3g}"
    said = f"forecast for {f['key']} beside what came, from {low:.4g} to {high:.4g}"
    drawn = el("svg", *lines, viewBox=f"-2 -2 {WIDE + 4} {HIGH + 4}", role="img", aria_label=said, width="100%")
    below = f"{' '.join(filter(None, (loss, older)))}; drawn from {low:.4g} to {high:.4g}"
    return el("div", el("span", str(f["key"]), class_="name"), drawn, el("span", below, class_="below"), class_="tile")
