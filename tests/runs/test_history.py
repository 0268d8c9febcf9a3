"""The attempts of a run, as `xgen show` has them: phases, what was lost, why each ended."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from tests.runs.test_ledger import event, stories
from xgen.runs import Event, replay
from xgen.runs.history import history
from xgen.runs.outcome import AttemptOutcome


def outcome(status: str, reason: str = "") -> AttemptOutcome:
    return AttemptOutcome.model_validate({"status": status, "reason": reason, "time": 0.0})


# Queued 100 s; preempted after a save; lost its node with 30 steps that no checkpoint has; goes on.
STORY = [
    event(1000, "submitted", 0),
    event(1000, "queued", 0),
    event(1100, "started", nodes="g[01-02]"),
    event(1110, "first_step", step=1),
    event(1200, "checkpoint_begin", step=50),
    event(1203, "checkpoint_durable", step=50),
    event(1290, "progress", step=100),
    event(1300, "signal", signal="SIGUSR2"),
    event(1301, "stopping", step=100),
    event(1305, "checkpoint_durable", step=100, seconds=4.0),
    event(1306, "exited", exit_code=0),
    event(1306, "requeued", reason="preempted"),
    event(1400, "started", 2, nodes="g[03-04]"),
    event(1402, "restore_begin", 2, step=100),
    event(1412, "restore_end", 2, step=100),
    event(1420, "first_step", 2, step=101),
    event(1500, "progress", 2, step=130),
    event(1800, "started", 3, nodes="g[03,05]"),
    event(1801, "restore_begin", 3, step=100),
    event(1811, "restore_end", 3, step=100),
    event(1815, "first_step", 3, step=101),
    event(1900, "progress", 3, step=131),
]
OUTCOMES = [outcome("stopped"), outcome("lost", "no outcome: its node was lost")]


def test_each_attempt_has_its_times_what_it_lost_and_why_it_ended() -> None:
    first, second, third = history(STORY, OUTCOMES, now=1950.0)
    assert (first.queued, first.start, first.restore, first.train, first.saving) == (100, 10, 0, 188, 8)
    assert (first.lost_steps, first.nodes) == (0, "g[01-02]")
    assert first.ended == "preempted, saved step 100 5 s after the signal"
    assert (second.queued, second.start, second.restore) == (94, 10, 10)
    assert second.lost_steps == 30
    assert second.ended == "lost: no outcome: its node was lost"
    assert (third.replayed, third.train) == (85, 50)  # what it is at counts up to now
    assert (third.lost_steps, third.ended) == (None, "")


@pytest.mark.parametrize(("trained", "lost"), [(100, 0), (110, None)])
def test_what_is_saved_is_not_lost_though_the_next_attempt_has_not_come_far(trained: int, lost: int | None) -> None:
    begun = [*STORY[:10], event(1305.5, "progress", step=trained), STORY[10], event(1400, "started", 2)]
    assert history(begun, OUTCOMES[:1], now=1401.0)[0].lost_steps == lost


@pytest.mark.parametrize(
    ("told", "said", "ended"),
    [
        ([event(20, "finished")], outcome("finished"), "finished"),
        ([event(20, "cancelled")], outcome("cancelled"), "cancelled"),
        ([event(20, "stage_finished", stage="broad")], outcome("stage_finished"), "finished stage broad"),
        ([event(20, "requeued", reason="crashed")], outcome("crashed", "rank 3: OOM"), "crashed: rank 3: OOM"),
        ([event(20, "requeued", reason="time_limit")], outcome("stopped"), "came to its time limit"),
        ([event(20, "failed", reason="no such file")], outcome("refused", "no such file"), "refused: no such file"),
    ],
)
def test_an_attempt_says_why_it_ended(told: list[Event], said: AttemptOutcome, ended: str) -> None:
    (row,) = history([event(1, "submitted", 0), event(10, "started", stage="broad"), *told], [said], now=30.0)
    assert (row.ended, row.start) == (ended, 10)


@given(stories())
@settings(max_examples=60, deadline=None)
def test_the_rows_sum_to_the_time_that_attempts_held_their_nodes(story: list[Event]) -> None:
    told = [one for one in story if one.attempt or one.event == "submitted"]
    if not told:
        return
    now, ledger = told[-1].time + 5, replay(told)
    held = sum(seconds for phase, seconds in ledger.totals(now).items() if phase != "queued")
    rows = history(told, [], now)
    assert len(rows) == len(ledger.attempts)
    assert sum(row.held for row in rows) == pytest.approx(held, abs=1e-4)


def test_a_node_that_is_excluded_stands_behind_why_the_attempt_ended() -> None:
    story = [
        event(1000, "queued", 0),
        event(1100, "started", nodes="g1"),
        event(1106, "node_excluded", nodes="g1", reason="until 27 Nov 14:02: 2 deaths"),
        event(1106, "requeued", reason="unhealthy"),
        event(1200, "started", 2, nodes="g2"),
    ]
    [first, _] = history(story, [outcome("stopped"), None], 1300.0)
    assert first.ended == "given an unhealthy node; node g1 excluded until 27 Nov 14:02"
