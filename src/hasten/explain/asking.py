"""A probe of a dataset that also tells which lines open the same file for one sample after another."""

from __future__ import annotations

import dataclasses
from typing import Any

from hasten.core.facts import Probe
from hasten.data.probe import probe
from hasten.seams.ask import Examine
from hasten.seams.opens import Opens
from hasten.seams.watch import Watch


def examined(watch: Watch) -> Examine:
    """:func:`hasten.data.probe.probe`, and the lines of :attr:`Probe.reopened`; for a child."""

    def examine(dataset: Any, loader: Any) -> Probe:
        opens = Opens(watch, anywhere=True)
        opens.start()
        try:
            found = probe(dataset, loader)
        finally:
            opens.stop()
        return dataclasses.replace(found, reopened=opens.of(found.shared_files))

    return examine
