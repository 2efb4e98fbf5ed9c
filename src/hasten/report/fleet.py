"""The report of a fleet as text, from the plain values of its summary."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from hasten.report.figures import UNKNOWN, duration
from hasten.report.layout import Line, bar, clean, columns, plain, wrapped

WIDTH = 96
WORST = 5  # keys shown of those that did worst
FAILED = 10  # keys shown of those that failed

HEADS = ("key", "rows", "epochs", "loss", "held out", "s")
LOSSES = {"held": "held-out loss", "loss": "training loss"}
PROOF = ("key", "loss", "the plain loop's", "weights", "gradients", "torch's", "steps", "holds")

Document = Mapping[str, Any]


def progress_line(progress: Any) -> str:
    """One line while training goes on. progress: a ``hasten.fleet.Progress``."""
    p = progress
    left = f"{p.left_seconds:.0f} s left" if p.left_seconds == p.left_seconds else ""
    than = f"{times(p.loop_seconds, p.elapsed)} one at a time" if p.loop_seconds and p.elapsed else ""
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
        "updated": _updated(document),
        "training": _facts(document),
        "losses": _losses(document),
        "remarks": [line for remark in document["remarks"] for line in wrapped([], remark, WIDTH)],
        "proof": _proof(document),
        "failed": [
            line for key, cause in failed(document) for line in wrapped([(f"{clean(key)}: ", "bad")], cause, WIDTH)
        ],
    }


def _updated(d: Document) -> list[Line]:
    first, *rest = updated(d) or [""]
    head, _, tail = first.partition(" in ")
    lines: list[Line] = [[(head, "head"), (f" in {tail}", "")]] if tail else []
    return lines + [line for text in rest for line in wrapped([], text, WIDTH)]


def updated(d: Document) -> list[str]:
    """Sentences on the last update; none where there was none."""
    if not d["updates"]:
        return []
    last = d["updates"][-1]
    said = [
        f"update {len(d['updates'])}: {last['rows']} new rows learned in {last['seconds']:.2f} s, "
        f"{last['visits']} visits a key and share"
    ]
    if last["error"] is not None:
        said.append(f"mean loss of the new rows before they were learned: {last['error']:.4g}")
    shares = ", ".join(f"{count} by {float(share):.0%}" for share, count in last["shares"].items() if count)
    if shares:
        said.append(f"keys predicted for, by the newest rows' share of the visits: {shares}")
    if last["predicted"]:
        costs = ", ".join(f"the next {n} {float(s):.3g} s" for n, s in last["predicted"].items())
        said.append(f"training anew on everything, with as many new rows each time, takes: {costs}")
    said += last.get("remarks", ())
    said += [f"not learned, {key}: {cause}" for key, cause in list(last["failed"].items())[:FAILED]]
    if len(last["failed"]) > FAILED:
        said.append(f"not learned: {len(last['failed']) - FAILED} more; --json names them all")
    return said


def before_updates(d: Document) -> str:
    """That the figures are older than the last update; "" where there was none."""
    return "before the update" + "s" * (len(d["updates"]) > 1) if d["updates"] else ""


def _facts(d: Document) -> list[Line]:
    lines: list[Line] = [[(f"the training {older}:", "dim")]] if (older := before_updates(d)) else []
    lines.append([(f"{d['trained']} of {d['models']} models trained", "head")])
    lines[-1].append((f", {d['stopped_early']} stopped early, {d['failed']} failed", ""))
    lines.append([(f"{d['seconds']:.2f} s on {workers(d)}", ""), (against_bound(d), "")])
    if d["before"]:
        lines.append([(f"{d['before']} of them were trained by a run before this one; times do not count them", "")])
    if d["loop_seconds"]:
        expected = f"{duration(d['loop_seconds'])}: {times(d['loop_seconds'], d['seconds'])}"
        lines += wrapped([], f"the plain loop, one model at a time, is expected to take {expected}", WIDTH)
    for name, why in engines(d):
        lines += wrapped([(f"{name}  ", "dim")], why, WIDTH)
    return lines


def engines(d: Document) -> list[tuple[str, str]]:
    """What trained and why; by kind of model where there are several."""
    several = len(d["engines"]) > 1
    return [(f"engine of {kind}" if several else "engine", why) for kind, why in d["engines"].items()]


def times(of: float, seconds: float) -> str:
    """How many times as long as ``seconds`` something else takes."""
    ratio = of / max(seconds, 1e-9)
    return f"{ratio:.0f}×" if ratio >= 9.5 else f"{ratio:.2g}×"


def workers(d: Document) -> str:
    """How many trained at a time."""
    return f"{d['workers']} worker{'' if d['workers'] == 1 else 's'}"


def against_bound(d: Document) -> str:
    """The least time that the same work can take; empty where unknown."""
    if not d["bound"]:
        return ""
    return f"; the same work cannot take less than {d['bound']:.2f} s in any order ({_over(d)} more than that)"


def _over(d: Document) -> str:
    return f"{100 * (d['seconds'] / d['bound'] - 1):.1f} %"


def _losses(d: Document) -> list[Line]:
    known = losses(d)[1]
    if not known:
        return []
    rows = [[(h, "dim") for h in HEADS], *([(clean(cell), "") for cell in cells(row)] for row in known[:WORST])]
    return [[(f"{median(d)}; the worst:", "")], *columns(rows, "lrr...")]


def losses(d: Document) -> tuple[str, list[Document]]:
    """``held`` or ``loss``, and the rows of keys that have it, worst first."""
    trained = [row for row in d["rows"] if not row["cause"]]
    what = "held" if any(row["held"] is not None for row in trained) else "loss"
    return what, sorted((r for r in trained if r[what] is not None), key=lambda r: -r[what])


def measured(d: Document) -> str:
    """What the losses are, and of when."""
    return " ".join(filter(None, (LOSSES[losses(d)[0]], before_updates(d))))


def median(d: Document) -> str:
    """A sentence on the losses; there must be one."""
    what, known = losses(d)
    return f"{measured(d)}: median {statistics.median(r[what] for r in known):.4g} of {len(known)} keys"


def cells(row: Document) -> list[str]:
    """One key's figures, under ``HEADS``."""
    losses = (_number(row["loss"]), _number(row["held"]))
    return [str(row["key"]), str(row["rows"]), str(row["epochs"]), *losses, f"{row['seconds']:.3f}"]


def _number(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.4f}"


def _proof(d: Document) -> list[Line]:
    if not d["proof"]:
        return []
    rows = [[(h, "dim") for h in ("proof: key", *PROOF[1:])]]
    for found in d["proof"]:
        rows.append([(clean(cell), "" if i < 7 or found["holds"] else "bad") for i, cell in enumerate(proved(found))])
    return columns(rows, "l..lllll")


def proved(found: Document) -> list[str]:
    """What comparing one key with the plain loop has found, under ``PROOF``."""
    if "cause" in found:
        return [found["key"], *[UNKNOWN] * 6, f"no: {found['cause']}"]
    weights = "identical" if found["identical"] else f"within {found['weights_differ_by']:.0e}"
    errors = (found["gradient_error"], found["torch_gradient_error"], found["step_error"])
    lost = (f"{found['loss']:.6f}", f"{found['loop_loss']:.6f}")
    return [found["key"], *lost, weights, *(f"{e:.0e}" for e in errors), "yes" if found["holds"] else "NO"]


def failed(d: Document) -> list[tuple[str, str]]:
    """Keys that failed, with their causes; the last entry counts those left out."""
    found = [(f"failed {row['key']}", row["cause"]) for row in d["rows"] if row["cause"]]
    left_out = len(found) - FAILED
    return found[:FAILED] + ([("failed", f"{left_out} more; --json names them all")] if left_out > 0 else [])
