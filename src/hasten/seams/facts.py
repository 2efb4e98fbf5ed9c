"""What is known of loaders, modules, optimizers and the process."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

from hasten.core.facts import LoaderFacts, ModelFacts, OptimizerFacts, Place, Process
from hasten.measure import machine
from hasten.seams.known import LoaderRecord
from hasten.seams.locate import is_users, place_of, shown
from hasten.seams.watch import Watch


def _place(raw: Any) -> Place | None:
    """A place in the user's code, if that is where it was."""
    return place_of(*raw) if raw is not None and is_users(raw[0].co_filename) else None


def note_facts(watch: Watch) -> None:
    """Read loaders and modules while they are alive; at the end of a script they are often gone."""
    for loader in watch.loaders.values():
        loader_facts(loader)
    for model in watch.models.values():
        model_facts(model)
    for optimizer in watch.optimizers.values():
        optimizer_facts(optimizer)


def _last_seen(record: Any, thing: Any, settings: Callable[[Any], Any]) -> Any:
    """The settings of a thing now, or as last seen if it is gone; None if it was never looked at."""
    if thing is not None:
        record.facts = settings(thing)
    return record.facts


def loader_facts(record: LoaderRecord) -> LoaderFacts:
    """What is known of a loader."""
    facts = _last_seen(record, record.loader(), _loader_settings) or LoaderFacts("unknown", "gone")
    return dataclasses.replace(
        facts,
        role="training" if record.feeds else record.role or "unknown",
        place=_place(record.place),
        starts=record.starts,
        before=record.before,
        start_seconds=record.start_seconds,
        batches=record.batches,
        fetch_seconds=record.fetched / 1e9,
        changing=record.changing,
    )


def _loader_settings(loader: Any) -> LoaderFacts:
    from torch.utils.data import IterableDataset, TensorDataset
    from torch.utils.data._utils.collate import default_collate

    dataset = loader.dataset
    inner = dataset
    while hasattr(inner, "dataset") and hasattr(inner, "indices"):
        inner = inner.dataset
    try:
        length = len(dataset)
    except Exception:  # the script's own code, and no part of what it asked for
        length = -1
    return LoaderFacts(
        role="unknown",
        dataset=type(dataset).__qualname__,
        length=length,
        batch_size=_batch_size(loader),
        num_workers=loader.num_workers,
        persistent_workers=loader.persistent_workers,
        pin_memory=bool(loader.pin_memory),
        map_style=not isinstance(dataset, IterableDataset),
        default_collate=loader.collate_fn is default_collate,
        tensor_backed=isinstance(inner, TensorDataset),
    )


def _batch_size(loader: Any) -> int:
    """Samples per batch, where the loader or a batch sampler of torch's kind says so; else -1."""
    from torch.utils.data import BatchSampler

    owner = loader.batch_sampler if isinstance(loader.batch_sampler, BatchSampler) else loader
    size = getattr(owner, "batch_size", None)
    return size if type(size) is int and size > 0 else -1


def optimizers_facts(watch: Watch) -> tuple[OptimizerFacts, ...]:
    """What is known of the optimizers that stepped, and how they share their time."""
    known = [(r.nanoseconds, facts) for r in watch.optimizers.values() if (facts := optimizer_facts(r)) is not None]
    total = sum(own for own, _ in known)
    return tuple(dataclasses.replace(facts, share=own / total if total else 1.0) for own, facts in known)


def optimizer_facts(record: Any) -> OptimizerFacts | None:
    """What is known of an optimizer."""
    facts: OptimizerFacts | None = _last_seen(record, record.optimizer, _optimizer_settings)
    if facts is None:
        return None
    return dataclasses.replace(
        facts,
        place=_place(record.place),
        steps=record.steps,
        zeroes_gradients=record.zeroes_gradients,
        zero_place=_place(record.zero_place),
    )


def _optimizer_settings(optimizer: Any) -> OptimizerFacts:
    group = optimizer.param_groups[0] if optimizer.param_groups else {}
    tensors = [p for g in optimizer.param_groups for p in g["params"]]
    implementation = "fused" if group.get("fused") else "foreach" if group.get("foreach") else "loop"
    if group.get("foreach") is None and not group.get("fused") and tensors and tensors[0].is_cuda:
        implementation = "foreach"
    return OptimizerFacts(
        kind=type(optimizer).__name__,
        tensors=len(tensors),
        elements=sum(p.numel() for p in tensors),
        implementation=implementation,
        can_foreach="foreach" in group,
        can_fuse="fused" in group,
    )


def model_facts(record: Any) -> ModelFacts | None:
    """What is known of a module."""
    facts: ModelFacts | None = _last_seen(record, record.module(), _model_settings)
    if facts is None:
        return None
    return dataclasses.replace(
        facts,
        place=_place(record.place),
        directly=record.directly,
        evaluations=record.evaluations,
        evaluations_with_graph=record.evaluations_with_graph,
        in_train_mode=record.in_train_mode,
        graphs_in_train_mode=record.graphs_in_train_mode,
        evaluation_place=_place(record.evaluation_place),
        trained=record.trained,
    )


def _model_settings(module: Any) -> ModelFacts:
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm
    from torch.nn.modules.dropout import _DropoutNd

    parameters = list(module.parameters())
    convolutions = [m for m in module.modules() if isinstance(m, torch.nn.Conv2d)]
    return ModelFacts(
        kind=type(module).__name__,
        elements=sum(p.numel() for p in parameters),
        modules=sum(1 for _ in module.modules()),
        dtypes=tuple(sorted({str(p.dtype).removeprefix("torch.") for p in parameters})),
        conv2d=len(convolutions),
        channels_last=any(_lies_channels_last(m.weight) for m in convolutions),
        acts_by_mode=any(isinstance(m, (_DropoutNd, _BatchNorm)) for m in module.modules()),
        compiled=getattr(module, "_compiled_call_impl", None) is not None
        or type(module).__name__ == "OptimizedModule"
        or isinstance(module, torch.jit.ScriptModule),
    )


def _lies_channels_last(weight: Any) -> bool:
    """Whether a 4-d tensor does; of one channel, or of 1 by 1 pixels, nobody can tell."""
    import torch

    return bool(weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous())


def process_facts(watch: Watch) -> Process:
    import torch

    from hasten.seams import fork

    reason = fork.why_not()
    on_cuda = torch.cuda.is_available() and torch.cuda.is_initialized()
    share, tensor = _denormals(watch)
    anomaly = watch.anomaly or torch.is_anomaly_enabled()
    return Process(
        threads=torch.get_num_threads(),
        cores=machine.cores(),
        physical_cores=machine.physical_cores(),
        device="cuda" if on_cuda else "cpu",
        anomaly_mode=anomaly,
        anomaly_place=_anomaly_place(watch) if anomaly else None,
        denormal_share=share,
        denormal_tensor=tensor,
        float32_matmul=_float32_matmul(),
        bfloat16_units=(
            torch.cuda.is_bf16_supported(including_emulation=False) if on_cuda else "amx_bf16" in machine.cpu_flags()
        ),
        compiler=machine.has_compiler(),
        compiled_by_script=watch.compiled_by_script,
        differentiated_twice=watch.differentiated_twice,
        autocast=watch.autocast,
        forkable=not reason,
        why_not_forkable=reason,
        allocators=_allocators(),
        available_bytes=float(machine.available_bytes()),
        framework=watch.framework,
    )


def _float32_matmul() -> str:
    """As ``torch.set_float32_matmul_precision`` has it; "high" where the script says so in another way, in which case
    torch does not tell."""
    import torch

    try:
        return str(torch.get_float32_matmul_precision())
    except RuntimeError:
        return "high"


@functools.cache
def _allocators() -> tuple[str, ...]:
    """Allocators that could take malloc's place; none where one has. Looking through folders is for once."""
    return () if any(map(machine.loaded, machine.ALLOCATORS)) else tuple(machine.allocators())


def _anomaly_place(watch: Watch) -> Place | None:
    """The line of the script that switches anomaly detection on, if the script itself does."""
    from hasten.seams.source import calls

    names = ("set_detect_anomaly", "detect_anomaly")
    found = calls(watch.script, lambda call: getattr(call.func, "attr", getattr(call.func, "id", "")) in names)
    return dataclasses.replace(found[0], file=shown(found[0].file)) if found else None


def _denormals(watch: Watch) -> tuple[float, str]:
    """The largest share of subnormal numbers, among all weights or among all that optimizers keep by one name. A share
    of single tensors would be that of a bias, which takes no time."""
    import torch

    found: dict[str, tuple[int, int]] = {}
    for label, flat in _looked_at(watch):
        tiny = int(((flat != 0) & (flat.abs() < torch.finfo(torch.float32).tiny)).sum())
        before = found.get(label, (0, 0))
        found[label] = before[0] + tiny, before[1] + flat.numel()
    shares = {label: tiny / seen for label, (tiny, seen) in found.items() if tiny}
    worst = max(shares, key=lambda label: shares[label], default="")
    return shares.get(worst, 0.0), worst


def _looked_at(watch: Watch, most: int = 1 << 20) -> Iterator[tuple[str, Any]]:
    """The beginnings of weights and of optimizer state, up to ``most`` elements in all."""
    import torch

    for optimizer in (o for r in watch.optimizers.values() if (o := r.optimizer) is not None):
        for p in (p for g in optimizer.param_groups for p in g["params"]):
            state = optimizer.state.get(p, {})
            for label, tensor in (("weight", p), *((str(k), v) for k, v in state.items())):
                if not isinstance(tensor, torch.Tensor) or tensor.dtype != torch.float32 or tensor.is_cuda:
                    continue
                flat = tensor.detach().reshape(-1)[: 1 << 16]
                most -= flat.numel()
                if most < 0:
                    return
                yield label, flat
