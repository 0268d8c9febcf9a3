"""From a checked spec to a job in the queue: the run directory first, complete, then one call to the scheduler."""

from __future__ import annotations

import os
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

from xgen.cluster import local, slurm
from xgen.cluster.render import render
from xgen.cluster.snapshot import Code, inspect_code, take_snapshot
from xgen.runs import EventWriter, RunDir, new_run_id, write_atomic
from xgen.spec import Job, LoadedJob, Problem, Profile, SpecError, dump


@dataclass(frozen=True)
class Prepared:
    """A submission that is ready but has left no trace yet; a dry run prints `script` and stops here."""

    job: Job
    cluster: str
    profile: Profile
    run: RunDir
    script: str
    root: Path  # of the project whose code is pinned


def prepare(loaded: LoadedJob, cluster: str, profile: Profile, run_id: str | None = None) -> Prepared:
    """Name the run and render its script. The same `run_id` gives the same run, so it cannot be submitted twice."""
    job = loaded.job.model_copy(update={"cluster": cluster})
    run = RunDir(Path(profile.run_root) / f"{job.name}-{run_id or new_run_id()}")
    return Prepared(job, cluster, profile, run, render(job, profile, run), loaded.root)


def check_with_scheduler(prepared: Prepared) -> str:
    """The third step of validation. Returns the scheduler's estimate. Raises SpecError with its own words."""
    if prepared.profile.scheduler == "local":
        return ""
    try:
        return slurm.test_only(prepared.script)
    except slurm.SchedulerError as error:
        raise SpecError(Problem(f"cluster {prepared.cluster}", "sbatch --test-only", str(error))) from None


def submit(prepared: Prepared) -> tuple[str, Code]:
    """Create the run directory and submit. Returns the job id and the code that was pinned; on any failure nothing is
    left behind.

    Raises SpecError when a secret is missing or the run exists, SchedulerError when the scheduler refuses.
    """
    secrets = _secret_lines(prepared.job)
    code = inspect_code(prepared.root)
    run = prepared.run
    _create(prepared, code, secrets)
    client = EventWriter(run, "client", 0, "")
    try:
        client.write("submitted", reason=f"cluster {prepared.cluster}", durable=True)
        job_id = launch(run, prepared.job, prepared.profile, prepared.script)
    except BaseException:
        shutil.rmtree(run.path, ignore_errors=True)
        raise
    EventWriter(run, "client", 0, job_id).write("queued", durable=True)
    return job_id, code


def launch(run: RunDir, job: Job, profile: Profile, script: str) -> str:
    """Hand a run's script to the scheduler. Returns the job id. Raises SchedulerError."""
    if profile.scheduler == "local":
        return local.start(run, script)
    folder = run.path / "submissions"
    folder.mkdir(exist_ok=True)
    return str(slurm.submit_script(script, folder, job.resources.world_size).job_id)


def _create(prepared: Prepared, code: Code, secrets: str) -> None:
    """Build the run directory beside its place and rename it: it is complete or it is not there."""
    final = prepared.run.path
    building = RunDir(final.with_name(f".{final.name}.{os.getpid()}.tmp"))
    shutil.rmtree(building.path, ignore_errors=True)
    try:
        building.create()
        write_atomic(building.spec_file, dump(prepared.job))
        write_atomic(building.profile_file, dump(prepared.profile))
        take_snapshot(code, building)
        if secrets:
            write_atomic(building.path / ".secrets", secrets, mode=0o600)
        try:
            building.path.rename(final)
        except OSError:
            problem = Problem("", "--id", f"{final.name} exists; write `xgen status {final.name}`, or another id")
            raise SpecError(problem) from None
    except BaseException:
        shutil.rmtree(building.path, ignore_errors=True)
        raise


def _secret_lines(job: Job) -> str:
    """Shell text that the batch script reads; it stands in a file of mode 0600 until the run ends."""
    lines = []
    for name, secret in job.secrets.items():
        value = os.environ.get(secret.env)
        if value is None:
            raise SpecError(
                Problem(
                    "",
                    f"secrets.{name}.env",
                    f"{secret.env} is not set here; write export {secret.env}=… first",
                )
            )
        lines.append(f"export {name}={shlex.quote(value)}\n")
    return "".join(lines)
