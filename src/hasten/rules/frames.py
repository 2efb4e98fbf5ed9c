"""What users of a framework write where others change their loader, their model or their loop: one table."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from hasten.core.finding import Finding
from hasten.core.trace import Trace

# By what drives the loop, then by a remedy as it is written, its class (``{}`` is its number), or a rule's code.
_WRITTEN: dict[str, dict[str, str]] = {
    "transformers": {
        "LoaderWorkers": "TrainingArguments(dataloader_num_workers={}, dataloader_persistent_workers=True)",
        "LoaderWorkers(0)": "TrainingArguments(dataloader_num_workers=0)",
        "PinMemory": "TrainingArguments(dataloader_pin_memory=True)",
        "FusedOptimizer of AdamW": 'TrainingArguments(optim="adamw_torch_fused")',
        "Compile": "TrainingArguments(torch_compile=True)",
        "Autocast(bfloat16)": "TrainingArguments(bf16=True)",
        "Autocast(float16)": "TrainingArguments(fp16=True)",
        "TensorFloat32": "TrainingArguments(tf32=True)",
        "M313": "TrainingArguments(bf16=False, fp16=False)",
        "D101": "TrainingArguments(dataloader_num_workers=…)",
        "D105": "TrainingArguments(dataloader_persistent_workers=True)",
        "S501": "TrainingArguments(logging_steps=…, disable_tqdm=True)",
        "E602": 'TrainingArguments(eval_strategy="epoch" or eval_steps=…, per_device_eval_batch_size=…)',
        "E603": "TrainingArguments(save_steps=…, save_only_model=True)",
    },
    "lightning": {
        "LoaderWorkers": "DataLoader(num_workers={}, persistent_workers=True)",
        "LoaderWorkers(0)": "DataLoader(num_workers=0)",
        "PinMemory": "DataLoader(pin_memory=True)",
        "FusedOptimizer": "fused=True for the optimizer in configure_optimizers",
        "ForeachOptimizer": "foreach=True for the optimizer in configure_optimizers",
        "Compile": "trainer.fit(torch.compile(model))",
        "Autocast(bfloat16)": 'Trainer(precision="bf16-mixed")',
        "Autocast(float16)": 'Trainer(precision="16-mixed")',
        "AnomalyOff": "Trainer(detect_anomaly=False)",
        "M313": 'Trainer(precision="32-true")',
        "D101": "DataLoader(num_workers=…)",
        "D105": "DataLoader(persistent_workers=True)",
        "S501": "Trainer(log_every_n_steps=…, enable_progress_bar=False)",
        "E602": "Trainer(check_val_every_n_epoch=…, limit_val_batches=…)",
        "E603": "ModelCheckpoint(every_n_train_steps=…) among the Trainer's callbacks",
    },
    "fabric": {
        "Compile": "fabric.setup(torch.compile(model), optimizer)",
        "Autocast(bfloat16)": 'Fabric(precision="bf16-mixed")',
        "Autocast(float16)": 'Fabric(precision="16-mixed")',
        "M313": 'Fabric(precision="32-true")',
    },
    "skorch": {
        "LoaderWorkers": "iterator_train__num_workers={}, iterator_train__persistent_workers=True for the net",
        "LoaderWorkers(0)": "iterator_train__num_workers=0 for the net",
        "PinMemory": "iterator_train__pin_memory=True for the net",
        "FusedOptimizer": "optimizer__fused=True for the net",
        "ForeachOptimizer": "optimizer__foreach=True for the net",
        "Compile": "compile=True for the net",
        "D101": "iterator_train__num_workers=… for the net",
        "D105": "iterator_train__persistent_workers=True for the net",
        "S501": "verbose=0 for the net",
        "E602": "iterator_valid__batch_size=… for the net, or train_split=None",
    },
    "accelerate": {
        "Compile": 'Accelerator(dynamo_backend="inductor")',
        "Autocast(bfloat16)": 'Accelerator(mixed_precision="bf16")',
        "Autocast(float16)": 'Accelerator(mixed_precision="fp16")',
        "M313": 'Accelerator(mixed_precision="no")',
    },
}


def in_frame(finding: Finding, trace: Trace) -> Finding:
    """The finding; where the script trains by a framework that has a setting for its cure, with a note that says it."""
    table = _WRITTEN.get(trace.process.framework)
    if table is None:
        return finding
    found = dict.fromkeys(_settings(finding, trace, table))
    return dataclasses.replace(finding, notes=(*finding.notes, *(f"by hand here: {setting}" for setting in found)))


def _settings(finding: Finding, trace: Trace, table: dict[str, str]) -> Iterator[str]:
    optimizers = {o.kind for o in trace.optimizers}
    for remedy in finding.remedies:
        names = (*(f"{remedy.name} of {kind}" for kind in optimizers), str(remedy), remedy.name)
        setting = next((table[name] for name in names if name in table), "")
        if setting:
            yield setting.format(next(iter(remedy.settings().values()), ""))
    if not finding.remedies and finding.code in table:
        yield table[finding.code]
