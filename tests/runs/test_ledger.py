"""Where the time went: phases sum to wall time whatever happens, and the stories that people ask about add up."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xgen.runs import PHASES, Event, EventName, Ledger, replay


def event(time: float, name: str, attempt: int = 1, **facts: Any) -> Event:
    record = {"time": time, "run": "demo-abc234", "attempt": attempt, "job_id": "7", "event": name, "writer": "test"}
    return Event.model_validate(record | facts)


_FACTS = {
    "step": st.none() | st.integers(0, 50),
    "data_wait": st.none() | st.floats(0, 100),
    "generate": st.none() | st.floats(0, 100),
    "verify": st.none() | st.floats(0, 100),
    "reason": st.none() | st.sampled_from(["preempted", "time_limit", "crashed", "lost", "other", "bored"]),
}


@st.composite
def stories(draw: st.DrawFn) -> list[Event]:
    """Any events whatever, in order of time: also those that no run would write."""
    number = draw(st.integers(1, 40))
    times = sorted(draw(st.lists(st.floats(1e9, 1e9 + 1000), min_size=number, max_size=number)))
    attempt, told = 0, []
    for time in times:
        name = draw(st.sampled_from(get_args(EventName)))
        attempt += name == "started"
        since = {"allocated": draw(st.none() | st.floats(1e9 - 10, 1e9 + 1000))} if name == "started" else {}
        told.append(event(time, name, attempt, **since, **{k: draw(v) for k, v in _FACTS.items()}))
    return told


@given(stories(), st.floats(0, 100))
@settings(max_examples=150, deadline=None)
def test_phases_are_never_negative_and_sum_to_wall_time(story: list[Event], later: float) -> None:
    ledger = Ledger()
    ended = 0.0  # time that passed while the run had ended, which belongs to no phase
    for one, following in zip(story, [*story[1:], None], strict=True):
        was_over = ledger.is_over
        ledger.add(one)
        if was_over and one is not story[0] and one.event == "started":  # it began before it was told of
            ended -= one.time - ledger.attempts[-1].started
        until = following.time if following else one.time + later
        if ledger.phase is None:
            ended += until - one.time
        totals = ledger.totals(until)
        assert set(totals) == set(PHASES)
        assert min(totals.values()) >= -1e-6
        assert sum(totals.values()) + ended == pytest.approx(until - ledger.began, abs=1e-4)
        assert 0 <= ledger.ettr(until) <= 1


@given(stories())
@settings(max_examples=100, deadline=None)
def test_the_same_events_give_the_same_totals_live_and_replayed(story: list[Event]) -> None:
    live, now = Ledger(), story[-1].time + 5
    for one in story:
        live.add(one)
        live.totals(one.time)  # a scrape changes nothing
    first, second = replay(story), replay(list(story))
    for ledger in (first, second):
        assert ledger.totals(now) == live.totals(now)
        assert (ledger.attempts, ledger.restarts, ledger.phase) == (live.attempts, live.restarts, live.phase)


@given(stories())
@settings(max_examples=100, deadline=None)
def test_what_attempts_took_is_part_of_the_whole(story: list[Event]) -> None:
    ledger = replay(story)
    totals = ledger.totals(story[-1].time)
    for phase in PHASES:
        assert sum(a.phases[phase] for a in ledger.attempts) <= totals[phase] + 1e-4
    # An attempt after a stage's end is no restart.
    restarts = sum(ledger.restarts.values())
    if "stage_finished" in {event.event for event in story}:
        assert restarts <= max(0, len(ledger.attempts) - 1)
    else:
        assert restarts == max(0, len(ledger.attempts) - 1)


def test_the_next_stage_is_no_restart() -> None:
    story = [
        *first_attempt(),
        event(1095, "stage_finished", stage="broad"),
        event(1105, "started", 2, stage="anneal"),
        event(1110, "restore_end", 2, step=20),
        event(1115, "first_step", 2, step=21),
    ]
    ledger = replay(story)
    assert sum(ledger.restarts.values()) == 0
    assert [attempt.stage for attempt in ledger.attempts] == ["", "anneal"]
    assert phases(story, 1115)["queued"] == 10 + 10


def test_what_is_trained_again_after_a_rollback_is_replay() -> None:
    story = [
        *first_attempt(),
        event(1091, "guard", step=21, action="rollback", reason="loss nan"),
        event(1091, "restore_begin", step=21),
        event(1093, "restore_end", step=10, checkpoint="step-10"),
        event(1094, "first_step", step=11),
        event(1104, "progress", step=21),
        event(1110, "progress", step=25),
    ]
    ledger = replay(story)
    assert ledger.guarded == {"rollback": 1}
    found = phases(story, 1110)
    assert (found["restore"], found["replay"]) == (2, 10)
    assert ledger.durable_step == 10


def test_validation_is_a_phase_of_its_own() -> None:
    story = [
        *first_attempt(),
        event(1090, "validation_begin", step=20),
        event(1095, "validation_end", step=20),
        event(1097, "progress", step=21),
    ]
    found = phases(story, 1097)
    assert (found["validation"], found["train"]) == (5, phases(first_attempt(), 1090)["train"] + 2)


def first_attempt() -> list[Event]:
    """Queued 0 to 10, trains from 15, a checkpoint of 2 s at step 10, then 11..20 until it ends at 100 s."""
    return [
        event(1000, "submitted", 0),
        event(1001, "queued", 0),
        event(1010, "started"),
        event(1011, "container_ready"),
        event(1015, "first_step", step=1),
        event(1040, "checkpoint_begin", step=10),
        event(1042, "checkpoint_durable", step=10),
        event(1090, "progress", step=20),
    ]


def phases(story: list[Event], now: float) -> dict[str, float]:
    return {phase: seconds for phase, seconds in replay(story).totals(now).items() if seconds}


def test_a_run_that_is_not_interrupted() -> None:
    story = [*first_attempt(), event(1095, "exited", exit_code=0), event(1096, "finished")]
    assert phases(story, 9999) == {"queued": 10, "start": 5, "train": 78, "checkpoint": 2, "stop": 1}
    ledger = replay(story)
    assert ledger.ettr(9999) == pytest.approx(78 / 96)
    assert (ledger.phase, ledger.highest_step, ledger.durable_step) == (None, 20, 10)
    assert sum(ledger.restarts.values()) == 0


def test_an_attempt_counts_from_its_allocation_but_no_moment_twice() -> None:
    for allocated, began in ((1004.0, 1004), (990.0, 1001), (1020.0, 1010)):
        story = [*first_attempt()[:2], event(1010, "started", allocated=allocated), event(1015, "first_step", step=1)]
        assert phases(story, 1015) == {"queued": began - 1000, "start": 1015 - began}
        assert replay(story).attempts[0].started == began
    shard = replay([event(1010, "started", allocated=1004.0), event(1015, "exited"), event(1016, "finished")])
    assert (shard.began, shard.totals(9999)["start"], shard.totals(9999)["stop"]) == (1004, 11, 1)


def test_the_nodes_are_held_until_the_batch_script_has_decided() -> None:
    story = [*first_attempt(), event(1095, "exited"), event(1098, "requeued", reason="crashed"), event(1100, "queued")]
    ledger = replay(story)
    assert (ledger.totals(1100)["stop"], ledger.totals(1100)["queued"], ledger.attempts[0].ended) == (3, 12, 1098)
    undecided = [*story[:-2], event(1200, "settled"), event(1201, "failed")]
    ledger = replay(undecided)
    assert (ledger.totals(9999)["stop"], ledger.attempts[0].ended, ledger.attempts[0].end) == (0, 1095, "lost")


def preempted() -> list[Event]:
    return [
        *first_attempt(),
        event(1091, "signal", signal="SIGUSR2"),
        event(1092, "stopping", step=20),
        event(1092, "checkpoint_begin", step=20),
        event(1096, "checkpoint_durable", step=20),
        event(1097, "exited", exit_code=0),
        event(1097, "requeued", reason="preempted"),
        event(1130, "started", 2),
        event(1133, "restore_begin", 2),
        event(1135, "restore_end", 2, step=20),
        event(1137, "first_step", 2, step=21),
    ]


def test_a_preemption_is_counted_once_and_loses_no_step() -> None:
    ledger = replay(preempted())
    assert ledger.restarts == {"preempted": 1, "time_limit": 0, "crashed": 0, "lost": 0, "other": 0}
    assert [a.end for a in ledger.attempts] == ["preempted", ""]
    assert ledger.attempts[1].resumed_step == 20
    assert phases(preempted(), 1147) == {
        "queued": 10 + 33, "start": 5 + 3 + 2, "restore": 2, "train": 25 + 50 + 10, "checkpoint": 2 + 4, "stop": 1,
    }  # fmt: skip


def test_the_silence_of_a_lost_attempt_is_no_training() -> None:
    story = [*first_attempt(), event(2000, "started", 2), event(2005, "first_step", 2, step=11)]
    ledger = replay(story)
    assert ledger.restarts["lost"] == 1
    assert (ledger.attempts[0].end, ledger.attempts[0].ended) == ("lost", 1090)
    assert phases(story, 2005) == {"queued": 10 + 910, "start": 5 + 5, "train": 25 + 48, "checkpoint": 2}


def test_steps_that_are_done_again_are_replay_until_the_first_new_one() -> None:
    story = [
        *first_attempt(),  # step 20 was reached, step 10 was saved
        event(1095, "exited", exit_code=137),
        event(1095, "requeued", reason="crashed"),
        event(1100, "started", 2),
        event(1101, "restore_begin", 2),
        event(1102, "restore_end", 2, step=10),
        event(1103, "first_step", 2, step=11),
        event(1112, "progress", 2, step=19),
        event(1113, "progress", 2, step=20),
        event(1120, "progress", 2, step=27),
    ]
    ledger = replay(story)
    assert ledger.restarts["crashed"] == 1
    totals = ledger.totals(1120)
    assert totals["replay"] == 10
    assert totals["train"] == 25 + 53 + 7


def test_a_checkpoint_in_the_middle_of_replay_goes_back_to_replay() -> None:
    story = [
        *first_attempt(),
        event(1100, "started", 2),
        event(1100, "first_step", 2, step=11),
        event(1105, "checkpoint_begin", 2, step=15),
        event(1106, "checkpoint_failed", 2, step=15, reason="disk full"),
        event(1110, "progress", 2, step=21),
    ]
    ledger = replay(story)
    assert (ledger.totals(1110)["replay"], ledger.phase, ledger.durable_step) == (9, "train", 10)


def test_waiting_for_data_is_taken_out_of_training() -> None:
    story = [*first_attempt()[:5], event(1035, "progress", step=5, data_wait=8.0), event(1045, "progress", step=6)]
    assert phases(story, 1045) == {"queued": 10, "start": 5, "train": 22, "data_wait": 8}


def test_waiting_for_answers_and_verdicts_is_no_training_but_productive() -> None:
    story = [
        *first_attempt()[:5],
        event(1035, "progress", step=5, generate=8.0, verify=1.0),
        event(1045, "progress", step=6, generate=9.0, verify=1.0),
    ]
    assert phases(story, 1045) == {"queued": 10, "start": 5, "train": 20, "generate": 9, "verify": 1}
    assert replay(story).ettr(1045) == pytest.approx(30 / 45)


def test_data_wait_of_a_new_attempt_starts_at_zero() -> None:
    story = [
        *first_attempt()[:5],
        event(1035, "progress", step=5, data_wait=8.0),
        event(1036, "exited"),
        event(1036, "requeued", reason="preempted"),
        event(1040, "started", 2),
        event(1040, "first_step", 2, step=6),
        event(1050, "progress", 2, step=7, data_wait=3.0),
    ]
    assert replay(story).totals(1050)["data_wait"] == 11


def test_a_cancelled_run_stops_the_clock_and_resuming_starts_it_again() -> None:
    story = [*first_attempt(), event(1095, "exited"), event(1095, "cancelled")]
    assert sum(replay(story).totals(9999).values()) == 95
    again = [*story, event(1200, "queued", 1), event(1205, "started", 2)]
    assert replay(again).totals(1206)["queued"] == 10 + 5


def test_a_cancelled_run_has_ended_though_its_attempt_goes_on_to_save() -> None:
    """`xgen cancel` says it at once: no attempt may be left to say it."""
    story = [
        *first_attempt(),
        event(1091, "cancelled"),
        event(1092, "stopping", step=20),
        event(1092, "checkpoint_begin", step=20),
        event(1096, "checkpoint_durable", step=20),
        event(1097, "exited", exit_code=0),
        event(1097, "requeued", reason="preempted"),
    ]
    ledger = replay(story)
    assert (ledger.phase, ledger.durable_step, sum(ledger.totals(9999).values())) == (None, 20, 91)
    again = [*story, event(1200, "queued", 1), event(1205, "started", 2)]
    assert replay(again).phase == "start"
    assert replay(again).totals(1206)["queued"] == 10 + 5


def test_an_empty_ledger_says_nothing_and_divides_by_nothing() -> None:
    ledger = Ledger()
    assert set(ledger.totals(5).values()) == {0.0}
    assert ledger.ettr(5) == 0.0


def test_after_a_rollback_the_run_stands_at_that_step_and_what_it_trains_again_is_replay() -> None:
    rolled_back = [*first_attempt(), event(1091, "failed"), event(1200, "rolled_back", step=4)]
    ledger = replay(rolled_back)
    assert (ledger.durable_step, ledger.highest_step, ledger.phase) == (4, 20, None)
    assert sum(ledger.totals(9999).values()) == 91  # it takes no time of the run's
    again = [
        event(1300, "started", 2),
        event(1301, "restore_end", 2, step=4),
        event(1302, "first_step", 2, step=5),
        event(1308, "progress", 2, step=9),
    ]
    ledger = replay([*rolled_back, *again])
    assert (ledger.durable_step, ledger.attempts[1].resumed_step, ledger.highest_step) == (4, 4, 20)
    assert (ledger.attempts[1].phases["replay"], ledger.attempts[1].phases["train"]) == (6, 0)


def test_a_fork_has_what_it_restored() -> None:
    ledger = replay([event(1.0, "submitted", 0), event(2.0, "started"), event(3.0, "restore_end", step=50)])
    assert (ledger.durable_step, ledger.attempts[0].resumed_step) == (50, 50)


def test_an_attempt_knows_how_long_the_parts_of_its_start_took() -> None:
    story = [
        *first_attempt(),
        event(1100, "exited", exit_code=75),
        event(1110, "started", 2),
        event(1120, "first_step", 2, step=11, startup={"imports": 4.5, "build": 1.25}),
    ]
    first, second = replay(story).attempts
    assert first.startup == {}  # written by a version that did not tell
    assert second.startup == {"imports": 4.5, "build": 1.25}


def test_steps_are_lost_by_a_restart_and_by_a_rollback_and_each_once() -> None:
    ledger = replay(
        [
            event(0, "submitted", 0),
            event(1, "started"),
            event(2, "restore_end", step=0),
            event(3, "first_step", step=1),
            event(4, "progress", step=10),
            event(5, "started", 2),
            event(6, "restore_end", 2, step=6),  # of ten steps four are lost
            event(7, "first_step", 2, step=7),
            event(8, "started", 3),  # died before it wrote another word
            event(9, "started", 4),
            event(10, "restore_end", 4, step=6),  # one more
            event(11, "first_step", 4, step=7),
            event(12, "guard", 4, step=9, action="rollback"),
            event(13, "restore_end", 4, step=6),  # three more
            event(14, "first_step", 4, step=7),
        ]
    )
    assert ledger.lost_steps == 4 + 1 + 3


def test_scores_are_those_of_the_highest_step_and_of_one_scored_again_the_later_ones() -> None:
    def scored(time: float, step: int, **scores: float) -> Event:
        return event(time, "evaluated", step=step, checkpoint=f"base-aaaaaa@{step}", scores=scores)

    story = [*first_attempt(), scored(1091, 200, vt=0.5), scored(1092, 100, vt=0.9)]
    ledger, without = replay(story), replay(first_attempt())
    assert ledger.evaluated and (ledger.evaluated.step, ledger.evaluated.target) == (200, "base-aaaaaa")
    assert ledger.evaluated.scores == {"vt": 0.5}
    assert (ledger.phase, ledger.highest_step) == (without.phase, without.highest_step)  # it is no step of this run
    ledger.add(scored(1093, 200, vt=0.6))
    assert ledger.evaluated.scores == {"vt": 0.6} and ledger.evaluated.time == 1093
    folder = replay([event(1, "evaluated", step=0, checkpoint="/models/a@b", scores={})])
    assert folder.evaluated and folder.evaluated.target == "/models/a@b"
