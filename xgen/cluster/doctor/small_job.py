"""A small job of the doctor's own: submitted as any other, watched, and ended."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from xgen.cluster import local, slurm
from xgen.cluster.doctor.finding import Finding, What
from xgen.cluster.prepare import prepare
from xgen.cluster.submit import submit
from xgen.runs import RunDir, read_attempt_outcome, read_events
from xgen.spec import Command, LoadedJob, Profile


def start_job(job: Command, cluster: str, profile: Profile, folder: Path) -> tuple[RunDir, str]:
    """Its run and its number. `folder` is one that holds no code, so that xgen alone is snapshot. Raises SpecError and
    SchedulerError as a submission does."""
    prepared = prepare(LoadedJob(job, "doctor", folder, {}), cluster, profile)
    (job_id,), _ = submit(prepared)
    return prepared.run, job_id


def wait_for(condition: Callable[[], object], deadline: float) -> None:
    """Until it holds, or `time.monotonic()` is past the deadline."""
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.2)


def has_ended(run: RunDir) -> bool:
    return any(e.event in ("failed", "finished", "requeued", "cancelled") for e in read_events(run))


def not_done(what: What, run: RunDir, num_done: int, num_ranks: int) -> Finding:
    """By so many of its ranks."""
    outcome = read_attempt_outcome(run, 1)
    log = run.attempt_dir(1) / "err.log"
    lines = log.read_text(errors="replace").splitlines()[-5:] if log.exists() else []
    reason = outcome.reason if outcome else "the job did not start in time"
    return Finding(what, "failed", f"{num_done} of {num_ranks} ranks: {reason}", "\n".join(lines) or "see squeue")


def end_job(run: RunDir, profile: Profile) -> None:
    """Whatever it does."""
    run.cancelled_file.touch()
    if profile.scheduler == "local":
        local.send(run, signal.SIGTERM)
        return
    with suppress(slurm.SchedulerError):  # it has ended
        slurm.cancel(run.name)
