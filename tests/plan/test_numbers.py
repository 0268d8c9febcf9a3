"""The plan's numbers against arithmetic that a person can do."""

from __future__ import annotations

from typing import Any

import pytest

from xgen.plan import STOP_MARGIN, plan
from xgen.plan.numbers import stop_budget
from xgen.spec import Command, Partition, Pretrain, Profile

PROFILE = Profile.model_validate(
    {
        "run_root": "/runs",
        "partitions": {"gpu": {}, "preempt": {"preemptible": True, "grace": "60s"}},
        "gpus": {"flops": "1T", "mfu": 0.5},
        "write_bandwidth": "1MB",
    }
)


def job(**keys: Any) -> Pretrain:
    stage = {"name": "a", "tokens": "100k", "seq_len": 256, "global_batch": "1k", "lr": {"peak": 1e-3}}
    base: dict[str, Any] = {
        "kind": "pretrain", "name": "p", "model": "tiny", "data": {"store": "/s"}, "stages": [stage],
        "resources": {"nodes": 2, "gpus_per_node": 2, "time": "1h"}, "checkpoint": {"every": 10},
    }  # fmt: skip
    return Pretrain.model_validate(base | keys)


def test_parameters_are_those_of_the_weights_one_by_one() -> None:
    dim, kv, ffn, vocab, layers = 128, 2 * 32, 352, 4096, 4
    attention = dim * dim * 2 + dim * kv * 2
    layer = attention + 3 * dim * ffn + 2 * dim
    assert plan(job(), PROFILE).num_parameters == layers * layer + dim + 2 * vocab * dim == 1_787_008


def test_steps_cover_the_token_budget_and_flops_follow_the_formula() -> None:
    numbers = plan(job(), PROFILE)
    assert (numbers.num_ranks, numbers.num_steps, numbers.tokens) == (4, 98, 98 * 1024)
    per_token = 6 * (1_787_008 - 4096 * 128) + 6 * 4 * 128 * 256  # rows of the embedding are read, not multiplied
    assert numbers.flops == per_token * 98 * 1024
    assert numbers.step_seconds == pytest.approx(per_token * 1024 / (4 * 1e12 * 0.5))
    assert numbers.train_seconds == pytest.approx(numbers.step_seconds * 98)
    assert numbers.gpu_hours == pytest.approx(numbers.train_seconds * 4 / 3600)


def test_a_checkpoint_is_weights_and_two_moments_and_every_node_writes_its_share() -> None:
    numbers = plan(job(), PROFILE)
    assert numbers.checkpoint_bytes == 12 * 1_787_008
    assert numbers.save_seconds == pytest.approx(1 + 12 * 1_787_008 / 2**20 / 2)


def test_a_stop_takes_two_steps_two_saves_and_a_batch_of_validation() -> None:
    """Asked for at one step, read at the next; an older save is finished first. Validation is a forward pass alone."""
    numbers, validated = plan(job(), PROFILE), plan(job(validation={"store": "/s"}), PROFILE)
    assert numbers.stop_seconds == 2 * numbers.step_seconds + 2 * numbers.save_seconds + STOP_MARGIN
    assert validated.stop_seconds - numbers.stop_seconds == pytest.approx(validated.step_seconds / 3)  # of one sequence


def test_a_kill_loses_half_an_interval_and_what_is_not_durable_yet() -> None:
    slow = PROFILE.model_copy(update={"gpus": PROFILE.gpus.model_copy(update={"flops": 1e9})})
    numbers, waiting = plan(job(), slow), plan(job(checkpoint={"every": 10, "mode": "sync"}), slow)
    assert numbers.lost_seconds == pytest.approx(5 * numbers.step_seconds + numbers.save_seconds)
    assert waiting.lost_seconds == pytest.approx(5 * numbers.step_seconds)


def test_a_kill_never_loses_more_than_the_run() -> None:
    numbers = plan(job(checkpoint={"every": 100_000}), PROFILE)
    assert numbers.lost_seconds <= numbers.train_seconds


@pytest.mark.parametrize(
    ("where", "budget"),
    [
        (Partition(), 300),
        (Partition(preemptible=True), 0),
        (Partition(preemptible=True, grace="60s"), 60),  # type: ignore[arg-type]
        (Partition(preemptible=True, grace="1h"), 300),  # type: ignore[arg-type]
        (Partition(preemptible=False, grace="60s"), 300),  # type: ignore[arg-type]
    ],
)
def test_on_preemption_the_budget_is_the_grace_whatever_the_lead(where: Partition, budget: float) -> None:
    assert stop_budget(job(), where) == budget


def test_a_command_has_no_numbers_of_its_own() -> None:
    command = Command.model_validate(
        {"kind": "command", "name": "c", "command": ["true"], "resources": {"nodes": 3, "time": "1h"}}
    )
    numbers = plan(command, PROFILE)
    assert (numbers.num_ranks, numbers.num_steps, numbers.stop_seconds, numbers.stop_budget) == (3, 0, 0.0, 300.0)
