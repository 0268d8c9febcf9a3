"""`xgen show`: a table of attempts that fits 80 columns, and what the hours went into."""

from __future__ import annotations

import json
import time

import pytest

from tests.cli.conftest import PROFILE, TRAIN, Project
from tests.runs.test_history import OUTCOMES, STORY
from xgen.runs import RunDir

NAME = "train-abc234"


@pytest.fixture
def run(project: Project) -> RunDir:
    made = RunDir(project.runs / NAME)
    made.create()
    made.spec_file.write_text(TRAIN)
    made.profile_file.write_text(
        PROFILE.format(scheduler="local", request="none").replace(": runs", f": {project.runs}")
    )
    tell(made, len(STORY))
    for number in range(1, 4):
        made.attempt_dir(number).mkdir()
    for number, outcome in enumerate(OUTCOMES, 1):
        (made.attempt_dir(number) / "outcome.json").write_text(outcome.model_dump_json())
    return made


def tell(run: RunDir, number: int) -> None:
    """The first events of the story, which ended 50 s ago."""
    since = time.time() - STORY[-1].time - 50
    moved = (one.model_copy(update={"time": since + one.time}) for one in STORY[:number])
    (run.events_dir / "host.jsonl").write_text("".join(one.to_line() for one in moved))


def test_attempts_are_a_table_with_why_each_ended_below(project: Project, run: RunDir) -> None:
    done = project.xgen("show", NAME, "--cluster", "local", env={"COLUMNS": "80"})
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:5] == [
        "train-abc234  3 attempts",
        "attempt  job  nodes     queued  start  restore  train  replay  save  lost",
        "1        7    g[01-02]  1m40s   10s    -        3m08s  -       8.0s  -",
        "  preempted, saved step 100 5 s after the signal",
        "2        7    g[03-04]  1m34s   10s    10s      1m20s  -       -     30 steps",
    ]
    assert max(map(len, lines)) <= 80
    assert "CPU-hours: start " in " ".join(lines)  # the profile has no GPUs
    wide = project.xgen("show", NAME, "--cluster", "local", env={"COLUMNS": "140"}).stdout.splitlines()
    assert wide[2].endswith("-         preempted, saved step 100 5 s after the signal")


def test_json_has_the_same_as_numbers(project: Project, run: RunDir) -> None:
    shown = json.loads(project.xgen("show", NAME, "--cluster", "local", "--json").stdout)
    assert [(one["number"], one["lost_steps"]) for one in shown["attempts"]] == [(1, 0), (2, 30), (3, None)]
    assert shown["gpu_hours"]["train"] > 4 * (188 + 80) / 3600  # 2 nodes of 2


def test_a_run_that_waits_says_so(project: Project, run: RunDir) -> None:
    tell(run, 2)
    lines = project.xgen("show", NAME, "--cluster", "local").stdout.splitlines()
    assert lines[0] == "train-abc234  has not started"
