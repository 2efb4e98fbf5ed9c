"""A large table of embeddings is updated in all its rows, of which a step uses a few.

Why it is slow
    The gradient of ``nn.Embedding`` is as large as its table, zero but for the rows that a batch looked up, and the
    optimizer goes through all of it, its moments included. With 100,000 rows and batches of some hundred that is nearly
    all of a step.

Remedy
    None from outside: it is the module that makes its gradient. By hand: ``nn.Embedding(…, sparse=True)``; ``SGD`` and
    ``Adagrad`` take such gradients, ``Adam`` has a twin, ``torch.optim.SparseAdam``, for these tables alone.

Fidelity
    approximate for Adam: ``SparseAdam`` moves a row, and lets its moments fade, only in steps that use it. It mostly
    learns as well; compare the losses. With SGD and Adagrad it is equivalent.

When it does not help
    Where a table's weight is also that of the last layer, all rows have a gradient; nothing is said there, nor with
    weight decay or momentum, which move all rows by rule. Clipping, and other functions that are given the gradients,
    have to take sparse ones.

References
    https://docs.pytorch.org/docs/stable/generated/torch.nn.Embedding.html
    https://docs.pytorch.org/docs/stable/generated/torch.optim.SparseAdam.html
"""

from __future__ import annotations

from collections.abc import Iterator

from hasten.core.facts import EmbeddingFacts
from hasten.core.finding import Finding, Rule, ms
from hasten.core.trace import Trace

LEAST_SHARE = 0.1  # of the step
SAVED = 0.8  # the least part of the rows' time: what is left goes through slower functions (measured 0.93 for both)
MADE = 3.0  # times that zeros of a gradient are written, faulted in and read back at most
MOST_USED = 0.25  # of the rows


def detect(trace: Trace) -> Iterator[Finding]:
    by: dict[str, list[EmbeddingFacts]] = {}
    for table in trace.embeddings:
        if table.used <= MOST_USED * table.rows:
            by.setdefault(table.optimizer, []).append(table)
    for kind, tables in by.items():
        some = [o for o in trace.optimizers if o.kind == kind]
        elements = sum(o.elements for o in some)
        unused = sum((t.rows - t.used) * t.columns for t in tables)
        cost = trace.optimizing(some) * min(1.0, unused / max(elements, 1))
        zeros = min(sum(t.zero_seconds for t in tables) * MADE, trace.phase("backward"))
        if not SAVED * cost >= LEAST_SHARE * trace.step_seconds:
            continue
        rows, used = sum(t.rows for t in tables), sum(t.used for t in tables)
        yield RULE.finding(
            f"{kind} goes through all {rows:,} rows of {_names(tables)} in every step, of which {used:,} have a "
            f"gradient: {ms(cost)} of a step of {ms(trace.step_seconds)}",
            trace.place("optimizer"),
            (trace.amdahl(SAVED * cost), trace.amdahl(cost + zeros)),
            label="updates rows that no sample has used",
            advice=_advice(kind, tables),
            notes=("SparseAdam moves a row only in steps that use it: compare the losses",) if kind == "Adam" else (),
        )


def _names(tables: list[EmbeddingFacts]) -> str:
    return " and ".join(t.name for t in tables[:2]) + (f" and {len(tables) - 2} more" if len(tables) > 2 else "")


def _advice(kind: str, tables: list[EmbeddingFacts]) -> str:
    made = f"nn.Embedding(…, sparse=True) for {_names(tables)}"
    if kind == "Adam":
        return f"{made}, and torch.optim.SparseAdam for these weights alone"
    return f"{made}; {kind} takes sparse gradients"


RULE = Rule("O404", "dense-embedding", detect, __doc__)
