"""`xgen resume`: take up a run that ended without finishing."""

from __future__ import annotations

from xgen.cli.common import ClusterOption, JsonOption, RunArgument, find_run, print_json, usage


def command(run: RunArgument, cluster: ClusterOption = None, as_json: JsonOption = False) -> None:
    """Submit a run again: same directory, same code, same spec, from its newest checkpoint that verifies."""
    from xgen.cluster.render import render
    from xgen.cluster.slurm import SchedulerError
    from xgen.cluster.status import QueueView, ask_queue, run_status
    from xgen.cluster.submit import launch
    from xgen.runs import EventWriter
    from xgen.spec import load_profile, load_resolved

    found = find_run(run, cluster)
    profile = load_profile(found.profile_file)
    view = QueueView({}) if profile.scheduler == "local" else ask_queue()
    if view.jobs is None:
        raise SchedulerError(view.error)  # unknown is not gone: a second job of the run must not start
    status = run_status(found, view)
    if status.state in ("pending", "running"):
        usage(f"{found.name} is {status.state} as job {status.job_id}: nothing to resume")
    if status.state == "finished":
        usage(f"{found.name} has finished: nothing to resume")
    job = load_resolved(found.spec_file)
    if job.secrets and not (found.path / ".secrets").is_file():
        usage(f"{found.name} had secrets, which were removed when it ended; submit its spec again")
    found.cancelled_file.unlink(missing_ok=True)
    job_id = launch(found, job, profile, render(job, profile, found))
    EventWriter(found, "client", status.attempt, job_id).write("queued", reason="resumed", durable=True)
    if as_json:
        print_json({"run": found.name, "job_id": job_id, "from_step": status.durable_step})
    else:
        print(f"{found.name} resumes as job {job_id} from step {status.durable_step}")
