"""What state a run is in: a pure function of its files and of one answer of the scheduler."""

from __future__ import annotations

import os
import pwd
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

from xgen.cluster import local, slurm
from xgen.cluster.asked import adopt
from xgen.cluster.pipeline import is_pipeline
from xgen.cluster.pipeline_state import StepState, pipeline_state, unstarted_state
from xgen.runs import Event, Ledger, RunDir, read_attempt_outcome, read_events, replay
from xgen.runs.shards import finished_shards, given_up_shards
from xgen.spec import Job

# lost: it ended and nobody decided; unknown: who would know did not answer, which is not the same.
# blocked: a step of a pipeline that waits for one which ended badly.
State = Literal["pending", "running", "finished", "failed", "cancelled", "blocked", "lost", "unknown", "unreadable"]
_HELD = "on hold: its next attempt does not begin"


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
class ShardsStatus:
    """The shards of a stage that is a job array, by their numbers; those in none of the lists wait."""

    stage: str
    total: int
    at_once: int
    finished: list[int]
    running: list[int]
    given_up: list[int]

    @property
    def has_begun(self) -> bool:
        return bool(self.finished or self.running or self.given_up)

    @property
    def num_waiting(self) -> int:
        return self.total - len(self.finished) - len(self.running) - len(self.given_up)


@dataclass(frozen=True)
class QueueView:
    """The scheduler's answer for all runs: None where it did not answer. `shards` are those of each that run."""

    jobs: Mapping[str, slurm.QueueRow] | None
    error: str = ""
    shards: Mapping[str, set[int]] = field(default_factory=dict)
    sees_all: bool = False  # the jobs of other people too: a run of theirs that is not in it has no job
    # Steps by their runs, of each pipeline that was looked at by this answer: hundreds ask for the same.
    steps: dict[str, dict[str, StepState]] = field(default_factory=dict, compare=False, repr=False)


def ask_queue(runs: Iterable[RunDir]) -> QueueView:
    """One squeue, whatever the number of runs and of their owners; no SLURM or no answer is a view without jobs. What a
    client has submitted and not lived to note is noted now."""
    runs = list(runs)
    owners = set[int]()
    for run in runs:
        with suppress(OSError):  # it may have been removed meanwhile
            owners.add(run.path.stat().st_uid)
    try:
        rows = slurm.queue(uid for uid in owners if _name(uid))
    except slurm.SchedulerError as error:
        return QueueView(None, str(error))
    for run in runs:
        with suppress(slurm.SchedulerError, OSError):
            adopt(run)
    return queue_view(rows)


def ask_slurm(runs: Iterable[RunDir]) -> QueueView:
    """The same of those that are SLURM's; where none is, nobody is asked."""
    of_slurm = [run for run in runs if not local.is_local(run)]
    return ask_queue(of_slurm) if of_slurm else QueueView(None)


class QueueWatch:
    """The queue as it was last, asked for in the background: a scheduler that hangs holds up nobody."""

    def __init__(self, run: RunDir, every: float) -> None:
        self.view = QueueView(None, "it has not answered yet")
        self._run, self._every = run, every
        threading.Thread(target=self._ask, daemon=True).start()

    def _ask(self) -> None:
        while True:
            self.view = ask_queue([self._run])
            time.sleep(self._every)


def queue_view(rows: Iterable[slurm.QueueRow], sees_all: bool = False) -> QueueView:
    """Of all jobs that are in the queue, none that has ended."""
    rows = list(rows)
    shards: dict[str, set[int]] = {}
    for row in rows:
        _, _, number = row.job_id.partition("_")
        if number.isdecimal() and row.state not in slurm.WAITING:
            shards.setdefault(row.name, set()).add(int(number))
    return QueueView({row.name: row for row in sorted(rows, key=_distance, reverse=True)}, "", shards, sees_all)


def _distance(row: slurm.QueueRow) -> tuple[bool, bool, bool, int]:
    """How far a job of a run is from running: of the jobs of its stages the first to do so speaks for the run. Where
    one waits for nobody and there are shards too, they serve it, and do not speak."""
    pending, (number, array, _) = row.state == "PENDING", row.job_id.partition("_")
    return pending and _waits_for_another(row), bool(array), pending, int(number)


def _serves(run: RunDir, row: slurm.QueueRow) -> bool:
    """Whether it is a shard that serves the run, whose array is no attempt of the run (see host/shards.sh)."""
    number, array, _ = row.job_id.partition("_")
    marks = run.shards_dir.glob(f"*/.job-{number}") if array else ()
    return any(mark.is_dir() and not mark.is_symlink() for mark in marks)


def _waits_for_another(row: slurm.QueueRow) -> bool:
    return row.reason.startswith("Dependency")


def is_anothers(run: RunDir) -> bool:
    """Whether it is somebody else's, and has jobs of SLURM: what may be done to those SLURM decides."""
    return run.path.stat().st_uid != os.getuid() and not local.is_local(run)


def not_ours(run: RunDir) -> str:
    """Why this person cannot tell from here that nothing runs, and so must not hold or resume it; '' if they can."""
    owner = run.path.stat().st_uid
    if owner != os.getuid():
        deeds = "cancel or resume" if local.is_local(run) else "hold or resume"  # SLURM decides who cancels its jobs
        return f"it belongs to {_name(owner) or f'user {owner}'}, who alone can {deeds} it"
    if host := local.other_host(run):
        return f"{host} runs it; write this there, or rm {run.path}/local/host if that machine is gone"
    return ""


def _name(uid: int) -> str:
    """'' for a user whom this machine does not know; squeue would refuse to answer at all."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


def run_status(run: RunDir, view: QueueView, events: list[Event] | None = None) -> RunStatus:
    """The state of a run, whatever lies in its directory; `events` where they were read already."""
    try:
        return _run_status(run, view, read_events(run) if events is None else events)
    except OSError as error:
        return RunStatus(run.name, "unreadable", "", 0, 0, 0, 0, error.strerror or str(error))


def _run_status(run: RunDir, view: QueueView, events: list[Event]) -> RunStatus:
    ledger = replay(events)
    row = view.jobs.get(run.name) if view.jobs else None
    state, reason = run_state(run, last_decision(events), view)
    return RunStatus(
        name=run.name,
        state=state,
        job_id=row.job_id.partition("_")[0] if row else next((e.job_id for e in reversed(events) if e.job_id), ""),
        attempt=run.last_attempt(),
        restarts=sum(ledger.restarts.values()),
        step=_step(ledger),
        durable_step=ledger.durable_step,
        reason=reason,
    )


def shards_status(run: RunDir, job: Job, view: QueueView) -> list[ShardsStatus]:
    """Of each stage that is a job array. Raises OSError when the run cannot be read."""
    found: list[ShardsStatus] = []
    one_by_one = local.is_alive(run)
    reached = True  # until the stages before have ended, none of this one runs
    for stage, (name, _) in enumerate(job.jobs):
        if (array := job.array_of(stage)) is None:
            continue
        finished, given_up = finished_shards(run, name), given_up_shards(run, name)
        ended = finished | given_up
        left = [number for number in range(array.shards) if number not in ended]
        running = view.shards.get(run.name, set())
        if one_by_one:
            at_work = left if job.serves(stage) else left[:1]
            running = {number for number in at_work if run.shard(name, number).path.is_dir()}
        now = [number for number in left if reached and number in running]
        reached = reached and (not left or job.serves(stage))
        found.append(ShardsStatus(name, array.shards, array.at_once, sorted(finished), now, sorted(given_up)))
    return found


def _step(ledger: Ledger) -> int:
    return ledger.attempts[-1].last_step if ledger.attempts else 0


def last_decision(events: Iterable[Event], before: Event | None = None) -> Event | None:
    """The last event that says that the run has ended, or goes on; `before` is that of earlier events."""
    for event in events:
        if event.event in ("finished", "failed", "cancelled", "queued", "started") and (
            before is None or (event.attempt, event.time) >= (before.attempt, before.time)
        ):
            before = event
    return before


def run_state(run: RunDir, last: Event | None, view: QueueView) -> tuple[State, str]:
    """State and reason. `last` is the run's last decision. Raises OSError when the run cannot be read."""
    if is_pipeline(run):
        return pipeline_state(run, view, ask_state)
    row = view.jobs.get(run.name) if view.jobs else None
    if row is not None and _serves(run, row):
        row = None  # its own job is gone: nobody but a person brings it back
    waiting = row is not None and row.state in slurm.WAITING
    # What serves a run that has ended may wait in the queue still, to find that out.
    if row is not None and waiting and not _waits_for_another(row) and not run.ended_file.exists():
        return "pending", f"{row.reason}; is marked as cancelled" if run.cancelled_file.exists() else row.reason
    if decided := _decided(run, last):
        return decided
    if row is not None and waiting:
        return "pending", row.reason
    cancelled = run.cancelled_file.exists() or (last is not None and last.event == "cancelled")
    ordered = "is being cancelled" if cancelled else _HELD if run.held_file.exists() else ""
    if row is not None:
        return "running", ordered or ("" if row.state == "RUNNING" else row.state.lower())
    if local.is_alive(run):
        if local.is_held(run) and not cancelled:
            return "pending", "JobHeldUser"
        return "running", ordered
    if cancelled and view.jobs is None and not local.is_local(run):
        return "unknown", f"is marked as cancelled; {view.error}"
    if cancelled:
        return "cancelled", ""
    if unstarted := unstarted_state(run, view, ask_state):
        return unstarted
    if (not view.sees_all or local.is_local(run)) and (said := not_ours(run)):
        return "unknown", said
    if local.is_local(run):
        return "lost", "its supervisor is gone; write xgen resume"
    if view.jobs is None:
        return "unknown", view.error
    outcome = read_attempt_outcome(run, run.last_attempt())
    said = f"ended {outcome.status}" if outcome else "ended without a decision"
    return "lost", f"not in the queue, {said}; write xgen resume {run.name}"


def ask_state(run: RunDir, view: QueueView) -> tuple[State, str]:
    """The same of a run whose events were not read yet."""
    return run_state(run, last_decision(read_events(run)), view)


def _decided(run: RunDir, last: Event | None) -> tuple[State, str] | None:
    """What the batch script decided for good. Its outcome counts too: it may have been killed before the event."""
    outcome = read_attempt_outcome(run, run.last_attempt())
    event = last.event if last else None
    if event == "finished" or (outcome and outcome.status == "finished"):
        return "finished", ""
    if last and event == "failed":
        return "failed", last.reason or ""
    if last and event == "cancelled" and last.writer == "host":  # the client's is a wish until the job is gone
        return "cancelled", ""
    if outcome and outcome.status == "refused":
        resumed = last and event == "queued" and last.time > outcome.time
        return None if resumed else ("failed", outcome.reason)
    return None
