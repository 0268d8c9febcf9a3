"""The one thing that is wrong with a run, and nothing where nothing is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from xgen.runs import Event, EventName
from xgen.watch.findings import Level, find
from xgen.watch.view import View

NOW = 1e9
FINE = View(
    name="run-aaaaaa", state="running", phase="train", attempt=2, step=500, planned_steps=1000, loss=2.5,
    losses=(9.0, 5.0, 2.5), rate=1000.0, planned_rate=1100.0, step_seconds=2.0, last_step_time=NOW - 1,
    last_event_time=NOW - 3, attempt_time=NOW - 2000, durable_step=480, durable_time=NOW - 60, save_interval=120.0,
    restart_times=(NOW - 2000,),
)  # fmt: skip


def told(name: EventName, age: float = 0.5, attempt: int = 2, **facts: Any) -> dict[EventName, Event]:
    return {name: Event(time=NOW - age, run="r", attempt=attempt, job_id="7", event=name, writer="x", **facts)}


CASES: list[tuple[dict[str, Any], Level, str]] = [
    ({}, Level.FINE, ""),
    ({"state": "failed", "reason": "rank 3: out of memory"}, Level.WRONG, "failed: rank 3: out of memory"),
    ({"state": "lost", "reason": "not in the queue"}, Level.WRONG, "lost: not in the queue"),
    ({"state": "unknown", "reason": "squeue did not answer"}, Level.ODD, "squeue did not answer"),
    ({"state": "pending", "reason": "Priority", "last_event_time": NOW - 7500}, Level.WAITS,
     "waits for 2h05m: jobs of higher priority wait for the same nodes"),
    ({"state": "pending", "reason": "PartitionTimeLimit"}, Level.ODD, "waits for 3.0s: its time is more than"),
    ({"state": "pending", "reason": "after sft"}, Level.WAITS, "waits: after sft"),
    ({"state": "pending", "reason": "JobHeldUser"}, Level.ODD, "on hold: xgen release"),
    ({"last_step_time": NOW - 400, "last_event_time": NOW - 400}, Level.WRONG, "no step for 6m40s"),
    # A step of two minutes may be silent for longer.
    ({"last_step_time": NOW - 400, "last_event_time": NOW - 400, "step_seconds": 120.0}, Level.FINE, ""),
    ({"newest": told("hang", reason="no step for 2m by rank 3")}, Level.WRONG, "no progress: no step for 2m by rank 3"),
    ({"newest": told("hang", age=60, reason="long over")}, Level.FINE, ""),
    ({"newest": told("hang", attempt=1)}, Level.FINE, ""),
    ({"phase": "start", "attempt_time": NOW - 2000}, Level.ODD, "no step yet, 33m20s after its start"),
    ({"loss": None, "is_nan": True}, Level.WRONG, "the loss of step 500 is no number"),
    ({"newest": told("checkpoint_failed", step=500, reason="no space")}, Level.ODD, "the save of step 500 failed: no"),
    ({"newest": told("checkpoint_failed", age=100, step=480)}, Level.FINE, ""),
    ({"durable_time": NOW - 3600}, Level.ODD, "no checkpoint for 1h00m, one came every 2m00s"),
    ({"newest": told("unhealthy", nodes="n7", reason="XID 79")}, Level.ODD, "n7 is not healthy: XID 79"),
    ({"newest": told("straggler", reason="rank 3 on n7 is 40% slower")}, Level.ODD, "rank 3 on n7"),
    ({"restart_times": (NOW - 900, NOW - 600, NOW - 30), "newest": told("requeued", attempt=1, reason="crashed")},
     Level.ODD, "restarted 3 times within an hour, last: crashed"),
    ({"rate": 500.0}, Level.ODD, "45% of the tokens/s that the plan has"),
    ({"data_wait": 0.5}, Level.ODD, "waits for data 50% of the time"),
    ({"state": "finished", "phase": None}, Level.FINE, ""),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "level", "text"), CASES)
def test_what_is_wrong_is_said(changes: dict[str, Any], level: Level, text: str) -> None:
    found = find(replace(FINE, **changes), NOW)
    assert (found.level, found.text[: len(text)]) == (level, text)


def test_of_several_the_worst_is_said() -> None:
    view = replace(
        FINE, rate=100.0, newest=told("straggler", reason="slow"), last_step_time=NOW - 999, last_event_time=0
    )
    assert find(view, NOW).text == "no step for 16m39s"
