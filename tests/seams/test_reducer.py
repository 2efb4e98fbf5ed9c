"""What a backward pass waits for other processes is its own part of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from hasten.core.interval import Interval
from hasten.measure.clock import INDEX
from hasten.seams.collect import _waiting
from hasten.seams.reducer import LEAST, Reducer
from hasten.seams.steps import WIDTH
from hasten.seams.watch import Watch

MS = 1_000_000


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def told(computed: int, reduced: int) -> dict[str, int]:
    return {"backward_compute_time_end": computed, "backward_comm_time_end": reduced}


def backward(watch: Watch, nanoseconds: int) -> None:
    spent = [0] * (WIDTH - 1)
    spent[INDEX["backward"]] = nanoseconds
    watch.add(2 * nanoseconds, spent)


def test_the_share_is_of_the_backward_passes_that_were_looked_at(group: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every second one reduces (gradients are accumulated); what a step repeats of the one before is not new."""
    watch, model = Watch(), DistributedDataParallel(nn.Linear(4, 4))
    watch.module_called(model, True)
    reducer = Reducer(watch)
    reducer.start()
    for step in range(2, 2 * LEAST + 2):
        end = 100 * MS * (step // 2)
        monkeypatch.setattr(model, "_get_ddp_logging_data", lambda end=end: told(end, end + 4 * MS))
        backward(watch, 10 * MS)
        reducer.read()
    reducer.stop()
    assert reducer.share is not None and reducer.share.value == pytest.approx(0.2)
    part = _waiting(Interval.exact(0.02), reducer.share)
    assert part.seconds.value == pytest.approx(0.004) and part.seconds.low < 0.004 < part.seconds.high


def test_torch_tells_when_reducing_ends(group: None) -> None:
    watch, model = Watch(), DistributedDataParallel(nn.Linear(4, 4))
    watch.module_called(model, True)
    reducer = Reducer(watch)
    for step in range(2 * LEAST + 12):
        if step == 11:  # torch times its first ten steps, and then every hundredth
            reducer.start()
        model(torch.ones(2, 4)).sum().backward()
        backward(watch, 1000 * MS)
        reducer.read()
    assert len(reducer.seconds) > LEAST and all(0 < s < 1 for s in reducer.seconds[2:])
    reducer.stop()
    count = len(reducer.seconds)
    reducer.read()
    assert len(reducer.seconds) == count


def test_a_model_of_one_process_is_left_alone() -> None:
    watch = Watch()
    watch.module_called(nn.Linear(4, 4), True)
    reducer = Reducer(watch)
    reducer.start()
    reducer.read()
    assert reducer.share is None
