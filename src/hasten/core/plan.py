"""The kept remedies, in order, as JSON, with everything they depend on."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hasten.core.codec import decode, encode
from hasten.core.errors import PlanRefused, UsageError
from hasten.core.interval import Interval

PLAN_SCHEMA = 1
KEYS = frozenset({"script", "script_sha256", "versions", "machine", "steps"})  # one of which every plan has


@dataclass(frozen=True)
class Step:
    """One kept remedy with what was measured and proved."""

    remedy: str
    settings: dict[str, Any]
    fidelity: str
    rule: str = ""
    ratio: Interval | None = None
    proof: str = ""

    def __str__(self) -> str:
        """As the remedy is written: ``LoaderWorkers(2)``, without what it is for."""
        return f"{self.remedy}({', '.join(str(v) for name, v in self.settings.items() if name != 'of')})"


@dataclass(frozen=True)
class Plan:
    """Remedies to replay without trials. Refused when the script, its own modules, versions or machine changed.

    Attributes:
        sources: sha256 of each module of the user's that the script had imported, by its path from the script's folder.
    """

    script: str
    script_sha256: str
    versions: dict[str, str]
    machine: dict[str, Any]
    steps: tuple[Step, ...] = ()
    created: str = ""
    schema: int = PLAN_SCHEMA
    notes: tuple[str, ...] = field(default=())
    sources: dict[str, str] = field(default_factory=dict)

    def refusals(self, script_sha256: str, versions: dict[str, str], machine: dict[str, Any]) -> list[str]:
        """Reasons why this plan does not fit here; empty when it does."""
        reasons = []
        if self.script_sha256 != script_sha256:
            reasons.append(f"the script changed: {self.script_sha256[:12]} when planned, {script_sha256[:12]} now")
        for kind, then, now in (("version of", self.versions, versions), ("machine's", self.machine, machine)):
            for key in sorted(set(then) | set(now)):
                if then.get(key) != now.get(key):
                    reasons.append(f"the {kind} {key} changed: {then.get(key)} when planned, {now.get(key)} now")
        return reasons

    def changed_sources(self, folder: str) -> list[str]:
        """Reasons by the modules that the script imports; ``folder`` is the script's."""
        now = {path: sha256_of_file(os.path.join(folder, path)) for path in self.sources}
        return [
            f"{path} {'changed' if now[path] else 'is gone'}" for path in sorted(now) if now[path] != self.sources[path]
        ]

    def check(
        self, script_sha256: str, versions: dict[str, str], machine: dict[str, Any], folder: str | None = None
    ) -> None:
        """Raises PlanRefused when this plan does not fit here; ``folder`` is the script's."""
        reasons = self.refusals(script_sha256, versions, machine)
        reasons += self.changed_sources(folder) if folder is not None else []
        if reasons:
            raise PlanRefused(
                "the plan no longer applies: " + "; ".join(reasons),
                "what was measured holds only for the same script and its modules, versions and machine",
                "run `hasten run` again without --plan to make a new one",
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        write_atomically(Path(path), json.dumps(encode(self), indent=2) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Plan:
        """Raises UsageError when the file is missing, torn, or not a plan; PlanRefused for another version's."""
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise _unread(path, error.strerror or str(error)) from None
        except ValueError:  # neither UTF-8 nor JSON
            raise _unread(path, "it is no JSON, or cut short") from None
        if not isinstance(data, dict) or type(data.get("schema")) is not int or not data.keys() & KEYS:
            raise _unread(path, "its JSON is of something else")
        if data["schema"] != PLAN_SCHEMA:
            raise PlanRefused(
                f"{path} has plan schema {data['schema']}, this version reads {PLAN_SCHEMA}",
                "it was written by another version of hasten",
                "make a new plan with `hasten run`",
            )
        missing = [name for name in ("script", "script_sha256", "versions", "machine") if name not in data]
        if missing:
            raise _unread(path, f"it is no plan, or was edited: {missing[0]} is missing")
        try:
            plan = decode(cls, data)
        except ValueError as error:
            raise _unread(path, str(error)) from None
        words = [plan.script, plan.script_sha256, *plan.sources.values()]
        words += [word for step in plan.steps for word in (step.remedy, step.fidelity)]
        if not all(isinstance(word, str) for word in words):
            raise _unread(path, "a name or a digest is no text")
        return plan


def _unread(path: str | os.PathLike[str], why: str) -> UsageError:
    return UsageError(
        f"cannot read the plan {os.fspath(path)}: {why}",
        "a typing error, or the file was not written by `hasten run`",
        "make a new plan with `hasten run SCRIPT`",
    )


def sha256_of_file(path: str | os.PathLike[str]) -> str:
    """Hex sha256 of a file's bytes; empty for a path that cannot be read."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:
        return ""


def write_atomically(path: Path, text: str) -> None:
    """Write to a temporary name beside ``path``, fsync, rename: never torn, even by kill -9."""
    if path.exists() and not path.is_file():  # a device or a pipe is written to, never replaced by a file
        path.write_text(text, encoding="utf-8")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.parent / f".{path.name}.{secrets.token_hex(8)}"
    handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)  # less the umask
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        name.unlink(missing_ok=True)
        raise
