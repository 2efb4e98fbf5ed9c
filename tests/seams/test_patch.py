"""Replaced attributes, and what a script has kept of them."""

from __future__ import annotations

import types

from hasten.seams.patch import Patches, StandIn


def test_what_a_script_has_kept_calls_the_original_once_the_patch_is_gone() -> None:
    """As skorch keeps ``print`` for its log."""
    calls: list[str] = []
    module = types.ModuleType("module")
    module.show = original = lambda text: calls.append(text)  # type: ignore[attr-defined]

    def watched(text: str) -> None:
        calls.append("watched")
        original(text)

    patches = Patches()
    patches.set(module, "show", StandIn(watched, original))
    kept = module.show
    kept("a")
    patches.undo()
    kept("b")
    assert calls == ["watched", "a", "b"] and module.show is original
