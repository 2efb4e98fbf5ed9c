"""A list of graphs that every epoch begins anew: what is allocated is not what the process keeps from the system."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from hasten.core.trace import Growth, Trace
from hasten.explain.growth import READINGS, growth
from hasten.explain.keepers import KeeperWatch
from hasten.measure.machine import allocated_bytes
from hasten.rules.g701_graph_kept_alive import detect
from tests.explain.test_growth import QUIET, Windows, losses, noisy, watched

EPOCH, KEPT = 200, 200_000


def seen(longest: int, kept: int = KEPT, loader_made_anew: bool = False) -> Growth:
    """The growth of a script in which memory stays, while a list that was once so long keeps bytes in each step."""
    watch = watched(noisy(1000, 0), [1e9] * 125)
    watch.keeper, watch.keeper_begun_anew = ("losses", None), longest
    watch.allocated = [10**9 + kept * i for i in range(READINGS)]
    data = DataLoader(TensorDataset(torch.zeros(EPOCH * 4)), batch_size=4)
    record = watch.trained_from = watch.record_of(data)
    record.epochs = [800] if loader_made_anew else list(range(0, 1000, EPOCH))
    return growth(watch, Windows(QUIET, QUIET))  # type: ignore[arg-type]


@pytest.mark.parametrize("loader_made_anew", [True, False])
def test_growth_within_epochs_is_told(loader_made_anew: bool) -> None:
    found = seen(EPOCH - 5, loader_made_anew=loader_made_anew)
    assert (found.variable, found.epoch) == ("losses", EPOCH) and not found.leaks
    (finding,) = detect(Trace("train.py", steps=1000, growth=found))
    assert (
        finding.message == "'losses' holds the graphs of an epoch's steps: 0.2 MB a step, 40.0 MB when it is begun anew"
    )


@pytest.mark.parametrize(("longest", "kept"), [(0, KEPT), (3 * EPOCH, KEPT), (EPOCH, 2000)])
def test_what_was_not_begun_anew_by_epochs_or_keeps_little_is_not_told(longest: int, kept: int) -> None:
    found = seen(longest, kept)
    assert not found.variable and not list(detect(Trace("train.py", steps=1000, growth=found)))


def test_a_list_that_was_emptied_is_remembered_at_its_longest() -> None:
    def gathers(seconds: int) -> Iterator[list[torch.Tensor]]:
        for _ in range(seconds):
            held = []
            for loss in losses(30):
                held.append(loss)
                if len(held) > 24:
                    yield held

    watch = KeeperWatch()
    for held in gathers(2):
        assert held
        watch.look(sys._getframe())
    assert watch.found is not None and watch.found[0] == "held"
    assert watch.longest == {"held": 30}


def test_what_is_allocated_is_known_where_glibc_is() -> None:
    before = allocated_bytes()
    held = torch.zeros(1 << 20)
    assert before == 0 or allocated_bytes() - before >= held.nbytes
