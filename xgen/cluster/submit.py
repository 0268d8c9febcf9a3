"""From a checked spec to a job in the queue: the run directory first, complete, then one call to the scheduler."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from xgen.cluster import local, slurm
from xgen.cluster.render import container_box, render
from xgen.cluster.runtimes import RUNTIMES
from xgen.cluster.secrets import KEY_VARIABLE, read_secrets, seal
from xgen.cluster.snapshot import Code, check_command, inspect_code, take_snapshot
from xgen.images.resolve import NO_IMAGE, Image, resolve_image
from xgen.runs import EventWriter, RunDir, new_run_id, write_atomic
from xgen.spec import Job, LoadedJob, Problem, Profile, SpecError, dump
from xgen.spec.image import Reference


@dataclass(frozen=True)
class Prepared:
    """A submission that is ready but has left no trace yet; a dry run prints `script` and stops here."""

    job: Job
    cluster: str
    profile: Profile
    run: RunDir
    image: Image
    script: str
    root: Path  # of the project whose code is pinned


def prepare(
    loaded: LoadedJob,
    cluster: str,
    profile: Profile,
    run_id: str | None = None,
    *,
    pin: Callable[[Reference], str] | None = None,
) -> Prepared:
    """Name the run, pin its image, render its script. The same `run_id` gives the same run, so it cannot be submitted
    twice. `pin` gives the digest of a tag; default: its registry does.

    Raises SpecError when the image is not there, or the runtime cannot do what the spec asks of it.
    """
    job = loaded.job.model_copy(update={"cluster": cluster})
    run = RunDir(Path(profile.run_root) / f"{job.name}-{run_id or new_run_id()}")
    return _prepare(loaded, job, profile, run, _find_image(loaded, profile, pin or _ask_registry))


def prepare_again(run: RunDir, loaded: LoadedJob, profile: Profile, *, new_image: bool) -> Prepared:
    """The same for a run that ended and goes on with another spec, in its own directory and in the image that it was
    submitted with, unless it gets a new one. Raises SpecError."""
    image = _find_image(loaded, profile, _ask_registry) if new_image else _pinned_image(run)
    return _prepare(loaded, loaded.job, profile, run, image)


def _prepare(loaded: LoadedJob, job: Job, profile: Profile, run: RunDir, image: Image) -> Prepared:
    runtime = RUNTIMES[profile.container.runtime]
    problems = [
        loaded.problem(key if key.startswith("env.") else f"container.{key}", message)
        for key, message in runtime.problems(container_box(job, profile, run, image))
    ]
    if problems:
        raise SpecError(*problems)
    return Prepared(job, job.cluster or "", profile, run, image, render(job, profile, run, image), loaded.root)


def _find_image(loaded: LoadedJob, profile: Profile, pin: Callable[[Reference], str]) -> Image:
    formats = RUNTIMES[profile.container.runtime].formats
    if not formats:
        return NO_IMAGE
    try:
        return resolve_image(loaded.job.container.image or "", profile.container.image_dir, formats, pin)
    except ValueError as error:
        raise SpecError(loaded.problem("container.image", str(error))) from None


def _pinned_image(run: RunDir) -> Image:
    try:
        return Image(**json.loads(run.image_file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return NO_IMAGE


def _ask_registry(reference: Reference) -> str:
    from xgen.images.registry import RegistryError, resolve_digest

    try:
        return resolve_digest(reference)
    except RegistryError as error:
        raise ValueError(str(error)) from None


def check_with_scheduler(prepared: Prepared) -> str:
    """The third step of validation. Returns the scheduler's estimate. Raises SpecError with its own words."""
    if prepared.profile.scheduler == "local":
        return ""
    try:
        return slurm.test_only(prepared.script)
    except slurm.SchedulerError as error:
        raise SpecError(Problem(f"cluster {prepared.cluster}", "sbatch --test-only", str(error))) from None


def submit(prepared: Prepared, fill: Callable[[RunDir], None] = lambda _: None) -> tuple[str, Code]:
    """Create the run directory and submit. Returns the job id and the code that was pinned; on a failure nothing is
    left behind, unless the scheduler cannot say that it has no such job: then a cancelled run stays.

    `fill` puts more into the directory, which has not got its name yet.

    Raises SpecError when a secret is missing or the run exists, SchedulerError when the scheduler refuses.
    """
    secrets = read_secrets(prepared.job)
    code = inspect_code(prepared.root)
    check_command(prepared.job, code)
    run = prepared.run
    key = _create(prepared, code, secrets, fill)
    client = EventWriter(run, "client", 0, "")
    try:
        client.write("submitted", reason=f"cluster {prepared.cluster}", durable=True)
        job_id = launch(run, prepared.job, prepared.profile, prepared.script, key)
    except BaseException:
        _withdraw(run, prepared.profile)
        raise
    EventWriter(run, "client", 0, job_id).write("queued", durable=True)
    return job_id, code


def _withdraw(run: RunDir, profile: Profile) -> None:
    """After a submission that failed, or was interrupted: sbatch may have been heard all the same.

    The marker stops a job that starts. The directory goes only once the scheduler says that there is no such job.
    """
    run.cancelled_file.touch()
    if profile.scheduler == "slurm":
        try:
            jobs = [row.job_id for row in slurm.queue() if row.name == run.name]
            for job_id in jobs:
                slurm.cancel(job_id)
        except slurm.SchedulerError:
            if shutil.which("sbatch"):
                return
            jobs = []
        if jobs:
            return
    shutil.rmtree(run.path, ignore_errors=True)


def resubmit(run: RunDir, job: Job, profile: Profile) -> str:
    """A new job for a run that ended: the same image and code, its secrets read anew. Returns the job id.

    Raises SpecError when a secret is missing, SchedulerError when the scheduler refuses.
    """
    key = seal(read_secrets(job), run)
    run.resumed_file.touch()
    return launch(run, job, profile, render(job, profile, run, _pinned_image(run)), key)


def launch(run: RunDir, job: Job, profile: Profile, script: str, key: str) -> str:
    """Hand a run's script to the scheduler, with the key of its secrets. Returns the job id. Raises SchedulerError."""
    environment = {KEY_VARIABLE: key} if key else {}
    if profile.scheduler == "local":
        return local.start(run, script, environment)
    folder = run.path / "submissions"
    folder.mkdir(exist_ok=True)
    return str(slurm.submit_script(script, folder, job.resources.world_size, environment).job_id)


def _create(prepared: Prepared, code: Code, secrets: dict[str, str], fill: Callable[[RunDir], None]) -> str:
    """Build the run directory beside its place and rename it: it is complete or it is not there. Returns the key of
    its secrets."""
    final = prepared.run.path
    taken = SpecError(Problem("", "--id", f"{final.name} exists; write `xgen status {final.name}`, or another id"))
    if final.exists():
        raise taken
    building = RunDir(final.with_name(f".{final.name}.{os.getpid()}.tmp"))
    shutil.rmtree(building.path, ignore_errors=True)
    try:
        building.create()
        write_atomic(building.spec_file, dump(prepared.job))
        write_atomic(building.profile_file, dump(prepared.profile))
        if prepared.image != NO_IMAGE:
            building.image_file.write_text(json.dumps(prepared.image.to_dict()) + "\n")
        take_snapshot(code, building, final.parent)
        fill(building)
        key = seal(secrets, building)
        try:
            building.path.rename(final)
        except OSError:
            raise taken from None
        return key
    except BaseException:
        shutil.rmtree(building.path, ignore_errors=True)
        raise
