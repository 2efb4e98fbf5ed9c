"""The user's source is read as a person reads it: which loop is this line in, and what does the loop do?"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from hasten.seams import source

SCRIPT = """\
import torch

def pair_loss(a, b):
    total = 0
    for i in range(len(a)):
        total = total + (a[i] - b[i]).abs()
    return total

class Net(torch.nn.Module):
    def forward(self, x):
        for layer in self.layers:
            x = torch.relu(layer(x))
        for i in range(3):
            x = self.norms[i](x)
        return torch.stack([row.sum() for row in x])

def train():
    for epoch in range(3):
        while True:
            for x, y in loader:
                loss = pair_loss(net(x), y)
                loss.backward()
                optimizer.step()
            def inner():
                return 1
            break
"""


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / "train.py"
    path.write_text(SCRIPT, encoding="utf-8")
    return str(path)


def line_of(text: str) -> int:
    return next(i for i, line in enumerate(SCRIPT.splitlines(), 1) if text in line)


@pytest.mark.parametrize(
    ("text", "headers"),
    [
        ("total = total", ["for i in range(len(a)):"]),
        ("for i in range(len(a))", ["for i in range(len(a)):"]),
        ("torch.relu", ["for layer in self.layers:"]),
        ("torch.stack", ["row.sum() for row"]),
        ("loss.backward", ["for x, y in loader:", "while True:", "for epoch in range(3):"]),
        ("return total", []),
        ("return 1", []),
        ("import torch", []),
    ],
)
def test_loops_are_listed_innermost_first_within_their_function(script: str, text: str, headers: list[str]) -> None:
    found = source.loops_around(script, line_of(text))
    assert [loop.lineno for loop in found] == [line_of(h) for h in headers]


@pytest.mark.parametrize(
    ("header", "alike"),
    [
        ("for i in range(len(a)):", True),
        ("for layer in self.layers:", False),
        ("for i in range(3):", False),
        ("row.sum() for row", True),
        ("while True:", True),
    ],
)
def test_loops_over_different_modules_are_not_alike(script: str, header: str, alike: bool) -> None:
    loop = source.loop_at(script, line_of(header))
    assert loop is not None
    assert source.iterations_are_alike(loop) is alike


def test_the_training_loop_differentiates(script: str) -> None:
    training, pairs = (source.loop_at(script, line_of(h)) for h in ("for x, y in loader", "for i in range(len(a))"))
    assert training is not None and pairs is not None
    assert source.differentiates(training)
    assert not source.differentiates(pairs)
    assert ast.unparse(source.iterated(pairs)) == source.source_of(script, source.iterated(pairs)) == "range(len(a))"


ROUNDS = """\
def draw(step):
    plt.pause(0.05)  # often

def report():
    if verbose:
        plt.pause(0.1)  # if verbose

for step in range(100):
    loss = loss_of(step)
    loss.backward()
    for i in range(3):
        plt.plot(x, y)  # in a loop
    draw(step)
    if step % 10 == 0:
        plt.cla()  # under an if
        report()

for epoch in range(3):
    plt.hist(x)  # once an epoch
    for x in loader:
        loss_of(x).backward()
        plt.cla()  # once a batch

def all_in_one():
    trainer.fit(model)  # not in a loop
"""


@pytest.mark.parametrize(
    ("text", "every"),
    [
        ("loss_of(", True),
        ("# often", True),
        ("# in a loop", True),
        ("# under an if", False),
        ("# once an epoch", False),
        ("# once a batch", True),
        ("# if verbose", False),
        ("# not in a loop", False),
    ],
)
def test_what_runs_in_every_round_stands_under_no_condition(tmp_path: Path, text: str, every: bool) -> None:
    path = tmp_path / "plots.py"
    path.write_text(ROUNDS, encoding="utf-8")
    line = next(i for i, x in enumerate(ROUNDS.splitlines(), 1) if text in x)
    assert source.in_every_round(str(path), line) == every


def test_what_a_round_may_skip_does_not_run_in_every_one(tmp_path: Path) -> None:
    path = tmp_path / "skips.py"
    text = "for x in y:\n    if x < 0:\n        continue\n    loss.backward()\n    plt.cla()\n"
    path.write_text(text, encoding="utf-8")
    assert not source.in_every_round(str(path), 5)


@pytest.mark.parametrize(
    ("text", "function"),
    [("total = total", "pair_loss"), ("torch.relu", "forward"), ("import", ""), ("return 1", "inner")],
)
def test_the_function_around_a_line(script: str, text: str, function: str) -> None:
    assert source.function_around(script, line_of(text)) == function


def test_callers_are_calls_inside_loops(script: str) -> None:
    assert [p.line for p in source.callers(script, "pair_loss")] == [line_of("pair_loss(net(x), y)")]
    assert source.callers(script, "train") == []


def test_a_place_points_at_its_node(script: str) -> None:
    place = source.calls(script, lambda call: getattr(call.func, "attr", "") == "backward")[0]
    assert place.text[place.column - 1 : place.end_column - 1] == "loss.backward()"
    header = source.loop_at(script, line_of("for x, y in loader"))
    assert header is not None
    place = source.place_in(script, header)
    assert place.text[place.column - 1 : place.end_column - 1] == "for x, y in loader:"


def test_what_cannot_be_read_holds_nothing(tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("for x in", encoding="utf-8")
    for file in (str(broken), str(tmp_path / "missing.py")):
        assert source.loops_around(file, 1) == []
        assert source.calls(file, lambda call: True) == []
        assert source.function_around(file, 1) == ""


@pytest.mark.parametrize(
    "text",
    ["writer.add_histogram('w', p, step)", "np.histogram(p)", "f.write(json.dumps(row))", "wandb.log({})", "print (1)"],
)
def test_logging_is_told_from_its_text(text: str) -> None:
    assert source.logs(text)


@pytest.mark.parametrize(
    "text", ["loss = -p.log().mean()", "torch.log(x)", "logits = model(x)", "blueprint(x)", "y = x  # print(y)"]
)
def test_logarithms_are_no_logs(text: str) -> None:
    assert not source.logs(text)


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ("total = total + f(x)", ""),
        ("total += f(x)", ""),
        ("y = f(x)\n    out.append(y)", ""),
        ("out[x] = f(x)", ""),
        ("if x > 0:\n        y = 1\n    else:\n        y = 2\n    out.append(y)", ""),
        ("h = torch.tanh(f(x) + h @ w)", "h"),
        ("g = grad(f(p, x))\n    p = {n: q - lr * d for (n, q), d in zip(p.items(), g)}", "p"),
        ("a, b = f(a, x)", "a"),
        ("if x > 0:\n        h = f(h)", "h"),
    ],
)
def test_what_an_iteration_takes_over_from_the_one_before(tmp_path: Path, body: str, name: str) -> None:
    script = tmp_path / "carried.py"
    script.write_text(f"for x in xs:\n    {body}\n", encoding="utf-8")
    loop = source.loop_at(str(script), 1)
    assert loop is not None and source.carried(loop) == name
