"""Metrics, tables or tensors of lists are made on the host in every step.

Why it is slow
    While scikit-learn computes a metric, pandas looks up a row, or ``torch.tensor`` goes through a list of arrays value
    by value, nothing trains. A metric of everything so far costs more in every step.

Remedy
    None from outside: what is computed is the script's business. By hand: collect detached tensors, and compute metrics
    once an epoch; make arrays of a table's columns before the loop, and a table of a list after it;
    ``torch.from_numpy(np.array(rows))``, or ``torch.stack`` of tensors.

Fidelity
    identical: the training does not depend on it.

When it does not help
    Where each step's number decides what happens next. Of metrics only those are told that are computed in every step.
    Only lines outside of models, loaders and evaluations are looked at: other rules are for these.

References
    https://scikit-learn.org/stable/modules/model_evaluation.html
"""

from __future__ import annotations

from collections.abc import Iterator

from hasten.core.finding import Finding, Rule, ms
from hasten.core.trace import Phase, Trace
from hasten.seams.source import calls_on, in_every_round, source_of

LEAST_SHARE = 0.03  # of the step, with what samples leave uncertain taken off
SAVED = (0.5, 1.0)  # part of the work: half as often, and once an epoch
_METRIC, _MADE = "metric", "tensors made"
_TOLD = {
    _METRIC: ("scikit-learn's metric", "collect detached tensors, and compute the metric once an epoch"),
    "deep copy": (
        "copy.deepcopy",
        "copy only what is needed, by torch._foreach_copy_ into tensors that are there",
    ),
    _MADE: (
        "torch.tensor",
        "it takes sequences value by value: torch.from_numpy(np.array(…)) of lists, torch.stack of tensors",
    ),
    "table": (
        "pandas",
        "make arrays of the columns before the loop, and a table of a list of rows after it",
    ),
}


def detect(trace: Trace) -> Iterator[Finding]:
    python = next((p for p in trace.phases if p.name == "python"), None)
    if python is None:
        return
    kinds: dict[str, list[Phase]] = {}
    for line in python.children:
        kind = _kind(line)
        if kind:
            kinds.setdefault(kind, []).append(line)
    for kind, lines in kinds.items():
        cost = sum(line.seconds.value for line in lines)
        least = sum(line.seconds.low for line in lines)
        if not least >= LEAST_SHARE * trace.step_seconds:
            continue
        what, advice = _TOLD[kind]
        yield RULE.finding(
            f"{what} takes {ms(cost)} of a step of {ms(trace.step_seconds)}",
            lines[0].place,
            (trace.amdahl(SAVED[0] * least), trace.amdahl(SAVED[1] * cost)),
            label="while nothing trains",
            advice=advice,
            notes=tuple(f"{line.place}  {ms(line.seconds.value)}" for line in lines[1:4]),
        )


def _kind(line: Phase) -> str:
    """What a line does on the host; empty where it may be part of the training."""
    if line.place is None:
        return ""
    if line.name in _TOLD:
        rarely = line.name == _METRIC and not in_every_round(line.place.file, line.place.line)
        return "" if rarely else line.name
    here = [source_of(line.place.file, c.func) for c in calls_on(line.place.file, line.place.line)]
    return _MADE if here and all(name in ("torch.tensor", "torch.as_tensor") for name in here) else ""


RULE = Rule("S503", "host-work", detect, __doc__)
