"""The state of a run from its files and one answer of the scheduler: unknown is not lost."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from xgen.cluster.slurm import QueueRow
from xgen.cluster.status import QueueView, ask_queue, run_status
from xgen.runs import EventName, EventWriter, RunDir

NAME = "demo-abc234"


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    made = RunDir(tmp_path / NAME)
    made.create()
    return made


def tell(run: RunDir, *names: EventName, attempt: int = 1, **facts: object) -> None:
    writer = EventWriter(run, "host", attempt, "7")
    for name in names:
        writer.write(name, **facts)  # type: ignore[arg-type]


def queue(state: str | None, reason: str = "None") -> QueueView:
    """What squeue says of the run; None when it is not in the queue."""
    if state is None:
        return QueueView({})
    return QueueView({NAME: QueueRow("9", NAME, state, reason, "gpu", "n1", "N/A", "0")})


SILENT = QueueView(None, "squeue did not answer within 60 s")


@pytest.mark.parametrize(
    ("told", "view", "state", "reason"),
    [
        (["submitted", "queued"], queue("PENDING", "Priority"), "pending", "Priority"),
        (["submitted", "queued", "started"], queue("RUNNING"), "running", ""),
        (["submitted", "queued", "started"], queue("COMPLETING"), "running", "completing"),
        (["started", "exited", "requeued"], queue("PENDING", "BeginTime"), "pending", "BeginTime"),
        (["started", "exited", "requeued"], queue("REQUEUED"), "pending", "None"),
        (["started", "exited", "finished"], queue(None), "finished", ""),
        (["started", "exited", "finished"], queue("COMPLETING"), "finished", ""),
        (["started", "exited", "finished"], SILENT, "finished", ""),
        (["started", "exited", "cancelled"], queue(None), "cancelled", ""),
        (["started", "exited", "failed"], SILENT, "failed", ""),
        (["started"], SILENT, "unknown", "squeue did not answer within 60 s"),
        (["submitted", "queued"], SILENT, "unknown", "squeue did not answer within 60 s"),
        (["started", "exited", "cancelled", "queued"], queue("PENDING", "Resources"), "pending", "Resources"),
        (["started", "exited", "failed", "queued", "started"], queue("RUNNING"), "running", ""),
    ],
)
def test_state_of_a_run(run: RunDir, told: list[EventName], view: QueueView, state: str, reason: str) -> None:
    tell(run, *told)
    status = run_status(run, view)
    assert (status.state, status.reason) == (state, reason)


def test_gone_from_the_queue_without_a_decision_is_lost_and_says_what_to_do(run: RunDir) -> None:
    tell(run, "submitted", "queued", "started")
    run.attempt_dir(1).mkdir()
    status = run_status(run, queue(None))
    assert (status.state, status.reason) == (
        "lost", f"not in the queue, ended without a decision; write xgen resume {NAME}",
    )  # fmt: skip
    (run.attempt_dir(1) / "outcome.json").write_text('{"status":"stopped","durable_step":3,"failures":0,"time":1}')
    assert run_status(run, queue(None)).reason == f"not in the queue, ended stopped; write xgen resume {NAME}"


def test_a_failure_says_why(run: RunDir) -> None:
    tell(run, "started")
    tell(run, "failed", reason="rank 3: out of memory")
    assert run_status(run, queue(None)).reason == "rank 3: out of memory"


def test_cancelled_before_it_started(run: RunDir) -> None:
    tell(run, "submitted", "queued", attempt=0)
    run.cancelled_file.touch()
    assert run_status(run, queue(None)).state == "cancelled"


def test_a_local_run_without_its_supervisor_is_lost(run: RunDir) -> None:
    tell(run, "started")
    (run.path / "local").mkdir()
    for text in ("", "not a number", f"{os.getpid()}\n", "999999999\n"):
        (run.path / "local/pid").write_text(text)
        status = run_status(run, QueueView(None))
        assert (status.state, status.reason) == ("lost", "its supervisor is gone; write xgen resume")


def test_steps_restarts_and_job_come_from_the_events(run: RunDir) -> None:
    run.attempt_dir(1).mkdir()
    run.attempt_dir(2).mkdir()
    tell(run, "started")
    tell(run, "progress", step=30)
    tell(run, "checkpoint_durable", step=20)
    tell(run, "requeued", reason="preempted")
    tell(run, "started", attempt=2)
    tell(run, "first_step", attempt=2, step=21)
    status = run_status(run, queue("RUNNING"))
    assert (status.job_id, status.attempt, status.restarts, status.step, status.durable_step) == ("9", 2, 1, 21, 20)
    assert run_status(run, SILENT).job_id == "7"


def test_without_slurm_the_queue_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    view = ask_queue()
    assert (view.jobs, view.error) == (None, "squeue is not on PATH: there is no SLURM client on this machine")


def test_a_scheduler_that_fails_is_no_empty_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "squeue").write_text("#!/bin/sh\necho 'slurm_load_jobs error: Unable to contact slurm' >&2; exit 1\n")
    (tmp_path / "squeue").chmod(0o755)
    assert subprocess.run([tmp_path / "squeue"], capture_output=True).returncode == 1
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert ask_queue() == QueueView(None, "slurm_load_jobs error: Unable to contact slurm")
