"""Whatever stops a run of online RL, the resumed run is the same."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.posttrain.rl.trainings import STEPS, RlTraining, assert_same, killed_at, slow_engine
from tests.train.faults import spoil_step


def keep_rollouts(_rank: int) -> None:
    """For `go(in_rank=...)`: nothing of the journal is removed."""
    from xgen.posttrain.rl.journal import Journal

    pytest.MonkeyPatch().setattr(Journal, "prune", lambda *_: None)


def test_a_stop_and_a_resume_change_nothing(made: Callable[..., RlTraining], undisturbed: RlTraining) -> None:
    training = made()
    [stopped] = training.go(during=training.signal_at(3, rank=0))
    assert stopped.status == "stopped"
    assert [o.status for o in training.go()] == ["finished"]
    assert_same(training, undisturbed)


def test_answers_under_way_at_a_stop_go_on_and_change_nothing(
    made: Callable[..., RlTraining], undisturbed: RlTraining
) -> None:
    training = made(rollout__at_once=16)

    def in_the_midst(pids: list[int]) -> None:
        training.wait_for_step(2)
        time.sleep(0.3)  # the answers of step 3 take 1.2 s and more
        os.kill(pids[0], signal.SIGTERM)

    [stopped] = training.go(during=in_the_midst, in_rank=slow_engine(0.3))
    assert (stopped.status, stopped.step) == ("stopped", 2)
    lines = (training.run.path / "rollouts" / "step-3.rank-0.jsonl").read_text().splitlines()
    assert any(line["tokens"] and line["finish"] is None for line in map(json.loads, lines))
    assert [o.status for o in training.go()] == ["finished"]
    assert_same(training, undisturbed)


def test_after_kill_9_answers_are_not_generated_again_and_nothing_changes(
    made: Callable[..., RlTraining], undisturbed: RlTraining
) -> None:
    training = made(checkpoint__every=4)
    training.go(during=killed_at(training, 4), may_die=True)
    before = [training.journalled(step) for step in (1, 2, 3)]
    assert before == [2 * 64] * 3
    assert training.run.checkpoint_steps() == []
    seen = training.run.path / "rollouts"
    sizes = {file.name: file.stat().st_size for file in seen.glob("step-[123].*")}

    assert [o.status for o in training.go(in_rank=keep_rollouts)] == ["finished"]
    assert {file.name: file.stat().st_size for file in seen.glob("step-[123].*")} == sizes
    assert_same(training, undisturbed)


def test_the_journal_lets_go_of_what_is_behind_a_checkpoint(undisturbed: RlTraining) -> None:
    assert list((undisturbed.run.path / "rollouts").iterdir()) == []


EVERYTHING = {
    "loss": {"kind": "grpo", "kl": 0.05, "updates": 2, "importance": "sequence"},
    "dynamic_sampling": True,
    "overlong": {"filter": True},
    "rewards": {"*": [{"kind": "exact"}, {"kind": "length", "weight": 0.2, "free": 2, "most": 4}]},
}


@pytest.mark.slow
def test_all_that_a_step_can_be_made_of_is_resumed_bit_by_bit(made: Callable[..., RlTraining]) -> None:
    """A divergence from the initial weights, two updates, prompts in the place of those that teach nothing."""
    one, other = made(**EVERYTHING), made(**EVERYTHING)
    assert [o.status for o in one.go()] == ["finished"]
    assert set(one.extras("rl_updates")) == {2.0}
    assert any(one.extras("rl_resampled_batches"))
    assert one.extras("rl_kl")[0] == pytest.approx(0, abs=1e-3)
    assert one.extras("rl_kl")[-1] > 1e-3
    other.go(during=killed_at(other, 4), may_die=True)
    assert [o.status for o in other.go(during=other.signal_at(5, rank=0))] == ["stopped"]
    assert [o.status for o in other.go()] == ["finished"]
    assert_same(other, one)


@pytest.mark.slow
def test_beside_the_training_no_answer_is_too_old_and_none_is_lost_after_kill_9(
    made: Callable[..., RlTraining],
) -> None:
    training = made(rollout__staleness=2, train__steps=8, evaluation__every=4)
    training.go(during=killed_at(training, 6), may_die=True, in_rank=slow_engine(0.05))
    [stopped] = training.go(during=training.signal_at(7, rank=0), in_rank=slow_engine(0.05))
    assert stopped.status == "stopped"
    assert [o.status for o in training.go()] == ["finished"]
    ages = training.extras("rl_staleness_steps")
    assert max(ages) <= 2
    assert ages[0] == 0 and 2 in ages
    assert [record["first_sample"] for record in training.records().values()] == list(range(0, 64, 8))
    manifest = json.loads((training.run.checkpoints_dir / "step-8" / "manifest.json").read_text())
    digests = sum(int(record["data"], 16) for record in training.records().values())
    assert int(manifest["data_digest"], 16) == digests % (1 << 64)
    assert manifest["next_sample"] == 8 * 8


@pytest.mark.slow
@pytest.mark.parametrize("staleness", [0, 1])
def test_after_a_rollback_the_run_goes_on_with_other_prompts(made: Callable[..., RlTraining], staleness: int) -> None:
    training = made(guard={"non_finite": "rollback"}, rollout__staleness=staleness, evaluation=None)
    result = training.go(in_rank=lambda _: spoil_step(4, float("nan")))
    assert [o.status for o in result] == ["finished"]
    assert training.steps() == [1, 2, 3, 4, 3, 4, 5, 6]
    firsts = [record["first_sample"] for record in training._records()]
    lost = 8 * (4 + staleness)  # given out before the fault
    assert firsts == [0, 8, 16, 24, lost, lost + 8, lost + 16, lost + 24]
    assert max(training.extras("rl_staleness_steps")) <= staleness


@pytest.mark.slow
def test_other_ranks_go_on_with_the_answers_of_those_that_were_killed(
    made: Callable[..., RlTraining], undisturbed: RlTraining
) -> None:
    training = made(2, checkpoint__every=4)
    training.go(during=killed_at(training, 4), may_die=True)
    seen = training.run.path / "rollouts"
    sizes = {file.name: file.stat().st_size for file in seen.glob("step-[123].*")}
    assert len(sizes) == 6
    training.world_size = 1
    training.change("resources", "gpus_per_node", 1)

    assert [o.status for o in training.go(in_rank=keep_rollouts)] == ["finished"]
    assert {file.name: file.stat().st_size for file in seen.glob("step-[123].*")} == sizes
    one, other = ({s: float.fromhex(h) for s, h in t.losses().items()} for t in (undisturbed, training))
    assert other == pytest.approx(one, abs=1e-5)
    assert [r["data"] for r in training.records().values()] == [r["data"] for r in undisturbed.records().values()]


@pytest.mark.slow
def test_a_stop_while_held_out_prompts_are_tried_changes_nothing(
    made: Callable[..., RlTraining], undisturbed: RlTraining
) -> None:
    training = made()

    def at_once(pids: list[int]) -> None:
        while not training.event("validation_begin"):
            time.sleep(0.01)
        os.kill(pids[0], signal.SIGUSR2)

    [stopped] = training.go(during=at_once, in_rank=slow_engine(1.0))
    assert (stopped.status, stopped.step) == ("stopped", 0)
    ended = training.event("validation_end")
    assert ended and ended.reason == "told to stop"
    assert [o.status for o in training.go()] == ["finished"]
    assert training.evaluations() == undisturbed.evaluations()
    assert_same(training, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("staleness", [0, 1])
def test_kills_and_stops_at_any_moment_lose_no_prompt_and_train_on_none_twice(
    made: Callable[..., RlTraining], staleness: int
) -> None:
    rng = random.Random(staleness)
    changes: dict[str, Any] = {"dynamic_sampling": True, "rollout__staleness": staleness, "evaluation": None}
    undisturbed, training = made(2, **changes), made(2, **changes)
    assert {o.status for o in undisturbed.go()} == {"finished"}

    def disturb(pids: list[int]) -> None:
        time.sleep(rng.uniform(1.5, 4.0))
        kills = rng.random() < 0.7
        for pid in pids if kills else pids[:1]:
            os.kill(pid, signal.SIGKILL if kills else signal.SIGUSR2)  # of one that has ended too: it is not reaped yet

    for _ in range(4):
        training.go(during=disturb, may_die=True, in_rank=slow_engine(0.05))
    assert {o.status for o in training.go()} == {"finished"}
    manifest = json.loads((training.run.checkpoints_dir / f"step-{STEPS}" / "manifest.json").read_text())
    digests = sum(int(record["data"], 16) for record in training.records().values())
    assert int(manifest["data_digest"], 16) == digests % (1 << 64)
    assert max(training.extras("rl_staleness_steps")) <= staleness
    if staleness == 0:
        assert len({(r["step"], r["data"], r["loss_hex"], r["first_sample"]) for r in training._records()}) == STEPS
        assert_same(training, undisturbed)
