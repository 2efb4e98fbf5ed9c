"""One self-contained page: no script, no font, no picture from elsewhere; light and dark; wide and narrow."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from hasten.core.finding import Finding
from hasten.core.plan import Step
from hasten.core.report import Report, Result, Trial
from hasten.core.trace import Epoch, Trace
from hasten.report import drawing, tree, view
from hasten.report.figures import (
    UNKNOWN,
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
from hasten.report.markup import Markup, el, joined, whole
from hasten.report.parts import bar, chart, colour, key, located, pairs, prose, quoted, section, table, tile

KINDS = {
    "kept": "good",
    "replaced": "quiet",
    "dropped": "quiet",
    "cannot tell": "open",
    "broken promise": "bad",
    "not tried": "quiet",
}
DRAWN = "drawn: the band as predicted, the dot with its interval as measured; the dotted line is no change"
NAMED = 0.12  # share of the step from which a part's name fits below it


def page(outcome: Report | Result) -> str:
    """The whole document."""
    result = outcome if isinstance(outcome, Result) else None
    report = outcome.report if isinstance(outcome, Result) else outcome
    words = view.command_words(report)
    title = view.shell((Path(words[0]).name, *words[1:])) if words else "hasten"
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
    yield from _tree(tree.on_device(trace), "On the device")
    yield from _ceilings(trace)
    yield from _findings(report.findings)
    yield from _growth(trace)
    yield from _curve(trace)
    yield from _epochs(trace)


# -- head and foot --------------------------------------------------------------------------------------------------


def _unbroken(words: Sequence[str]) -> Iterator[Markup | str]:
    """Words as a shell reads them, of which a narrow window breaks only those that are wider than it."""
    for i, word in enumerate(words):
        yield from (" " if i else "", el("span", view.shell([word]), class_="word"))


def _head(report: Report, result: Result | None) -> Iterator[Markup]:
    trace = report.trace
    total = result.steps if result is not None else 0
    facts = [view.watched(trace, total), view.machine(trace), view.shared(trace)] if trace is not None else []
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
    tiles = list(_tiles(trace, report.findings, result)) if trace is not None else []
    if tiles:
        yield el("div", *tiles, class_="tiles")


def _tiles(trace: Trace, found: Sequence[Finding], result: Result | None) -> Iterator[Markup]:
    if result is not None and result.overall is not None:
        y = speedup(result.overall)
        yield tile("made faster", times(result.overall), f"{y.span} at {level_of([result.overall])}", "good")
    if trace.step is not None and trace.step.known:
        unit = time_unit(trace.step.value)
        digits = tree.digits(trace.step, unit.per_second)
        x = figure(trace.step, unit.per_second, digits.most, digits.least)  # as in the table below
        half = f"{x.plus_minus} at {level_of([trace.step])}" if x.half != UNKNOWN else ""
        yield tile("a step", f"{x.value} {unit.name}", half)
        rows = [r for r in tree.tree(trace) if len(r.lasts) == 1]
        most = max(rows, key=lambda r: r.share)
        yield tile("most of it", percent(most.share, 0), most.name)
    if result is None and found and found[0].predicted.known:
        yield tile("first to change", span_times(found[0].predicted), f"predicted for {found[0].code} {found[0].name}")
    if result is not None and result.overall is not None and result.cost_seconds:
        back = result.payback_seconds
        repaid = f"repaid after {duration(back)}" if math.isfinite(back) else "not repaid"
        yield tile("trials took", duration(result.cost_seconds), repaid)
    if math.isfinite(trace.startup_seconds):
        torch = f"{duration(trace.import_seconds)} of it imports torch" if math.isfinite(trace.import_seconds) else ""
        yield tile(f"until {view.first(trace)}", duration(trace.startup_seconds), torch)
    if math.isfinite(trace.usage.resident_bytes) and result is None:
        yield tile("memory", size(trace.usage.resident_bytes), "resident in this process")


def _foot(outcome: Report | Result, report: Report) -> Iterator[Markup]:
    said = [("note", text) for text in view.remarks(report)]
    if report.trace is not None and report.trace.step is not None:
        said.append(("method", view.explained_by(report.trace)))
    next_ = el("p", el("span", "next", class_="label"), el("code", view.next_command(outcome)), class_="next")
    yield el("footer", next_, pairs(said), el("p", f"hasten {report.version}", class_="version"))


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
    depth = len(row.lasts)
    kind = colour(row.phase) if depth else "all"
    name = el("span", key(kind, row.name) if depth == 1 else row.name, class_=f"depth{depth}")
    return [name, x.value, half, percent(row.share, digits.share), bar(row.share, kind), located(row.place)]


def _stack(rows: Sequence[tree.Row]) -> Markup:
    """The step as one bar, with the names of its large parts."""
    pieces = [r for r in rows if len(r.lasts) == 1 and r.share > 0.002]
    widths = [f"flex-grow:{r.share:.4f}" for r in pieces]
    said = [f"{r.name} {percent(r.share, 0)}" for r in pieces]
    bars = (el("i", class_=colour(r.phase), style=w, title=s) for r, w, s in zip(pieces, widths, said, strict=True))
    names = (el("span", s if r.share > NAMED else "", style=w) for r, w, s in zip(pieces, widths, said, strict=True))
    # the table below says the same
    return joined(el("div", *i, class_=c, aria_hidden="true") for i, c in ((bars, "stack"), (names, "names")))


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
    kind = {"data free": "p2", "model free": "p0"}.get(row.name, "all")
    return [row.name, x.value, x.plus_minus, *row.shown, bar(share, kind), meaning]


# -- findings -------------------------------------------------------------------------------------------------------


def _findings(found: Sequence[Finding]) -> Iterator[Markup]:
    if found:
        yield section("Why, by predicted gain", *map(_finding, found))


def _finding(finding: Finding) -> Markup:
    said: list[tuple[str, str]] = []
    for i, remedy in enumerate(finding.remedies):
        fidelity = el("span", remedy.fidelity.value, class_=f"tag {remedy.fidelity.value}")
        said.append(("or" if i else "remedy", joined([el("code", str(remedy)), " ", fidelity])))
    for name, texts in (("advice", (finding.advice,)), ("note", finding.notes)):
        said += [(name, text) for text in texts if text]
    gain = el("span", "predicted ", el("b", span_times(finding.predicted)), class_="gain")
    return el(
        "article",
        el("h3", el("span", el("code", finding.code, class_="rule"), " ", finding.name), gain),
        el("p", prose(finding.message)),
        quoted(finding.place, finding.label),
        pairs(said),
    )


# -- trials ---------------------------------------------------------------------------------------------------------


def _trials(result: Result) -> Iterator[Markup]:
    proof = pairs(view.proof(result))
    steps = view.replayed(result)
    if steps:
        yield section("What the plan applied", _replayed(steps), proof)
    elif result.trials:
        yield section("What was tried", _tried(result), el("p", DRAWN, class_="legend"), proof)
    elif proof:
        yield section("What was tried", proof)


def _tried(result: Result) -> Markup:
    ratios = [t.ratio for t in result.trials] + [t.predicted for t in result.trials] + [result.overall]
    scale = drawing.LogScale([r for r in ratios if r is not None])
    level = level_of([*(t.ratio for t in result.trials), result.overall])
    rows = [_trial_cells(t, scale) for t in result.trials]
    if result.overall is not None:
        plot = drawing.whisker(scale, result.overall, None, "good")
        span = speedup(result.overall).span
        rows.append([el("strong", "all kept together"), "", "", times(result.overall), span, plot, ""])
    rows.append(["", "", "", "", "", drawing.axis(scale), ""])
    heads = ("remedy", "fidelity", "predicted", "measured", level, "", "verdict")
    return table(heads, rows, (2, 3, 4), "trials")


def _replayed(steps: Sequence[Step]) -> Markup:
    cells = [(el("code", str(s)), s.fidelity, times(s.ratio), speedup(s.ratio).span) for s in steps]
    heads = ("remedy", "fidelity", "when planned", level_of(s.ratio for s in steps))
    return table(heads, cells, (2, 3), "narrow")


def _trial_cells(trial: Trial, scale: drawing.LogScale) -> list[str]:
    kind = KINDS.get(trial.verdict, "")
    fidelity = el("span", trial.fidelity, class_=f"tag {trial.fidelity}")
    why = "; ".join(dict.fromkeys(filter(None, (trial.why, trial.fidelity_found))))
    reason = el("span", prose(why), class_="why") if why else None
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
    inside = el("p", sentence) if sentence else None
    yield section("What grows", table(heads, cells, (1, 2), "narrow"), inside, *places)


def _curve(trace: Trace) -> Iterator[Markup]:
    known = sorted(v for v in trace.curve if math.isfinite(v))
    if len(known) < 3:
        return
    unit = time_unit(known[math.ceil(len(known) * 0.98) - 1])
    top = drawing.reach([v * unit.per_second for v in known]) / unit.per_second
    labels = [f"{top * unit.per_second * part:.4g} {unit.name}" for part in (1.0, 0.5, 0.0)]
    drawn = drawing.curve([min(v, top) for v in trace.curve], top, "seconds per step over the run")
    higher = sum(v > top for v in known)
    slow = f"{higher} of {len(known)} points lie higher, the highest at {duration(known[-1])}" if higher else ""
    steps = len(trace.curve) * trace.curve_stride
    yield section(
        "Step time over the run",
        chart(labels, drawn, "first step counted", f"{steps} steps later"),
        el("p", slow, class_="legend") if slow else None,
    )


def _epochs(trace: Trace) -> Iterator[Markup]:
    entries = view.epochs(trace, 12)
    if not entries:
        return
    longest = max(e.seconds for e in trace.epochs)
    evaluates = any(e.evaluation_seconds for e in trace.epochs)
    parts = [key("p0", "fetch, s"), *([key("p8", "evaluation, s")] if evaluates else []), key("whole", "all else")]
    heads = ["epoch", "steps", "s", *parts]
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
    parts = ((e.fetch_seconds, "p0"), (e.evaluation_seconds, "p8"), (rest, "whole"))
    return el("div", *(el("i", class_=c, style=f"width:{s / longest * 100:.2f}%") for s, c in parts if s), class_="bar")
