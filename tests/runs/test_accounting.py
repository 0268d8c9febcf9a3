"""What attempts held and lost: phases sum to the time held, and what was useful and what was lost do too."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xgen.runs import Event, EventName, replay
from xgen.runs.accounting import Use, account

ALL = 1e9
_ZERO = 1e6  # seconds since the epoch


def event(time: float, name: EventName, attempt: int = 1, **facts: Any) -> Event:
    return Event(time=_ZERO + time, run="r-aaaaaa", attempt=attempt, job_id="7", event=name, writer="x", **facts)


# Queued 10 s; started at 10; steps from 20 on; step 100 durable at 60; preempted at 100, waits 20 s; starts 120, step
# 100 restored from 125 to 130; does steps 100 to 140 again until 170; crashes at 200 with nothing new saved.
TRAINING = [
    event(0, "queued", 0),
    event(10, "started"),
    event(20, "first_step", step=1),
    event(60, "progress", step=100),
    event(60, "checkpoint_begin", step=100),
    event(62, "checkpoint_durable", step=100),
    event(90, "progress", step=140, data_wait=3.0),
    event(95, "stopping"),
    event(100, "requeued", reason="preempted"),
    event(120, "started", 2),
    event(125, "restore_begin", 2),
    event(130, "restore_end", 2, step=100),
    event(135, "first_step", 2, step=101),
    event(170, "progress", 2, step=140),
    event(190, "progress", 2, step=160),
    event(200, "exited", 2),
    event(200, "failed", 2, reason="rank 0: out of memory"),
]


def uses(events: list[Event] = TRAINING, since: float = 0.0, until: float = ALL, **facts: bool) -> list[Use]:
    return account(events, **{"trains": True, "is_over": False} | facts, since=_ZERO + since, until=_ZERO + until)


def test_each_attempt_has_its_phases_and_what_was_lost_to_what() -> None:
    first, second = uses()
    assert (first.queued, first.held, first.started - _ZERO, first.ended - _ZERO) == (10, 90, 10, 100)
    assert first.lost == {"start": 10, "save": 2 + 5, "data_wait": 3}
    assert first.useful == 70
    assert (second.queued, second.held) == (20, 80)
    # Start, restore and steps again are what the preemption cost; the steps after 140 nobody has.
    assert second.lost == {"preempted": 50, "unsaved": 30}
    assert second.useful == 0


def test_a_run_that_finished_lost_nothing_at_its_end() -> None:
    assert "unsaved" not in uses([*TRAINING[:-1], event(200, "finished", 2)])[1].lost


def test_a_run_that_goes_on_counts_until_now() -> None:
    (one,) = uses(TRAINING[:4], until=75.0)
    assert (one.held, one.ended - _ZERO, one.lost) == (65, 75, {"start": 10})
    (lost,) = uses(TRAINING[:4], until=60.0, is_over=True)
    assert (lost.held, lost.lost) == (50, {"start": 10, "unsaved": 40})


def test_silence_before_a_hang_was_noticed_is_lost_to_it() -> None:
    (one,) = uses([*TRAINING[:4], event(360, "hang", step=100), event(361, "requeued", reason="crashed")])
    assert one.lost["hang"] == 300
    assert one.useful == 41


def test_only_what_came_after_since_counts() -> None:
    first, second = uses(since=90.0)
    assert (first.started - _ZERO, first.held, first.queued) == (90, 10, 0)
    assert first.lost == {"save": 5}
    assert second.held == 80
    assert [one.attempt for one in uses(since=110.0)] == [2]
    assert uses(since=110.0)[0].queued == 10
    assert uses(since=300.0) == []


@pytest.mark.parametrize(
    ("end", "lost"),
    [("finished", {}), ("failed", {"crashed": 50.0}), ("cancelled", {"unsaved": 50.0})],
)
def test_work_without_steps_is_useful_or_lost_as_a_whole(end: EventName, lost: dict[str, float]) -> None:
    events = [event(0, "queued", 0), event(10, "started"), event(60, "exited"), event(60, end)]
    (one,) = uses(events, trains=False)
    assert (one.held, one.lost) == (50, lost)


def test_an_attempt_that_died_without_a_word_ends_at_its_last() -> None:
    first, second = uses([*TRAINING[:4], event(500, "started", 2), event(510, "first_step", 2, step=1)], until=520)
    assert (first.held, second.queued, second.held) == (50, 440, 20)
    assert second.lost == {"lost": 20}


@given(st.floats(0, 250))
def test_of_any_time_phases_sum_to_wall_time_and_useful_and_lost_to_what_was_held(since: float) -> None:
    found = uses(since=since)
    wall = max(0.0, 200 - since)
    waits = sum(one.queued for one in found)
    held = sum(one.held for one in found)
    if since < 100:
        assert waits + held == pytest.approx(wall)
    assert held <= wall + 1e-6
    for one in found:
        assert one.useful + sum(one.lost.values()) == pytest.approx(one.held)
        assert one.useful >= -1e-6
    if not since:
        assert sum(replay(TRAINING).totals(ALL).values()) == pytest.approx(waits + held)
