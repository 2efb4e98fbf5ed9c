"""One small network per store, customer, sensor or series, trained all together, with the result of the plain loop."""

from __future__ import annotations

from hasten.fleet.fit import fit
from hasten.fleet.fleet import Fleet
from hasten.fleet.losses import Huber, Loss, Quantile
from hasten.fleet.naive import Residual
from hasten.fleet.recipe import EarlyStop, Recipe
from hasten.fleet.summary import Progress, Row, Summary
from hasten.fleet.tasks import Task

__all__ = [
    "EarlyStop",
    "Fleet",
    "Huber",
    "Loss",
    "Progress",
    "Quantile",
    "Recipe",
    "Residual",
    "Row",
    "Summary",
    "Task",
    "fit",
]
