"""Settling what ended without a decision: the batch script was killed, or the controller lost its memory.

The decision is the batch script's own, in its own words (host/settle.sh); what follows from it is a new job, since none
is left to requeue. A job that its node could not start SLURM keeps on hold, for ever: it is let go again.

Two locks hold others away: `.resume.lock` whoever submits for the run, `.lock` whoever runs it.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from xgen.cluster import local, slurm
from xgen.cluster.alone import alone
from xgen.cluster.asked import asked_of
from xgen.cluster.orders import job_of
from xgen.cluster.pipeline import is_pipeline, membership
from xgen.cluster.render import library
from xgen.cluster.slurm import FROM_CLIENT, QueueRow, SchedulerError
from xgen.cluster.status import QueueView, ask_slurm, ask_state, not_ours
from xgen.cluster.submit import next_stage, resubmit, tell_queued
from xgen.runs import Event, EventWriter, RunDir, read_attempt_outcome, read_events
from xgen.runs.shards import has_ended
from xgen.spec import Job, Profile, SpecError, load_profile, load_resolved


class NotSettledError(Exception):
    """It is known that the run ended without a decision, and why nobody can go on with it: one line."""


# What squeue says of it: its code, or the words of the controller.
_NOT_LAUNCHED = re.compile("JobLaunchFailure|launch.failed.requeued.held", re.IGNORECASE)
_PATIENCE = 300.0  # seconds for a decision: it asks SLURM twice
_AT_ONCE = 16  # decisions about shards, which wait for SLURM and the disk for the most part


def settle(run: RunDir, view: QueueView, who: str) -> str | None:
    """Settle a run that ended without a decision, if it is one, or that SLURM holds since its node could not start it;
    `who` does it is in the events. Returns what came of it, one line; None where there is nothing to settle, nobody can
    say, or somebody else is at it.

    Raises OSError when the run cannot be read, NotSettledError where it stays lost.
    """
    if not (_is_lost(run, view) or _not_launched(run, view)) or not_ours(run):
        return None
    with alone(run) as lock:
        if lock is None:
            return None
        view = ask_slurm([run])  # the one from before may be older than what another has done about it
        if any(asked_of(run)):
            return None  # a submission that may be heard yet
        not_launched = _not_launched(run, view)
        if not (not_launched or _is_lost(run, view)):
            return None
        try:
            job, profile = load_resolved(run.spec_file), load_profile(run.profile_file)
        except SpecError as error:
            raise NotSettledError(f"{run.name} ended without a decision, and cannot be settled: {error}") from None
        if profile.scheduler == "local" and not local.is_local(run):  # nothing has ever run it
            return None
        return _let_go(run, job, not_launched, who) if not_launched else _settle(run, job, profile, who, lock)


def _is_lost(run: RunDir, view: QueueView) -> bool:
    """Unknown is not lost: a scheduler that does not answer has said nothing."""
    if view.jobs is None and not local.is_local(run):
        return False
    if is_pipeline(run) or (membership(run) and not run.last_attempt()):
        return False  # what never began is for its pipeline to submit
    return ask_state(run, view)[0] == "lost"


def _not_launched(run: RunDir, view: QueueView) -> str | None:
    """The number of a job of the run that SLURM holds because its node could not start it; a person's hold is none."""
    row = view.jobs.get(run.name) if view.jobs else None
    if row is None or run.held_file.exists() or run.cancelled_file.exists():
        return None
    return job_of(row) if is_not_launched(row) else None


def is_not_launched(row: QueueRow) -> bool:
    """Of a job that comes to its end SLURM may give the same reason."""
    return row.state in slurm.WAITING and bool(_NOT_LAUNCHED.match(row.reason))


def _let_go(run: RunDir, job: Job, job_id: str, who: str) -> str:
    attempt, reason = run.last_attempt(), f"job {job_id} was held by SLURM: its node could not start it"
    times = 0
    for event in read_events(run):
        if event.event in ("released", "queued"):  # a person has looked at it
            times = 0
        times += event.event == "settled" and (event.attempt, event.reason) == (attempt, reason)
    said = f"{run.name} could not be started by its node, and SLURM holds job {job_id}"
    if times >= job.restart.max_failures:
        raise NotSettledError(
            f"{said}; that was so {times} times in a row: write xgen nodes, and xgen release {run.name}"
        )
    EventWriter(run, "client", attempt, job_id).write("settled", reason=reason, action=who, durable=True)
    try:
        slurm.command("scontrol", "release", job_id)
    except SchedulerError as error:
        raise NotSettledError(f"{said}; it cannot be released: {error}") from None
    return f"{said}; it is released"


def _settle(run: RunDir, job: Job, profile: Profile, who: str, lock: int) -> str | None:
    stage, had_finished = _stage(run, job), _stage_has_finished(run)
    happened = "had ended without a decision" if run.last_attempt() else "had lost its job before it began"
    begun = _begun_shards(run, job, stage)
    shards = [shard for shard in begun if not has_ended(run, job.jobs[stage][0], shard)]
    if begun and not shards:
        return None  # whether a person took away those that have not begun, nobody says
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        answers = list(pool.map(partial(_decide, job, profile, run, stage, who, lock), shards or [None]))
    waits = [int(answer.split()[1]) for answer in answers if answer.startswith("again ")]
    if "running" in answers or not (waits or "over" in answers):
        return None
    if not waits and _stage_has_finished(run) and not had_finished:
        waits = [0]  # the batch script could not say so, and SLURM has removed the job of the next one
    if not waits:
        state, reason = ask_state(run, QueueView({}))
        if state == "lost":
            return None
        return f"{run.name} {happened}; it is {state} now{f': {reason}' if reason else ''}"
    first = next_stage(run, job)
    try:
        job_ids = resubmit(run, job, profile, first, wait=max(waits))
    except (SpecError, SchedulerError) as error:
        said = f"{run.name} {happened}, and could not be submitted again: {error}"
        raise NotSettledError(said) from None
    tell_queued(run, job, job_ids, first, run.last_attempt(), f"settled by {who}")
    soon = f" in {max(waits)} s" if max(waits) else ""
    return f"{run.name} {happened}; it goes on as job {', '.join(job_ids)}{soon}"


def _stage_has_finished(run: RunDir) -> bool:
    outcome = read_attempt_outcome(run, run.last_attempt())
    return outcome is not None and outcome.status == "stage_finished"


def _stage(run: RunDir, job: Job) -> int:
    """The one that the run's last job was for."""
    names = [name for name, _ in job.jobs]
    attempt = run.last_attempt()
    if not attempt:  # a fork may begin in a later one than the first
        return min((int(file.name) for file in run.job_file(0).parent.glob("*") if file.name.isdecimal()), default=0)
    started = _started(read_events(run), attempt)
    stage = names.index(started.stage) if started and started.stage in names else 0
    outcome = read_attempt_outcome(run, attempt)
    return min(stage + (outcome is not None and outcome.status == "stage_finished"), len(names) - 1)


def _begun_shards(run: RunDir, job: Job, stage: int) -> list[int]:
    array, name = job.array_of(stage), job.jobs[stage][0]
    return [n for n in range(array.shards if array else 0) if run.shard(name, n).path.is_dir()]


def _started(events: list[Event], attempt: int) -> Event | None:
    return next((e for e in events if e.event == "started" and e.attempt == attempt), None)


def _decide(job: Job, profile: Profile, run: RunDir, stage: int, who: str, lock: int, shard: int | None = None) -> str:
    """What host/settle.sh says. It holds the lock too, should this process be killed meanwhile."""
    calls = f"settle {shlex.quote(who)}"
    environment = _environment(run)
    if shard is not None:
        part = run.shard(job.jobs[stage][0], shard)
        started = _started(read_events(part), part.last_attempt())
        array = started.job_id.partition("_")[0] if started else ""
        environment |= {"SLURM_ARRAY_JOB_ID": array, "SLURM_ARRAY_TASK_ID": str(shard)}
        calls = f"begin_shard; {calls}"
    elif job.array_of(stage):
        calls = f"SHARDS=0; {calls}"
    try:
        done = subprocess.run(
            ["bash", "-c", f"{library(job, profile, run, stage)}\n{calls}\n"], env=environment, pass_fds=(lock,),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_PATIENCE, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:  # a file system, or a scheduler, that hangs
        return "unknown"
    words = done.stdout.splitlines()
    return words[-1] if words else "unknown"


def _environment(run: RunDir) -> dict[str, str]:
    kept = {name: os.environ[name] for name in FROM_CLIENT if name in os.environ}
    path = os.environ.get("PATH", "/usr/bin:/bin")
    if local.is_local(run):  # whose scontrol speaks of the job, but not for a supervisor that is gone
        return {**kept, "PATH": f"{run.path}/local/bin:{path}", "NO_SCHEDULER": "1"}
    return {**kept, "PATH": path}
