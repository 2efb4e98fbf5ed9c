"""Samples are put into groups by what lies on the stack, from the first optimizer step to the last."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench import sampler

TORCH = "/env/site-packages/torch/"
FRAMES = {
    "main": ("<module>", "/home/me/train.py"),
    "item": ("__getitem__", "/home/me/data.py"),
    "test": ("test", "/home/me/train.py"),
    "loader": ("__next__", TORCH + "utils/data/dataloader.py"),
    "call": ("_call_impl", TORCH + "nn/modules/module.py"),
    "backward": ("backward", TORCH + "autograd/__init__.py"),
    "guard": ("__enter__", TORCH + "autograd/grad_mode.py"),
    "step": ("Adam.step", TORCH + "optim/adam.py"),
    "schedule": ("step", TORCH + "optim/lr_scheduler.py"),
    "optim": ("<module>", TORCH + "optim/adam.py"),
    "made": ("add_param_group", TORCH + "optim/optimizer.py"),
    "hook": (
        "Optimizer.profile_hook_step.<locals>.wrapper",
        TORCH + "optim/optimizer.py",
    ),  # around the step of anybody's optimizer
    "own": ("step", "/home/me/lion.py"),
    "zero": ("zero_grad", TORCH + "optim/optimizer.py"),
    "import": ("_find_and_load", "<frozen importlib._bootstrap>"),
}


def document(*threads: list[list[str]]) -> dict[str, Any]:
    names = list(FRAMES)
    return {
        "shared": {"frames": [{"name": name, "file": file} for name, file in FRAMES.values()]},
        "profiles": [{"samples": [[names.index(f) for f in stack] for stack in thread]} for thread in threads],
    }


@pytest.mark.parametrize(
    ("stack", "group"),
    [
        (["main", "loader", "item"], "fetch"),
        (["main", "loader", "item", "call"], "fetch"),
        (["main", "call"], "forward"),
        (["main", "backward"], "backward"),
        (["main", "guard"], "other"),
        (["main", "step", "backward"], "backward"),
        (["main", "step", "call"], "forward"),
        (["main", "schedule"], "other"),
        (["main", "made"], "other"),
        (["main", "test", "call"], "evaluation"),
        (["main", "test", "loader", "item"], "evaluation"),
        (["main"], "other"),
    ],
)
def test_groups(stack: list[str], group: str) -> None:
    step = ["main", "step"]
    found = sampler.shares(document([step, stack, stack, stack, step]))
    assert found == {"optimizer": 0.25, group: 0.75}


def test_start_up_end_and_other_threads_do_not_count() -> None:
    step = ["main", "step"]
    main = [
        ["import", "optim"],
        ["import", "optim", "hook"],
        ["main", "made"],
        ["main", "call"],
        step,
        ["main", "call"],
        step,
        ["main", "test"],
    ]
    assert sampler.shares(document([["main"]], main)) == {"optimizer": 0.5, "forward": 0.5}


def test_no_steps() -> None:
    assert sampler.shares(document([["import"]])) == {}


@pytest.mark.parametrize("stack", [["main", "hook", "own"], ["main", "zero"]])
def test_the_optimizer_is_stepping_and_zeroing(stack: list[str]) -> None:
    step = ["main", "step"]
    assert sampler.shares(document([step, stack, ["main"], ["main"], step])) == {"optimizer": 0.5, "other": 0.5}


def test_waiting_counts() -> None:
    assert "--idle" in sampler.command(Path("py-spy"), Path("out.json"), ["python", "train.py"])
