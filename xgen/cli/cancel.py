"""`xgen cancel`: stop a run for good."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xgen.cli.common import ClusterOption, JsonOption, RunArgument, find_run, print_json, usage

if TYPE_CHECKING:
    from xgen.cluster.status import QueueView, RunStatus
    from xgen.runs import RunDir


def command(run: RunArgument, cluster: ClusterOption = None, as_json: JsonOption = False) -> None:
    """Cancel a run, or all steps of a pipeline. It saves if it can, and nothing restarts it; `xgen resume` takes it up
    again.

    Of somebody else's run SLURM decides: it lets coordinators of the account and operators cancel it.
    """
    from xgen.cli.shards import ask_shards, count_shards, worth_saying
    from xgen.cluster.pipeline import is_pipeline
    from xgen.cluster.status import ask_slurm, is_anothers, not_ours, run_status

    found = find_run(run, cluster)
    if is_pipeline(found):
        from xgen.cli.pipeline_show import cancel_pipeline

        cancel_pipeline(found, as_json=as_json)
        return
    if is_anothers(found):
        from xgen.cli.cancel_other import cancel_other

        cancel_other(found, as_json=as_json)
        return
    if said := not_ours(found):
        usage(f"{found.name}: {said}")
    view = ask_slurm([found])
    status = run_status(found, view)
    if status.state in ("finished", "failed", "cancelled"):
        usage(f"{found.name} is {status.state} already")
    if status.state == "unreadable":
        usage(f"{found.name} cannot be read: {status.reason}")
    shards = "".join(f", {count_shards(one)}" for one in worth_saying(ask_shards(found, view)))
    cancel_run(found, view, status)
    if as_json:
        print_json({"run": found.name, "job_id": status.job_id, "was": status.state})
    else:
        print(f"{found.name} was {status.state}, job {status.job_id}{shards}; cancelled")


def cancel_run(run: RunDir, view: QueueView, status: RunStatus) -> None:
    """Raises SchedulerError where SLURM does not hear it: what runs now runs on, but nothing follows it."""
    import signal

    from xgen.cluster import local, slurm
    from xgen.runs import EventWriter, write_atomic

    # The marker first: whatever happens next, no attempt of this run goes on.
    write_atomic(run.cancelled_file, "")
    unheard = ""
    if local.is_local(run):
        local.send(run, signal.SIGTERM)
    elif view.jobs is None:
        unheard = view.error
    elif run.name in view.jobs:
        try:
            slurm.cancel(run.name)
        except slurm.SchedulerError as error:
            unheard = str(error)
    # Always: an attempt that has just decided to be requeued will not, and nothing comes after it.
    EventWriter(run, "client", status.attempt, status.job_id).write("cancelled", durable=True)
    # A running attempt may still open them, and removes them itself; so does a job that waits and has not heard of it.
    if status.state not in ("running", "unknown") and not unheard:
        (run.path / ".secrets").unlink(missing_ok=True)
    if unheard:
        said = "is marked as cancelled and will not be started again; a job that runs now runs on"
        raise slurm.SchedulerError(f"{unheard}; {run.name} {said}: write xgen cancel {run.name} once it answers")
