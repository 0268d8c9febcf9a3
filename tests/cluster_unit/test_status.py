"""The state of a run from its files and one answer of the scheduler: unknown is not lost."""

from __future__ import annotations

import os
import pwd
import subprocess
import time
from pathlib import Path

import pytest

from xgen.cluster.slurm import QueueRow
from xgen.cluster.status import QueueView, ask_queue, queue_view, run_status
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
        (["started", "exited", "cancelled"], queue("COMPLETING"), "cancelled", ""),
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


@pytest.mark.parametrize(
    ("view", "state", "reason"),
    [
        (queue("RUNNING"), "running", "is being cancelled"),
        (queue("COMPLETING"), "running", "is being cancelled"),
        (queue("PENDING", "BeginTime"), "pending", "BeginTime; is marked as cancelled"),
        (queue(None), "cancelled", ""),
        (SILENT, "unknown", "is marked as cancelled; squeue did not answer within 60 s"),
    ],
)
def test_what_a_person_cancels_is_cancelled_once_its_job_is_gone(
    run: RunDir, view: QueueView, state: str, reason: str
) -> None:
    tell(run, "started")
    run.cancelled_file.touch()
    EventWriter(run, "client", 1, "7").write("cancelled")
    tell(run, "exited")  # it goes on for as long as it saves
    tell(run, "requeued", reason="preempted")  # or had decided already
    status = run_status(run, view)
    assert (status.state, status.reason) == (state, reason)


def test_the_marker_tells_of_a_local_run_too(run: RunDir) -> None:
    tell(run, "started")
    (run.path / "local").mkdir()
    run.cancelled_file.touch()
    assert run_status(run, QueueView(None)).state == "cancelled"


def decided(run: RunDir, text: str) -> None:
    """The script was killed after it had written this outcome, and before the event."""
    run.attempt_dir(1).mkdir()
    (run.attempt_dir(1) / "outcome.json").write_text(text)


@pytest.mark.parametrize("is_local", [False, True])
def test_an_outcome_without_its_event_is_the_state(run: RunDir, is_local: bool) -> None:
    if is_local:
        (run.path / "local").mkdir()
    tell(run, "started", "exited")
    run.cancelled_file.touch()  # too late: it has finished
    decided(run, '{"status":"finished","time":1}')
    assert run_status(run, queue(None)).state == "finished"


def test_a_refusal_without_its_event_is_a_failure_until_it_is_resumed(run: RunDir) -> None:
    tell(run, "started", "exited")
    decided(run, f'{{"status":"refused","reason":"no such store","time":{time.time()}}}')
    status = run_status(run, queue(None))
    assert (status.state, status.reason) == ("failed", "no such store")
    EventWriter(run, "client", 1, "8").write("queued", reason="resumed")
    assert run_status(run, queue("RUNNING")).state == "running"


def test_somebody_else_s_run_that_is_not_in_the_queue_is_unknown(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """The site may hide their jobs, and a second one would run beside the first."""
    tell(run, "started")
    owner = pwd.getpwuid(os.getuid()).pw_name
    monkeypatch.setattr(os, "getuid", lambda: 4242)
    assert run_status(run, queue("RUNNING")).state == "running"
    status = run_status(run, queue(None))
    assert (status.state, status.reason) == ("unknown", f"it belongs to {owner}, who alone can hold or resume it")


def test_it_is_lost_where_all_jobs_are_seen(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    tell(run, "started")
    monkeypatch.setattr(os, "getuid", lambda: 4242)
    assert run_status(run, queue_view([], sees_all=True)).state == "lost"
    (run.path / "local").mkdir()
    (run.path / "local" / "host").write_text("another-machine\n")
    assert run_status(run, queue_view([], sees_all=True)).state == "unknown"


def test_the_queue_is_asked_for_the_owners_of_all_runs_at_once(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "squeue").write_text(
        f'#!/bin/sh\necho "$1" >>"{tmp_path}/asked"; echo "42|{NAME}|RUNNING|None|gpu|n1|N/A|0|"\n'
    )
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    owner, me = os.getuid(), pwd.getpwnam("nobody").pw_uid
    monkeypatch.setattr(os, "getuid", lambda: me)
    view = ask_queue([run, run, RunDir(tmp_path / "gone-abc234")])  # removed since it was listed
    assert view.jobs is not None
    assert view.jobs[NAME].job_id == "42"
    asked = (tmp_path / "asked").read_text().splitlines()
    assert len(asked) == 1
    assert set(asked[0].removeprefix("--user=").split(",")) == {str(owner), str(me)}


def test_a_local_run_of_another_machine_is_unknown(run: RunDir) -> None:
    tell(run, "started")
    (run.path / "local").mkdir()
    (run.path / "local/host").write_text("node7\n")
    status = run_status(run, QueueView(None))
    assert status.state == "unknown"
    assert status.reason.startswith("node7 runs it; write this there, or rm ")
    tell(run, "failed", reason="no such store")
    assert run_status(run, QueueView(None)).state == "failed"


@pytest.mark.parametrize("name", ["attempts/0001/outcome.json", "events/rank0.jsonl"])
def test_a_run_that_cannot_be_read_says_so(run: RunDir, name: str) -> None:
    (run.path / name).mkdir(parents=True)  # for root too
    status = run_status(run, queue("RUNNING"))
    assert (status.name, status.state, status.reason) == (NAME, "unreadable", "Is a directory")


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
    view = ask_queue([])
    assert (view.jobs, view.error) == (None, "squeue is not on PATH: there is no SLURM client on this machine")


def test_a_scheduler_that_fails_is_no_empty_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "squeue").write_text("#!/bin/sh\necho 'slurm_load_jobs error: Unable to contact slurm' >&2; exit 1\n")
    (tmp_path / "squeue").chmod(0o755)
    assert subprocess.run([tmp_path / "squeue"], capture_output=True).returncode == 1
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert ask_queue([]) == QueueView(None, "slurm_load_jobs error: Unable to contact slurm")
