"""Pictures as files: labels that do not lie on one another, colours that keep their order, text that stays text."""

from __future__ import annotations

import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xgen.drawing.heat import colour, heat_map
from xgen.drawing.lines import Line, line_chart
from xgen.drawing.standalone import spread
from xgen.drawing.svg import Axis

_SVG = "{http://www.w3.org/2000/svg}"


@given(st.lists(st.floats(-50, 450), max_size=25))
def test_labels_are_apart_in_order_and_inside(wanted: list[float]) -> None:
    places = spread(wanted, 15, 0, 400)
    assert all(-1e-6 <= place <= 400 + 1e-6 for place in places)
    gap = min(15, 400 / max(1, len(wanted) - 1))
    assert all(later - before >= gap - 1e-6 for before, later in pairwise(sorted(places)))
    order = sorted(range(len(wanted)), key=lambda at: (wanted[at], at))
    assert [places[at] for at in order] == sorted(places)


def test_a_label_with_room_lies_at_its_line() -> None:
    assert spread([10.0, 200.0, 205.0], 15, 0, 400) == [10.0, 195.0, 210.0]


def _chart(names: list[str]) -> ElementTree.Element:
    lines = [Line(name, [(1, 50 + n / 10), (10, 60 + n / 10)], reference=n > 0) for n, name in enumerate(names)]
    axes = Axis("tokens", 1, 10, log=True), Axis("score (%)", 0, 100, label="{:g}".format)
    return ElementTree.fromstring(line_chart("Scores", *axes, lines, "all of one height", (85.6, "a threshold")))


def test_many_lines_of_one_height_have_names_that_can_be_read() -> None:
    names = [f"model {n}" for n in range(24)]
    found = {text.text: text for text in _chart(names).iter(f"{_SVG}text")}
    heights = sorted(float(found[name].get("y", "nan")) for name in names)
    assert min(later - before for before, later in pairwise(heights)) >= 14.9
    assert {"tokens", "score (%)", "Scores", "all of one height", "a threshold"} <= found.keys()


def test_a_long_name_has_room_at_the_right() -> None:
    name = "a-run-with-a-name-as-long-as-they-may-be-abc123@1,000,000"
    drawn = _chart([name])
    (text,) = (one for one in drawn.iter(f"{_SVG}text") if one.text == name)
    assert float(text.get("x", "nan")) + 0.62 * 12 * len(name) <= float(drawn.get("width", "nan"))


def test_text_is_text_in_a_picture() -> None:
    assert [one for one in _chart(["</text><script>x</script>&"]).iter() if "script" in one.tag] == []


def test_brightness_rises_with_the_share() -> None:
    bright = [0.299 * r + 0.587 * g + 0.114 * b for r, g, b in (colour(n / 100) for n in range(101))]
    assert all(later >= before for before, later in pairwise(bright))


@pytest.mark.parametrize("columns", [1, 2, 7, 30])
def test_a_heat_map_has_a_number_in_every_cell_and_room_for_it(columns: int) -> None:
    cells = {(row, column): 0.999 for row in range(11) for column in range(columns)}
    names = [f"{100 + n}k" for n in range(columns)]
    drawn = ElementTree.fromstring(heat_map("Needles", "length", names, "depth", [f"{n}0%" for n in range(11)], cells))
    texts = [text.text for text in drawn.iter(f"{_SVG}text")]
    assert texts.count("99") == 12 * columns  # that of 0.999 is not 100; with the means
    assert set(names) <= set(texts)
    widths = [float(r.get("width", "nan")) for r in drawn.iter(f"{_SVG}rect") if re.match("#", r.get("fill", ""))]
    assert float(drawn.get("width", "nan")) <= 1100 and min(widths[1 : 12 * columns]) >= 24


def test_a_cell_without_a_number_is_empty() -> None:
    drawn = heat_map("Needles", "length", ["4k", "8k"], "depth", ["0%", "100%"], {(0, 0): 1.0, (1, 0): 0.0})
    assert drawn.count('class="empty"') == 3  # two, and the mean of none


def test_one_point_is_seen_with_its_interval() -> None:
    lines = [Line("ours", [(4, 50.0)], [(40.0, 60.0)]), Line("theirs", [(4, 70.0)], reference=True)]
    axes = Axis("tokens", 1, 10), Axis("score (%)", 0, 100)
    drawn = ElementTree.fromstring(line_chart("Scores", *axes, lines))
    assert [dot.get("class") for dot in drawn.iter(f"{_SVG}circle")] == ["dot reference", "dot s0"]
    (whisker,) = (line for line in drawn.iter(f"{_SVG}line") if line.get("class") == "whisker s0")
    assert float(whisker.get("y1", "nan")) - float(whisker.get("y2", "nan")) > 50


def test_two_rows_leave_room_for_the_name_beside_them() -> None:
    drawn = ElementTree.fromstring(heat_map("Needles", "length", ["4k"], "depth of the needle", ["0%", "100%"], {}))
    (name,) = (text for text in drawn.iter(f"{_SVG}text") if text.text == "depth of the needle")
    found = re.search(r"translate\(20 ([\d.]+)\)", name.get("transform", ""))
    assert found and float(found[1]) - 0.64 * 12 * len("depth of the needle") / 2 > 30  # below the title
