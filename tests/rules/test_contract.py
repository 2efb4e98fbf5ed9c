"""What every rule owes: documentation, silence where nothing was measured, and the right line of a slow script."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from hasten.api import explain
from hasten.core.finding import Finding, Rule
from hasten.core.remedy import Fidelity, Grain, Remedy, Seam
from hasten.core.report import Report
from hasten.core.trace import Trace
from hasten.measure import machine
from hasten.rules import all_rules, find, ranked, remedy_types
from tests.rules.by_hand import BY_HAND, UNKNOWN

ROOT = Path(__file__).parents[2]
SLOW = ROOT / "slow"
RULES = {Path(inspect.getfile(rule.detect)).stem: rule for rule in all_rules()}
HEADINGS = ("Why it is slow", "Remedy", "Fidelity", "When it does not help", "References")
FAMILIES = {
    "D": "data",
    "C": "copies",
    "M": "model and precision",
    "O": "optimizer",
    "S": "synchronisation and logging",
    "E": "evaluation and checkpoints",
    "G": "growth over iterations",
    "W": "whole job",
}
QUICK = ("m308_anomaly_mode", "d102_sample_by_sample")  # measured in every run of the tests
MARK = re.compile(r"#\s*<-\s*([A-Z]\d{3}(?:,\s*[A-Z]\d{3})*)")

each_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
each_remedy = pytest.mark.parametrize("kind", remedy_types().values(), ids=remedy_types())


# -- on paper ----------------------------------------------------------------------------------------------------------


@each_rule
def test_the_docstring_has_all_headings_in_order(rule: Rule) -> None:
    lines = rule.doc.splitlines()
    assert lines[0].endswith(".") and not lines[1]
    assert [line for line in lines if line in HEADINGS] == list(HEADINGS)
    sections = re.split(rf"^(?:{'|'.join(HEADINGS)})$", rule.doc, flags=re.MULTILINE)[1:]
    assert all(re.match(r"\n    \S", section) for section in sections), "a heading without an indented text"
    assert "https://" in sections[-1], "References holds no address"


@each_rule
def test_fidelity_is_one_of_the_three_words(rule: Rule) -> None:
    text = rule.doc.split("\nFidelity\n")[1].strip()
    assert text.startswith(tuple(f.value for f in Fidelity)), text.splitlines()[0]


def test_codes_are_unique_and_of_a_family() -> None:
    codes = [rule.code for rule in RULES.values()]
    assert len(set(codes)) == len(codes)
    for module, rule in RULES.items():
        assert re.fullmatch(r"[A-Z]\d{3}", rule.code)
        assert rule.code[0] in FAMILIES
        assert module.startswith(rule.code.lower() + "_"), f"{module} holds {rule.code}"


def test_names_are_kebab_case_and_unique() -> None:
    names = [rule.name for rule in RULES.values()]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) for name in names)


@each_remedy
def test_a_remedy_is_a_frozen_setting(kind: type[Remedy]) -> None:
    assert kind.__doc__
    assert dataclasses.is_dataclass(kind) and kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert isinstance(vars(kind)["fidelity"], Fidelity)
    assert isinstance(vars(kind)["seam"], Seam)
    assert isinstance(kind.grain, Grain)
    required = [f for f in dataclasses.fields(kind) if f.default is dataclasses.MISSING]
    assert {f.type for f in required} <= {"int"}
    remedy = kind(**{f.name: 2 for f in required})
    assert kind(**json.loads(json.dumps(remedy.settings()))) == remedy, "a plan could not hold it"
    assert str(remedy).startswith(kind.__name__ + "(")


def test_conflicts_name_existing_remedies() -> None:
    known = set(remedy_types())
    assert {name for kind in remedy_types().values() for name in kind.conflicts} <= known


@each_rule
def test_a_remedy_is_no_less_faithful_than_its_rule_says(rule: Rule) -> None:
    text = rule.doc.split("\nFidelity\n")[1].strip()
    said = next(f for f in Fidelity if text.startswith(f.value))
    assert all(kind.fidelity.rank <= said.rank for kind in rule.remedies)


# -- silence -----------------------------------------------------------------------------------------------------------


@each_rule
@pytest.mark.parametrize("trace", [Trace(script=""), UNKNOWN], ids=["empty", "unknown"])
def test_nothing_measured_nothing_said(rule: Rule, trace: Trace) -> None:
    assert list(rule.detect(trace)) == []


# -- by hand -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", BY_HAND)
def test_a_hand_made_trouble_is_found(code: str) -> None:
    trouble, healthy = BY_HAND[code]
    rule = next(r for r in RULES.values() if r.code == code)
    check_form(list(rule.detect(trouble)), trouble)
    for trace in healthy:
        assert list(rule.detect(trace)) == []


def check_form(findings: list[Finding], trace: Trace) -> None:
    """What a report needs of every finding."""
    assert findings
    for finding in findings:
        assert finding.message and not finding.message.endswith(".")
        assert finding.predicted.low >= 1.0
        assert finding.predicted.high < 1000
        assert finding.remedies or finding.advice
        assert all(isinstance(r, tuple(remedy_types().values())) for r in finding.remedies)
    assert set(ranked(find(trace))) >= set(findings)


# -- measured ----------------------------------------------------------------------------------------------------------


def why_not(code: str) -> str:
    """Why a rule's script cannot fire it on this machine."""
    if code in BY_HAND and code != "M303":
        return "needs a GPU: tested by hand"
    if code == "M303" and not {"amx_bf16"} & machine.cpu_flags():
        return "this processor has no bfloat16 units: tested by hand"
    if code in ("D101", "M306") and machine.cores() < 2:
        return "one core leaves nothing to share"
    if code == "M302" and not machine.has_compiler():
        return "without a compiler nothing is compiled"
    return ""


@cache
def measured(script: str) -> Report:
    """The script explained, on one thread unless it says otherwise: other work on the machine then matters less."""
    return explain(script, stdout=subprocess.DEVNULL)


def marks(script: str) -> dict[str, set[int]]:
    """The lines that a script marks, by code."""
    found: dict[str, set[int]] = {}
    for number, line in enumerate((ROOT / script).read_text(encoding="utf-8").splitlines(), 1):
        for match in MARK.finditer(line):
            for code in match[1].split(","):
                found.setdefault(code.strip(), set()).add(number)
    return found


def where(report: Report, code: str) -> set[str]:
    """Places (file:line) of a rule's findings."""
    return {f"{f.place.file}:{f.place.line}" if f.place else "nowhere" for f in report.findings if f.code == code}


def told(report: Report) -> str:
    return "\n".join(f"{f.code} {f.place} {f.message}" for f in report.findings) + f"\n{report.trace}"


def script_cases() -> list[object]:
    """Every rule that has a slow script; the quick ones without the slow mark."""
    cases = []
    for module, rule in RULES.items():
        skip = pytest.mark.skipif(bool(why_not(rule.code)), reason=why_not(rule.code) or "never")
        cases.append(pytest.param(module, id=module, marks=[skip, *([] if module in QUICK else [pytest.mark.slow])]))
    return cases


@pytest.fixture
def at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.mark.parametrize("module", RULES)
def test_every_rule_has_a_slow_script_with_its_mark_and_a_fixed_twin(module: str) -> None:
    code = RULES[module].code
    if code in BY_HAND and code != "M303":
        return
    assert code in marks(f"slow/{module}.py")
    assert marks(f"slow/fixed/{module}.py") == {}


@pytest.mark.parametrize("module", script_cases())
@pytest.mark.usefixtures("at_root")
def test_the_slow_script_fires_its_rule_at_the_marked_line(module: str) -> None:
    script, code = f"slow/{module}.py", RULES[module].code
    report = measured(script)
    assert report.exit_code == 0
    assert where(report, code) == {f"{script}:{line}" for line in marks(script)[code]}, told(report)
    assert report.trace is not None
    check_form([f for f in report.findings if f.code == code], report.trace)


@pytest.mark.parametrize("module", script_cases())
@pytest.mark.usefixtures("at_root")
def test_the_fixed_twin_does_not(module: str) -> None:
    report = measured(f"slow/fixed/{module}.py")
    assert report.exit_code == 0
    assert report.trace is not None and report.trace.steps
    assert where(report, RULES[module].code) == set(), told(report)


@pytest.mark.slow
@pytest.mark.usefixtures("at_root")
def test_several_faults_are_told_apart() -> None:
    script = "slow/several_faults.py"
    report = measured(script)
    for code, lines in marks(script).items():
        if not why_not(code):
            assert where(report, code) == {f"{script}:{line}" for line in lines}, f"{code}\n{told(report)}"


@pytest.mark.slow
@pytest.mark.parametrize("script", sorted(str(p.relative_to(ROOT)) for p in SLOW.rglob("*.py")))
@pytest.mark.usefixtures("at_root")
def test_scripts_run_by_themselves(script: str, tmp_path: Path) -> None:
    text = (ROOT / script).read_text(encoding="utf-8")
    assert "hasten" not in text
    run = subprocess.run(
        [sys.executable, str(ROOT / script)], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=280
    )
    assert run.returncode == 0, run.stderr
    assert re.search(r"^loss -?\d", run.stdout, re.MULTILINE)
    assert not list(tmp_path.iterdir()), "it left files behind"
