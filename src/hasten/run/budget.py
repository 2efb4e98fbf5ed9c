"""How long trials may take, and which of them that holds."""

from __future__ import annotations

from hasten.core.trace import Trace

MOST_SECONDS = 120.0  # default budget: the smaller of this …
SHARE_OF_JOB = 0.05  # … and this part of the predicted job,
UNKNOWN_SECONDS = 30.0  # or this where the job's length cannot be predicted
LEAST_TRIAL = 2.0  # seconds; a trial that would get less is not begun


def budget_of(trace: Trace, asked: float | None) -> float:
    """Seconds that trials may take."""
    if asked is not None:
        return float(asked)
    if trace.predicted_steps > 0 and trace.step_seconds > 0:
        return min(MOST_SECONDS, SHARE_OF_JOB * trace.predicted_steps * trace.step_seconds)
    return UNKNOWN_SECONDS


def most_promising(costs: list[tuple[float, float, str]], left: float) -> set[str]:
    """Names of those that promise most together and fit into ``left`` seconds: dear ones, or cheap ones in their place.

    Args:
        costs: of each the logarithm of the speed-up that it promises, its seconds at least, its name.
    """
    chosen: list[tuple[float, set[str]]] = []
    for order in (sorted(costs, key=lambda c: -c[0]), sorted(costs, key=lambda c: -c[0] / max(c[1], 1e-9))):
        spent, gain, names = 0.0, 0.0, set()
        for promised, least, name in order:
            if spent + least <= left:
                spent, gain = spent + least, gain + promised
                names.add(name)
        chosen.append((gain, names))
    return max(chosen, key=lambda c: c[0])[1]
