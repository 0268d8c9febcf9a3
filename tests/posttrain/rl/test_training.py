"""A run of online RL as its task runs it: it learns, and whatever stops it, the resumed run is the same."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.posttrain.rl.world import spec
from tests.train.faults import spoil_step
from tests.train.forked import Training
from xgen.runs import RunDir, read_events

STEPS = 6


class RlTraining(Training):
    def __init__(self, run: RunDir, world: Path, world_size: int = 1, **changes: Any) -> None:
        super().__init__(run, world_size)
        written = spec(world)
        written["resources"]["gpus_per_node"] = world_size
        self.run.spec_file.write_text(yaml.safe_dump(written))
        for key, value in changes.items():
            self.change(*key.split("__"), value)

    def records(self) -> dict[int, dict[str, Any]]:
        """Of each step the last."""
        return {record["step"]: record for record in self._records()}

    def extras(self, name: str) -> list[float]:
        return [record["extra"].get(name, 0.0) for record in self.records().values()]

    def evaluations(self) -> dict[int, float]:
        lines = (self.run.metrics_dir / "evaluation.jsonl").read_text().splitlines()
        return {line["step"]: line["sources"]["held-out"]["pass_rate"] for line in map(json.loads, lines)}

    def journalled(self, step: int) -> int:
        """Lines of answers and verdicts of a step."""
        files = (self.run.path / "rollouts").glob(f"step-{step}.*")
        return sum(len(file.read_text().splitlines()) for file in files)


@pytest.fixture
def made(world: Path, tmp_path: Path) -> Callable[..., RlTraining]:
    numbers = iter("abcdefgh")

    def make(world_size: int = 1, **changes: Any) -> RlTraining:
        return RlTraining(RunDir(tmp_path / "runs" / f"sums-{next(numbers) * 6}"), world, world_size, **changes)

    return make


@pytest.fixture(scope="session")
def undisturbed(world: Path, tmp_path_factory: pytest.TempPathFactory) -> RlTraining:
    training = RlTraining(RunDir(tmp_path_factory.mktemp("undisturbed") / "sums-undist"), world)
    assert [o.status for o in training.go()] == ["finished"]
    return training


def assert_same(one: RlTraining, other: RlTraining) -> None:
    from xgen.train.compare import compare_checkpoints

    assert one.losses() == other.losses()
    assert [r["data"] for r in one.records().values()] == [r["data"] for r in other.records().values()]
    folders = (t.run.checkpoints_dir / f"step-{STEPS}" for t in (one, other))
    count, differing = compare_checkpoints(*folders)
    assert count > 50
    assert differing == []


def killed_at(training: Training, step: int) -> Callable[[list[int]], None]:
    """For `go(during=...)`: kill -9 of every rank while that step is under way."""

    def act(pids: list[int]) -> None:
        training.wait_for_step(step - 1)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

    return act


def slow_engine(seconds: float) -> Callable[[int], None]:
    """For `go(in_rank=...)`: the first token of answers takes so long."""

    def slow(_rank: int) -> None:
        from xgen.posttrain.engine.inprocess import InProcessEngine

        step = InProcessEngine._step

        def slowly(self: InProcessEngine) -> None:
            if any(answer and not answer.tokens and answer.is_ready for answer in self._rows):
                time.sleep(seconds)
            step(self)

        InProcessEngine._step = slowly  # type: ignore[method-assign]

    return slow


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

    def keep(_rank: int) -> None:
        from xgen.posttrain.rl.journal import Journal

        Journal.prune = lambda *_: None  # type: ignore[method-assign]

    assert [o.status for o in training.go(in_rank=keep)] == ["finished"]
    assert {file.name: file.stat().st_size for file in seen.glob("step-[123].*")} == sizes
    assert_same(training, undisturbed)


def test_the_journal_lets_go_of_what_is_behind_a_checkpoint(undisturbed: RlTraining) -> None:
    assert list((undisturbed.run.path / "rollouts").iterdir()) == []


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

    def keep(_rank: int) -> None:
        from xgen.posttrain.rl.journal import Journal

        Journal.prune = lambda *_: None  # type: ignore[method-assign]

    assert [o.status for o in training.go(in_rank=keep)] == ["finished"]
    assert {file.name: file.stat().st_size for file in seen.glob("step-[123].*")} == sizes
    one, other = ({s: float.fromhex(h) for s, h in t.losses().items()} for t in (undisturbed, training))
    assert other == pytest.approx(one, abs=1e-5)
    assert [r["data"] for r in training.records().values()] == [r["data"] for r in undisturbed.records().values()]


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
    assert training.event("validation_end").reason == "told to stop"  # type: ignore[union-attr]
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
