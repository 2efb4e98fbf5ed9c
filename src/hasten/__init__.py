"""hasten: find out why training is slow, make it fast, and prove it.

The public names are loaded on first use; importing this package imports no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hasten.api import explain as explain
    from hasten.api import run as run

__version__ = "0.1.0"

_HOMES = {
    "explain": "hasten.api",
    "run": "hasten.api",
    "Report": "hasten.core.report",
    "Result": "hasten.core.report",
    "Plan": "hasten.core.plan",
    "Interval": "hasten.core.interval",
    "LoaderWorkers": "hasten.rules.d101_single_process_loader",
    "BatchedFetch": "hasten.rules.d102_sample_by_sample",
    "CacheSamples": "hasten.rules.d103_repeated_samples",
    "CachePrefix": "hasten.rules.d104_cacheable_prefix",
    "PinMemory": "hasten.rules.c201_blocking_copy",
    "ChannelsLast": "hasten.rules.m301_channels_first",
    "Compile": "hasten.rules.m302_eager",
    "CacheFeatures": "hasten.rules.m314_frozen_features",
    "Autocast": "hasten.rules.m303_full_precision",
    "TensorFloat32": "hasten.rules.m304_no_tf32",
    "FlushDenormals": "hasten.rules.m305_denormals",
    "Threads": "hasten.rules.m306_threads",
    "Allocator": "hasten.rules.m307_page_faults",
    "PreloadedAllocator": "hasten.rules.m307_page_faults",
    "AnomalyOff": "hasten.rules.m308_anomaly_mode",
    "ForeachOptimizer": "hasten.rules.o401_loop_optimizer",
    "FusedOptimizer": "hasten.rules.o402_unfused_optimizer",
    "ZeroGradToNone": "hasten.rules.o403_zeroed_gradients",
    "NoGradEvaluation": "hasten.rules.e601_evaluation_with_graph",
}

_LIBRARIES = ("fleet", "solve")  # packages of their own, loaded on first use

__all__ = ["__version__", *_HOMES, *_LIBRARIES]


def __getattr__(name: str) -> Any:
    if name in _LIBRARIES:
        return importlib.import_module(f"hasten.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'hasten' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
