"""hasten's hooks around an optimizer's step, beside hooks of the script's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.optim import optimizer as torchs

from hasten.measure.clock import PYTHON
from hasten.seams import optimizer
from hasten.seams.patch import Patches
from hasten.seams.watch import OPTIMIZER, Watch


@pytest.fixture
def watch() -> Iterator[Watch]:
    watch, patches = Watch(), Patches()
    pre, post = dict(torchs._global_optimizer_pre_hooks), dict(torchs._global_optimizer_post_hooks)
    optimizer.install(watch, patches)
    yield watch
    patches.undo()
    optimizer._around = None
    for hooks, before in ((torchs._global_optimizer_pre_hooks, pre), (torchs._global_optimizer_post_hooks, post)):
        hooks.clear()
        hooks.update(before)


def made() -> Any:
    weight = torch.nn.Parameter(torch.zeros(2))
    weight.grad = torch.ones(2)
    return torch.optim.SGD([weight], lr=1.0)


def test_hooks_that_come_and_go_inside_a_step(watch: Watch) -> None:
    """As when a plan is applied, and the watch becomes light, at the end of a step."""
    called: list[str] = []
    undos: list[Any] = []

    def between(_now: int) -> None:
        watch.next_call = watch.steps + 1
        if watch.steps == 1:
            undos.append(optimizer.around_steps(lambda *_: called.append("in"), lambda *_: called.append("out")))
        if watch.steps == 2:
            watch.lighten()
        if watch.steps == 4:
            undos.pop()()

    watch.at_step, watch.next_call = between, 1
    torchs.register_optimizer_step_pre_hook(lambda *_: called.append("script in"))
    torchs.register_optimizer_step_post_hook(lambda *_: called.append("script out"))
    stepped = made()
    for _ in range(6):
        stepped.step()
        watch.catch_up()
    assert watch.steps == 6
    within = ["in", "script in", "out", "script out"]
    plain = ["script in", "script out"]
    assert called == plain + 3 * within + 2 * plain


def test_a_light_watch_counts_on_when_optimizers_come_and_go(watch: Watch) -> None:
    first, other = made(), made()
    first.step(), other.step()
    watch.lighten()
    for _ in range(5):
        first.step(), other.step()
    undo = optimizer.around_steps(lambda *_: None, lambda *_: None)
    for _ in range(30):
        first.step(), other.step(), other.step()
    undo()
    del first
    new = made()
    for _ in range(7):
        new.step(), other.step()
    watch.catch_up()
    assert 1 + 5 + 30 + 6 <= watch.steps <= 1 + 5 + 30 + 8
    assert len(watch.records()) == watch.steps and all(r[0] >= 0 for r in watch.records())


def test_a_light_watch_counts_models_that_are_kept_one_after_the_other(watch: Watch) -> None:
    kept = [made() for _ in range(4)]
    for _ in range(5):
        kept[0].step()
    watch.lighten()
    for each in kept:
        for _ in range(30):
            each.step()
    watch.catch_up()
    assert watch.steps == 5 + 30 + 3 * 29


def test_a_light_watch_sees_optimizers_that_take_turns(watch: Watch) -> None:
    a, b, c = made(), made(), made()
    a.step(), b.step(), c.step()
    watch.lighten()
    for _ in range(40):
        a.step(), b.step(), c.step()
    watch.catch_up()
    assert watch.steps == 41


def test_a_failure_in_a_light_watch_is_the_end_of_hasten_not_of_the_script(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    stepped = made()
    stepped.step()
    watch.lighten()
    monkeypatch.setattr(Watch, "add", lambda *_: 1 / 0)
    for _ in range(5):
        stepped.step()
        watch.catch_up()
    assert watch.broken
    assert float(stepped.param_groups[0]["params"][0].detach().sum()) == -12.0  # six steps of two weights


@pytest.mark.filterwarnings("error:Dynamo does not know")
def test_a_compiled_step_is_watched_and_does_not_compile_the_watch(watch: Watch) -> None:
    stepped, called = made(), []
    watch.compiled_by_script = True
    assert watch.at_compile is not None
    watch.at_compile()
    watch.at_step = lambda _: called.append(torch.compiler.is_compiling() or str(torch.empty(2).numpy().dtype))
    watch.next_call = 1

    @torch.compile(backend="eager")
    def step() -> None:
        stepped.step()

    for _ in range(3):
        step()
    assert watch.steps == 3 and called == ["float32"] * 3
    watch.lighten()
    step()
    watch.catch_up()
    assert watch.steps == 4


def test_a_step_that_raises_is_over_when_the_script_goes_on(watch: Watch) -> None:
    """Its time is no longer the optimizer's; a closure's calls are still its own."""
    stepped = made()
    inside: list[list[int]] = []

    def closure(raises: bool) -> float:
        stepped.zero_grad()
        inside.append([*watch.clock.stack, watch.clock.current])
        if raises:
            raise ValueError("no step")
        return 0.0

    stepped.step(lambda: closure(False))
    with pytest.raises(ValueError, match="no step"):
        stepped.step(lambda: closure(True))
    assert inside == [[PYTHON, OPTIMIZER, PYTHON]] * 2 and watch.clock.current == OPTIMIZER
    stepped.zero_grad()
    assert watch.clock.current == PYTHON and not watch.clock.stack
    stepped.step(lambda: closure(False))
    assert watch.clock.current == PYTHON and watch.steps == 2


def test_groups_are_changed_during_steps_only() -> None:
    a, b = (torch.optim.Adam([torch.nn.Parameter(torch.ones(2))], foreach=False) for _ in range(2))
    seen = []
    undo = optimizer.in_groups_while_stepping(a, foreach=True, fused=None)
    try:
        for stepping in (a, b):
            stepping.register_step_pre_hook(lambda o, *_: seen.append(o.param_groups[0]["foreach"]))
            stepping.param_groups[0]["params"][0].grad = torch.ones(2)
            stepping.step()
            assert stepping.param_groups[0]["foreach"] is False
            assert stepping.state_dict()["param_groups"][0]["foreach"] is False
    finally:
        undo()
    a.step()
    assert seen == [True, False, False]


def test_what_is_saved_after_a_step_that_raised_is_the_scripts_own() -> None:
    """As scripts do that save in ``except KeyboardInterrupt``."""
    stepped = torch.optim.Adam([torch.nn.Parameter(torch.ones(2))], foreach=False)
    inside = []

    def closure() -> float:
        inside.append(stepped.param_groups[0]["foreach"])
        raise KeyboardInterrupt

    undo = optimizer.in_groups_while_stepping(stepped, foreach=True)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            stepped.step(closure)
        assert stepped.state_dict()["param_groups"][0]["foreach"] is False
        assert stepped.param_groups[0]["foreach"] is False
    undo()
    assert inside == [True, True]
    assert not stepped._optimizer_state_dict_pre_hooks


def test_calls_around_one_optimizer_go_with_it(watch: Watch) -> None:
    """A script may train many models, one after the other."""
    called: list[Any] = []
    a, b = made(), made()
    optimizer.around_steps(lambda *_: called.append("a"), lambda *_: None, a)
    optimizer.in_groups_while_stepping(b, foreach=True)
    for light in (False, True):
        if light:
            watch.lighten()
        a.step(), b.step()
    assert called == ["a", "a"] and len(optimizer._around or ()) == 2
    del a, b
    assert not optimizer._around


def test_a_light_watch_lets_optimizers_take_turns(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = [made() for _ in range(4)]
    [each.step() for each in turns]
    watch.lighten()
    for _ in range(2):
        [each.step() for each in turns]
    entered: list[Any] = []
    monkeypatch.setattr(Watch, "optimizer_entered", lambda _, optimizer: entered.append(optimizer))
    monkeypatch.setattr(Watch, "optimizer_left", lambda _, optimizer: entered.append(optimizer))
    for _ in range(20):
        [each.step() for each in turns]
    watch.catch_up()
    assert not entered and watch.steps == 23


def test_a_light_watch_finds_another_clock_among_optimizers_that_took_turns(watch: Watch) -> None:
    """A warm-up by one optimizer, say, that is kept and never steps again."""
    first, second, third = made(), made(), made()
    first.step(), second.step(), third.step()
    watch.lighten()
    for _ in range(5):
        first.step(), second.step(), third.step()
    for _ in range(100):
        second.step(), third.step()
    watch.catch_up()
    assert 6 + 100 - 26 <= watch.steps <= 6 + 100


def test_what_a_closure_does_is_not_the_optimizers(watch: Watch) -> None:
    """Lightning's whole training step is one."""
    seen: list[Any] = []

    def closure() -> torch.Tensor:
        seen.append((watch.clock.current, list(watch.clock.stack)))
        return torch.tensor(1.0)

    stepped = made()
    assert stepped.step(closure) == stepped.step(closure=closure) == 1.0
    assert seen == [(PYTHON, [PYTHON, OPTIMIZER])] * 2
    assert watch.clock.current == PYTHON and not watch.clock.stack
    watch.lighten()
    stepped.step(closure)
    assert seen[2] == (PYTHON, [])


def test_optimizers_share_their_time_and_a_closure_is_no_part_of_it(watch: Watch) -> None:
    from hasten.seams.facts import optimizers_facts

    now = [0]
    watch.clock.now = lambda: now[0]

    class Slow(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            if closure is not None:
                closure()
            now[0] += 3_000_000

    def closure() -> None:
        now[0] += 50_000_000

    weight = torch.nn.Parameter(torch.zeros(2))
    plain, slow = made(), Slow([weight], lr=1.0)
    plain.register_step_pre_hook(lambda *_: now.__setitem__(0, now[0] + 1_000_000))
    for _ in range(10):
        plain.step()
        slow.step(closure)
    assert [round(facts.share, 3) for facts in optimizers_facts(watch)] == [0.25, 0.75]
