"""What people order of a run that is in the queue or runs: hold it, let it go on, save and stop now."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from xgen.cluster import local, slurm
from xgen.cluster.slurm import QueueRow
from xgen.runs import RunDir, write_atomic


def hold(run: RunDir, rows: Iterable[QueueRow]) -> list[str]:
    """No attempt of the run begins until it is released. Returns the jobs that are held in the queue; of one that runs
    the batch script sees to it when it ends. `rows` are those of the queue. Raises SchedulerError."""
    write_atomic(run.held_file, "")  # first: a job that starts now holds itself
    waiting = jobs_of(run, rows, running=False)
    if waiting:
        with or_say(f"{run.name} is marked as held: what has not heard it holds itself when it starts"):
            slurm.command("scontrol", "hold", ",".join(waiting))
    return waiting


def release(run: RunDir, rows: Iterable[QueueRow]) -> list[str]:
    """The opposite. Returns the jobs that are released. Raises SchedulerError."""
    waiting = [job_of(row) for row in rows if row.name == run.name and is_held(row)]
    if waiting:
        with or_say(f"{run.name} is held still: write xgen release {run.name} once it answers"):
            slurm.command("scontrol", "release", ",".join(waiting))
    run.held_file.unlink(missing_ok=True)  # last: where the scheduler refuses, it is held still
    return waiting


def ask_to_stop(run: RunDir, rows: Iterable[QueueRow]) -> list[str]:
    """The tasks are to save and stop; the batch script then asks for the next attempt. Returns what was told, jobs or
    steps of shards; none where nothing runs. Raises SchedulerError."""
    if local.is_local(run):
        return ["local"] if local.ask_to_stop(run) else []
    running = jobs_of(run, rows, running=True)
    if any("_" in job for job in running):
        running = _steps_of(set(running))
    if running:
        with or_say(f"it may hear it yet: look with xgen status {run.name} before you write it again"):
            slurm.command("scancel", "--ctld", "--signal=USR2", *running)
    return running


def _steps_of(shards: set[str]) -> list[str]:
    """What these shards run. As long as others of its array wait, a signal to a shard itself is delivered and answered
    with "try again later", and scancel does: the shard's next attempt would hear it too (seen in 22.05)."""
    steps = slurm.command("squeue", f"--user={os.getuid()}", "--steps", "--noheader", "--all", "--format=%i").split()
    return [one for one in steps if one.partition(".")[0] in shards and one.partition(".")[2].isdecimal()]


@contextmanager
def or_say(said: str) -> Iterator[None]:
    """What holds where the scheduler was told something and did not answer."""
    try:
        yield
    except slurm.UnansweredError as error:
        raise slurm.UnansweredError(f"{error}; {said}") from None


def is_held(row: QueueRow) -> bool:
    """In the queue because somebody wanted it so, an `xgen hold`, an scontrol, or SLURM after a fault."""
    return row.state in slurm.WAITING and (
        "held" in row.reason.lower() or row.state in ("REQUEUE_HOLD", "SPECIAL_EXIT")
    )


def jobs_of(run: RunDir, rows: Iterable[QueueRow], *, running: bool) -> list[str]:
    mine = (row for row in rows if row.name == run.name)
    return [job_of(row) for row in mine if (row.state == "RUNNING" if running else row.state in slurm.WAITING)]


def job_of(row: QueueRow) -> str:
    """As scontrol takes it: `12_[4-9%2]` without what says how many may run at once."""
    return row.job_id.replace("]", "").partition("%")[0] + ("]" if "[" in row.job_id else "")
