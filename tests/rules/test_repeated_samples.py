"""D103 tells what a cache would take in a unit that fits."""

from __future__ import annotations

import dataclasses

import pytest

from hasten.core.trace import LoaderFacts, Probe
from hasten.rules.d103_repeated_samples import detect
from tests import samples


@pytest.mark.parametrize(("each", "shown"), [(62, "62 kB"), (29_000, "29 MB"), (1, "1 kB"), (960, "1 MB")])
def test_the_size_of_all_samples_is_never_nought(each: int, shown: str) -> None:
    probe = Probe(deterministic=True, random_free=True, sample_bytes=each, seconds=1e-3)
    loader = LoaderFacts("training", "Photos", samples.LOOP_LINE, 1000, 64, probe=probe)
    found = list(detect(dataclasses.replace(samples.trace(), loaders=(loader,))))
    assert f"all samples take {shown};" in found[0].notes[1]
