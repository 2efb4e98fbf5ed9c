"""What is read from the process: subnormal numbers count by what they are a part of."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from hasten.seams import backward, loader
from hasten.seams.facts import _denormals, _model_settings, loader_facts, process_facts
from hasten.seams.known import OptimizerRecord
from hasten.seams.patch import Patches
from hasten.seams.watch import Watch


def test_subnormal_numbers_of_a_small_tensor_are_a_small_share() -> None:
    weight, bias = torch.nn.Parameter(torch.ones(100, 99)), torch.nn.Parameter(torch.ones(100))
    optimizer = torch.optim.SGD([weight, bias], lr=1.0)
    watch = Watch()
    watch.optimizers[id(optimizer)] = OptimizerRecord(weakref.ref(optimizer))
    assert _denormals(watch) == (0.0, "")
    with torch.no_grad():
        bias[:50] = 1e-40
    assert _denormals(watch) == (50 / 10_000, "weight")
    optimizer.state[bias]["momentum_buffer"] = torch.full((100,), 1e-40)
    assert _denormals(watch) == (1.0, "momentum_buffer")


@pytest.mark.parametrize("way", ["backward", "autograd.backward", "grad", "grad, by position", "once"])
def test_gradients_that_are_differentiated_again_are_noted(way: str) -> None:
    watch, patches = Watch(), Patches()
    backward.install(watch, patches)
    x = torch.ones(3, requires_grad=True)
    y = (x**3).sum()
    try:
        if way == "backward":
            y.backward(None, None, True)
        elif way == "autograd.backward":
            torch.autograd.backward(y, create_graph=True)
        elif way == "grad":
            torch.autograd.grad(y, x, create_graph=True)
        elif way == "grad, by position":
            torch.autograd.grad(y, x, None, None, True)
        else:
            y.backward(retain_graph=True)
    finally:
        patches.undo()
    assert process_facts(watch).differentiated_twice == (way != "once")


class Stream(torch.utils.data.IterableDataset[torch.Tensor]):
    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter(torch.arange(6.0))


def test_a_loader_that_is_gone_once_its_loop_has_begun_was_looked_at() -> None:
    watch, patches = Watch(), Patches()
    loader.install(watch, patches)
    try:
        for _ in DataLoader(Stream(), batch_size=2):
            (record,) = watch.loaders.values()
            assert record.loader() is not None  # within its pass: what is asked of a loader can be asked of it
            break
    finally:
        patches.undo()
    facts = loader_facts(record)
    assert record.loader() is None
    assert (facts.dataset, facts.batch_size, facts.map_style) == ("Stream", 2, False)


def test_ending_workers_counts_as_starting_them() -> None:
    """A third of it, where every batch begins a pass: no line of the script's, nor time of its batches."""
    watch, patches = Watch(), Patches()
    loader.install(watch, patches)
    rows = DataLoader(Stream(), batch_size=2, num_workers=1)
    try:
        iterator = iter(rows)
        next(iterator)
        (record,) = watch.loaders.values()
        begun, spent = record.start_seconds, watch.clock.spent[loader.START]
        del iterator
        ended = record.start_seconds - begun
        assert ended > 0 and watch.clock.spent[loader.START] - spent == pytest.approx(1e9 * ended)
    finally:
        patches.undo()


def test_a_loaders_place_is_where_batches_are_asked_for() -> None:
    """Lightning makes the first iterator where a user asks for the number of steps, say."""
    watch, patches = Watch(), Patches()
    loader.install(watch, patches)

    def begun(rows: Any) -> Any:
        return iter(rows)

    try:
        rows = DataLoader(Stream(), batch_size=2)
        for _ in begun(rows):
            pass
        list(rows)
    finally:
        patches.undo()
    (record,) = watch.loaders.values()
    place = loader_facts(record).place
    assert place is not None and place.text.strip() == "for _ in begun(rows):"


def test_a_convolution_over_one_channel_lies_either_way() -> None:
    """And tells nothing of the others."""
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Conv2d(4, 4, 3), torch.nn.Conv2d(4, 4, 1))
    assert not _model_settings(net).channels_last
    assert _model_settings(net.to(memory_format=torch.channels_last)).channels_last


def test_torchscript_does_not_start_its_operations_from_python() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(2, 2))
    assert not _model_settings(net).compiled
    assert _model_settings(torch.jit.trace(net, torch.zeros(1, 2))).compiled


def test_a_precision_that_is_set_in_the_newer_way_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch then refuses to tell it in the older way."""

    def refuses() -> str:
        raise RuntimeError("mix of the legacy and new APIs")

    assert process_facts(Watch()).float32_matmul == "highest"
    monkeypatch.setattr(torch, "get_float32_matmul_precision", refuses)
    assert process_facts(Watch()).float32_matmul == "high"
