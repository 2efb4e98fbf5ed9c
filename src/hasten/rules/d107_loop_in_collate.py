"""The collate function goes through the values of its samples one by one.

Why it is slow
    A Python loop over single values (``[float(v) for v in row]``) costs a tenth of a microsecond to some microseconds a
    value, with every batch; NumPy or torch convert a whole sample, or the whole batch, in one call.

Remedy
    None from outside: the loop has to be written as a conversion of whole samples. By hand: let the dataset give arrays
    or tensors of one dtype, made once (``torch.as_tensor(rows, dtype=torch.float32)``), and ``torch.stack`` them;
    ``pad_sequence`` puts samples of varying length together.

Fidelity
    identical: the same numbers in the same batch, where the dtype is the same.

When it does not help
    Loops that touch every sample once, which is what a collate function is for, are not reported. Iterations are
    counted in a forked child, so nothing is found where the process cannot be forked, the script compiles, or worker
    processes put the batches together.

References
    https://docs.pytorch.org/docs/stable/data.html#working-with-collate-fn
    https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.rnn.pad_sequence.html
"""

from __future__ import annotations

from collections.abc import Iterator

from hasten.core.finding import Finding, Rule, ms
from hasten.core.trace import COLLATE_LOOP, Trace

LEAST_SHARE = 0.05  # of the step
LEAST_RUNS = 4.0  # iterations for each sample of the batch; a loop over samples makes one
LONGEST = 20e-6  # seconds an iteration; longer ones do more than convert a value
SAVED = (0.5, 0.97)  # part of the loop's time; measured 7.7x for a step of which it took most


def detect(trace: Trace) -> Iterator[Finding]:
    loader = trace.loader
    samples = max(1, loader.batch_size) * trace.batches if loader is not None else 1.0
    for event in trace.events:
        if event.kind != COLLATE_LOOP or not event.seconds >= LEAST_SHARE * trace.step_seconds:
            continue
        if event.calls < LEAST_RUNS * samples or event.seconds / event.calls > LONGEST:
            continue
        each = 1e6 * event.seconds / event.calls
        yield RULE.finding(
            f"a Python loop in the collate function runs {event.calls:.0f} times a step, "
            f"{each:.{0 if each >= 10 else 1 if each >= 1 else 2}f} µs each, {ms(event.seconds)} together",
            event.place,
            (trace.amdahl(SAVED[0] * event.seconds), trace.amdahl(SAVED[1] * event.seconds)),
            label="goes through single values",
            advice="convert whole samples, once (torch.as_tensor(sample, dtype=…) in the dataset), and torch.stack or"
            " pad_sequence them here",
        )


RULE = Rule("D107", "loop-in-collate", detect, __doc__)
