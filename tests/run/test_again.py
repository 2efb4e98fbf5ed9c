"""The second look at a script, with remedies on."""

from __future__ import annotations

import json
from pathlib import Path

from hasten.core.codec import encode
from hasten.core.facts import LoaderFacts, Place, Process, Usage
from hasten.core.interval import Interval
from hasten.core.trace import PHASES, Phase, Trace
from hasten.rules import m306_threads
from hasten.run.again import seen_again

PLACE = Place("train.py", 12, "main", "loss = model(x).mean()", 0, 4)


def test_parts_of_a_phase_that_a_remedy_has_shortened_do_not_outlast_it(tmp_path: Path) -> None:
    """Transforms took 27 ms of a step of 110 ms; with the samples kept a step takes 11 ms, of which they cannot."""
    parts = (Phase("transform", Interval.exact(0.027), PLACE, children=(Phase("read", Interval.exact(0.010), PLACE),)),)
    fetch = Phase("fetch", Interval.exact(0.094), PLACE, 1.0, parts)
    seen = Trace(
        "train.py",
        steps=50,
        step=Interval.exact(0.110),
        phases=(fetch, Phase("forward", Interval.exact(0.016), PLACE, 1.0)),
        loaders=(LoaderFacts("training", "Photos", PLACE, 600, 32, default_collate=True),),
        process=Process(threads=2, cores=2),
        usage=Usage(cpu_seconds=0.12, wall_seconds=0.11, other_load=0.0),
    )
    now = {"fetch": 0.001, "forward": 0.010}
    path = tmp_path / "again.json"
    path.write_text(
        json.dumps(
            {"medians": [0.011, 0.001, 90.0, *(now.get(p, 0.0) for p in PHASES)], "loaders": [encode(seen.loaders[0])]}
        )
    )
    again = seen_again(seen, str(path), fetched=True)
    assert again is not None and again.step_seconds == 0.011 and again.usage.minor_faults == 90.0
    (shorter,) = again.phases[0].children
    assert abs(shorter.seconds.value - 0.001 * 27 / 94) < 1e-12
    assert abs(shorter.children[0].seconds.value - 0.001 * 10 / 94) < 1e-12
    (found,) = m306_threads.detect(again)
    assert found.predicted.high <= m306_threads.FACTOR[1]
