"""A run of online RL as its task runs it: it learns, and however its ranks share the work, it is the same."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.posttrain.rl.trainings import RlTraining, assert_same, killed_at, slow_engine
from xgen.runs import read_events


def test_the_pass_rate_rises_on_prompts_of_the_training_and_on_held_out_ones(made: Callable[..., RlTraining]) -> None:
    training = made(train__steps=24, train__micro_batch=4, rollout__prompts=16, evaluation__every=12)
    training.change("evaluation", "samples", 8)
    training.change("evaluation", "temperature", 1.0)
    training.change("checkpoint", "every", 100)
    training.change("train", "lr", {"peak": 1e-3})
    assert [o.status for o in training.go()] == ["finished"]
    rates = training.extras("rl_pass_rate/sums")
    assert sum(rates[:2]) / 2 < 0.4
    assert sum(rates[-4:]) / 4 > 0.85
    held_out = training.evaluations()
    assert list(held_out) == [0, 12, 24]
    assert held_out[24] > held_out[0] + 0.15


def test_two_ranks_train_as_one(made: Callable[..., RlTraining], undisturbed: RlTraining) -> None:
    training = made(2)
    assert [o.status for o in training.go()] == ["finished"] * 2
    one, two = ({s: float.fromhex(h) for s, h in t.losses().items()} for t in (undisturbed, training))
    assert two == pytest.approx(one, abs=1e-5)
    assert [r["data"] for r in training.records().values()] == [r["data"] for r in undisturbed.records().values()]
    norms = [[r["grad_norm"] for r in t.records().values()] for t in (undisturbed, training)]
    assert norms[1] == pytest.approx(norms[0], rel=1e-3)


def test_beside_the_training_with_bound_0_every_bit_is_the_same(
    made: Callable[..., RlTraining], undisturbed: RlTraining
) -> None:
    def beside(_rank: int) -> None:
        from xgen.posttrain.rl.desk import Desk

        make = Desk.__init__

        def in_background(self: Desk, engine: Any, judge: Any, background: bool = False) -> None:
            assert not background
            make(self, engine, judge, background=True)

        Desk.__init__ = in_background  # type: ignore[method-assign]

    training = made()
    assert [o.status for o in training.go(in_rank=beside)] == ["finished"]
    assert_same(training, undisturbed)


def test_the_ledger_is_told_of_the_waiting_for_answers(made: Callable[..., RlTraining]) -> None:
    training = made(train__steps=3, evaluation=None)
    assert [o.status for o in training.go(in_rank=slow_engine(0.1))] == ["finished"]
    told = [event for event in read_events(training.run) if event.event == "progress"][-1]
    assert told.generate and told.verify is not None and told.data_wait is not None
    assert 0.2 <= told.generate < 3  # two steps: what the first one waited for was a part of the start


def test_every_answer_is_kept_to_be_read_now_and_then(undisturbed: RlTraining) -> None:
    from xgen.posttrain.rl.samples import read_samples, sampled_steps

    assert sampled_steps(undisturbed.run) == [2, 4, 6]
    groups = list(read_samples(undisturbed.run, 6))
    assert len(groups) == 8
    for group in groups:
        a, b = group.prompt.removesuffix("=").split("+")
        for answer in group.answers:
            assert answer.passed == (answer.text == str(int(a) + int(b)))
            assert "<|" not in answer.text
    assert Counter(len(group.answers) for group in groups) == {8: 8}


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["grpo", "dr_grpo", "dapo"])
def test_ranks_and_rows_change_no_loss(made: Callable[..., RlTraining], loss: str) -> None:
    changes: dict[str, Any] = {"loss": {"kind": loss, "kl": 0.1}, "train__steps": 3, "evaluation": None}
    one, other = made(**changes), made(2, train__micro_batch=2, train__sequences=64, **changes)
    one.change("train", "sequences", 64)
    for training in (one, other):
        assert {o.status for o in training.go()} == {"finished"}
    expected = {step: float.fromhex(value) for step, value in one.losses().items()}
    assert {step: float.fromhex(value) for step, value in other.losses().items()} == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("layout", [{"tp": 2}, {"cp": 2}], ids=["tensor", "context"])
def test_ranks_that_share_their_rows_train_as_one(made: Callable[..., RlTraining], layout: dict[str, int]) -> None:
    changes: dict[str, Any] = {"train__steps": 3, "train__seq_len": 256, "evaluation": None}
    changes["loss"] = {"kind": "dapo", "kl": 0.1, "importance": "sequence"}
    one, other = made(**changes), made(2, train__parallelism=layout, **changes)
    for training in (one, other):
        assert {o.status for o in training.go()} == {"finished"}
    expected = {step: float.fromhex(value) for step, value in one.losses().items()}
    assert {step: float.fromhex(value) for step, value in other.losses().items()} == pytest.approx(expected, abs=1e-5)
    assert [r["data"] for r in other.records().values()] == [r["data"] for r in one.records().values()]
    for name in ("rl_entropy", "rl_kl", "rl_importance", "rl_ratio"):
        assert other.extras(name) == pytest.approx(one.extras(name), abs=1e-4)


@pytest.mark.slow
def test_answers_that_nobody_can_judge_are_left_out_and_counted(
    made: Callable[..., RlTraining], world: Path, tmp_path: Path
) -> None:
    lines = (world / "sums.jsonl").read_text().splitlines()
    broken = [
        line if number % 2 else json.dumps({"prompt": json.loads(line)["prompt"]}) for number, line in enumerate(lines)
    ]
    (tmp_path / "broken.jsonl").write_text("\n".join(broken))
    training = made(train__steps=4)
    training.change("prompts", "sources", "sums", str(tmp_path / "broken.jsonl"))
    training.go(during=killed_at(training, 4), may_die=True)
    assert [o.status for o in training.go()] == ["finished"]
    left_out = training.extras("rl_excluded_answers")
    assert 0 < sum(left_out) < 4 * 64
    assert training.extras("rl_verifier_failures/exact/error") == [sum(left_out[: n + 1]) for n in range(4)]


@pytest.mark.slow
def test_a_step_in_which_all_are_wrong_changes_nothing_and_the_run_goes_on(
    made: Callable[..., RlTraining], world: Path, tmp_path: Path
) -> None:
    lines = [json.loads(line) for line in (world / "sums.jsonl").read_text().splitlines()]
    (tmp_path / "hopeless.jsonl").write_text("\n".join(json.dumps(line | {"answer": "none"}) for line in lines))
    training = made(train__steps=2, dynamic_sampling=True, max_resampled=2, loss={"updates": 2}, evaluation=None)
    training.change("prompts", "sources", "sums", str(tmp_path / "hopeless.jsonl"))
    assert [o.status for o in training.go()] == ["finished"]
    assert [(r["loss"], r["grad_norm"], r["first_sample"]) for r in training.records().values()] == [
        (0.0, 0.0, 0),
        (0.0, 0.0, 16),
    ]
    assert training.extras("rl_resampled_batches") == [1, 1]
