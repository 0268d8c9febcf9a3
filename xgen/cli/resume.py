"""`xgen resume`: take up a run that ended without finishing."""

from __future__ import annotations

from xgen.cli.common import ClusterOption, JsonOption, RunArgument, find_run, print_json, usage


def command(run: RunArgument, cluster: ClusterOption = None, as_json: JsonOption = False) -> None:
    """Submit a run again: same directory, same code, same spec, from its newest checkpoint that verifies."""
    import fcntl
    import os

    from xgen.cluster.slurm import SchedulerError
    from xgen.cluster.status import QueueView, ask_queue, not_ours, run_status
    from xgen.cluster.submit import resubmit
    from xgen.runs import EventWriter
    from xgen.spec import load_profile, load_resolved

    found = find_run(run, cluster)
    if said := not_ours(found):
        usage(f"{found.name}: {said}")
    # Two at once would both find that nothing runs; the second would seal the secrets with a key that the first's job
    # does not have. Held until this process ends.
    fcntl.flock(os.open(found.path / ".resume.lock", os.O_CREAT | os.O_WRONLY, 0o664), fcntl.LOCK_EX)
    profile = load_profile(found.profile_file)
    view = QueueView({}) if profile.scheduler == "local" else ask_queue([found])
    if view.jobs is None:
        raise SchedulerError(view.error)  # unknown is not gone: a second job of the run must not start
    status = run_status(found, view)
    if status.state in ("pending", "running"):
        usage(f"{found.name} is {status.state} as job {status.job_id}: nothing to resume")
    if status.state == "finished":
        usage(f"{found.name} has finished: nothing to resume")
    if status.state == "unreadable":
        usage(f"{found.name} cannot be read: {status.reason}")
    job = load_resolved(found.spec_file)
    was_cancelled = found.cancelled_file.exists()
    found.cancelled_file.unlink(missing_ok=True)  # before the job is there, which would obey it
    try:
        job_id = resubmit(found, job, profile)
    except BaseException:
        if was_cancelled:
            found.cancelled_file.touch()
        raise
    EventWriter(found, "client", status.attempt, job_id).write("queued", reason="resumed", durable=True)
    if as_json:
        print_json({"run": found.name, "job_id": job_id, "from_step": status.durable_step})
    else:
        print(f"{found.name} resumes as job {job_id} from step {status.durable_step}")
