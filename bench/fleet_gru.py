"""How much faster is a GRU over windows in a fleet than in the loop that people write?

The module goes into ``fleet.fit`` unchanged. Rounds in which the DataLoader loop, the native engine and the stacked
engine take turns; figures are wall time a step of one model, ratios are taken inside a round. What is not a model's
steps (starting worker processes, writing what was learned) is in a fleet's time as well.

On one core: the loop with one thread, fleets with one worker. On all: the loop with as many threads as torch takes by
itself, in its one process; fleets with as many workers as ``fleet.fit`` takes by itself.
"""

from __future__ import annotations

import fleet_module
from fleet_module import WINDOW
from torch import nn

from hasten.fleet.models import Gru

CLAIM = "A GRU of 32 units over windows of 48, its code unchanged, against the DataLoader loop"
NAME = "fleet-gru"


def make() -> nn.Module:
    """The network: ``hasten fleet --model gru``. X: (rows, WINDOW), prediction: (rows, 1)."""
    return Gru(WINDOW, 1)


if __name__ == "__main__":
    fleet_module.main(make, NAME, "GRUs of 32 units", models=32, epochs=2)  # of long steps
