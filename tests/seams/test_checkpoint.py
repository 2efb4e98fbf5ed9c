"""What libraries save by is timed, each once, under whatever name the script has it."""

from __future__ import annotations

import sys
import types

import pytest

from hasten.measure.clock import CHECKPOINT
from hasten.seams import checkpoint
from hasten.seams.patch import Patches
from hasten.seams.watch import Watch


def test_a_pretrained_model_is_saved_as_a_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    watch, patches, module = Watch(), Patches(), types.ModuleType("transformers.modeling_utils")

    class PreTrainedModel:
        def save_pretrained(self, folder: str) -> int:
            assert folder == "out"
            return watch.clock.current

    module.PreTrainedModel = PreTrainedModel  # type: ignore[attr-defined]
    original = PreTrainedModel.save_pretrained
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for _ in range(2):
        checkpoint.libraries(watch, patches)
    assert PreTrainedModel().save_pretrained("out") == CHECKPOINT
    assert PreTrainedModel.save_pretrained.__wrapped__ is original  # type: ignore[attr-defined]
    patches.undo()
    assert PreTrainedModel.save_pretrained is original
