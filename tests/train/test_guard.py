"""A loss or a gradient that is not finite, or far above the last ones: what each policy does about it."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.train.faults import spoil_step
from tests.train.forked import Training
from xgen.runs import RunDir, read_events, replay
from xgen.spec import Guard
from xgen.train.guard import StepGuard


def _fed(guard: StepGuard, steps: int = 40) -> StepGuard:
    for step in range(steps):
        assert guard.judge(3.0 + 0.01 * (step % 5), 1.0 + 0.02 * (step % 3)).action == ""
    return guard


def test_a_step_like_the_others_passes_and_a_falling_loss_does() -> None:
    guard = StepGuard(Guard())
    for step in range(300):
        assert guard.judge(9.0 * math.exp(-step / 100) + 2.0, 1.0 + 10.0 * math.exp(-step / 20)).action == ""


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("policy", ["stop", "skip", "rollback"])
def test_what_is_not_finite_is_never_applied(policy: Any, value: float) -> None:
    for loss, norm in ((value, 1.0), (3.0, value)):
        verdict = StepGuard(Guard(non_finite=policy)).judge(loss, norm)
        assert (verdict.action, verdict.applies) == (policy, False)
        assert str(value) in verdict.reason


def test_the_median_that_a_loss_was_held_against_is_known() -> None:
    guard = StepGuard(Guard())
    assert guard.median_loss is None
    guard = _fed(guard, 40)
    assert guard.median_loss == pytest.approx(3.02)
    guard.judge(9.0, 1.0)
    assert guard.median_loss == pytest.approx(3.02)
    guard.forget()
    assert guard.median_loss is None  # the next losses are of other data


@pytest.mark.parametrize("policy", ["record", "stop", "skip", "rollback"])
def test_a_spike_is_held_against_the_median(policy: Any) -> None:
    guard = _fed(StepGuard(Guard(spike=policy)))
    verdict = guard.judge(9.0, 1.0)
    assert (verdict.action, verdict.applies) == (policy, policy == "record")
    assert "loss 9 is above" in verdict.reason
    assert "gradient norm 50 is above" in guard.judge(3.0, 50.0).reason


def test_equal_losses_make_no_spike_of_a_ripple() -> None:
    guard = StepGuard(Guard())
    for _ in range(50):
        guard.judge(3.0, 1.0)
    assert guard.judge(3.2, 1.05).action == ""


def test_too_many_in_a_window_end_the_run() -> None:
    guard = StepGuard(Guard(most=3))
    actions = [guard.judge(math.nan, 1.0).action for _ in range(4)]
    assert actions == ["skip", "skip", "skip", "stop"]
    guard = StepGuard(Guard(most=1, window=8))
    for _ in range(3):
        assert guard.judge(math.nan, 1.0).action == "skip"
        _fed(guard, 8)


def test_a_guard_goes_on_with_the_state_of_another() -> None:
    one = _fed(StepGuard(Guard(spike="skip", most=1)))
    assert one.judge(9.0, 1.0).action == "skip"
    other = StepGuard(Guard(spike="skip", most=1))
    other.state = one.state
    assert other.judge(9.0, 1.0) == one.judge(9.0, 1.0)
    assert other.judge(9.0, 1.0).action == "stop"
    other.forget()
    assert other.judge(9.0, 1.0).action == ""


@pytest.fixture
def training(_warm: None, tmp_path: Path) -> Training:
    return Training(RunDir(tmp_path / "nano-aaaaaa"))


def _events(training: Training) -> list[tuple[str, int | None]]:
    return [(e.action or "", e.step) for e in read_events(training.run) if e.event == "guard"]


def _spoil(step: int, factor: float, times: int = 1) -> Callable[[int], None]:
    return lambda rank: spoil_step(step, factor if rank == 1 else 1.0, times)


def test_a_nan_is_skipped_and_recorded(training: Training) -> None:
    training.change("guard", {"non_finite": "skip"})
    (status,) = {o.status for o in training.go(in_rank=_spoil(5, math.nan))}
    assert status == "finished"
    assert _events(training) == [("skip", 5)]
    assert training.losses()[5] == "nan"
    assert all(math.isfinite(float.fromhex(loss)) for step, loss in training.losses().items() if step != 5)
    assert replay(read_events(training.run)).guarded == {"skip": 1}


def test_what_was_saved_after_skipped_steps_alone_is_loaded(training: Training) -> None:
    def spoil(rank: int) -> None:
        for step in (1, 2):
            _spoil(step, math.nan)(rank)

    training.change("stages", 0, "tokens", 2 * 256)
    training.go(in_rank=spoil)
    assert _events(training) == [("skip", 1), ("skip", 2)]
    training.change("stages", 0, "tokens", 8 * 256)
    assert {o.status for o in training.go()} == {"finished"}
    assert training.steps() == list(range(1, 9))


def test_a_nan_rolls_back_and_leaves_the_data_out(training: Training) -> None:
    training.change("guard", {"non_finite": "rollback"})
    (status,) = {o.status for o in training.go(in_rank=_spoil(5, math.nan))}
    assert status == "finished"
    assert _events(training) == [("rollback", 5)]
    assert training.steps() == [1, 2, 3, 4, 5, 5, 6, 7, 8]  # saved at 4
    firsts = [record["first_sample"] for record in training._records()]
    assert firsts == [0, 4, 8, 12, 16, 20, 24, 28, 32]  # samples 16 to 19 are left out
    restored = [e for e in read_events(training.run) if e.event == "restore_end"][-1]
    assert (restored.step, restored.reason) == (4, "back from step 5, 4 samples are left out")
    ledger = replay(read_events(training.run))
    assert ledger.guarded == {"rollback": 1}
    assert ledger.durable_step == 8


def test_a_rollback_is_the_run_that_never_saw_the_data(training: Training, tmp_path: Path) -> None:
    """Steps 5 to 8 after the rollback are those of a run that left the samples out without any trouble."""
    training.change("guard", {"non_finite": "rollback"})
    training.go(in_rank=_spoil(5, math.nan))
    other = Training(RunDir(tmp_path / "nano-bbbbbb"))

    def stop_in_step_4(_rank: int) -> None:
        from xgen.train.trainer import JobTrainer

        step = JobTrainer.train_step

        def stopping(self: JobTrainer, data: Any) -> None:
            if self.step == 4:
                os.kill(os.getpid(), signal.SIGUSR2)
            step(self, data)

        JobTrainer.train_step = stopping  # type: ignore[method-assign]

    def leave_out(_rank: int) -> None:
        from xgen.train.trainer import JobTrainer

        batches = JobTrainer._batches

        def jump(self: JobTrainer) -> Any:
            self.dataloader.next_sample = 20
            return batches(self)

        JobTrainer._batches = jump  # type: ignore[method-assign]

    other.go(in_rank=stop_in_step_4)
    assert other.steps() == [1, 2, 3, 4]
    other.go(in_rank=leave_out)
    assert {s: other.losses()[s] for s in range(5, 9)} == {s: training.losses()[s] for s in range(5, 9)}


@pytest.mark.parametrize("step", [1, 8])
def test_without_a_checkpoint_a_rollback_skips(training: Training, step: int) -> None:
    training.change("guard", {"non_finite": "rollback"})
    training.change("checkpoint", "every", 100)
    (status,) = {o.status for o in training.go(in_rank=_spoil(step, math.nan))}
    assert status == "finished"
    assert training.steps() == list(range(1, 9))
    assert _events(training) == [("skip", step)]
    assert training.run.checkpoint_steps() == [8]
    assert [e.step for e in read_events(training.run) if e.event == "restore_end"] == [0]
    ledger = replay(read_events(training.run))
    assert (ledger.durable_step, ledger.guarded) == (8, {"skip": 1})


def test_all_ranks_judge_the_numbers_of_rank_0(training: Training) -> None:
    """Those of another may differ in the last bits: here they do by more."""

    def differ(rank: int) -> None:
        from xgen.train.trainer import JobTrainer

        summed = JobTrainer._over_ranks

        def other(self: JobTrainer, loss: Any) -> Any:
            return summed(self, loss) * (math.nan if rank == 1 and self.step == 3 else 1)

        JobTrainer._over_ranks = other  # type: ignore[method-assign]

    training.change("guard", {"non_finite": "stop"})
    assert {o.status for o in training.go(in_rank=differ)} == {"finished"}
    assert _events(training) == []


def test_a_stop_is_no_failure_to_be_tried_again(training: Training) -> None:
    training.change("guard", {"non_finite": "stop"})
    outcomes = training.go(in_rank=_spoil(3, math.nan))
    assert {o.status for o in outcomes} == {"refused"}
    assert outcomes[0].reason.startswith("step 3: loss nan")


def test_a_planted_spike_rolls_back(training: Training) -> None:
    training.change("stages", 0, "tokens", 30 * 256)
    training.change("checkpoint", {"every": 10, "keep": 3, "mode": "async"})
    training.change("guard", {"spike": "rollback", "window": 8})
    (status,) = {o.status for o in training.go(in_rank=_spoil(25, 1000.0))}
    assert status == "finished"
    assert _events(training) == [("rollback", 25)]
    assert training.steps() == [*range(1, 26), *range(21, 31)]
