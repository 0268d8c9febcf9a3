"""The rules in fast motion are the rules, and an alert that nobody planted is found."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, cast

import pytest

from benchmarks.alarms import FACTOR
from benchmarks.alarms.faults import FAULTS, LAST
from benchmarks.alarms.pictures import EMPTY_HERE
from benchmarks.alarms.trial import Alarm, Trial, judge
from benchmarks.alarms.watch import MONITORING, Told, Watch, in_fast_motion, panel_queries

_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


def _durations(text: str) -> list[float]:
    places = re.findall(r"(?:\[|offset |for: |group_wait: |group_interval: |repeat_interval: )(\d+)(ms|[smhd])\b", text)
    return [float(number) * _SECONDS[unit] for number, unit in places]


def test_in_fast_motion_durations_are_shorter_and_nothing_else_differs(tmp_path: Path) -> None:
    copy = in_fast_motion(tmp_path / "monitoring")
    files = [*(MONITORING / "rules").glob("*.yml"), MONITORING / "alertmanager.yml"]
    for file in files:
        here, there = (f.read_text() for f in (file, copy / file.relative_to(MONITORING)))
        assert _durations(there) == pytest.approx([value / FACTOR for value in _durations(here)], abs=0.001)
        without = [re.sub(rf"\((\d[\d* ]*)\) / {FACTOR}|\b\d+(ms|[smhd])\b", r"\1", text) for text in (here, there)]
        assert without[0] == without[1]
    assert len(_durations((copy / "rules/cluster.yml").read_text())) > 20
    assert f"expr: (15 * 60) / {FACTOR}" in (copy / "rules/limits.yml").read_text()
    fleet = (copy / "dashboards/fleet.json").read_text()
    assert '"interval": "40000ms"' in fleet and '"interval": "10m"' not in fleet
    promtool = shutil.which("promtool")
    if promtool:
        rules = sorted((copy / "rules").glob("*.yml"))
        subprocess.run([promtool, "check", "rules", *rules], check=True, capture_output=True)


def _trials(*told: Told) -> list[Trial]:
    watch = Watch(Path(), Path(), "", list(told))
    lab = cast("Any", type("Lab", (), {"watch": watch}))
    return [Trial("hang", "", lab, ["hangs-abc234"], planted=1.0), Trial("node", "", lab, planted=50.0)]


def test_an_alert_that_was_not_planted_is_wrong_and_is_told_of_the_fault_that_it_came_from() -> None:
    stalled = Told("XgenRunStalled", {"run": "hangs-abc234", "attempt": "1"}, "firing", 9.0)
    slow = Told("XgenRunSlowRank", {"run": "hangs-abc234"}, "firing", 60.0)
    flap = Told("XgenNodeFlapping", {"node": "n2"}, "firing", 60.0)
    hang, node = trials = _trials(stalled, slow, slow, flap)
    hang.alarms.append(Alarm("XgenRunStalled", {"run": "hangs-abc234"}, 1.0, 9.0, 20.0))
    judge(trials)
    assert (hang.wrong, hang.passed) == (["XgenRunSlowRank"], False)
    assert (node.wrong, node.passed) == (["XgenNodeFlapping node=n2"], False)


def test_only_what_was_told_and_resolved_and_seen_passes() -> None:
    hang, node = trials = _trials()
    judge(trials)
    assert hang.passed and node.passed  # silent, and told of nothing
    hang.alarms.append(Alarm("XgenRunStalled", {}, 1.0, 9.0))
    assert not hang.passed
    hang.alarms[0].resolved = 20.0
    assert hang.passed
    hang.seen["run: Loss"] = False
    assert not hang.passed


def test_what_is_left_out_and_what_comes_last_exists() -> None:
    assert set(LAST) < {fault.name for fault in FAULTS}
    for names in EMPTY_HERE.values():
        for dashboard, panels in names.items():
            assert all(panel_queries(f"xgen-{dashboard}", panel) for panel in panels)
