"""`xgen cancel`: stop a run for good."""

from __future__ import annotations

from xgen.cli.common import ClusterOption, JsonOption, RunArgument, find_run, print_json, usage


def command(run: RunArgument, cluster: ClusterOption = None, as_json: JsonOption = False) -> None:
    """Cancel a run. It saves if it can, and nothing restarts it; `xgen resume` takes it up again."""
    import signal

    from xgen.cli.shards import ask_shards, count_shards, worth_saying
    from xgen.cluster import local, slurm
    from xgen.cluster.status import QueueView, ask_queue, not_ours, run_status
    from xgen.runs import EventWriter, write_atomic

    found = find_run(run, cluster)
    if said := not_ours(found):
        usage(f"{found.name}: {said}")
    is_local = local.is_local(found)
    view = QueueView({}) if is_local else ask_queue([found])
    if view.jobs is None:
        raise slurm.SchedulerError(view.error)
    status = run_status(found, view)
    if status.state in ("finished", "failed", "cancelled"):
        usage(f"{found.name} is {status.state} already")
    if status.state == "unreadable":
        usage(f"{found.name} cannot be read: {status.reason}")
    shards = "".join(f", {count_shards(one)}" for one in worth_saying(ask_shards(found, view)))
    # The marker first: whatever happens next, no attempt of this run goes on.
    write_atomic(found.cancelled_file, "")
    if is_local:
        local.send(found, signal.SIGTERM)
    elif found.name in view.jobs:
        slurm.cancel(found.name)
    # Always: an attempt that has just decided to be requeued will not, and nothing comes after it.
    EventWriter(found, "client", status.attempt, status.job_id).write("cancelled", durable=True)
    if status.state != "running":  # a running attempt may still open them, and removes them when it ends
        (found.path / ".secrets").unlink(missing_ok=True)
    if as_json:
        print_json({"run": found.name, "job_id": status.job_id, "was": status.state})
    else:
        print(f"{found.name} was {status.state}, job {status.job_id}{shards}; cancelled")
