"""What state a run is in: a pure function of its files and of one answer of the scheduler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from xgen.cluster import local, slurm
from xgen.runs import Ledger, RunDir, read_attempt_outcome, read_events, replay

# lost: it ended and nobody decided; unknown: the scheduler did not answer, which is not the same.
State = Literal["pending", "running", "finished", "failed", "cancelled", "lost", "unknown"]


@dataclass(frozen=True)
class RunStatus:
    """One line of `xgen status`. Steps are 0 before the first; `reason` says why it waits or why it ended."""

    name: str
    state: State
    job_id: str
    attempt: int
    restarts: int
    step: int
    durable_step: int
    reason: str


@dataclass(frozen=True)
class QueueView:
    """The scheduler's answer for all runs: None where it did not answer."""

    jobs: Mapping[str, slurm.QueueRow] | None
    error: str = ""


def ask_queue() -> QueueView:
    """One squeue, whatever the number of runs; no SLURM or no answer is a view without jobs."""
    try:
        return QueueView({row.name: row for row in slurm.queue()})
    except slurm.SchedulerError as error:
        return QueueView(None, str(error))


def run_status(run: RunDir, view: QueueView) -> RunStatus:
    events = read_events(run)
    ledger = replay(events)
    last = next(
        (e for e in reversed(events) if e.event in ("finished", "failed", "cancelled", "queued", "started")),
        None,
    )
    ended = last.event if last and last.event in ("finished", "failed", "cancelled") else None
    row = view.jobs.get(run.name) if view.jobs else None
    job_id = row.job_id if row else next((e.job_id for e in reversed(events) if e.job_id), "")
    state, reason = _state(run, ended, row, view)
    if ended and last and last.reason and state == ended:
        reason = last.reason
    return RunStatus(
        name=run.name,
        state=state,
        job_id=job_id,
        attempt=run.last_attempt(),
        restarts=sum(ledger.restarts.values()),
        step=_step(ledger),
        durable_step=ledger.durable_step,
        reason=reason,
    )


def _step(ledger: Ledger) -> int:
    return ledger.attempts[-1].last_step if ledger.attempts else 0


def _state(run: RunDir, ended: str | None, row: slurm.QueueRow | None, view: QueueView) -> tuple[State, str]:
    if row is not None and row.state in ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT"):
        return "pending", row.reason
    match ended:
        case "finished":
            return "finished", ""
        case "failed":
            return "failed", ""
        case "cancelled":
            return "cancelled", ""
        case _:
            pass
    if row is not None:
        return "running", "" if row.state == "RUNNING" else row.state.lower()
    if (run.path / "local").is_dir():
        return ("running", "") if local.is_alive(run) else ("lost", "its supervisor is gone; write xgen resume")
    if run.cancelled_file.exists():
        return "cancelled", ""
    if view.jobs is None:
        return "unknown", view.error
    outcome = read_attempt_outcome(run, run.last_attempt())
    said = f"ended {outcome.status}" if outcome else "ended without a decision"
    return "lost", f"not in the queue, {said}; write xgen resume {run.name}"
