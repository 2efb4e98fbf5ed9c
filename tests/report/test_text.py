"""The report in the terminal: its form to the letter, its figures honest, its colours only where they are wanted."""

from __future__ import annotations

import dataclasses
import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from hasten.core.facts import LoaderFacts, Place, Process, Usage
from hasten.core.interval import Interval
from hasten.core.report import Report, Result
from hasten.core.trace import Ceilings, Epoch, Phase
from hasten.report import text, view
from hasten.report.layout import bar, excerpt, shortened, width_of
from hasten.report.paragraph import quoted
from hasten.report.tree import tree
from tests import samples

HERE = Path(__file__).parent


def drawn(page: text.Page, width: int = 80, **options: object) -> str:
    file = io.StringIO()
    Console(file=file, width=width, highlight=False, **options).print(page, soft_wrap=True)
    return file.getvalue()


@pytest.mark.parametrize("name", ["explain", "run", "growing"])
def test_the_whole_report_to_the_letter(name: str) -> None:
    pages = {
        "explain": text.render(samples.report()),
        "run": text.render_result(samples.result()),
        "growing": text.render(samples.report(trace=samples.growing())),
    }
    assert str(pages[name]) + "\n" == (HERE / f"{name}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [60, 72, 80, 100])
def test_no_line_is_wider_than_the_window(width: int) -> None:
    for page in (text.render(samples.report(trace=samples.growing())), text.render_result(samples.result())):
        lines = drawn(page, width).splitlines()[:-1]  # the next command is never broken
        assert max(map(width_of, lines)) <= width


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_files_name_is_never_cut_and_source_text_gives_way_to_it(width: int) -> None:
    line = "image = Image.open(path).convert('RGB')"
    deep = Place("package/with/folders/load_photos.py", 123)
    phases = (Phase("fetch", samples.ms(61, 1), deep, 1.0, (Phase(line, samples.ms(40, 1), deep),)),)
    shown = drawn(text.render(samples.report(trace=samples.trace(phases=phases))), width).splitlines()
    rows = [row for row in shown if "ms/step" not in row and row.startswith(("├", "│"))]
    assert len(rows) == 3 and all(width_of(row) <= width for row in rows)
    places = [row.split()[-1] for row in rows[:2]]
    assert all(p.endswith("load_photos.py:123") for p in places)
    assert (line in rows[1]) == (width == 120) and ("█" in rows[0]) == (width == 120)


def test_paths_are_shortened_by_folders() -> None:
    assert [shortened("a/bc/def.py:7", w) for w in (13, 12, 10, 9, 3)] == [
        "a/bc/def.py:7",
        "…/def.py:7",
        "…/def.py:7",
        "def.py:7",
        "def.py:7",
    ]
    assert shortened("abc/bc/def.py:7", 14) == "…/bc/def.py:7"


def test_a_long_remedy_is_cut_and_its_figures_are_not() -> None:
    trial = dataclasses.replace(samples.TRIALS[0], remedy="CachePrefix(Resize, CenterCrop, ToTensor, Normalize)")
    line = next(x for x in str(text.render_result(samples.result(trials=(trial,)))).splitlines() if "CachePrefix" in x)
    assert width_of(line) <= 80 and "…" in line and line.endswith("2.31×  2.27–2.35  kept")


def test_colours_only_on_a_terminal_and_without_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    page = text.render(samples.report())
    assert "\x1b" not in drawn(page)
    assert "\x1b[" in drawn(page, force_terminal=True, color_system="standard")
    monkeypatch.setenv("NO_COLOR", "1")
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", drawn(page, force_terminal=True))


def test_words_are_the_same_with_and_without_colours() -> None:
    page = text.render(samples.report())
    coloured = drawn(page, force_terminal=True, color_system="standard")
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == drawn(page)


def test_an_ascii_terminal_gets_ascii() -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    Console(file=file, width=80, highlight=False).print(text.render(samples.report()), soft_wrap=True)
    file.flush()
    assert b"|- fetch a batch" in file.buffer.getvalue()  # type: ignore[attr-defined]


def test_phases_sum_to_the_step() -> None:
    rows = tree(samples.trace())
    assert sum(r.seconds.value for r in rows if len(r.lasts) == 1) == pytest.approx(rows[0].seconds.value)
    fetch = [r for r in rows if r.phase == "fetch"]
    assert sum(r.seconds.value for r in fetch[1:]) == pytest.approx(fetch[0].seconds.value)
    assert rows[-1].name == "unaccounted"


def test_what_no_line_accounts_for_is_taken_out_of_the_lines_in_between_once() -> None:
    """2 ms of 10 belong to no phase; of the 3 ms that no line accounts for they are a part."""
    line = Place("t.py", 3)
    python = Phase("python", samples.ms(4, 0.1), line, 0.0, (Phase("x = y", samples.ms(3, 0.1), line),))
    phases = (Phase("forward", samples.ms(4, 0.1)), python)
    rows = tree(samples.trace(step=samples.ms(10, 0.1), phases=phases, unaccounted=0.003))
    found = {row.name: row.seconds.value for row in rows if len(row.lasts) == 1}
    assert found == pytest.approx({"forward": 0.004, "lines in between": 0.003, "unaccounted": 0.003})


def test_phases_that_leave_time_open_show_it() -> None:
    trace = samples.trace(phases=(Phase("forward", samples.ms(60, 1)),), unaccounted=float("nan"))
    assert [r.name for r in tree(trace)] == ["step", "forward", "unaccounted"]
    assert tree(trace)[-1].seconds.value == pytest.approx(0.0392)


def test_a_machine_that_others_use_is_told() -> None:
    """What was measured, and what was kept, is for a machine as busy; a loader's own workers are no others."""

    def shown(workers: float) -> str:
        usage = Usage(cpu_seconds=0.11, wall_seconds=0.1, worker_cpu_seconds=workers, other_load=1.5)
        trace = samples.trace(usage=usage, process=Process(cores=2))
        result = samples.result(report=samples.report(trace=trace))
        return " ".join(str(text.render_result(result)).split())

    assert "others kept 1.5 of 2 cores busy meanwhile" in shown(workers=0.0)
    assert "1.5 of 2 cores busy meanwhile: what was kept suits a machine as busy" in shown(workers=0.0)
    assert "cores busy meanwhile" not in shown(workers=0.14)


def test_steps_that_got_longer_behind_a_gain_are_explained() -> None:
    """A reader sees "1.19x, kept" above and "155 ms before, 195 ms after" below it."""

    def shown(after: float) -> str:
        return " ".join(str(text.render_result(samples.result(after=samples.ms(after, 2)))).split())

    assert "steps got longer meanwhile" in shown(140.0)
    assert "meanwhile" not in shown(100.5) and "meanwhile" not in shown(42.9)


def test_steps_that_got_shorter_by_more_than_the_gain_are_explained() -> None:
    """A reader sees "2.2x (1.4-4.0)" above and "6.7 ms before, 0.95 ms after" below it."""
    assert "that is more than the gain: steps got shorter meanwhile" in " ".join(
        str(text.render_result(samples.result(after=samples.ms(2, 0.1)))).split()
    )


def test_at_most_five_findings_then_how_to_see_the_rest() -> None:
    many = samples.report(findings=samples.FINDINGS * 3)
    assert str(text.render(many)).count("= predicted") == 5
    assert "\n4 more: --all\n" in str(text.render(many))
    assert str(text.render(many, every=True)).count("= predicted") == 9


def test_unknown_ceilings_say_why() -> None:
    report = samples.report(trace=samples.trace(ceilings=Ceilings(why_not="CUDA is in use, so nothing can be forked")))
    assert "ceilings  –  CUDA is in use, so nothing can be forked" in str(text.render(report))
    half = Ceilings(samples.ms(99, 1), samples.ms(40, 1), None, why_not="no DataLoader")
    shown = str(text.render(samples.report(trace=samples.trace(ceilings=half))))
    assert re.search(r"model free\s+–\s+–\s+–\s+–  no DataLoader", shown)
    half = dataclasses.replace(half, why_not="the loop makes its DataLoader and keeps no name for it")
    shown = str(text.render(samples.report(trace=samples.trace(ceilings=half))))
    assert "\nmodel free: the loop makes its DataLoader and keeps no name for it\n" in shown


def test_data_that_alone_is_slower_than_all_is_no_gain() -> None:
    slow = Ceilings(samples.ms(21, 1), samples.ms(0.9, 0.1), samples.ms(35, 2), samples.ratio(23, 20, 26, 0.95))
    shown = str(text.render(samples.report(trace=samples.trace(ceilings=slow))))
    assert re.search(r"model free +35 +±2 +no gain +the data alone", shown)
    assert "no gain" not in str(text.render(samples.report()))


def test_a_mean_and_its_lines_are_not_rounded_apart() -> None:
    line = Place("t.py", 23)
    children = (Phase("t.train()", samples.ms(14.1, 0.3), line), Phase("save()", samples.ms(0.57, 0.1), line))
    phases = (Phase("forward", samples.ms(60.8, 2)), Phase("evaluation", samples.ms(14.7, 20), line, 1.0, children))
    shown = str(text.render(samples.report(trace=samples.trace(step=samples.ms(75.5, 30), phases=phases))))
    assert re.search(r"step +76 +±30", shown) and re.search(r"evaluation +15 +±20", shown)


def test_where_no_line_was_looked_for_the_rest_is_the_scripts_own_python() -> None:
    phases = (Phase("forward", samples.ms(60, 1)), Phase("python", samples.ms(39.2, 1)))
    rows = tree(samples.trace(phases=phases, unaccounted=0.0392))
    assert [(r.name, round(r.seconds.value, 4)) for r in rows[2:]] == [
        ("lines in between", 0.0392),
        ("unaccounted", 0),
    ]


def test_nothing_that_does_not_grow_is_shown() -> None:
    assert "grows" not in str(text.render(samples.report()))
    assert "per 1000 steps" in str(text.render(samples.report(trace=samples.growing())))


def test_many_epochs_are_first_middle_and_last() -> None:
    trace = samples.trace(epochs=tuple(Epoch(10, 1.0, 0.5, 0.25) for _ in range(300)))
    lines = str(text.render(samples.report(trace=trace))).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("epoch"))
    table = lines[start : lines.index("", start)]
    assert [line.split()[0] for line in table] == ["epoch", "1", "2", "…", "151", "…", "299", "300"]
    assert "evaluation" in table[0]


def test_a_single_epoch_needs_no_table() -> None:
    assert "epoch" not in str(
        text.render(samples.report(trace=samples.trace(epochs=(Epoch(9, 1.0, 1.0, 0.0),)), command=()))
    )


def test_steps_that_no_loader_feeds_have_no_epochs() -> None:
    assert "epoch " not in str(text.render(samples.report(trace=samples.trace(loaders=()), command=())))
    one_batch_each = (Epoch(1, 0.1, 0.05, 0.0),) * 20
    assert "epoch " not in str(text.render(samples.report(trace=samples.trace(epochs=one_batch_each), command=())))


@pytest.mark.parametrize("count", [8, 9])
def test_no_single_epoch_is_left_out(count: int) -> None:
    shown = view.epochs(samples.trace(epochs=(Epoch(10, 1.0, 0.5, 0.0),) * count))
    numbers = [e[0] if e else None for e in shown]
    assert numbers == ([*range(1, 9)] if count == 8 else [1, 2, None, 5, None, 8, 9])


@pytest.mark.parametrize(
    ("code", "ended", "said"),
    [
        (1, "ValueError after 12 steps", "the script ended with exit code 1: ValueError after 12 steps"),
        (-9, "", "the script was ended by SIGKILL; the usual cause is that memory ran out"),
        (0, "stopped after 20 steps as asked", "the script stopped after 20 steps as asked"),
    ],
)
def test_how_the_script_ended(code: int, ended: str, said: str) -> None:
    shown = str(text.render(samples.report(exit_code=code, trace=samples.trace(ended=ended))))
    assert said in shown.splitlines()


def test_a_script_that_did_not_train_gets_a_sentence_and_a_next_command() -> None:
    shown = str(text.render(Report(None, command=samples.COMMAND, message="torch was never imported")))
    assert shown.splitlines() == [
        "train.py --epochs 8",
        "torch was never imported",
        "",
        "next    hasten explain SCRIPT, with the script that trains",
    ]


def test_the_last_line_is_the_next_command() -> None:
    def last(page: text.Page) -> str:
        return str(page).splitlines()[-1].removeprefix("next    ")

    trials = samples.TRIALS
    assert last(text.render(samples.report())) == "hasten run train.py --epochs 8"
    assert last(text.render(samples.report(findings=samples.FINDINGS[1:2]))) == "hasten rule S501"
    assert last(text.render_result(samples.result())) == "hasten run --plan train.hasten.json train.py --epochs 8"
    after = {
        "--allow approximate": trials[1:],
        "--allow equivalent": (dataclasses.replace(trials[2], fidelity="equivalent"), *trials[1:]),
        "--budget 240": (trials[1], dataclasses.replace(trials[2], why="the budget was used up")),
    }
    for option, tried in after.items():
        assert last(text.render_result(samples.result(trials=tried))) == f"hasten run {option} train.py --epochs 8"
    odd = samples.report(command=("python", "a b.py", "it's"))
    assert last(text.render(odd)) == """hasten run 'a b.py' 'it'"'"'s'"""


def test_the_next_command_follows_from_what_is_shown() -> None:
    dropped = samples.TRIALS[1:2]
    shown = str(text.render_result(samples.result(trials=dropped)))
    assert shown.splitlines()[-1] == "next    hasten rule S501" and "\nS501 logging" in shown
    cured = samples.report(findings=samples.FINDINGS[:1])  # its remedy was tried: the finding is not shown again
    for trials in ((), dropped):
        shown = str(text.render_result(samples.result(trials=trials, report=cured)))
        assert shown.splitlines()[-1] == "next    hasten explain train.py --epochs 8"
    nothing = Report(None, command=samples.COMMAND, message="torch was never imported")
    assert view.next_command(Result(report=nothing)) == "hasten run SCRIPT, with the script that trains"
    stopped = dataclasses.replace(nothing, exit_code=-2)
    assert view.next_command(stopped) == "hasten explain train.py --epochs 8"


def test_a_run_measures_no_ceilings_and_says_nothing_of_them() -> None:
    report = samples.report(trace=samples.trace(ceilings=Ceilings()))
    assert "ceilings" not in str(text.render_result(samples.result(report=report)))


def test_a_broken_promise_is_shown() -> None:
    broken = samples.result(broken=("LoaderWorkers(7) promised identical weights and gave others",))
    assert "broken    LoaderWorkers(7) promised identical weights" in str(text.render_result(broken))


def test_no_step_time_is_compared_where_nothing_is_on() -> None:
    later = dataclasses.replace(samples.TRIALS[0], verdict="dropped")
    for trials in ((later,), samples.TRIALS[1:]):
        assert " before, " not in str(text.render_result(samples.result(trials=trials, overall=None)))
    assert " before, " in str(text.render_result(samples.result()))
    launched = samples.result(overall=None, after=None)  # kept, but only the next start has it
    assert " before, " not in str(text.render_result(launched))


def test_what_looking_cost_is_no_broken_budget() -> None:
    none = dataclasses.replace(samples.TRIALS[2], why="the budget was used up")
    short = samples.result(trials=(none,), overall=None, cost_seconds=0.27, budget_seconds=0.0032)
    shown = " ".join(str(text.render_result(short)).split())
    assert "cost 0.27 s for looking; 3.2 ms were allowed, too little for a trial" in shown


def test_why_there_were_no_trials() -> None:
    shown = str(text.render_result(Result(report=samples.report(), message="no trials inside this process: CUDA")))
    assert "no trials inside this process: CUDA" in shown


def test_a_replayed_plan_shows_what_was_measured_when_it_was_made() -> None:
    result = Result(report=samples.report(), plan=samples.plan(), message="replayed a plan of 1 remedy")
    assert re.search(r"LoaderWorkers\(7\)  identical\s+2\.31×  2\.27–2\.35", str(text.render_result(result)))


def test_a_ratio_that_nothing_is_known_of_has_no_interval() -> None:
    trial = dataclasses.replace(samples.TRIALS[0], ratio=Interval(1.234, 1e-3, 1e3, "ratio", 0.99, 3))
    shown = str(text.render_result(samples.result(trials=(trial,), overall=None)))
    assert re.search(r"1\.2×\s+–  kept", shown)


# -- source lines ---------------------------------------------------------------------------------------------------


def lines_of(place: Place, label: str = "here", width: int = 60) -> list[str]:
    return ["".join(t for t, _ in line).rstrip() for line in quoted(place, label, width)]


def test_the_caret_stands_under_the_columns() -> None:
    assert lines_of(Place("a.py", 7, text="    x = model(y)", column=9, end_column=17)) == [
        " --> a.py:7:9",
        "7 | x = model(y)",
        "  |     ^^^^^^^^ here",
    ]


def test_without_a_column_there_is_no_caret() -> None:
    assert lines_of(Place("a.py", 7, text="x = model(y)")) == [" --> a.py:7", "7 | x = model(y)", "  | here"]


def test_without_the_source_there_is_only_the_place() -> None:
    assert lines_of(Place("a.py", 7)) == [" --> a.py:7", "  = here"]


def test_wide_characters_tabs_and_long_lines_keep_the_caret_in_place() -> None:
    wide = Place("a.py", 1, text='\tf("é日本"); g(x)', column=17, end_column=21)
    _, source, mark = lines_of(wide)
    assert mark.index("^^^^") == width_of(source[: source.index("g(x)")])
    far = Place("a.py", 1, text="a = b + " * 40 + "model(x)", column=321, end_column=329)
    _, source, mark = lines_of(far)
    assert source[mark.index("^") :].startswith("model(x)") and width_of(source) <= 60


def test_control_characters_of_a_script_do_not_reach_the_terminal() -> None:
    shown = "\n".join(
        lines_of(Place("a\x1b[2J.py", 1, text="x = '\x1b]0;owned\x07'", column=1, end_column=2), "\x1b[31m")
    )
    assert "\x1b" not in shown and "\x07" not in shown


def test_a_column_beyond_the_line_is_harmless() -> None:
    assert excerpt(Place("a.py", 1, text="x", column=90, end_column=99), 40) is not None


def test_bars() -> None:
    assert [bar(s, 4) for s in (1.0, 0.5, 0.53, 0.0001, 0.0, float("nan"))] == ["████", "██", "██▏", "▏", "", ""]


def test_a_phase_is_not_named_after_what_the_script_does_not_have() -> None:
    """clip_grad_norm_ calls ``to`` on a CPU, too; a pass over a loader begins without workers, too."""
    place = Place("train.py", 12)
    phases = (Phase("copy", samples.ms(1, 0.1), place), Phase("loader start", samples.ms(1, 0.1), place))

    def names(device: str, workers: int) -> set[str]:
        loaders = (LoaderFacts("training", "Points", num_workers=workers),)
        found = tree(samples.trace(phases=phases, loaders=loaders, process=Process(device=device)))
        return {row.name for row in found} - {"step", "unaccounted"}

    assert names("cpu", 0) == {"Tensor.to", "start of a pass"}
    assert names("cuda", 2) == {"copy to the device", "start and end of workers"}
