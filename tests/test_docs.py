"""The README is what the project does: its tables are made from the code, its commands parse, its calls work."""

from __future__ import annotations

import itertools
import re
import shlex

import pytest
import torch
from docs import generate
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import hasten
from hasten.cli.arguments import Asked, parse
from hasten.core.trace import PHASES
from hasten.report import tree
from hasten.rules import all_rules

TEXT = generate.README.read_text(encoding="utf-8")


def section(title: str) -> str:
    return TEXT.split(f"\n## {title}\n")[1].split("\n## ")[0]


def block(text: str, language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", text, re.S)
    assert found, language
    return found.group(1)


COMMANDS = [
    line
    for title in ("Quick start", "Command line")
    for line in block(section(title), "bash").splitlines()
    if line.startswith("hasten ")
]


def test_the_rule_table_and_page_are_those_of_the_rules() -> None:
    assert not [p.name for p in generate.stale()], "run `make docs`"


@pytest.mark.parametrize("rule", all_rules(), ids=lambda r: r.code)
def test_every_heading_of_a_rule_is_on_its_page(rule: object) -> None:
    assert isinstance(rule, type(all_rules()[0]))
    page = generate.rules_page()
    assert f"### {rule.code} {rule.name}\n" in page
    assert set(generate.sections(rule)) == {
        "", "Why it is slow", "Remedy", "Fidelity", "When it does not help", "References",
    }  # fmt: skip
    assert all(generate.sections(rule).values())
    assert not re.search(r"[,.]>", page), "an address ends with a comma"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_accepted(command: str) -> None:
    words = shlex.split(command, comments=True)
    asked = parse(words[1:])
    assert isinstance(asked, Asked)
    assert asked.command == words[1]
    if asked.command == "solve":
        assert asked.data and asked.target
    elif asked.command != "rule":
        assert asked.script
        assert not set(asked.args) & {"--json", "--html", "--budget", "--plan", "--allow"}, "stands behind the script"


def test_every_option_is_shown_or_described_by_help(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("explain", "run", "solve"):
        with pytest.raises(SystemExit):
            parse([command, "--help"])
    described = set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out))
    used = {word for line in COMMANDS for word in shlex.split(line, comments=True) if word.startswith("--")}
    assert used - described <= {"--epochs", "--lr"}


def test_rules_and_remedies_named_in_commands_exist() -> None:
    codes = {rule.code for rule in all_rules()}
    for command in COMMANDS:
        words = shlex.split(command, comments=True)
        if words[1] == "rule" and len(words) > 2:
            assert words[2] in codes
        for option, name in itertools.pairwise(words):
            if option in ("--only", "--skip"):
                assert hasattr(hasten, name)


def test_remedies_by_hand() -> None:
    data = TensorDataset(torch.arange(24.0).reshape(12, 2), torch.arange(12))
    loader = DataLoader(data, batch_size=4)
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    optimizer = torch.optim.Adam(model.parameters())
    scope = {"loader": loader, "model": model, "optimizer": optimizer}
    code = block(section("From Python"), "python by hand").replace("hasten.Allocator()()", "hasten.Allocator")
    exec(compile(code, "README.md", "exec"), scope)
    assert scope["loader"] is loader and loader.num_workers == 2
    assert optimizer.param_groups[0]["fused"]
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_the_fleet_example_runs() -> None:
    scope: dict[str, object] = {}
    exec(compile(block(section("Train 1660 networks at once"), "python fleet"), "README.md", "exec"), scope)
    assert scope["forecast"].shape == (5, 1)
    assert all(found["holds"] for found in scope["trained"].summary().proof)


def test_training_without_a_loop_as_shown(capsys: pytest.CaptureFixture[str]) -> None:
    code = block(section("Train without a loop"), "python solve")
    exec(compile(code, "README.md", "exec"), {})
    assert "→ Gram" in capsys.readouterr().out


def test_names_from_python_exist() -> None:
    code = block(section("From Python"), "python")
    names = set(re.findall(r"(?<![\w.])hasten\.(\w+)", code))
    assert names <= set(hasten.__all__)


def test_every_claim_names_a_bench_and_every_result_is_whole() -> None:
    assert len(generate.claims()) >= 4
    for name in (name for _, _, name in generate.claims()):
        for _, result in generate.newest(name):
            assert set(result) >= {"summary", "command", "machine", "versions", "load", "date", "figures", "raw"}


def test_links_lead_somewhere() -> None:
    docs = [path.name for path in (generate.ROOT / "docs").glob("*.md")]
    pages = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "bench/README.md")
    for name in (*pages, *(f"docs/{name}" for name in docs)):
        path = generate.ROOT / name
        for target in re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{name}: {target}"


def test_every_phase_is_explained_under_the_name_that_is_printed() -> None:
    page = (generate.ROOT / "docs" / "explain.md").read_text(encoding="utf-8")
    rows = " ".join(re.findall(r"^\| (.+?) \|", page, re.M))
    assert not [name for name in PHASES if tree.TITLES.get(name, name) not in rows]


def test_what_the_troubleshooting_page_quotes_is_said_somewhere() -> None:
    """Words in backticks in its first column: a part of each, up to what is filled in, stands in the sources."""
    page = (generate.ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    sources = "\n".join(p.read_text(encoding="utf-8") for p in (generate.ROOT / "src").rglob("*.py"))
    told = re.sub(r'"\s*f?"', "", sources)
    for cell in re.findall(r"^\| (.+?) \|", page, re.M)[2:]:
        for words in re.findall(r"`([^`]+)`", cell):
            longest = max(re.split(r"\b[NM]\b|\(…\)|hasten: ", words), key=len).strip()
            assert longest in told or words.startswith("--"), words


def test_anchors_of_rules_exist() -> None:
    page = generate.RULES.read_text(encoding="utf-8")
    anchors = {h.strip().lower().replace(" ", "-") for h in re.findall(r"^### (.+)$", page, re.M)}
    assert set(re.findall(r"docs/rules\.md#([\w-]+)", TEXT)) <= anchors


def test_no_path_of_the_author_stands_in_the_documents() -> None:
    for path in (*generate.ROOT.glob("*.md"), *generate.ROOT.glob("docs/*.md"), *generate.ROOT.glob("bench/*.md")):
        assert not re.search(r"(?<![\w.])/(?:tmp|work|home|root)/", path.read_text(encoding="utf-8")), path
