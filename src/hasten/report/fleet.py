"""The report of a fleet: from the plain values of its summary to text and one page."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hasten.report.figures import UNKNOWN, duration
from hasten.report.layout import Line, bar, clean, columns, plain, wrapped
from hasten.report.markup import Markup, el, joined, whole

WIDTH = 96
WORST = 5  # keys shown of those that did worst
FAILED = 10  # keys shown of those that failed
WIDE, HIGH = 220, 80  # of one small multiple

Document = Mapping[str, Any]


def progress_line(progress: Any) -> str:
    """One line while training goes on. progress: a ``hasten.fleet.Progress``."""
    p = progress
    left = f"{p.left_seconds:.0f} s left" if p.left_seconds == p.left_seconds else ""
    than = f"{p.loop_seconds / p.elapsed:.0f}× one at a time" if p.loop_seconds and p.elapsed else ""
    parts = [
        f"{bar(p.done / max(p.models, 1), 20):<20} {p.done} of {p.models} done",
        f"{p.training} training",
        f"{p.stopped} stopped early" if p.stopped else "",
        f"{p.failed} failed" if p.failed else "",
        f"{p.left} waiting",
        f"{(p.done - p.before) / max(p.elapsed, 1e-9):.1f} models/s",
        than,
        left,
    ]
    return " · ".join(part for part in parts if part)


def text(document: Document) -> str:
    """The report for a terminal."""
    return "\n\n".join(plain(lines) for lines in _blocks(document).values() if lines)


def _blocks(document: Document) -> dict[str, list[Line]]:
    return {
        "Updated": _updated(document),
        "Training": _facts(document),
        "Losses": _losses(document),
        "Remarks": _remarks(document),
        "Proof": _proof(document),
        "Failed": _failed(document),
    }


def _updated(d: Document) -> list[Line]:
    if not d["updates"]:
        return []
    last = d["updates"][-1]
    lines: list[Line] = [[(f"update {len(d['updates'])}: {last['rows']} new rows learned", "head")]]
    lines[0].append((f" in {last['seconds']:.2f} s, {last['visits']} visits a key and share", ""))
    if last["error"] is not None:
        lines.append([(f"mean loss of the new rows before they were learned: {last['error']:.4g}", "")])
    shares = ", ".join(f"{count} by {float(share):.0%}" for share, count in last["shares"].items() if count)
    if shares:
        lines += wrapped([], f"keys predicted for, by the newest rows' share of the visits: {shares}", WIDTH)
    if last["predicted"]:
        costs = ", ".join(f"the next {n} {float(s):.3g} s" for n, s in last["predicted"].items())
        lines += wrapped([], f"training anew on everything, with as many new rows each time, takes: {costs}", WIDTH)
    for remark in last.get("remarks", ()):
        lines += wrapped([], remark, WIDTH)
    for key, cause in list(last["failed"].items())[:FAILED]:
        lines += wrapped([(f"not learned, {clean(str(key))}: ", "bad")], cause, WIDTH)
    if len(last["failed"]) > FAILED:
        lines.append([(f"not learned: {len(last['failed']) - FAILED} more; --json names them all", "")])
    return lines


def _facts(d: Document) -> list[Line]:
    lines: list[Line] = [[(f"{d['trained']} of {d['models']} models trained", "head")]]
    lines[0].append((f", {d['stopped_early']} stopped early, {d['failed']} failed", ""))
    lines.append([(f"{d['seconds']:.2f} s on {d['workers']} workers", ""), (_against_bound(d), "")])
    if d["before"]:
        lines.append([(f"{d['before']} of them were trained by a run before this one; times do not count them", "")])
    if d["loop_seconds"]:
        times = d["loop_seconds"] / max(d["seconds"], 1e-9)
        lines += wrapped(
            [],
            f"the plain loop, one model at a time, is expected to take {duration(d['loop_seconds'])}: {times:.0f}×",
            WIDTH,
        )
    for kind, why in d["engines"].items():
        lines += wrapped([(f"{kind}  ", "dim")], why, WIDTH)
    return lines


def _against_bound(d: Document) -> str:
    if not d["bound"]:
        return ""
    return f"; the same work cannot take less than {d['bound']:.2f} s in any order ({_over(d)} more than that)"


def _over(d: Document) -> str:
    return f"{100 * (d['seconds'] / d['bound'] - 1):.1f} %"


def _losses(d: Document) -> list[Line]:
    trained = [row for row in d["rows"] if not row["cause"]]
    if not trained:
        return []
    held = any(row["held"] is not None for row in trained)
    measure = "held" if held else "loss"
    known = sorted((r for r in trained if r[measure] is not None), key=lambda r: -r[measure])
    rows = [[(h, "dim") for h in ("key", "rows", "epochs", "loss", "held out", "s")]]
    rows += [_cells(row) for row in known[:WORST]]
    lines = columns(rows, "lrr...")
    values = [row[measure] for row in known]
    what = "held-out loss" if held else "training loss"
    lines.insert(0, [(f"{what}: median {statistics.median(values):.4g} of {len(values)} keys; the worst:", "")])
    return lines


def _cells(row: Document) -> list[tuple[str, str]]:
    return [
        (clean(str(row["key"])), ""),
        (str(row["rows"]), ""),
        (f"{row['epochs']}", ""),
        (_number(row["loss"]), ""),
        (_number(row["held"]), ""),
        (f"{row['seconds']:.3f}", ""),
    ]


def _number(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.4f}"


def _remarks(d: Document) -> list[Line]:
    lines: list[Line] = []
    for remark in d["remarks"]:
        lines += wrapped([], remark, WIDTH)
    return lines


def _proof(d: Document) -> list[Line]:
    if not d["proof"]:
        return []
    heads = ("proof: key", "loss", "the plain loop's", "weights", "gradients", "torch's", "steps", "holds")
    rows = [[(h, "dim") for h in heads]]
    for found in d["proof"]:
        if "cause" in found:
            rows.append([(clean(found["key"]), ""), *[(UNKNOWN, "")] * 6, (f"no: {found['cause']}", "bad")])
            continue
        weights = "identical" if found["identical"] else f"within {found['weights_differ_by']:.0e}"
        rows.append(
            [(clean(found["key"]), ""), (f"{found['loss']:.6f}", ""), (f"{found['loop_loss']:.6f}", ""), (weights, ""),
             (f"{found['gradient_error']:.0e}", ""), (f"{found['torch_gradient_error']:.0e}", ""),
             (f"{found['step_error']:.0e}", ""), ("yes" if found["holds"] else "NO", "" if found["holds"] else "bad")]
        )  # fmt: skip
    return columns(rows, "l..lllll")


def _failed(d: Document) -> list[Line]:
    failed = [(row["key"], row["cause"]) for row in d["rows"] if row["cause"]]
    lines: list[Line] = []
    for key, cause in failed[:FAILED]:
        lines += wrapped([(f"failed {clean(str(key))}: ", "bad")], cause, WIDTH)
    if len(failed) > FAILED:
        lines.append([(f"failed: {len(failed) - FAILED} more; --json names them all", "")])
    return lines


# -- the page ----------------------------------------------------------------------------------------------------------


def page(document: Document, forecasts: Sequence[Document]) -> str:
    """One self-contained page.

    Args:
        forecasts: of some keys: ``key``, ``group``, ``held`` or ``loss``, ``seen``, ``came``, ``predicted``.
    """
    title = f"{document['trained']} of {document['models']} models trained"
    body = joined(
        [el("p", "hasten fleet", class_="eyebrow"), el("h1", title), *_sections(document), *_multiples(forecasts)]
    )
    return whole(title, body)


def _sections(document: Document) -> Iterator[Markup]:
    for title, lines in _blocks(document).items():
        if lines:
            yield el("section", el("h2", title), el("div", el("pre", plain(lines)), class_="scroll"))


def _multiples(forecasts: Sequence[Document]) -> Iterator[Markup]:
    for group in dict.fromkeys(f["group"] for f in forecasts):
        mine = [f for f in forecasts if f["group"] == group]
        yield el("section", el("h2", f"Forecasts: {group} keys"), el("div", *map(_multiple, mine), class_="tiles"))


def _multiple(f: Document) -> Markup:
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
    said = f"forecast for {f['key']} beside what came"
    drawing = el("svg", *lines, viewBox=f"-2 -2 {WIDE + 4} {HIGH + 4}", role="img", aria_label=said, width="100%")
    name, below = el("span", str(f["key"]), class_="name"), el("span", f"{loss}; blue: forecast", class_="below")
    return el("div", name, drawing, below, class_="tile")
