"""Another allocator in glibc's place: found, started with, and refused where it is not there."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

import hasten
from hasten.api import run
from hasten.core.errors import PlanRefused, Unsuited
from hasten.core.plan import Plan, Step, sha256_of_file
from hasten.core.report import Result
from hasten.measure import machine

SCRIPT = """
import torch
model = torch.nn.Linear(3, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(5):
    model(torch.ones(2, 3)).sum().backward()
    optimizer.step()
print("/libjemalloc.so" in open("/proc/self/maps").read())
"""

JEMALLOC = Step("PreloadedAllocator", {"malloc": "jemalloc"}, "identical", "M307")


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Some shared library under the other's name."""
    maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    found = re.search(r"/\S*/libm[.-]\S*so\S*", maps)
    if found is None:
        pytest.skip("no libm in this process")
    folder = tmp_path / "lib"
    folder.mkdir()
    shutil.copy(found.group(), folder / "libjemalloc.so.2")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(folder))
    return folder / "libjemalloc.so.2"


def test_it_is_found_and_joins_what_is_preloaded_already(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.allocators()["jemalloc"] == str(library)
    assert hasten.PreloadedAllocator("jemalloc").environment() == {"LD_PRELOAD": str(library)}
    monkeypatch.setenv("LD_PRELOAD", "own.so")
    assert hasten.PreloadedAllocator("jemalloc").environment() == {"LD_PRELOAD": f"{library}:own.so"}
    assert hasten.PreloadedAllocator("none such").environment() == {}


def test_it_cannot_be_put_into_a_running_process(library: Path) -> None:
    with pytest.raises(Unsuited, match=f"started with it: LD_PRELOAD={library}"):
        hasten.PreloadedAllocator("jemalloc")()
    with pytest.raises(Unsuited, match=r"no libnone such\.so was found"):
        hasten.PreloadedAllocator("none such")()


def replayed(folder: Path, said: Path, step: Step = JEMALLOC) -> Result:
    script = folder / "train.py"
    script.write_text(SCRIPT)
    plan = Plan(str(script), sha256_of_file(script), machine.versions(), machine.machine(), (step,))
    with said.open("w") as file:
        return run(script, plan=plan, stdout=file)


def test_a_plan_starts_the_script_with_it(tmp_path: Path, library: Path, capfd: pytest.CaptureFixture[str]) -> None:
    said = tmp_path / "said"
    assert replayed(tmp_path, said).exit_code == 0
    assert said.read_text() == "True\n"
    library.unlink()  # of a plan that outlives it the rest goes on
    assert replayed(tmp_path, said).exit_code == 0
    assert said.read_text() == "False\n"
    assert "no libjemalloc.so was found" in capfd.readouterr().err


@pytest.mark.parametrize("step", [Step("NoSuchRemedy", {}, "identical"), Step("Threads", {"many": 2}, "equivalent")])
def test_a_plan_with_what_this_version_does_not_have_is_refused(tmp_path: Path, step: Step) -> None:
    with pytest.raises(PlanRefused, match=f"holds {step.remedy} with the settings"):
        replayed(tmp_path, tmp_path / "said", step)
    assert (tmp_path / "said").read_text() == ""  # the script was not started
