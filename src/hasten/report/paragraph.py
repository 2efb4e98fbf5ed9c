"""Findings as a compiler shows them: what, where with the source line, what the cure would bring, the cure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hasten.core.facts import Place
from hasten.core.finding import Finding
from hasten.report.figures import span_times
from hasten.report.layout import Line, Span, clean, columns, excerpt, width_of, wrapped


def findings(found: Sequence[Finding], width: int, most: int) -> Iterator[list[Line]]:
    """One paragraph a finding, the first ``most`` of them."""
    for finding in found[:most]:
        yield paragraph(finding, width)
    if len(found) > most:
        yield [[(f"{len(found) - most} more: --all", "dim")]]


def paragraph(finding: Finding, width: int) -> list[Line]:
    """What is wrong, where, what curing it would bring, and the cure."""
    margin = " " * (len(str(finding.place.line)) if finding.place is not None else 2)
    lines = _title(finding, width)
    if finding.place is not None:
        lines += quoted(finding.place, finding.label, width)
    lines.append(_evidence(margin, "predicted", (span_times(finding.predicted), "")))
    cells = [[(str(r), "good"), (r.fidelity.value, "")] for r in finding.remedies]
    for i, line in enumerate(columns(cells, "ll", gap=3)):
        lines.append(_evidence(margin, "or" if i else "remedy", *line))
    for name, said in (("advice", (finding.advice,)), ("note", finding.notes)):
        for text in filter(None, said):
            lines += wrapped(_evidence(margin, name), text, width)
    return lines


def _title(finding: Finding, width: int) -> list[Line]:
    """Code, name and message; continued at a small indent, whatever the length of code and name."""
    start = f"{finding.code} {finding.name}: "
    first, *rest = wrapped([], start + finding.message, width - 2)
    title: Line = [(f"{finding.code} ", "code"), (f"{finding.name}: ", "head"), (first[0][0][len(start) :], "")]
    return [title, *([("  ", ""), *line] for line in rest)]


def _evidence(margin: str, name: str, *said: Span) -> Line:
    return [(f"{margin} = ", "dim"), (f"{name:<11}", ""), *said]


def quoted(place: Place, label: str, width: int) -> list[Line]:
    """The source line, with a caret under the columns where they are known."""
    number = str(place.line)
    margin = " " * len(number)
    lines: list[Line] = [[(f"{margin}--> ", "dim"), (clean(str(place)), "place")]]
    part = excerpt(place, width - len(number) - 3)
    if part is None:
        return lines + (wrapped([(f"{margin} = ", "dim")], label, width) if label else [])
    lines.append([(f"{number} | ", "dim"), (part.text, "")])
    edge = (f"{margin} | ", "dim")
    if part.start < 0:
        return lines + (wrapped([edge], label, width, "caret") if label else [])
    mark: Line = [edge, (" " * part.before, ""), ("^" * part.cells, "caret")]
    used = sum(width_of(t) for t, _ in mark) + 1
    if label and used + width_of(label) > width:
        return [*lines, mark, *wrapped([edge], label, width, "caret")]
    return [*lines, [*mark, (f" {clean(label)}", "caret")] if label else mark]
