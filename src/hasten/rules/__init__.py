"""The rules, in the order in which their remedies are tried, with the reason beside the order.

Order matters: each remedy is tried on top of those kept before it. First what removes whole passes over the data
(nothing later can be judged while the loader hides the model), then switches that cost nothing and keep every bit,
then what changes rounding, then what changes precision; advice without a remedy comes last. The number of threads
comes before the switches although it changes rounding: the others can be judged in the quiet that it brings. Of two
remedies that take each other's place, the one that promises more has the first one's turn, where it is allowed.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterable, Iterator

from hasten.core.facts import FitFacts
from hasten.core.finding import LEAST_TOLD, Finding, Rule
from hasten.core.remedy import Remedy
from hasten.core.trace import Trace
from hasten.rules.frames import in_frame

_MODULES = (
    # A whole-batch gather makes every other way to feed an in-memory dataset pointless, so it is tried first.
    "d102_sample_by_sample",
    # A cache of finished samples removes decoding and transforms from the second epoch on …
    "d103_repeated_samples",
    # … and where the chain draws random numbers, a cache of its deterministic beginning is the most one can have.
    "d104_cacheable_prefix",
    # Workers only for what is left to do per sample.
    "d101_single_process_loader",
    "d105_respawned_workers",
    "d106_file_reopened",
    "d107_loop_in_collate",
    "c201_blocking_copy",
    # What is frozen is most of a step where it is found at all, and what is tried later sees the step without it.
    "m314_frozen_features",
    # Threads that wait for each other while others keep cores busy are most of a trial's noise; and a fused optimizer
    # opens a parallel region for each of its tensors, however small, so that it must be judged after these.
    "m306_threads",
    # Switches of the process: nothing changes but the time.
    "m308_anomaly_mode",
    "o403_zeroed_gradients",
    "e601_evaluation_with_graph",
    "m307_page_faults",
    "o401_loop_optimizer",
    # From here on rounding changes.
    "m305_denormals",
    "o402_unfused_optimizer",
    "m301_channels_first",
    # Compiling last of the equivalent ones: it is dear to try and sees the others' effect.
    "m302_eager",
    # Only with --allow approximate.
    "m304_no_tf32",
    "m303_full_precision",
    # Advice: what only the user can change.
    "m309_double_precision",
    "d108_pass_per_batch",
    "m310_python_loop",
    "m311_unused_gradients",
    "m312_recomputed_activations",
    "m313_slow_autocast",
    "o404_dense_embedding",
    "s501_logging",
    "s502_host_wait",
    "s503_host_work",
    "e602_evaluation_share",
    "e603_checkpoint_share",
    "g701_graph_kept_alive",
    "g702_growing_step",
    # About the whole job, and the largest change of a script: last; of the two, no loop before many loops in one.
    "w802_linear_by_loop",
    "w801_many_models",
)


@functools.cache
def all_rules() -> tuple[Rule, ...]:
    """Every rule, in order."""
    return tuple(importlib.import_module(f"hasten.rules.{name}").RULE for name in _MODULES)


@functools.cache
def remedy_types() -> dict[str, type[Remedy]]:
    """Every remedy's class by its name."""
    return {kind.__name__: kind for rule in all_rules() for kind in rule.remedies}


def found_by(rule: Rule, trace: Trace) -> Iterator[Finding]:
    """The findings of a rule, with what users of a framework write."""
    return (in_frame(finding, trace) for finding in rule.detect(trace))


def find(trace: Trace) -> tuple[Finding, ...]:
    """All findings of all rules, in the rules' order."""
    return tuple(finding for rule in all_rules() for finding in found_by(rule, trace))


def find_fits(fits: Iterable[FitFacts]) -> tuple[Finding, ...]:
    """What can be said of networks that scikit-learn has fitted."""
    from hasten.rules.w801_many_models import detect_fits

    return tuple(detect_fits(fits))


def ranked(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Findings by predicted gain, largest first, those that gain next to nothing last; equal ones stay in the rules'
    order."""
    return tuple(sorted(findings, key=lambda f: (f.predicted.high < LEAST_TOLD, -f.predicted.value)))
