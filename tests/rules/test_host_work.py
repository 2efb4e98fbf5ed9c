"""What is said of metrics, tables and tensors that are made between the training's calls."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from hasten.core.facts import Place
from hasten.core.interval import Interval
from hasten.core.trace import Phase, Trace
from tests.rules.test_judgements import found, trace

SLOW = Path(__file__).parents[2] / "slow"
AUC = Place(str(SLOW / "s503_host_work.py"), 23, "", "auc = roc_auc_score(truth, scores)")
RARE = Place(
    str(SLOW / "fixed" / "s503_host_work.py"), 23, "", "auc = roc_auc_score(torch.cat(truth), torch.cat(scores))"
)
ROW = Place("train.py", 22, "", "df.iloc[i]")


def between(*lines: Phase) -> Trace:
    """A step of 100 ms, 40 of which are Python with these lines."""
    of = trace(0.1, python=0.04)
    phases = tuple(dataclasses.replace(p, children=lines) if p.name == "python" else p for p in of.phases)
    return dataclasses.replace(of, phases=phases)


def line(name: str, place: Place, seconds: float, give: float = 0.1) -> Phase:
    return Phase(name, Interval(seconds, (1 - give) * seconds, (1 + give) * seconds, "s", 0.95, 100), place)


def test_a_metric_of_every_step_and_a_table_are_told_with_their_lines() -> None:
    metric, table = found("S503", between(line("metric", AUC, 0.02), line("table", ROW, 0.01)))
    assert metric.place == AUC and "20 ms of a step of 100 ms" in metric.message and "once an epoch" in metric.advice
    assert 1.05 < metric.predicted.low < metric.predicted.high < 1.26
    assert table.place == ROW and table.predicted.high < 1.12


def test_a_line_that_makes_tensors_of_lists_is_told_where_it_does_nothing_else(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("import torch\nx, y = torch.tensor(a), torch.tensor(b)\nz = model(torch.tensor(a))\n")
    lines = [Place(str(script), n, "", text) for n, text in ((2, "x, y = …"), (3, "z = …"))]
    (finding,) = found("S503", between(*(line(at.text, at, 0.015) for at in lines)))
    assert finding.place == lines[0] and "torch.tensor takes 15 ms" in finding.message


def test_a_metric_once_an_epoch_is_what_is_advised() -> None:
    assert not found("S503", between(line("metric", RARE, 0.02)))


def test_a_line_of_the_training_is_no_work_of_the_host() -> None:
    """What is computed between the model's calls may be the loss."""
    assert not found("S503", between(line("loss = (a - b).pow(2).mean()", AUC, 0.03)))


def test_what_few_samples_saw_is_not_told() -> None:
    assert not found("S503", between(line("metric", AUC, 0.004, give=0.5)))
    assert not found("S503", between(line("metric", AUC, 0.002)))
