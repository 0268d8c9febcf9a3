"""`xgen hold`: a run that waits goes on waiting, and its next attempt too, until it is let go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xgen.cli.common import ClusterOption, JsonOption, RunArgument, find_run, print_json, usage

if TYPE_CHECKING:
    from xgen.cluster.slurm import QueueRow
    from xgen.cluster.status import RunStatus
    from xgen.runs import RunDir


def command(run: RunArgument, cluster: ClusterOption = None, as_json: JsonOption = False) -> None:
    """Let no attempt of a run begin until xgen release. What runs goes on; its next attempt is held.

    To stop what runs too: xgen hold RUN, then xgen requeue RUN. It saves, and waits in the queue.
    """
    from xgen.cluster.orders import hold
    from xgen.runs import EventWriter

    found = find_run(run, cluster)
    status, rows = ask(found)
    was_held = found.held_file.exists()
    jobs = hold(found, rows)
    if not was_held or jobs:
        EventWriter(found, "client", status.attempt, status.job_id).write("held", durable=True)
    if as_json:
        print_json({"run": found.name, "was": status.state, "held_jobs": jobs, "job_id": status.job_id})
    elif jobs:
        runs_on = "; what runs goes on, and its next attempt waits" if status.state == "running" else ""
        print(f"{found.name} waits as job {', '.join(jobs)} until xgen release {found.name}{runs_on}")
    elif status.state == "running":
        print(f"{found.name} runs as job {status.job_id}; its next attempt waits until xgen release {found.name}")
        print(f"  stop it   xgen requeue {found.name} saves and stops it now")
    else:
        print(f"{found.name} waits until xgen release {found.name}")


def ask(run: RunDir) -> tuple[RunStatus, list[QueueRow]]:
    """The state of a run that this person may give orders to, and its jobs in the queue. Leaves with exit code 2 for
    one that has ended, and for somebody else's; raises SchedulerError where nobody says what runs."""
    from xgen.cluster.pipeline import is_pipeline
    from xgen.cluster.status import not_ours, queue_view, run_status

    if said := not_ours(run):
        usage(f"{run.name}: {said}")
    if is_pipeline(run):
        usage(f"{run.name} is a pipeline, which has no job of its own; write the run of a step: xgen status {run.name}")
    rows = queue_rows(run)
    status = run_status(run, queue_view(rows))
    if status.state == "unreadable":
        usage(f"{run.name} cannot be read: {status.reason}")
    if status.state == "finished":
        usage(f"{run.name} has finished")
    if status.state not in ("pending", "running"):
        usage(f"{run.name} is {status.state}: no job of it is in the queue; write xgen resume {run.name}")
    return status, [row for row in rows if row.name == run.name]


def queue_rows(run: RunDir) -> list[QueueRow]:
    """The queue's jobs of the run's owner, none for a run without SLURM. Raises SchedulerError."""
    from xgen.cluster import local, slurm

    return [] if local.is_local(run) else slurm.queue([run.path.stat().st_uid])
