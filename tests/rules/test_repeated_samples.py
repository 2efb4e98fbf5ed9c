"""D103 tells what a cache would take in a unit that fits."""

from __future__ import annotations

import dataclasses
import subprocess
import textwrap
from pathlib import Path

import pytest

import hasten
from hasten.core.facts import LoaderFacts, Probe
from hasten.rules.d103_repeated_samples import detect
from tests import samples


@pytest.mark.parametrize(("each", "shown"), [(62, "62 kB"), (29_000, "29 MB"), (1, "1 kB"), (960, "1 MB")])
def test_the_size_of_all_samples_is_never_nought(each: int, shown: str) -> None:
    probe = Probe(deterministic=True, random_free=True, sample_bytes=each, seconds=1e-3)
    loader = LoaderFacts("training", "Photos", samples.LOOP_LINE, 1000, 64, probe=probe)
    found = list(detect(dataclasses.replace(samples.trace(), loaders=(loader,))))
    assert f"all samples take {shown};" in found[0].notes[1]


def test_looking_for_changes_before_each_batch_is_no_gain() -> None:
    """Batches of 128 rows of an array take 2 ms, and half of that to look whether the dataset is as it was."""
    of = samples.trace()
    fetch = of.phase("fetch")
    probe = Probe(deterministic=True, random_free=True, sample_bytes=80, seconds=1e-5)
    loader = LoaderFacts("training", "Rows", samples.LOOP_LINE, 1000, 64, probe=probe)
    (before,) = detect(dataclasses.replace(of, loaders=(loader,)))
    half = dataclasses.replace(loader, probe=dataclasses.replace(probe, check_seconds=fetch / of.batches / 2))
    (now,) = detect(dataclasses.replace(of, loaders=(half,)))
    assert 1.0 < now.predicted.low < before.predicted.low and now.predicted.high < before.predicted.high
    more = dataclasses.replace(loader, probe=dataclasses.replace(probe, check_seconds=fetch / of.batches))
    assert not list(detect(dataclasses.replace(of, loaders=(more,))))


ANEW = """
    import time
    import torch
    from torch.utils.data import DataLoader, Dataset

    torch.set_num_threads(1)

    class Slow(Dataset):
        def __len__(self):
            return 14

        def __getitem__(self, i):
            time.sleep(0.004)
            return torch.full((4,), float(i)), torch.tensor([0.5])

    model, data = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 1)), Slow()
    sgd = torch.optim.SGD(model.parameters(), lr=0.01)
    for epoch in range(45):
        for x, y in DataLoader(data, batch_size=2, shuffle=True):
            loss = torch.nn.functional.mse_loss(model(x), y)
            sgd.zero_grad()
            loss.backward()
            sgd.step()
    """


def test_a_loader_made_anew_for_every_pass_is_asked_too(tmp_path: Path) -> None:
    """``for x in DataLoader(…)`` holds its iterator only; such a pass ends before enough steps were seen of it."""
    path = tmp_path / "train.py"
    path.write_text(textwrap.dedent(ANEW), encoding="utf-8")
    report = hasten.explain(path, stdout=subprocess.DEVNULL)
    (found,) = [f for f in report.findings if f.code == "D103"]
    assert found.remedies and found.predicted.high > 2
