"""Where an independent sampler, py-spy, sees the main thread of a training script, in groups.

Samples are of wall time: a thread that waits for its loader's workers, or for a file, counts as well."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

RATE = 200  # samples a second
LOADER = "/torch/utils/data/"
MARKS = (  # group, files of torch, functions in them
    ("backward", re.compile("/torch/autograd/"), re.compile("(backward|grad|_engine_run_backward)$")),
    ("optimizer", re.compile("/torch/optim/(?!lr_scheduler)"), re.compile("(step|wrapper|zero_grad)$")),
    ("forward", re.compile("/torch/nn/(modules/|functional)"), re.compile("")),
)
EVALUATES = re.compile(r"(?:^|_)(?:test|eval|evaluate|evaluation|valid|validate|validation|vali|estimate_loss)(?:$|_)")
EVALUATION_LOOPS = "lightning/pytorch/loops/evaluation_loop"


def command(sampler: Path, out: Path, script: list[str]) -> list[str]:
    """``script`` under py-spy, which writes ``out``."""
    options = ["--rate", str(RATE), "--idle", "--format", "speedscope", "--output", str(out), "--nolineno"]
    return [str(sampler), "record", *options, "--", *script]


def shares(document: dict[str, Any]) -> dict[str, float]:
    """Shares of the groups in the main thread's time from the first optimizer step to the last.

    Args:
        document: a profile in speedscope's format; its samples are in order of time.
    """
    frames = document["shared"]["frames"]
    found: list[str] = []
    for profile in document["profiles"]:
        groups = [_group([frames[i] for i in stack]) for stack in profile["samples"]]
        if groups.count("optimizer") > found.count("optimizer"):
            found = groups
    steps = [number for number, group in enumerate(found) if group == "optimizer"]
    counts = Counter(found[steps[0] : steps[-1]]) if steps else Counter()
    return {group: count / counts.total() for group, count in counts.items()}


def _group(stack: list[dict[str, Any]]) -> str:
    """Of a stack, outermost frame first. Whatever an evaluation calls is the evaluation's, whatever a loader calls the
    loader's; else the innermost mark counts, for an optimizer may call the forward and backward pass."""
    frames = [(frame.get("file") or "", frame["name"].rpartition(".")[2]) for frame in stack]  # names may be qualified
    if any(
        EVALUATION_LOOPS in file or ("site-packages" not in file and EVALUATES.search(name)) for file, name in frames
    ):
        return "evaluation"
    if any(LOADER in file for file, _ in frames):
        return "fetch"
    if any(name == "<module>" and "/torch/" in file for file, name in frames):
        return "other"  # it is imported, and its decorators have names of what they decorate
    for file, name in reversed(frames):
        for group, files, names in MARKS:
            if files.search(file) and names.match(name):
                return group
    return "other"


def read(path: Path) -> dict[str, float]:
    """Shares from a file of py-spy's; none where it wrote none."""
    try:
        return shares(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}
