"""A report for the terminal.

``render`` and ``render_result`` return a page: a value that a rich console draws in its own width and colours, and
that ``str()`` gives as plain text in 80 columns. Roles, not colours, are decided here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hasten.core.facts import Place
from hasten.core.finding import worth_telling
from hasten.core.report import Report, Result, Trial
from hasten.core.trace import Epoch, Trace
from hasten.report import tree, view
from hasten.report.figures import (
    UNKNOWN,
    figure,
    fixed,
    level_of,
    percent,
    span_times,
    speedup,
    time_unit,
    times,
)
from hasten.report.layout import Line, Span, bar, clean, columns, cut, plain, shortened, width_of, wrapped
from hasten.report.paragraph import findings, quoted

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

FINDINGS = 5  # shown before "N more: --all"
BAR = 16  # cells of a whole step
PLACE = 20  # cells of a place that a bar may not push out
NAME = 16  # cells of a phase's name that are never cut
NARROWEST, WIDEST = 60, 120

STYLES = {
    "head": "bold",
    "dim": "dim",
    "bar": "cyan",
    "place": "blue",
    "code": "bold yellow",
    "caret": "yellow",
    "good": "green",
    "bad": "bold red",
    "open": "yellow",
    "next": "bold",
}
VERDICTS = {
    "kept": "good",
    "replaced": "dim",
    "dropped": "dim",
    "cannot tell": "open",
    "broken promise": "bad",
    "not tried": "dim",
}
ASCII = str.maketrans(
    {"├": "|", "└": "`", "│": "|", "─": "-", "█": "#", "–": "-", "×": "x", "±": "~", "…": ".", "µ": "u", "·": "|"}
    | dict.fromkeys("▏▎▍▌", " ")
    | dict.fromkeys("▋▊▉", "#")
)


@dataclass(frozen=True)
class Page:
    """Lines for any width."""

    lines: Callable[[int], list[Line]]

    def __str__(self) -> str:
        return plain(self.lines(80))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        for line in self.lines(min(max(options.max_width, NARROWEST), WIDEST)):
            text = Text(no_wrap=True, overflow="ignore", end="\n")
            for words, role in line:
                words = words.translate(ASCII) if options.ascii_only else words
                text.append(words, STYLES.get(role))
            text.rstrip()
            yield text


def render(report: Report, *, every: bool = False) -> Page:
    """The explanation of a script.

    Args:
        every: all findings and sub-phases instead of those that fit a screen.
    """
    return Page(lambda width: _joined(_explained(report, width, every)))


def render_result(result: Result, *, every: bool = False) -> Page:
    """What a run measured, tried, kept and proved."""
    return Page(lambda width: _joined(_ran(result, width, every)))


def _joined(sections: Iterator[list[Line]]) -> list[Line]:
    out: list[Line] = []
    for section in filter(None, sections):
        out += [[], *section] if out else section
    return out


def _explained(report: Report, width: int, every: bool) -> Iterator[list[Line]]:
    yield head(report, width)
    if report.trace is not None:
        yield from _measured(report.trace, width, every)
    first = len(report.findings) if every else min(FINDINGS, len(worth_telling(report.findings)))
    yield from findings(report.findings, width, first)
    if report.trace is not None:
        yield remarks(report, width)
    yield next_line(view.next_command(report))


def _ran(result: Result, width: int, every: bool) -> Iterator[list[Line]]:
    report = result.report
    yield head(report, width, result.steps)
    if report.trace is not None:
        yield from _measured(report.trace, width, every)
        found = report.findings if every else view.by_hand(result)
        first = len(found) if every else min(FINDINGS, len(worth_telling(found)))
        yield from findings(found, width, first)
    yield trials(result, width)
    yield proof(result, width)
    yield remarks(report, width)
    yield next_line(view.next_command(result))


def _measured(trace: Trace, width: int, every: bool) -> Iterator[list[Line]]:
    yield phase_tree(tree.tree(trace, 0.0 if every else tree.SMALL), "where the time goes", width)
    yield phase_tree(tree.on_device(trace), "on the device", width)
    yield startup(trace, width)
    yield epoch_table(trace)
    yield ceiling_table(trace, width)
    yield from growth(trace, width)


# -- head and foot --------------------------------------------------------------------------------------------------


def head(report: Report, width: int, total: int = 0) -> list[Line]:
    """Script, steps watched, machine and versions; how the script ended where it failed."""
    lines = wrapped([], view.shell(view.command_words(report)), width, "head")
    if report.trace is not None:
        lines += wrapped([], view.watched(report.trace, total), width)
        lines += wrapped([], view.machine(report.trace), width, "dim")
    if view.shared(report.trace):
        lines += wrapped([], view.shared(report.trace), width, "open")
    if view.ending(report):
        lines += wrapped([], view.ending(report), width, "bad" if report.exit_code else "open")
    if report.message:
        lines += wrapped([], report.message, width, "open")
    return lines


def remarks(report: Report, width: int) -> list[Line]:
    """What qualifies the figures, and how they were measured."""
    lines: list[Line] = []
    for remark in view.remarks(report):
        lines += wrapped([("note    ", "dim")], remark, width)
    if report.trace is not None and report.trace.step is not None:
        lines += wrapped([("method  ", "dim")], view.explained_by(report.trace), width)
    return lines


def next_line(command: str) -> list[Line]:
    """The next command to type; never broken, so that it can be copied."""
    return [[("next    ", "dim"), (clean(command), "next")]]


# -- where the time goes --------------------------------------------------------------------------------------------


def phase_tree(rows: Sequence[tree.Row], title: str, width: int) -> list[Line]:
    """The step and its phases: time, interval, share, bar and place."""
    if not rows:
        return []
    step = rows[0].seconds
    unit = time_unit(step.value)
    digits = tree.digits(step, unit.per_second)
    heads = [(title, "head"), (f"{unit.name}/step", "dim"), (level_of([step]), "dim"), ("share", "dim")]
    cells = [_phase_cells(row, unit.per_second, digits) for row in rows]
    lines = columns([heads, *cells], "l..r")
    excess = _used(lines) + 2 + max((width_of(_short(r.place).rpartition("/")[2]) for r in rows), default=0) - width
    if excess > 0:  # source text of lines gives way to the places where it stands
        room = max(NAME, max(width_of(line[0][0]) for line in lines) - excess)
        cells = [[(cut(clean(name), room), role), *others] for (name, role), *others in cells]
        lines = columns([[(cut(title, room), "head"), *heads[1:]], *cells], "l..r")
    return _with_bars(lines, rows, width)


def _used(lines: Sequence[Line]) -> int:
    return max(sum(width_of(text) for text, _ in line) for line in lines)


def _phase_cells(row: tree.Row, factor: float, digits: tree.Digits) -> list[Span]:
    x = figure(row.seconds, factor, digits.most, digits.least)
    half = "" if x.half == UNKNOWN else x.plus_minus
    role = "head" if not row.lasts else "dim" if len(row.lasts) > 1 or row.phase == "unaccounted" else ""
    return [(row.prefix + row.name, role), (x.value, role), (half, "dim"), (percent(row.share, digits.share), role)]


def _with_bars(lines: list[Line], rows: Sequence[tree.Row], width: int) -> list[Line]:
    """Bars and places behind the figures; where there is no room for both, places. Long ones lose folders."""
    used = _used(lines) + 2
    names = [_short(r.place) for r in rows if r.place]
    longest = max((max(min(PLACE, width_of(n)), width_of(n.rpartition("/")[2])) for n in names), default=0)
    room = min(BAR, width - used - 2 - longest)
    room = room if room >= BAR // 2 else 0 if longest else max(width - used, 0)
    left = width - used - (room + 2 if room else 0)
    for line, row in zip(lines[1:], rows, strict=True):
        drawn = bar(row.share, room) if room else ""
        if room:
            line += [("  ", ""), (drawn, "bar")]
        if row.place is not None:
            space = room - width_of(drawn) + 2
            line += [(" " * space, ""), (shortened(clean(_short(row.place)), left), "place")]
    return lines


def _short(place: Place | None) -> str:
    return f"{place.file}:{place.line}" if place is not None else ""


def startup(trace: Trace, width: int) -> list[Line]:
    """What passed before the steps that are counted."""
    said = view.startup(trace)
    return wrapped([("start-up  ", "head")], said, width) if said else []


def epoch_table(trace: Trace) -> list[Line]:
    """Time per epoch, and what of it was fetching and evaluation."""
    shown = view.epochs(trace)
    if not shown:
        return []
    evaluates = any(e.evaluation_seconds for e in trace.epochs)
    heads = ["epoch", "steps", "s", "fetch, s", *(["evaluation, s"] if evaluates else [])]
    table = [[(h, "head" if h == "epoch" else "dim") for h in heads]]
    place = 1 if max(e.seconds for e in trace.epochs) >= 10 else 2
    for entry in shown:
        table.append([(text, "") for text in _epoch_cells(entry, len(heads), place)])
    return columns(table, "rr..." if evaluates else "rr..")


def _epoch_cells(entry: tuple[int, Epoch] | None, count: int, place: int) -> list[str]:
    if entry is None:
        return ["…", *[""] * (count - 1)]
    number, epoch = entry
    times = (epoch.seconds, epoch.fetch_seconds, epoch.evaluation_seconds)
    return [str(number), str(epoch.steps), *(fixed(t, place) for t in times[: count - 2])]


def ceiling_table(trace: Trace, width: int) -> list[Line]:
    """As it is, data free and model free, side by side."""
    rows = view.ceilings(trace)
    if not rows:
        if trace.step is None or not trace.ceilings.why_not:
            return []  # `hasten run` measures none
        return wrapped([("ceilings  ", "head"), (f"{UNKNOWN}  ", "")], view.why_no_ceilings(trace.ceilings), width)
    unit = time_unit(max(r.seconds.value for r in rows if r.seconds is not None))
    levels = (level_of(r.seconds for r in rows), level_of(r.speedup for r in rows))
    heads = ["ceilings", f"{unit.name}/step", levels[0], "speedup", levels[1], ""]
    table = [[(h, "dim" if i else "head") for i, h in enumerate(heads)]]
    table += [_ceiling_cells(row, unit.per_second, view.why_no_ceilings(trace.ceilings)) for row in rows]
    lines = columns(table, "l....l")
    if _used(lines) <= width:
        return lines
    lines = columns([row[:-1] for row in table], "l....")
    unknown = [row.name for row in rows if row.seconds is None]
    why_not = f"{' and '.join(unknown)}: {view.why_no_ceilings(trace.ceilings)}"
    return lines + (wrapped([], why_not, width, "dim") if unknown else [])


def _ceiling_cells(row: view.Ceiling, factor: float, why_not: str) -> list[Span]:
    x = figure(row.seconds, factor)
    meaning = row.meaning if row.seconds is not None else why_not
    gain, span = row.shown
    return [
        (row.name, ""),
        (x.value, ""),
        (x.plus_minus, "dim"),
        (gain, "" if row.gains else "dim"),
        (span, "dim"),
        (meaning, "dim"),
    ]


def growth(trace: Trace, width: int) -> Iterator[list[Line]]:
    """Only where something grows: how fast, and which line and variable."""
    rows = view.slopes(trace.growth)
    if not rows:
        return
    table = [[("what grows", "head"), ("per 1000 steps", "dim"), (level_of(r.per_thousand for r in rows), "dim")]]
    for row in rows:
        slope = figure(row.per_thousand, row.factor)
        table.append([(f"{row.name}, {row.unit}", ""), (f"+{slope.value}", "bad"), (slope.span, "dim")])
    lines = columns(table, "l..")
    if view.growth_sentence(trace.growth):
        lines += wrapped([], view.growth_sentence(trace.growth), width)
    for place, label in view.growth_places(trace.growth):
        lines += quoted(place, label, width)
    yield lines


# -- trials and proof -----------------------------------------------------------------------------------------------


def trials(result: Result, width: int) -> list[Line]:
    """Every remedy considered: promised, predicted, measured, and what was decided."""
    if not result.trials:
        said = result.message if result.message != result.report.message else ""
        return (wrapped([], said, width, "open") if said else []) + _replayed(result)
    level = level_of([*(t.ratio for t in result.trials), result.overall])
    heads = ["remedy", "fidelity", "predicted", "measured", level, "verdict"]
    table = [[(h, "dim" if i else "head") for i, h in enumerate(heads)], *map(_trial_cells, result.trials)]
    whys = ["", *(t.why for t in result.trials)]
    if result.overall is not None:
        figures = [(times(result.overall), "head"), (speedup(result.overall).span, "head")]
        table.append([("all kept together", "head"), ("", ""), ("", ""), *figures, ("", "")])
        whys.append("")
    lines: list[Line] = []
    for line, why in zip(_fitted(table, width), whys, strict=True):
        lines += _with_why(line, why, width)
    return lines


def _fitted(table: list[list[Span]], width: int) -> list[Line]:
    """The trial table; where the window is too narrow, remedies are cut and not the figures, then the prediction and
    the promise are left out: both stand with the finding."""
    alignment = "ll...l"
    for left_out in (None, 2, 1):
        if left_out is not None:
            table = [[*row[:left_out], *row[left_out + 1 :]] for row in table]
            alignment = alignment[:left_out] + alignment[left_out + 1 :]
        excess = _used(columns(table, alignment)) - width
        room = max(12, max(width_of(row[0][0]) for row in table) - max(excess, 0))
        lines = columns([[(cut(row[0][0], room), row[0][1]), *row[1:]] for row in table], alignment)
        if _used(lines) <= width:
            break
    return lines


def _replayed(result: Result) -> list[Line]:
    """The remedies of a replayed plan, with what was measured when it was made."""
    steps = view.replayed(result)
    if not steps:
        return []
    heads = ["remedy", "fidelity", "when planned", level_of(s.ratio for s in steps)]
    table = [[(h, "dim" if i else "head") for i, h in enumerate(heads)]]
    table += [[(str(s), ""), (s.fidelity, ""), (times(s.ratio), ""), (speedup(s.ratio).span, "dim")] for s in steps]
    return columns(table, "ll..")


def _trial_cells(trial: Trial) -> list[Span]:
    role = VERDICTS.get(trial.verdict, "")
    return [
        (trial.remedy, "dim" if role == "dim" else ""),
        (trial.fidelity, ""),
        (span_times(trial.predicted), ""),
        (times(trial.ratio), ""),
        (speedup(trial.ratio).span, ""),
        (trial.verdict, role),
    ]


def _with_why(line: Line, why: str, width: int) -> list[Line]:
    """The reason behind the verdict where it fits, else below it."""
    while line and not line[-1][0].strip():
        line = line[:-1]
    if not why:
        return [line]
    used = sum(width_of(text) for text, _ in line)
    if used + 2 + width_of(why) <= width:
        return [[*line, (": ", "dim"), (clean(why), "dim")]]
    return [line, *wrapped([("  ", "")], why, width, "dim")]


def proof(result: Result, width: int) -> list[Line]:
    """What was proved, how, and what it cost."""
    lines: list[Line] = []
    for name, text in view.proof(result):
        start = "proof   " if not lines else "        "
        lines += wrapped([(start, "head"), (f"{name:<10}", "dim")], text, width, "bad" if name == "broken" else "")
    return lines
