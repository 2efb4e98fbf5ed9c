"""One self-contained page: no script, no font, no picture from elsewhere; light and dark; wide and narrow."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from hasten.core.finding import Finding
from hasten.core.plan import Step
from hasten.core.report import Report, Result, Trial
from hasten.core.trace import Epoch, Place, Trace
from hasten.report import drawing, tree, view
from hasten.report.figures import (
    UNKNOWN,
    aligned,
    duration,
    figure,
    fixed,
    level_of,
    percent,
    size,
    span_times,
    speedup,
    time_unit,
    times,
)
from hasten.report.layout import excerpt
from hasten.report.markup import Markup, el, joined, whole

DIGIT_SPACE, POINT_SPACE = "\u2007", "\u2008"
LINE = 400  # characters of a source line before it is cut
KINDS = {
    "kept": "good",
    "replaced": "quiet",
    "dropped": "quiet",
    "cannot tell": "open",
    "broken promise": "bad",
    "not tried": "quiet",
}
COLOURS = ("fetch", "copy", "forward", "backward", "optimizer", "zero_grad", "wait", "log", "evaluation", "checkpoint")


def page(outcome: Report | Result) -> str:
    """The whole document."""
    result = outcome if isinstance(outcome, Result) else None
    report = outcome.report if isinstance(outcome, Result) else outcome
    title = view.shell(view.command_words(report)) or "hasten"
    body = joined([*_head(report, result), *_sections(report, result), *_foot(outcome, report)])
    return whole(title, body)


def _sections(report: Report, result: Result | None) -> Iterator[Markup]:
    trace = report.trace
    if result is not None:
        yield from _trials(result)
    if trace is None:
        yield from _findings(report.findings)
        return
    yield from _tree(tree.tree(trace), "Where the time goes")
    if trace.device_phases and trace.step is not None:
        rows = tree.branches(trace.step, tree.parts(trace.device_phases, trace.step.value, 0.0))
        yield from _tree(rows, "On the device")
    yield from _ceilings(trace)
    yield from _findings(report.findings)
    yield from _growth(trace)
    yield from _curve(trace)
    yield from _epochs(trace)


def section(title: str, *inside: Markup) -> Markup:
    return el("section", el("h2", title), *inside)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = (), kind: str = "") -> Markup:
    """A table that scrolls in its own box where the window is narrow.

    Args:
        numbers: columns set flush right with their decimal points in one line.
    """
    columns = list(zip(*rows, strict=True))
    levelled = [_levelled(c) if i in numbers else c for i, c in enumerate(columns)]
    lines = [_line("td", cells, numbers) for cells in zip(*levelled, strict=True)]
    inside = el("table", el("thead", _line("th", heads, numbers)), el("tbody", *lines), class_=kind or None)
    return el("div", inside, class_="scroll")


def _line(name: str, cells: Sequence[str], numbers: Sequence[int]) -> Markup:
    return el("tr", *(el(name, c, class_="number" if i in numbers else None) for i, c in enumerate(cells)))


def _levelled(cells: Sequence[str]) -> list[str]:
    """Cells padded with spaces as wide as a digit or a point."""
    return [c if isinstance(c, Markup) else _figure_spaces(a, c) for a, c in zip(aligned(cells), cells, strict=True)]


def _figure_spaces(padded: str, cell: str) -> str:
    count = len(padded) - len(cell)
    return cell + (POINT_SPACE + DIGIT_SPACE * (count - 1) if count and "." not in cell else DIGIT_SPACE * count)


# -- head and foot --------------------------------------------------------------------------------------------------


def _unbroken(words: Sequence[str]) -> Iterator[Markup | str]:
    """Words as a shell reads them, of which a narrow window breaks only those that are wider than it."""
    for i, word in enumerate(words):
        yield from (" " if i else "", el("span", view.shell([word]), class_="word"))


def _head(report: Report, result: Result | None) -> Iterator[Markup]:
    trace = report.trace
    facts = [view.watched(trace), view.machine(trace), view.shared(trace)] if trace is not None else []
    yield el(
        "header",
        el("p", "hasten run" if result is not None else "hasten explain", class_="eyebrow"),
        el("h1", *_unbroken(view.command_words(report))),
        *(el("p", fact, class_="facts") for fact in facts if fact),
    )
    if view.ending(report):
        yield el("p", view.ending(report), class_="notice bad" if report.exit_code else "notice")
    said = (report.message, result.message if result is not None else "")
    for message in dict.fromkeys(filter(None, said)):
        yield el("p", message, class_="notice")
    tiles = list(_tiles(trace, result)) if trace is not None else []
    if tiles:
        yield el("div", *tiles, class_="tiles")


def _tiles(trace: Trace, result: Result | None) -> Iterator[Markup]:
    if trace.step is not None and trace.step.known:
        unit = time_unit(trace.step.value)
        x = figure(trace.step, unit.per_second)
        yield _tile("a step", f"{x.value} {unit.name}", f"{x.plus_minus} at {level_of([trace.step])}")
        rows = [r for r in tree.tree(trace) if len(r.lasts) == 1]
        most = max(rows, key=lambda r: r.share)
        yield _tile("most of it", percent(most.share, 0), most.name)
    if result is not None and result.overall is not None:
        y = speedup(result.overall)
        yield _tile("made faster", times(result.overall), f"{y.span} at {level_of([result.overall])}", "good")
        if result.cost_seconds:
            back = result.payback_seconds
            repaid = f"repaid after {duration(back)}" if math.isfinite(back) else "not repaid"
            yield _tile("trials took", duration(result.cost_seconds), repaid)
    if math.isfinite(trace.startup_seconds):
        torch = f"{duration(trace.import_seconds)} of it imports torch" if math.isfinite(trace.import_seconds) else ""
        yield _tile(f"until {view.first(trace)}", duration(trace.startup_seconds), torch)
    if math.isfinite(trace.usage.resident_bytes) and result is None:
        yield _tile("memory", size(trace.usage.resident_bytes), "resident in this process")


def _tile(name: str, value: str, below: str, kind: str = "") -> Markup:
    return el(
        "div",
        el("span", name, class_="name"),
        el("span", value, class_="value"),
        el("span", below, class_="below"),
        class_=f"tile {kind}".strip(),
    )


def _foot(outcome: Report | Result, report: Report) -> Iterator[Markup]:
    said = [("note", text) for text in view.remarks(report)]
    if report.trace is not None and report.trace.step is not None:
        said.append(("method", view.explained_by(report.trace)))
    next_ = el("p", el("span", "next", class_="label"), el("code", view.next_command(outcome)), class_="next")
    yield el("footer", next_, _pairs(said), el("p", f"hasten {report.version}", class_="version"))


def _pairs(said: Iterable[tuple[str, str]]) -> Markup | None:
    items = [joined([el("dt", name), el("dd", text)]) for name, text in said]
    return el("dl", *items) if items else None


# -- where the time goes --------------------------------------------------------------------------------------------


def _tree(rows: Sequence[tree.Row], title: str) -> Iterator[Markup]:
    if not rows:
        return
    step = rows[0].seconds
    unit = time_unit(step.value)
    digits = tree.digits(step, unit.per_second)
    cells = [_tree_cells(row, unit.per_second, digits) for row in rows]
    heads = ("phase", f"{unit.name}/step", level_of([step]), "share", "", "place")
    yield section(title, _stack(rows), table(heads, cells, (1, 2, 3), "tree"))


def _tree_cells(row: tree.Row, factor: float, digits: tree.Digits) -> list[str]:
    x = figure(row.seconds, factor, digits.most, digits.least)
    half = "" if x.half == UNKNOWN else x.plus_minus
    name = el("span", row.name, class_=f"depth{len(row.lasts)}")
    return [name, x.value, half, percent(row.share, digits.share), _bar(row.share, row.phase), _code(row.place)]


def _stack(rows: Sequence[tree.Row]) -> Markup:
    """The step as one bar."""
    pieces = [r for r in rows if len(r.lasts) == 1 and r.share > 0.002]
    return el(
        "div",
        *(
            el("i", class_=_colour(r.phase), style=f"flex-grow:{r.share:.4f}", title=f"{r.name} {percent(r.share, 1)}")
            for r in pieces
        ),
        class_="stack",
        aria_hidden="true",  # the table below says the same
    )


def _bar(share: float, phase: str, kind: str = "") -> Markup:
    width = f"width:{min(max(share, 0.0), 1.0) * 100:.2f}%" if math.isfinite(share) else "width:0"
    return el("div", el("i", class_=kind or _colour(phase), style=width), class_="bar")


def _colour(phase: str) -> str:
    return f"p{COLOURS.index(phase)}" if phase in COLOURS else "rest" if phase == "unaccounted" else "whole"


def _code(place: Place | None) -> str:
    return el("code", f"{place.file}:{place.line}") if place is not None else ""


def _ceilings(trace: Trace) -> Iterator[Markup]:
    rows = view.ceilings(trace)
    if not rows:
        if trace.step is not None and trace.ceilings.why_not:
            yield section("Ceilings", el("p", f"{UNKNOWN} {view.why_no_ceilings(trace.ceilings)}", class_="quiet"))
        return
    known = [r.seconds.value for r in rows if r.seconds is not None]
    unit, longest = time_unit(max(known)), max(known)
    cells = [_ceiling_cells(row, unit.per_second, longest, trace) for row in rows]
    levels = (level_of(r.seconds for r in rows), level_of(r.speedup for r in rows))
    heads = ("", f"{unit.name}/step", levels[0], "speedup", levels[1], "", "")
    yield section("Ceilings", table(heads, cells, (1, 2, 3, 4), "ceilings"))


def _ceiling_cells(row: view.Ceiling, factor: float, longest: float, trace: Trace) -> list[str]:
    x = figure(row.seconds, factor)
    share = row.seconds.value / longest if row.seconds is not None else math.nan
    meaning = row.meaning if row.seconds is not None else view.why_no_ceilings(trace.ceilings)
    colour = {"data free": "p2", "model free": "p0"}.get(row.name, "whole")
    return [row.name, x.value, x.plus_minus, *row.shown, _bar(share, "", colour), meaning]


# -- findings -------------------------------------------------------------------------------------------------------


def _findings(found: Sequence[Finding]) -> Iterator[Markup]:
    if found:
        yield section("Why, by predicted gain", *map(_finding, found))


def _finding(finding: Finding) -> Markup:
    said = [("predicted", span_times(finding.predicted))]
    evidence = [joined([el("dt", name), el("dd", text)]) for name, text in said]
    for i, remedy in enumerate(finding.remedies):
        fidelity = el("span", remedy.fidelity.value, class_=f"tag {remedy.fidelity.value}")
        evidence.append(joined([el("dt", "or" if i else "remedy"), el("dd", el("code", str(remedy)), " ", fidelity)]))
    for name, texts in (("advice", (finding.advice,)), ("note", finding.notes)):
        evidence += [joined([el("dt", name), el("dd", text)]) for text in texts if text]
    return el(
        "article",
        el("h3", el("code", finding.code, class_="rule"), " ", finding.name),
        el("p", finding.message),
        quoted(finding.place, finding.label),
        el("dl", *evidence),
    )


def quoted(place: Place | None, label: str) -> Markup | None:
    """The source line with the place marked in it."""
    if place is None:
        return None
    part = excerpt(place, LINE)
    where = el("figcaption", el("code", str(place)), el("span", label, class_="label") if label else None)
    if part is None:
        return el("figure", where)
    if part.start < 0:
        line = joined([part.text])
    else:
        end = part.start + part.length
        line = joined([part.text[: part.start], el("mark", part.text[part.start : end]), part.text[end:]])
    number = el("span", str(place.line), class_="line")
    return el("figure", where, el("pre", number, el("code", line)))


# -- trials ---------------------------------------------------------------------------------------------------------


def _trials(result: Result) -> Iterator[Markup]:
    steps = view.replayed(result)
    if steps:
        yield _replayed(steps)
    if not result.trials:
        return
    ratios = [t.ratio for t in result.trials] + [t.predicted for t in result.trials] + [result.overall]
    scale = drawing.LogScale([r for r in ratios if r is not None])
    level = level_of([*(t.ratio for t in result.trials), result.overall])
    rows = [_trial_cells(t, scale) for t in result.trials]
    if result.overall is not None:
        plot = drawing.whisker(scale, result.overall, None, "good")
        span = speedup(result.overall).span
        rows.append([el("strong", "all kept together"), "", "", times(result.overall), span, plot, ""])
    rows.append(["", "", "", "", "", drawing.axis(scale), ""])
    heads = ("remedy", "fidelity", "predicted", "measured", level, "band predicted, dot measured", "verdict")
    proof = _pairs(view.proof(result))
    yield section("What was tried", table(heads, rows, (2, 3, 4), "trials"), *([proof] if proof else []))


def _replayed(steps: Sequence[Step]) -> Markup:
    cells = [(el("code", str(s)), s.fidelity, times(s.ratio), speedup(s.ratio).span) for s in steps]
    heads = ("remedy", "fidelity", "when planned", level_of(s.ratio for s in steps))
    return section("What the plan applied", table(heads, cells, (2, 3), "narrow"))


def _trial_cells(trial: Trial, scale: drawing.LogScale) -> list[str]:
    kind = KINDS.get(trial.verdict, "")
    fidelity = el("span", trial.fidelity, class_=f"tag {trial.fidelity}")
    why = "; ".join(filter(None, (trial.why, trial.fidelity_found)))
    reason = el("span", why, class_="why") if why else None
    verdict = joined([el("span", trial.verdict, class_=f"verdict {kind}"), reason])
    plot = drawing.whisker(scale, trial.ratio, trial.predicted, kind)
    return [
        el("code", trial.remedy),
        fidelity,
        span_times(trial.predicted),
        times(trial.ratio),
        speedup(trial.ratio).span,
        plot,
        verdict,
    ]


# -- over the run ---------------------------------------------------------------------------------------------------


def _growth(trace: Trace) -> Iterator[Markup]:
    rows = view.slopes(trace.growth)
    if not rows:
        return
    cells = [
        (f"{r.name}, {r.unit}", f"+{figure(r.per_thousand, r.factor).value}", figure(r.per_thousand, r.factor).span)
        for r in rows
    ]
    heads = ("", "per 1000 steps", level_of(r.per_thousand for r in rows))
    places = [quoted(place, label) for place, label in view.growth_places(trace.growth)]
    sentence = view.growth_sentence(trace.growth)
    inside = [el("p", sentence)] if sentence else []
    yield section("What grows", table(heads, cells, (1, 2), "narrow"), *inside, *filter(None, places))


def _curve(trace: Trace) -> Iterator[Markup]:
    values = [v for v in trace.curve if math.isfinite(v)]
    if len(values) < 3:
        return
    usual = sorted(values)[math.ceil(len(values) * 0.98) - 1]  # one slow step in fifty may leave the picture
    unit = time_unit(usual)
    top = drawing.above(max(usual * 1.1 * unit.per_second, 1e-9)) / unit.per_second
    labels = [el("span", f"{top * unit.per_second * part:.4g} {unit.name}") for part in (1.0, 0.5, 0.0)]
    shown = [min(v, top) for v in values]
    steps = len(values) * trace.curve_stride
    yield section(
        "Step time over the run",
        el(
            "div",
            el("div", *labels, class_="scale"),
            el("div", drawing.curve(shown, top), class_="plot"),
            el("div", el("span", "first step counted"), el("span", f"{steps} steps later"), class_="steps"),
            class_="chart",
        ),
    )


def _epochs(trace: Trace) -> Iterator[Markup]:
    entries = view.epochs(trace, 12)
    if not entries:
        return
    longest = max(e.seconds for e in trace.epochs)
    evaluates = any(e.evaluation_seconds for e in trace.epochs)
    heads = ["epoch", "steps", "s", "fetch, s", *(["evaluation, s"] if evaluates else []), ""]
    rows = [_epoch_cells(entry, longest, len(heads)) for entry in entries]
    yield section("Epochs", table(heads, rows, range(len(heads) - 1), "epochs"))


def _epoch_cells(entry: tuple[int, Epoch] | None, longest: float, count: int) -> list[str]:
    if entry is None:
        return ["…", *[""] * (count - 1)]
    number, e = entry
    place = 1 if longest >= 10 else 2
    figures = [fixed(x, place) for x in (e.seconds, e.fetch_seconds, e.evaluation_seconds)]
    return [str(number), str(e.steps), *figures[: count - 3], _epoch_bar(e, longest)]


def _epoch_bar(e: Epoch, longest: float) -> Markup:
    rest = max(0.0, e.seconds - e.fetch_seconds - e.evaluation_seconds)
    parts = ((e.fetch_seconds, "p0"), (rest, "p2"), (e.evaluation_seconds, "p8"))
    return el("div", *(el("i", class_=c, style=f"width:{s / longest * 100:.2f}%") for s, c in parts if s), class_="bar")
