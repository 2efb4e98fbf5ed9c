"""Imports point downwards and never sideways; what must load fast loads no torch; files stay readable."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
MOST_LINES = 500

_BASE = {"measure", "core"}
_COMPILED = {"native", *_BASE}
_LIBRARIES = {"data", *_BASE}
_RULES = {"seams", "solve", "fleet", *_LIBRARIES}
ALLOWED: dict[str, set[str]] = {
    "core": set(),
    "measure": {"core"},
    "native": _BASE,
    "seams": _BASE,
    "data": _BASE,
    "solve": _COMPILED,
    "fleet": _COMPILED,
    "rules": _RULES,
    # data for the probe that asks a dataset twice: it must run inside the watched process, before any rule does
    "explain": {"rules", "seams", *_LIBRARIES},
    "run": {"rules", "seams", *_LIBRARIES},
    "report": {"core"},
}
ON_TOP = {"cli", "boot", "api", "__init__", "__main__"}  # these may import everything

# The cure of two troubles may be the same object; then the later rule borrows the earlier one's, and says so here.
BORROWED = {("d105_respawned_workers", "hasten.rules.d101_single_process_loader")}

WITHOUT_TORCH = ("core", "rules", "report", "cli")

MODULES = sorted(p for p in (SOURCE / "hasten").rglob("*.py"))


def layer(module: str) -> str:
    """The layer of a dotted module name; the package itself is ``__init__``."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def dotted(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, at its head or inside a function; what is imported from a package counts as
    a module of it where there is one."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            assert node.module
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if _is_module(inner) else node.module


def _is_module(name: str) -> bool:
    path = SOURCE / Path(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def ours(path: Path) -> list[str]:
    return [name for name in imports(path) if name.split(".")[0] == "hasten"]


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_imports_point_downwards(path: Path) -> None:
    own = layer(dotted(path))
    assert own in ALLOWED or own in ON_TOP, f"{own} is no layer: give it a place in ALLOWED and in ARCHITECTURE.md"
    if own in ON_TOP:
        return
    wrong = [name for name in ours(path) if layer(name) not in ALLOWED[own] | {own}]
    assert not wrong, f"{dotted(path)} ({own}) must not import {wrong}"


@pytest.mark.parametrize("path", [p for p in MODULES if p.parent.name == "rules"], ids=dotted)
def test_no_rule_imports_another(path: Path) -> None:
    if path.stem == "__init__":
        return
    others = {name for name in ours(path) if layer(name) == "rules"}
    assert {(path.stem, name) for name in others} <= BORROWED


def test_what_is_borrowed_is_still_borrowed() -> None:
    for stem, name in BORROWED:
        assert name in ours(SOURCE / "hasten" / "rules" / f"{stem}.py")


@pytest.mark.parametrize("path", [p for p in MODULES if p.parent.name == "core"], ids=dotted)
def test_core_needs_only_the_standard_library(path: Path) -> None:
    roots = {name.split(".")[0] for name in imports(path)}
    assert roots <= {"hasten", *sys.stdlib_module_names}


def _loaded(names: list[str]) -> set[str]:
    code = f"import sys, importlib\nfor n in {names!r}: importlib.import_module(n)\nprint(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert not run.returncode, run.stderr
    return set(run.stdout.split())


@pytest.mark.parametrize("package", WITHOUT_TORCH)
def test_loads_without_torch(package: str) -> None:
    names = [dotted(p) for p in MODULES if layer(dotted(p)) == package]
    assert names
    assert "torch" not in _loaded(names)


def test_the_package_itself_loads_next_to_nothing() -> None:
    loaded = _loaded(["hasten"])
    assert not loaded & {"torch", "numpy", "rich", "hasten.api", "hasten.rules"}


def test_the_command_line_loads_no_torch_before_it_must() -> None:
    assert not _loaded(["hasten.__main__", "hasten.api", "hasten.cli.main"]) & {"torch", "rich"}


@pytest.mark.parametrize("folder", ["src", "tests", "bench", "docs", "slow", "demo"])
def test_no_file_is_too_long(folder: str) -> None:
    lengths = {p: len(p.read_text(encoding="utf-8").splitlines()) for p in (ROOT / folder).rglob("*.py")}
    assert {str(p.relative_to(ROOT)): n for p, n in lengths.items() if n > MOST_LINES} == {}


@pytest.mark.parametrize("path", [p for p in MODULES if p.parent.name == "report"], ids=dotted)
def test_reports_return_values_and_print_nothing(path: Path) -> None:
    calls = [n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Call)]
    assert not [n.lineno for n in calls if isinstance(n.func, ast.Name) and n.func.id == "print"]
