"""How many steps will there be? Read from the loops, without running anything of the user's."""

from __future__ import annotations

import ast
import sys
import textwrap
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hasten.seams import schedule

Predicts = Callable[..., tuple[int, str]]


@pytest.fixture
def predicts(tmp_path: Path) -> Predicts:
    """What is predicted at the first, or the ``at``-th, call of ``step()`` in a script."""

    def predict(script: str, at: int = 1, batches: float = 1.0, backwards: float = 1.0) -> tuple[int, str]:
        path = tmp_path / "train.py"
        path.write_text(textwrap.dedent(script), encoding="utf-8")
        told: list[tuple[int, str]] = []
        taken = 0

        class Enough(Exception):
            pass

        def step() -> None:
            nonlocal taken
            taken += 1
            if taken == at:
                told.append(schedule.predict(sys._getframe(1), taken, batches, backwards))
                raise Enough

        scope: dict[str, Any] = {"step": step, "__name__": "__main__"}
        with pytest.raises(Enough):
            exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), scope)
        return told[0]

    return predict


ACCUMULATES = """
    batches = list(range(10))
    for epoch in range(20):
        for i, batch in enumerate(batches):
            if (i + 1) % 4 == 0:
                step()
"""
IN_AN_INNER_LOOP = """
    def train():
        for i in range(20):
            for micro in range(4):
                pass
            step()
    if __name__ == "__main__":
        train()
"""


@pytest.mark.parametrize(
    ("script", "batches", "steps"),
    [(ACCUMULATES, 4.0, 50), (ACCUMULATES, 1.0, 200), (IN_AN_INNER_LOOP, 4.0, 20)],
)
def test_steps_that_accumulate_gradients(predicts: Predicts, script: str, batches: float, steps: int) -> None:
    """They take several rounds of the innermost loop where a condition holds in some of them only."""
    assert predicts(script, at=3, batches=batches)[0] == steps


WITHOUT_LOADER = """
    class Loss:
        def backward(self): pass
    loss, amp = Loss(), False
    for i in range(200):
        if amp:
            loss.backward()
        else:
            loss.backward()
        if (i + 1) % 4 == 0 or i == 199:
            if amp:
                step()
            else:
                step()
"""
SEVERAL_LOSSES = WITHOUT_LOADER.replace("        if (i", "        loss.backward()\n        if (i")
GENERATOR = WITHOUT_LOADER.replace(4 * "    " + "step()", 4 * "    " + "loss.backward(); step()")
IN_A_FUNCTION = """
    class Loss:
        def backward(self): pass
    def micro(i, loss):
        loss.backward()
        if i % 4 == 3:
            step()
    for i in range(200):
        micro(i, Loss())
"""
UNDER_THE_SAME = """
    class Loss:
        def backward(self): pass
    for i in range(200):
        if i >= 8:
            for task in range(4):
                Loss().backward()
            step()
"""
COUNTED = """
    class Loss:
        def backward(self): pass
    i = 0
    while i < 200:
        Loss().backward()
        if i % 4 == 3:
            step()
        i += 1
"""


@pytest.mark.parametrize(
    ("script", "backwards", "steps"),
    [
        (WITHOUT_LOADER, 4.0, 50),
        (WITHOUT_LOADER, 1.0, 200),
        (SEVERAL_LOSSES, 8.0, 50),
        (GENERATOR, 5.0, 50),
        (IN_A_FUNCTION, 4.0, 50),
        (UNDER_THE_SAME, 4.0, 200),
        (COUNTED, 4.0, 50),
        (IN_AN_INNER_LOOP, 4.0, 20),
    ],
)
def test_steps_that_accumulate_gradients_without_a_loader(
    predicts: Predicts, script: str, backwards: float, steps: int
) -> None:
    """A round of the loop calls backward so many times, outside of the condition that the step is under."""
    assert predicts(script, at=3, backwards=backwards)[0] == steps


NANOGPT = """
    iter_num, max_iters = {begin}, 2000
    while True:
        for micro_step in range(4):
            pass
        step()
        iter_num += 1
        if iter_num > max_iters:
            break
"""
MAKEMORE = """
    from argparse import Namespace
    args, n = Namespace(max_steps={most}), 0
    while True:
        step()
        n += 1
        if args.max_steps >= 0 and n >= args.max_steps:
            break
"""
MINGPT = """
    class Config: pass
    class Trainer:
        def __init__(self, most):
            self.config, self.iter_num = Config(), 0
            self.config.max_iters = most
        def run(self):
            config = self.config
            while True:
                step()
                self.iter_num += 1
                if config.max_iters is not None and self.iter_num >= config.max_iters:
                    break
    Trainer({most}).run()
"""


@pytest.mark.parametrize("at", [1, 7])
@pytest.mark.parametrize(
    ("script", "steps"),
    [
        (NANOGPT.format(begin=0), 2001),
        (MAKEMORE.format(most=300), 300),
        (MINGPT.format(most=50), 50),
        ("i = 0\nwhile i < 40:\n    step()\n    i = i + 2\n", 20),
        ("import sys\ni = 0\nwhile True:\n    step()\n    i += 1\n    if i == 30:\n        sys.exit(7)\n", 30),
        ("i = 0\nwhile True:\n    step()\n    i += 1\n    if i >= 30:\n        raise SystemExit\n", 30),
        ("i = 0\nwhile 40 >= i:\n    step()\n    i += 1\n", 41),
        ("i, bad = 0, 0\nwhile i != 12 and bad < 3:\n    step()\n    i += 1\n", 12),
        ("for epoch in range(3):\n  for i in range(100):\n    if i == 9:\n      break\n    step()\n", 27),
        ("import itertools\nfor i in itertools.count():\n    if i >= 30:\n        break\n    step()\n", 30),
        ("def train():\n  n = 0\n  while True:\n    step()\n    n += 1\n    if n == 25:\n      return\ntrain()\n", 25),
        ("tokens, batch, most = 0, 64, 6400\nwhile tokens < most:\n    step()\n    tokens += batch\n", 100),
        ("epochs = 5\nfor epoch in range(1, epochs + 1):\n    for x in [1, 2, 3]:\n        step()\n", 15),
    ],
)
def test_the_length_of_a_job(predicts: Predicts, script: str, steps: int, at: int) -> None:
    assert predicts(script, at)[0] == pytest.approx(steps, abs=1)  # the counter may stand before or behind the step


def test_a_resumed_job_is_as_long_as_what_is_left(predicts: Predicts) -> None:
    assert predicts(NANOGPT.format(begin=1500), 10)[0] == pytest.approx(500, abs=12)


@pytest.mark.parametrize(
    "script",
    [
        MAKEMORE.format(most=-1),
        MINGPT.format(most=None),
        "while True:\n    step()\n",
        "i = 0\nwhile True:\n    step()\n    i += 1\n    if i % 100 == 0:\n        break\n",
        "i = 100\nwhile i > 0:\n    step()\n    i -= 1\n",
        "i, patience = 0, 0\nwhile i < 9 or patience < 3:\n    step()\n    i += 1\n",
        "i = 0\nwhile True:\n    step()\n    if i > 5:\n        break\n    if False:\n        i += 1\n",
        "i = 0\nwhile True:\n    step()\n    i += 1\n    for j in range(3):\n        if i > 5:\n            break\n",
        "i, done = 0, False\nwhile True:\n    step()\n    i += 1\n    if done and i > 5:\n        break\n",
        "i, most = 0, float('inf')\nwhile i < most:\n    step()\n    i += 1\n",
    ],
)
def test_what_has_no_limit_that_can_be_read_is_unknown(predicts: Predicts, script: str) -> None:
    steps, why = predicts(script)
    assert steps == -1
    assert "train.py" in why


def test_nothing_of_the_users_runs(predicts: Predicts) -> None:
    script = """
        class Loud:
            def __lt__(self, other): raise SystemExit("compared")
            def __gt__(self, other): raise SystemExit("compared")
            def __add__(self, other): raise SystemExit("added")
            def __bool__(self): raise SystemExit("asked")
            def __getattr__(self, name): raise SystemExit("looked up")
        limit, extra, n = Loud(), Loud(), 0
        while True:
            step()
            n += 1
            if n > limit + 1 or extra or limit.most < n or n > limit:
                break
    """
    assert predicts(script)[0] == -1


FILLS_A_BUFFER = """
    for step_number in range(1000):
        if step_number > 100 and step_number % 4 == 0:
            step()
"""
SKIPS_THE_FIRST = """
    batches = [[0]] * 50
    for epoch in range(4):
        for i, batch in enumerate(batches):
            if epoch == 0 and i < 30:
                continue
            step()
"""
EVERY_ROUND = """
    for epoch in range(4):
        for i in range(50):
            step()
"""
NOT_COUNTED = """
    xs = [1] * 50
    for epoch in range(4):
        for x in xs:
            step()
"""


@pytest.mark.parametrize(
    ("script", "steps"), [(FILLS_A_BUFFER, 225), (SKIPS_THE_FIRST, 170), (EVERY_ROUND, 200), (NOT_COUNTED, 200)]
)
def test_rounds_without_a_step_are_no_steps(script: str, steps: int, tmp_path: Path) -> None:
    path = tmp_path / "train.py"
    path.write_text(textwrap.dedent(script), encoding="utf-8")
    watch = types.SimpleNamespace(steps=0, batches=1.0, backwards=0, optimizers={}, clock_key=0, first_round=(0, 0))
    told = []

    def step() -> None:
        watch.steps += 1
        watch.backwards += 1
        if watch.steps == 1:
            watch.first_round = schedule.rounds(sys._getframe())[0], 1
        if watch.steps in (20, 60):
            told.append(schedule.expected(watch)[0])

    scope = {"step": step, "__name__": "__main__"}
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), scope)
    assert watch.steps == pytest.approx(steps, abs=1)
    assert told == pytest.approx([steps] * 2, abs=1)


def test_only_what_holds_the_line_is_gone_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "long.py"
    other = "def f{0}(x):\n    for i in range({0}):\n        x = [x + j for j in range(i)]\n    return x\n"
    path.write_text("".join(map(other.format, range(500))) + "for i in range(7):\n    if i:\n        step(i)\n")
    gone_into = []
    children = ast.iter_child_nodes
    monkeypatch.setattr(ast, "iter_child_nodes", lambda node: gone_into.append(node) or children(node))
    (loop,) = schedule._loops(str(path), 2003)
    assert loop.lineno == 2001 and len(gone_into) < 20
