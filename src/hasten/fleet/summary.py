"""What a fleet's training came to, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Progress:
    """How far a fleet has come.

    Attributes:
        training: models that have left the queue; a stack trains many side by side.
        elapsed: seconds since training began.
        work: seconds of one core that finished models took.
        left_seconds: of wall time, estimated; NaN while nothing is known.
        loop_seconds: of one core that the plain loop would have taken for the models finished in this time; 0 unknown.
        before: models among ``done`` that a run before this one has finished.
    """

    models: int
    done: int
    training: int
    stopped: int
    failed: int
    elapsed: float
    work: float
    left_seconds: float
    loop_seconds: float
    before: int = 0

    @property
    def left(self) -> int:
        """Models that wait."""
        return self.models - self.done - self.training


@dataclass(frozen=True)
class Row:
    """One key's outcome.

    Attributes:
        rows: trained on; of a key that failed, all it has.
        loss: training loss of the epoch whose weights were kept.
        held: held-out loss of the weights kept; NaN without early stopping.
        epochs: trained.
        best_epoch: whose weights were kept; 0 for the last.
        seconds: of one core.
        cause: why it failed; "" if it did not.
        source: ``"own"``, ``"global"`` or ``"naive"``: what predicts for this key.
    """

    key: str
    rows: int
    kind: str
    engine: str
    loss: float
    held: float
    epochs: int
    best_epoch: int
    stopped: bool
    seconds: float
    cause: str = ""
    source: str = "own"


@dataclass(frozen=True)
class Summary:
    """Everything about a fleet but its weights.

    Attributes:
        engines: engine and reason, by kind of model.
        workers: how many trained side by side.
        seconds: wall time of training.
        bound: no schedule of the same work is shorter than this many seconds.
        before: models that a run before this one has finished; no figure of time counts them.
        worth: what comparing with baselines found; None where it was not asked for.
        proof: what ``prove`` found.
        updates: what each update came to; the figures above are of the training before them.
    """

    rows: tuple[Row, ...]
    engines: Mapping[str, str]
    recipe: Mapping[str, Any]
    workers: int
    seconds: float
    bound: float
    work: float
    loop_seconds: float = 0.0
    worth: Mapping[str, Any] | None = None
    proof: tuple[Mapping[str, Any], ...] = ()
    remarks: tuple[str, ...] = field(default=())
    updates: tuple[Mapping[str, Any], ...] = ()
    before: int = 0

    @property
    def failed(self) -> dict[str, str]:
        """Cause of each key that failed."""
        return {row.key: row.cause for row in self.rows if row.cause}

    def document(self) -> dict[str, Any]:
        """Plain values for JSON; seconds are seconds."""
        counts = {
            "models": len(self.rows),
            "trained": sum(not r.cause for r in self.rows),
            "stopped_early": sum(r.stopped for r in self.rows),
            "failed": len(self.failed),
        }
        return {**counts, **asdict(self), "engines": dict(self.engines), "recipe": dict(self.recipe)}

    def __str__(self) -> str:
        trained = [r for r in self.rows if not r.cause]
        lines = [
            f"{len(trained)} of {len(self.rows)} models trained, {sum(r.stopped for r in trained)} stopped early, "
            f"{len(self.failed)} failed",
            f"{self.seconds:.2f} s on {self.workers} workers; no schedule could take less than {self.bound:.2f} s",
        ]
        if self.before:
            lines.append(f"{self.before} of them were trained by a run before this one; times do not count them")
        if self.loop_seconds:
            lines.append(
                f"the plain loop, one model at a time: {self.loop_seconds:.3g} s expected, "
                f"{self.loop_seconds / max(self.seconds, 1e-9):.3g}× as long"
            )
        lines += [f"{kind}: {why}" for kind, why in self.engines.items()]
        lines += [f"failed {key}: {cause}" for key, cause in list(self.failed.items())[:10]]
        if len(self.failed) > 10:
            lines.append(f"failed: {len(self.failed) - 10} more in .failed")
        lines += [*self.remarks, *proof_lines(self.proof)]
        for update in self.updates[-1:]:
            lines += update.get("remarks", ())
        lines += [predicted_sentence(update) for update in self.updates[-1:] if update["predicted"]]
        return "\n".join(lines)


def proof_lines(proof: Sequence[Mapping[str, Any]]) -> list[str]:
    """What comparing sampled keys with the plain loop has found, a line a key."""
    lines = []
    for found in proof:
        begun = f"proof {found['key']}, {found['engine']}: "
        if "cause" in found:
            lines.append(f"{begun}does NOT hold: {found['cause']}")
            continue
        said = "weights identical"
        if not found["identical"]:
            said = (
                f"weights within {found['weights_differ_by']:.1e}; the worst of {found['gradients']} gradients on the "
                f"way off by {found['gradient_error']:.0e}, torch's own by {found['torch_gradient_error']:.0e}; "
                f"the optimizer's steps by {found['step_error']:.0e}"
            )
        lines.append(
            f"{begun}{'holds' if found['holds'] else 'does NOT hold'}; loss {found['loss']:.6g}, the plain loop's "
            f"{found['loop_loss']:.6g}; {said}"
        )
    return lines


def predicted_sentence(update: Mapping[str, Any]) -> str:
    """What full retraining will cost from now on."""
    took = ", ".join(f"the next {n} {float(s):.3g} s" for n, s in update["predicted"].items())
    return (
        f"training anew on all {update['visits']} rows took {update['seconds']:.3g} s; "
        f"with as many new rows each time, expected in all: {took}"
    )
