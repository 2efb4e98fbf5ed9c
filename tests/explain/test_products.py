"""What a step multiplies is counted, and bounds what units for 16 bits are promised to gain."""

from __future__ import annotations

import dataclasses
import math
import subprocess
from pathlib import Path

import pytest
import torch
from torch import nn

from hasten.api import explain
from hasten.core.facts import ModelFacts
from hasten.core.trace import Trace
from hasten.explain.products import counter
from tests.rules.test_judgements import MODEL, found, trace

SCRIPT = """
import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
model = {model}
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(60):
    out = model(torch.randn(8, 4, 16))
    out = out[0] if isinstance(out, tuple) else out
    optimizer.zero_grad()
    out.square().mean().backward()
    optimizer.step()
"""


@pytest.mark.parametrize(
    ("model", "shape", "operations"),
    [
        (nn.Linear(100, 50), (32, 100), 2 * 2 * 32 * 100 * 50),  # the weights' gradient is as large a product
        (nn.Conv2d(3, 8, 3), (4, 3, 16, 16), 2 * 2 * 4 * 8 * 14 * 14 * 3 * 9),
    ],
    ids=["linear", "convolution"],
)
def test_products_are_counted_there_and_back(model: nn.Module, shape: tuple[int, ...], operations: int) -> None:
    with counter() as seen:
        model(torch.randn(shape)).sum().backward()
    assert seen.operations == operations and not seen.unknown


@pytest.mark.parametrize(("model", "known"), [("nn.Linear(16, 16)", True), ("nn.LSTM(16, 16)", False)])
def test_explain_tells_them_where_it_knows_all(model: str, known: bool, tmp_path: Path) -> None:
    path = tmp_path / "train.py"
    path.write_text(SCRIPT.replace("{model}", model), encoding="utf-8")
    told = explain(str(path), stdout=subprocess.DEVNULL).trace
    assert told is not None
    assert 0 < told.product_seconds < told.step_seconds if known else math.isnan(told.product_seconds)


def test_a_step_that_hardly_multiplies_is_promised_little() -> None:
    def promised(seconds: float) -> float:
        of: Trace = trace(0.1, backward=0.05)
        process = dataclasses.replace(of.process, bfloat16_units=True)
        model = ModelFacts("Net", elements=1000, dtypes=("float32",), place=MODEL, trained=True)
        (finding,) = found("M303", dataclasses.replace(of, process=process, models=(model,), product_seconds=seconds))
        return finding.predicted.high

    assert promised(math.nan) == promised(0.09) > 2.5
    assert promised(1e-4) < 1.01
