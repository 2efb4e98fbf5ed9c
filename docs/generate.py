"""Writes what can be written by a machine: docs/rules.md, and the README's tables and samples.

    python docs/generate.py                     the rules, and the claims (from bench/results): tables and pages
    python docs/generate.py --samples PHOTOS    also runs the demo on those photographs and pastes its output
    python docs/generate.py --check             says what is out of date, and fails if anything is

Text between ``<!-- NAME -->`` and ``<!-- /NAME -->`` in the README belongs to this script.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hasten.core.finding import Rule
from hasten.rules import all_rules

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
RULES = ROOT / "docs" / "rules.md"
CLAIMS = ROOT / "docs" / "claims.md"
BENCH = ROOT / "bench"
WIDTH = "96"  # columns of the samples
FAMILIES = {
    "D": "Data",
    "C": "Copies",
    "M": "Model, precision and process",
    "O": "Optimizer",
    "S": "Synchronisation and logging",
    "E": "Evaluation and checkpoints",
    "G": "Growth over iterations",
    "W": "The whole job",
}


# -- rules -------------------------------------------------------------------------------------------------------------


def rule_table() -> str:
    """One row a rule, in the order in which remedies are tried."""
    rows = ["| code | name | what is wrong | remedy | fidelity |", "|---|---|---|---|---|"]
    for rule in all_rules():
        remedies = ", ".join(f"`{kind.__name__}`" for kind in rule.remedies) or "advice"
        fidelities = ", ".join(dict.fromkeys(kind.fidelity.value for kind in rule.remedies)) or "–"
        what = _markdown(sections(rule)[""]).rstrip(".")
        rows.append(
            f"| [{rule.code}](docs/rules.md#{anchor(rule)}) | {rule.name} | {what} | {remedies} | {fidelities} |"
        )
    return "\n".join(rows)


def rules_page() -> str:
    """docs/rules.md: every rule's own words, by family."""
    parts = [
        "# Rules",
        "<!-- Written by docs/generate.py from the rule files under src/hasten/rules; change them, not this file. -->",
        "Each rule is one file under `src/hasten/rules`, and this page is made from them. "
        "`hasten rule CODE` prints the same in a terminal.",
    ]
    for letter, family in FAMILIES.items():
        rules = sorted((r for r in all_rules() if r.code.startswith(letter)), key=lambda r: r.code)
        if rules:
            parts.append(f"## {family}")
            parts.extend(_rule_section(rule) for rule in rules)
    return "\n\n".join(parts) + "\n"


def sections(rule: Rule) -> dict[str, str]:
    """A rule's docstring by heading; the summary under the empty one."""
    found: dict[str, list[str]] = {"": []}
    heading = ""
    lines = inspect.cleandoc(rule.doc).splitlines()
    for line in lines:
        if heading == "" and not found[""] and line:
            found[""].append(line)
        elif line and not line.startswith(" "):
            heading = line
            found[heading] = []
        else:
            found[heading].append(line.strip())
    return {name: "\n".join(text).strip() for name, text in found.items()}


def anchor(rule: Rule) -> str:
    """The rule's anchor on docs/rules.md, as GitHub makes it."""
    return f"{rule.code} {rule.name}".lower().replace(" ", "-")


def _rule_section(rule: Rule) -> str:
    text = sections(rule)
    parts = [f"### {rule.code} {rule.name}", _markdown(text.pop(""))]
    for heading, body in text.items():
        content = _references(body) if heading == "References" else _markdown(body)
        parts.append(f"**{heading}.** {content}" if heading != "References" else f"**{heading}**\n\n{content}")
    return "\n\n".join(parts)


def _references(body: str) -> str:
    return "\n".join("- " + re.sub(r"(https?://\S+)", r"<\1>", line) for line in body.splitlines() if line)


def _markdown(text: str) -> str:
    return re.sub(r"\s*\n\s*", " ", text).replace("``", "`")


# -- claims ------------------------------------------------------------------------------------------------------------


def claims() -> list[tuple[str, str, str]]:
    """Claims of benches: file, claim, name of its results. A file's second claim is CLAIM_X beside NAME_X."""
    found = []
    for path in sorted(BENCH.glob("*.py")):
        constants = _constants(path)
        for claim in sorted(name for name in constants if name.startswith("CLAIM")):
            found.append((path.name, constants[claim], constants[claim.replace("CLAIM", "NAME")]))
    return found


def _constants(path: Path) -> dict[str, str]:
    """Module-level string constants, read without running the file."""
    return {
        node.targets[0].id: node.value.value
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    }


def newest(name: str) -> list[tuple[Path, Any]]:
    """The newest result of a bench on each processor, the newest of all first: file, content."""
    found: dict[str, tuple[Path, Any]] = {}
    paths = [p for end in ("", ".[0-9]") for p in BENCH.glob(f"results/????-??-??-{name}{end}.json")]
    results = [(path, json.loads(path.read_text(encoding="utf-8"))) for path in paths]
    for path, result in sorted(results, key=lambda r: str(r[1]["date"]), reverse=True):
        found.setdefault(result["machine"]["cpu"], (path, result))
    return list(found.values())


def claim_table() -> str:
    """Every claim with what was measured last, and where."""
    rows = ["| claim | measured last | bench, result |", "|---|---|---|"]
    for file, claim, name in claims():
        bench, found = f"[bench/{file}](bench/{file})", newest(name)
        if found:
            said, result = found[0][1]["summary"], _result(*found[0], "")
            rows.append(f"| {claim} | {said} | {bench}, {result} |")
        else:
            rows.append(f"| {claim} | not measured yet | {bench} |")
    return "\n".join(rows)


def claims_page() -> str:
    """docs/claims.md: every claim with the newest result on each processor, the newest of all first."""
    parts = [
        "# Claims",
        "<!-- Written by docs/generate.py from bench/results; change those, not this file. -->",
        "Each claim has a file in [bench/](../bench/README.md) that measures it anew. Here are the newest results of "
        "every processor that it was measured on, better and worse ones; each file holds all raw measurements.",
    ]
    for file, claim, name in claims():
        rows = [f"## {claim}", f"[bench/{file}](../bench/{file})"]
        rows += [f"- {_result(path, result, '../')}: {result['summary']}" for path, result in newest(name)]
        parts.append("\n\n".join(rows[:2]) + "\n\n" + ("\n".join(rows[2:]) or "Not measured yet."))
    return "\n\n".join(parts) + "\n"


def _result(path: Path, result: Any, up: str) -> str:
    """A link to a result, with the machine it comes from; ``up`` leads to the project's folder."""
    machine = result["machine"]
    where = f"{machine['cpu']}, {machine['cores']} cores, torch {result['versions']['torch']}"
    return f"[{path.stem[:10]}]({up}bench/results/{path.name}): {where}"


# -- samples -----------------------------------------------------------------------------------------------------------


def samples(photos: str) -> dict[str, str]:
    """What the demo prints under ``hasten explain`` and ``hasten run``, typed in the project's folder."""
    with tempfile.TemporaryDirectory() as folder:
        plan = str(Path(folder) / "train.hasten.json")
        explain = ["explain", "demo/train.py", photos, "--epochs", "2"]
        limits = ["--budget", "60", "--allow", "identical", "--save-plan", plan]
        run = ["run", *limits, "demo/train.py", photos, "--epochs", "6"]
        return {"sample:explain": _sample(explain), "sample:run": _sample(run).replace(plan, "train.hasten.json")}


def _sample(words: list[str]) -> str:
    env = {**os.environ, "COLUMNS": WIDTH, "NO_COLOR": "1", "PYTHONUNBUFFERED": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "hasten", *words],
        cwd=ROOT,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    )
    output = "\n".join(line.rstrip() for line in done.stdout.splitlines())
    return f"```text\n$ hasten {' '.join(words)}\n{output}\n```"


# -- files -------------------------------------------------------------------------------------------------------------


def fill(text: str, name: str, content: str) -> str:
    """``text`` with ``content`` between the markers of ``name``."""
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    if text.count(start) != 1 or text.count(end) != 1:
        raise SystemExit(f"{README.name} must hold {start} and {end} once each")
    before, rest = text.split(start)
    return f"{before}{start}\n{content}\n{end}{rest.split(end)[1]}"


def generated(fresh_samples: dict[str, str] | None = None) -> dict[Path, str]:
    """Every file this script writes, with what should be in it."""
    readme = README.read_text(encoding="utf-8")
    for name, content in {"rules": rule_table(), "claims": claim_table(), **(fresh_samples or {})}.items():
        readme = fill(readme, name, content)
    return {README: readme, RULES: rules_page(), CLAIMS: claims_page()}


def stale() -> list[Path]:
    """Files that differ from what this script would write."""
    return [p for p, text in generated().items() if not p.exists() or p.read_text(encoding="utf-8") != text]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if something is out of date")
    parser.add_argument("--samples", metavar="PHOTOS", help="run the demo on this folder and paste its output")
    args = parser.parse_args()
    if args.check:
        old = stale()
        for path in old:
            print(f"{path.relative_to(ROOT)} is out of date: make docs")
        return 1 if old else 0
    for path, text in generated(samples(args.samples) if args.samples else None).items():
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
