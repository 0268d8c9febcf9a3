"""What a rollback leaves out stays left out, and what the guard knows stays known, whatever ends the attempt."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.train.faults import spoil_step
from tests.train.forked import SPEC, Training
from xgen.runs import RunDir, read_events


@pytest.fixture
def training(_warm: None, tmp_path: Path) -> Training:
    training = Training(RunDir(tmp_path / "nano-aaaaaa"))
    training.change("guard", {"non_finite": "rollback"})
    return training


def _spoil(rank: int, step: int = 5) -> None:
    spoil_step(step, math.nan if rank == 1 else 1.0)


def _firsts(training: Training) -> list[int]:
    return [record["first_sample"] for record in training._records()]


def _kill_after_the_rollback(rank: int) -> None:
    from xgen.train.trainer import JobTrainer

    _spoil(rank)
    batches, calls = JobTrainer._batches, []

    def dying(self: JobTrainer) -> Any:
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return batches(self)

    JobTrainer._batches = dying  # type: ignore[method-assign]


def _stop_after_the_rollback(rank: int) -> None:
    """A signal in step 5 is agreed on while it goes back to 4."""
    from xgen.train.trainer import JobTrainer

    _spoil(rank)
    step = JobTrainer.train_step

    def signalled(self: JobTrainer, data: Any) -> None:
        if self.step == 5:
            os.kill(os.getpid(), signal.SIGUSR2)
        step(self, data)

    JobTrainer.train_step = signalled  # type: ignore[method-assign, assignment]


@pytest.mark.parametrize("end", [_kill_after_the_rollback, _stop_after_the_rollback])
def test_the_next_attempt_leaves_the_same_data_out(training: Training, tmp_path: Path, end: Any) -> None:
    training.go(in_rank=end, may_die=True)
    assert _firsts(training) == [0, 4, 8, 12, 16]
    assert {o.status for o in training.go()} == {"finished"}
    assert _firsts(training)[5:] == [20, 24, 28, 32]
    undisturbed = Training(RunDir(tmp_path / "nano-bbbbbb"))
    undisturbed.change("guard", {"non_finite": "rollback"})
    undisturbed.go(in_rank=_spoil)
    assert training.losses() == undisturbed.losses()
    from xgen.train.compare import compare_checkpoints

    assert compare_checkpoints(*(t.run.checkpoints_dir / "step-8" for t in (training, undisturbed)))[1] == []


def test_rollbacks_of_several_attempts_end_the_run(training: Training) -> None:
    training.change("guard", {"non_finite": "rollback", "most": 2})
    for _ in range(2):
        training.go(in_rank=_kill_after_the_rollback, may_die=True)
    assert {o.status for o in training.go(in_rank=_spoil)} == {"refused"}
    assert _firsts(training)[4:] == [16, 20, 24]


def test_a_spike_right_after_a_resume_is_seen(training: Training) -> None:
    training.change("stages", 0, "tokens", 14 * 256)
    training.change("guard", {"spike": "skip", "window": 8})
    training.go(during=training.signal_at(9, rank=0))
    (stopped,) = training.run.checkpoint_steps()[-1:]
    training.go(in_rank=lambda rank: spoil_step(stopped + 1, 1000.0 if rank == 1 else 1.0))
    assert [(e.action, e.step) for e in read_events(training.run) if e.event == "guard"] == [("skip", stopped + 1)]


def test_a_checkpoint_from_before_the_guard_was_in_it_is_loaded(training: Training) -> None:
    def forgetful(_rank: int) -> None:
        from xgen.train.trainer import JobTrainer

        whole = JobTrainer.state_dict

        def state(self: JobTrainer) -> dict[str, Any]:
            return {name: value for name, value in whole(self).items() if name != "guard"}

        JobTrainer.state_dict = state  # type: ignore[method-assign]

    training.go(during=training.signal_at(3, rank=0), in_rank=forgetful)
    assert {o.status for o in training.go()} == {"finished"}
    assert training.steps() == list(range(1, 9))


def test_a_rollback_waits_for_its_loading_as_a_start_does(training: Training, tmp_path: Path) -> None:
    def note(rank: int) -> None:
        from torchtitan.distributed import utils

        _spoil(rank)
        limit = utils.set_pg_timeouts

        def noted(timeout: Any, **rest: Any) -> None:
            with (tmp_path / f"limits.{rank}").open("a") as file:
                print(int(timeout.total_seconds()), file=file)
            limit(timeout, **rest)

        utils.set_pg_timeouts = noted

    assert {o.status for o in training.go(in_rank=note)} == {"finished"}
    assert (tmp_path / "limits.1").read_text().split() == ["600", "1800", "600"]


def test_what_a_later_stage_has_again_is_said(training: Training) -> None:
    training.change("stages", [SPEC["stages"][0], {"name": "next", "tokens": 4 * 256}])  # type: ignore[index]
    assert {o.status for o in training.go(in_rank=_spoil)} == {"finished"}
    (restored,) = [e for e in read_events(training.run) if e.event == "restore_end" and e.checkpoint]
    assert restored.reason == (
        "back from step 5, 4 samples are left out; this stage ends 4 samples past its plan, "
        "and a later one with the same text has them again"
    )
