"""The page: self-contained, escaped, well-formed, with a drawing for every figure it promises."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser

import pytest

from hasten.core.facts import Place
from hasten.core.report import Report
from hasten.report import fleet_page
from hasten.report.html import page
from hasten.report.parts import located, prose
from tests import samples

VOID = {"wbr", "meta", "br", "link", "img", "input", "hr"}
EVIL = """<script>alert("x")</script>'&"""


class Reader(HTMLParser):
    """Collects text and attributes, and insists that every element is closed."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(document)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


PAGES = {
    "explain": page(samples.report()),
    "run": page(samples.result(report=samples.report(trace=samples.growing()))),
    "nothing": page(Report(None, command=samples.COMMAND, message="torch was never imported")),
}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_well_formed_and_needs_nothing_from_elsewhere(name: str) -> None:
    reader = Reader(PAGES[name])
    assert reader.open == []
    assert not {"script", "link", "img", "iframe", "object"} & set(reader.tags)
    assert not [a for a in reader.attributes if a[0] in ("src", "href") or a[0].startswith("on")]
    assert not re.search(r"https?:|url\(|@import", PAGES[name])
    assert ("name", "viewport") in reader.attributes
    assert "prefers-color-scheme: dark" in PAGES[name]


def test_everything_that_came_from_the_user_is_escaped() -> None:
    place = Place(f"{EVIL}.py", 3, EVIL, f"x = '{EVIL}'", 5, 12)
    finding = dataclasses.replace(
        samples.FINDINGS[0], place=place, message=EVIL, label=EVIL, advice=EVIL, notes=(EVIL,), name=EVIL
    )
    trial = dataclasses.replace(samples.TRIALS[0], remedy=EVIL, why=EVIL, verdict=EVIL, fidelity=EVIL)
    phase = dataclasses.replace(samples.trace().phases[0], name=EVIL, place=place)
    trace = samples.growing(script=EVIL, notes=(EVIL,), phases=(phase,), ended=EVIL, machine={"cpu": EVIL})
    report = samples.report(
        trace=dataclasses.replace(trace, growth=dataclasses.replace(trace.growth, variable=EVIL, place=place)),
        findings=(finding,),
        command=("python", f"{EVIL}.py", EVIL),
        message=EVIL,
        exit_code=1,
    )
    document = page(samples.result(report=report, trials=(trial,), proof=EVIL, broken=(EVIL,), plan_path=EVIL))
    reader = Reader(document)
    assert "script" not in reader.tags and reader.open == []
    assert "<script" not in document
    assert reader.text.count('alert("x")') > 15


def test_undecodable_paths_and_control_characters_can_be_written() -> None:
    report = samples.report(command=("python", "\udcff\x1b[2J.py"))
    page(report).encode("utf-8")
    assert "\x1b" not in page(report)


def test_figures_of_the_report_are_on_the_page() -> None:
    text = Reader(PAGES["run"]).text
    for figure in ("99.2", "±0.7", "61.8 %", "2.31×", "2.27–2.35", "1.6–2.6×", "1 min 48 s", "hasten run --plan"):
        assert figure in text
    for title in ("What was tried", "Where the time goes", "Ceilings", "Why", "What grows", "Step time", "Epochs"):
        assert title in text


def narrow() -> str:
    return PAGES["explain"].partition("@media (max-width: 640px)")[2].partition("@media print")[0]


def test_in_a_narrow_window_no_figure_goes() -> None:
    hidden = " ".join(re.findall(r"([^{}]+)\{ display: none; \}", narrow()))
    cells = set(re.findall(r"\.(\w+) td:nth-child\((\d)\)", hidden))
    assert cells == {("ceilings", "6")}
    body = PAGES["explain"].partition('<table class="ceilings">')[2].partition("<tbody>")[2].partition("</tr>")[0]
    assert ['class="bar"' in cell for cell in re.findall(r"<td[ >].*?</td>", body)].index(True) == 5


def test_every_colour_of_a_bar_has_its_name() -> None:
    drawn = re.search(r'<div class="stack".*?</div>', PAGES["explain"])
    assert drawn is not None
    named = set(re.findall(r'<i class="key (\w+)"></i>', PAGES["explain"]))
    assert set(re.findall(r'<i class="(\w+)"', drawn[0])) <= named
    heads, rows = (
        PAGES["explain"].partition('<table class="epochs">')[2].partition(end) for end in ("<tbody>", "</table>")
    )
    assert set(re.findall(r'<i class="(\w+)" style', rows[0])) == set(re.findall(r'"key (\w+)"', heads[0]))


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [x / 12.92 if x <= 0.03928 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_words_can_be_read_on_every_ground(scheme: int) -> None:
    block = re.findall(r":root \{(.*?)\}", PAGES["explain"], re.DOTALL)[scheme]
    colours = dict(re.findall(r"--(\w+): (#\w{6})", block))
    for words in ("ink", "soft", "good", "bad", "open", "accent"):
        for ground in ("ground", "card", "track"):
            light, dark = sorted((luminance(colours[words]), luminance(colours[ground])), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (words, ground)


def test_a_step_is_the_same_figure_wherever_it_stands() -> None:
    step = samples.ms(760, 300)
    trace = samples.trace(step=step, phases=(dataclasses.replace(samples.trace().phases[0], seconds=step),))
    text = Reader(page(samples.report(trace=trace))).text
    assert "760 ms" in text and "800" not in text


def test_a_replayed_plan_shows_its_proof_and_what_was_broken() -> None:
    text = Reader(page(samples.result(trials=(), overall=None, broken=("CacheSamples(): a value differed",)))).text
    for words in ("What the plan applied", "CacheSamples(): a value differed", "before", "after"):
        assert words in text


def test_a_reason_is_given_once() -> None:
    trial = dataclasses.replace(
        samples.TRIALS[0], verdict="broken promise", why="weights differ", fidelity_found="weights differ"
    )
    assert Reader(page(samples.result(trials=(trial,)))).text.count("weights differ") == 1


def test_what_stands_in_backticks_is_code_and_options_are_not_broken() -> None:
    assert (
        "<code>if step % 50 == 0: print(loss.item())</code>" in PAGES["explain"]
        and "`" not in Reader(PAGES["run"]).text
    )
    assert '<span class="word">--allow</span> approximate' in PAGES["run"]
    assert prose("a `b and <c>") == "a `b and &lt;c&gt;"


def test_a_long_place_loses_folders_and_keeps_them_as_its_title() -> None:
    path = "/home/someone/a/very/long/way/down/to/the/script/train.py"
    assert (
        located(Place(path, 7)).replace("<wbr/>", "")
        == f'<code class="short" title="{path}:7">…/down/to/the/script/train.py:7</code>'
    )
    assert located(Place("a_b/c.py", 7)) == '<code class="short">a_<wbr/>b/<wbr/>c.py:7</code>'
    assert located(Place("train.py", 7)) == '<code class="short">train.py:7</code>'
    report = samples.report(command=("python", path, "--lr", "1"))
    assert "<title>train.py --lr 1 · hasten</title>" in page(report) and path in page(report)


def test_points_beyond_the_picture_are_told() -> None:
    curve = (0.1,) * 98 + (0.11, 7.0)
    assert "1 of 100 points lie higher, the highest at 7.0 s" in page(samples.report(trace=samples.trace(curve=curve)))
    assert "lie higher" not in PAGES["explain"]


def test_trials_are_drawn_on_one_logarithmic_scale() -> None:
    dots = [float(x) for x in re.findall(r'class="dot" cx="([\d.]+)"', PAGES["run"])]
    ones = {float(x) for x in re.findall(r'class="one" x1="([\d.]+)"', PAGES["run"])}
    assert len(dots) == 3 and len(ones) == 1
    assert abs(dots[1] - ones.pop()) < 1 < dots[0]
    assert dots[0] == dots[2]


def test_the_marked_part_of_a_line_is_marked() -> None:
    assert "<mark>DataLoader(dataset, batch_size=64, shuffle=True)</mark>" in PAGES["explain"]


def test_the_curve_has_a_point_a_value_and_none_for_the_unknown() -> None:
    document = page(samples.report(trace=samples.trace(curve=(0.1, float("nan"), 0.2, 0.1, 0.15))))
    points = re.search(r'<polyline class="curve" points="([^"]+)"', document)
    assert points is not None and len(points[1].split()) == 4
    assert "polyline" not in page(samples.report(trace=samples.trace(curve=())))


def test_messages_stand_in_one_order() -> None:
    for n in range(8):
        document = page(samples.result(report=samples.report(message=f"first {n}"), message=f"second {n}"))
        assert document.index(f"first {n}") < document.index(f"second {n}")


def test_drawings_say_what_they_show_or_are_hidden() -> None:
    forecast = {"key": "a", "group": "best", "held": 0.5, "seen": [1.0, 2.0], "came": [3.0], "predicted": [2.5]}
    found = [fleet_page._multiple(forecast, ""), *PAGES.values()]
    drawings = [tag for text in found for tag in re.findall(r'<svg[^>]*>|<div class="stack"[^>]*>', text)]
    assert len(drawings) > 5 and all("aria-label=" in tag or "aria-hidden=" in tag for tag in drawings)
