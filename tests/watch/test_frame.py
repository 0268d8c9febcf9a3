"""A frame fits its terminal, whatever stands in it, and reads without colour."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from tests.watch.test_findings import FINE, NOW
from xgen.watch.findings import find
from xgen.watch.frame import About, Row, curve, frame, ordered
from xgen.watch.view import View

ABOUT = About("atlas", NOW, NOW - 12, leaves=True)


def rows(*views: View) -> list[Row]:
    return ordered([Row(view, find(view, NOW)) for view in views])


def lines(found: list[Row], width: int = 80, height: int = 24, unicode: bool = True) -> list[str]:
    console = Console(width=width, height=height, color_system=None, force_terminal=False, highlight=False)
    with console.capture() as captured:
        console.print(frame(found, ABOUT, width, height, unicode=unicode), soft_wrap=False)
    return captured.get().splitlines()


WAITS = replace(FINE, name="waits-bbbbbb", state="pending", reason="Priority", phase="queued", rate=0.0)
FAILED = replace(FINE, name="a-run-with-a-name-much-too-long-cccccc", state="failed", reason="rank 0: " + "x" * 200)


def test_a_line_has_what_a_person_wants_to_know_and_the_worst_comes_first() -> None:
    shown = lines(rows(FINE, WAITS, FAILED))
    assert shown[0].endswith("1 failed, 1 running, 1 pending  queue of 12s ago")
    assert shown[1:] == [
        "  run                  phase         step done loss            tok/s plan  saved",
        "! a-run-with-…g-cccccc failed         500  50% █▄▁      2.5       1k  91%  1m00s",
        "    failed: rank 0: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…",
        "  waits-bbbbbb         queued         500  50% █▄▁      2.5        -    -  1m00s",
        "    waits for 3.0s: jobs of higher priority wait for the same nodes",
        "  run-aaaaaa           train          500  50% █▄▁      2.5       1k  91%  1m00s",
        "Ctrl-C leaves; the runs go on",
    ]


def test_a_pipeline_that_runs_is_not_said_to_be_queued() -> None:
    (_, _, line, _) = lines(rows(replace(FINE, name="seed-aaaaaa", phase="queued")))
    assert line.startswith("  seed-aaaaaa running ")


def test_a_wide_terminal_has_what_is_wrong_in_the_same_line() -> None:
    shown = lines(rows(FAILED, FINE), width=140)
    assert len(shown) == 5
    assert shown[1].endswith("saved  what is wrong")
    assert "1m00s  failed: rank 0: xxx" in shown[2]


def test_two_hundred_runs_show_as_many_as_fit_and_say_what_is_left_out() -> None:
    views = [replace(FINE, name=f"run-{number:06}") for number in range(198)]
    shown = lines(rows(*views, FAILED, WAITS), height=24)
    assert len(shown) == 24
    assert shown[2].startswith("! a-run-with")
    assert shown[-1] == "and 181 more, nothing wrong with them: a higher window, or xgen watch RUN"
    slow = [replace(view, rate=1.0) for view in views]
    assert lines(rows(*slow))[-1].startswith("and 188 more, 188 with something wrong")


def test_a_terminal_without_unicode_gets_bars_of_ascii() -> None:
    text = "\n".join(lines(rows(FINE), unicode=False))
    assert "#~_" in text
    text.encode("ascii")


@settings(deadline=None, max_examples=30)
@given(
    st.integers(1, 200), st.integers(1, 60), st.text(max_size=60), st.integers(0, 10**15),
    st.floats(0, 1e15), st.lists(st.floats(-1e6, 1e6), max_size=50),
)  # fmt: skip
def test_no_frame_is_wider_or_higher_than_its_terminal(
    width: int, height: int, reason: str, step: int, rate: float, losses: list[float]
) -> None:
    wild = replace(FINE, state="failed", reason=reason, step=step, rate=rate, planned_rate=rate, losses=losses)
    found = frame(rows(wild, *(replace(FINE, name=f"r-{n:06}") for n in range(30))), ABOUT, width, height)
    plain = found.plain.split("\n")
    assert len(plain) <= max(5, height)
    assert all(len(line) <= width for line in plain)


@pytest.mark.parametrize(
    ("values", "bars"),
    [((), ""), ((1.0,), "▁"), ((1.0, 1.0), "▁▁"), ((8.0, 4.0, 2.0, 1.0), "█▄▂▁"), ((0.0, 5e-324), "▁█")],
)
def test_a_curve_goes_from_its_least_to_its_greatest(values: tuple[float, ...], bars: str) -> None:
    assert curve(values, 8, unicode=True) == bars
