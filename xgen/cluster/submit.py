"""From a checked spec to a job in the queue: the run directory first, complete, then one call to the scheduler."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from xgen.cluster import local, slurm
from xgen.cluster.render import container_box, render
from xgen.cluster.runtimes import RUNTIMES
from xgen.cluster.secrets import KEY_VARIABLE, read_secrets, seal
from xgen.cluster.snapshot import Code, check_command, inspect_code, take_snapshot
from xgen.images.resolve import NO_IMAGE, Image, resolve_image
from xgen.runs import EventWriter, RunDir, new_run_id, write_atomic
from xgen.runs.shards import finished_shards, forget_ended
from xgen.spec import Job, LoadedJob, Problem, Profile, SpecError, dump
from xgen.spec.image import Reference

_SERVERS_IMAGE = "rollout.servers.image"


@dataclass(frozen=True)
class Prepared:
    """A submission that is ready but has left no trace yet; a dry run prints the scripts and stops here."""

    job: Job
    cluster: str
    profile: Profile
    run: RunDir
    images: tuple[Image, ...]  # of each job
    root: Path  # of the project whose code is pinned
    first: int = 0  # stage that the run begins in

    @property
    def image(self) -> Image:
        """Of the work itself, where the jobs that serve it have another."""
        return self.images[-1]

    def image_records(self, run: RunDir, *, new: bool = False) -> dict[Path, str]:
        """What each name of an image means, by the file of a run directory that says so; `new`: those that change."""
        files = {
            _image_file(run, self.job, stage): image for stage, image in enumerate(self.images) if image != NO_IMAGE
        }
        return {
            file: json.dumps(image.to_dict()) + "\n"
            for file, image in files.items()
            if not new or _pinned_image(file) != image
        }

    @property
    def scripts(self) -> list[str]:
        """The batch script of each job. One that waits for the job before waits for `JOB_OF_<its stage>`, whose number
        is not known before it is submitted."""
        return [self.script(stage, self._awaited(stage)) for stage in range(self.first, len(self.job.jobs))]

    def _awaited(self, stage: int) -> str:
        chained = self.profile.scheduler == "slurm" and waits_for_another(self.job, stage, self.first)
        return f"JOB_OF_{self.job.jobs[stage - 1][0]}" if chained else ""

    def script(self, stage: int, after: str = "") -> str:
        return render(self.job, self.profile, self.run, self.images[stage], stage, after)

    @property
    def preview(self) -> str:
        """What a dry run prints: the script, or each below a line that is no part of it."""
        stages = self.job.jobs[self.first :]
        if len(stages) == 1:
            return self.scripts[0]
        return "\n".join(
            f"# ---- batch script of stage {name}\n{script}"
            for (name, _), script in zip(stages, self.scripts, strict=True)
        )


def prepare(
    loaded: LoadedJob,
    cluster: str,
    profile: Profile,
    run_id: str | None = None,
    *,
    pin: Callable[[Reference], str] | None = None,
    first: int = 0,
) -> Prepared:
    """Name the run and pin its image. The same `run_id` gives the same run, so it cannot be submitted twice. `pin`
    gives the digest of a tag; default: its registry does. `first` is the stage to begin in.

    Raises SpecError when the image is not there, or the runtime cannot do what the spec asks of it.
    """
    job = loaded.job.model_copy(update={"cluster": cluster})
    run = RunDir(Path(profile.run_root) / f"{job.name}-{run_id or new_run_id()}")
    return _prepare(loaded, job, profile, run, _find_images(loaded, profile, pin or _ask_registry), first)


def prepare_again(
    run: RunDir, loaded: LoadedJob, profile: Profile, *, changed: Collection[str], first: int
) -> Prepared:
    """The same for a run that ended and goes on with another spec, in its own directory and in the images that it was
    submitted with, but for those whose key is among the `changed` ones. Raises SpecError."""
    job, images = loaded.job, _pinned_images(run, loaded.job)
    if not {"container.image", _SERVERS_IMAGE}.isdisjoint(changed):
        found = _find_images(loaded, profile, _ask_registry)
        images = tuple(
            found[stage] if _image_key(job, stage) in changed else image for stage, image in enumerate(images)
        )
    return _prepare(loaded, job, profile, run, images, first)


def _prepare(
    loaded: LoadedJob, job: Job, profile: Profile, run: RunDir, images: tuple[Image, ...], first: int
) -> Prepared:
    runtime = RUNTIMES[profile.container.runtime]
    problems = {
        loaded.problem(key if key.startswith("env.") else f"container.{key}", message): None
        for stage, image in enumerate(images)
        for key, message in runtime.problems(container_box(job, profile, run, image, stage))
    }
    if problems:
        raise SpecError(*problems)
    return Prepared(job, job.cluster or "", profile, run, images, loaded.root, first)


def _find_images(loaded: LoadedJob, profile: Profile, pin: Callable[[Reference], str]) -> tuple[Image, ...]:
    """Of each job; what has the same name is looked up once. Raises SpecError."""
    formats = RUNTIMES[profile.container.runtime].formats
    found: dict[str | None, Image] = {}
    for stage in range(len(loaded.job.jobs)):
        if (name := loaded.job.image_of(stage)) in found:
            continue
        try:
            found[name] = resolve_image(name or "", profile.container.image_dir, formats, pin) if formats else NO_IMAGE
        except ValueError as error:
            raise SpecError(loaded.problem(_image_key(loaded.job, stage), str(error))) from None
    return tuple(found[loaded.job.image_of(stage)] for stage in range(len(loaded.job.jobs)))


def _pinned_images(run: RunDir, job: Job) -> tuple[Image, ...]:
    """Of each job, as they were when the run was submitted."""
    return tuple(_pinned_image(_image_file(run, job, stage)) for stage in range(len(job.jobs)))


def _pinned_image(file: Path) -> Image:
    try:
        return Image(**json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return NO_IMAGE


def _has_own_image(job: Job, stage: int) -> bool:
    return job.image_of(stage) != job.container.image


def _image_key(job: Job, stage: int) -> str:
    return _SERVERS_IMAGE if _has_own_image(job, stage) else "container.image"


def _image_file(run: RunDir, job: Job, stage: int) -> Path:
    return run.image_file_of(job.jobs[stage][0]) if _has_own_image(job, stage) else run.image_file


def _ask_registry(reference: Reference) -> str:
    from xgen.images.registry import RegistryError, resolve_digest

    try:
        return resolve_digest(reference)
    except RegistryError as error:
        raise ValueError(str(error)) from None


def check_with_scheduler(prepared: Prepared) -> str:
    """The third step of validation. Returns the scheduler's estimate for the first job. Raises SpecError with its own
    words."""
    if prepared.profile.scheduler == "local":
        return ""
    try:
        stages = range(prepared.first, len(prepared.job.jobs))
        estimates = [slurm.test_only(prepared.script(stage)) for stage in stages]
    except slurm.SchedulerError as error:
        said = str(error)
        if "job array" in said and (most := slurm.max_array_size()):
            said += f"; write array.shards: {most} or less, which is MaxArraySize there"
        raise SpecError(Problem(f"cluster {prepared.cluster}", "sbatch --test-only", said)) from None
    return estimates[0]


def submit(prepared: Prepared, fill: Callable[[RunDir], None] = lambda _: None) -> tuple[list[str], Code]:
    """Create the run directory and submit. Returns the id of each job and the code that was pinned; on a failure
    nothing is left behind, unless the scheduler cannot say that it has no such job: then a cancelled run stays.

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
        job_ids = launch(run, prepared.job, prepared.profile, prepared.images, key, prepared.first)
    except BaseException:
        _withdraw(run, prepared.profile)
        raise
    tell_queued(run, prepared.job, job_ids, prepared.first)
    return job_ids, code


def tell_queued(
    run: RunDir, job: Job, job_ids: list[str], first: int, attempt: int = 0, reason: str | None = None
) -> None:
    """The events of jobs that have just been submitted: of stage `first`, and of those after it that have one."""
    for job_id, (stage, _) in zip(job_ids, job.jobs[first:], strict=False):  # the local executor has one for all
        EventWriter(run, "client", attempt, job_id).write("queued", stage=stage or None, reason=reason, durable=True)


def _withdraw(run: RunDir, profile: Profile) -> None:
    """After a submission that failed, or was interrupted: sbatch may have been heard all the same.

    The marker stops a job that starts. The directory goes only once the scheduler says that there is no such job.
    """
    run.cancelled_file.touch()
    if profile.scheduler == "slurm":
        try:
            jobs = [row.job_id for row in slurm.queue() if row.name == run.name]
            if jobs:
                slurm.cancel(run.name)
        except slurm.SchedulerError:
            if shutil.which("sbatch"):
                return
            jobs = []
        if jobs:
            return
    shutil.rmtree(run.path, ignore_errors=True)


def resubmit(run: RunDir, job: Job, profile: Profile, first: int) -> list[str]:
    """New jobs for a run that ended, from stage `first` on: the same image and code, its secrets read anew; of a job
    array, the shards that have not finished. Returns their ids.

    Raises SpecError when a secret is missing, SchedulerError when the scheduler refuses.
    """
    key = seal(read_secrets(job), run)
    if profile.scheduler == "slurm" and any(job.serves(stage) for stage in range(len(job.jobs))):
        slurm.cancel(run.name)  # what is left of those that served it: the new ones would wait for their locks
    run.resumed_file.touch()
    run.ended_file.unlink(missing_ok=True)
    for stage, (name, _) in list(enumerate(job.jobs))[first:]:
        forget_ended(run, name, finished=job.serves(stage))
    return launch(run, job, profile, _pinned_images(run, job), key, first)


def waits_for_another(job: Job, stage: int, first: int) -> bool:
    """Whether the job of a stage starts when that of the stage before has finished, in a run from stage `first` on."""
    return stage > first and not job.serves(stage - 1)


def launch(run: RunDir, job: Job, profile: Profile, images: tuple[Image, ...], key: str, first: int) -> list[str]:
    """Hand a run to the scheduler, with the key of its secrets: a job for each stage from `first` on, which starts when
    the one before has finished, or beside one that serves it. Returns their ids; the local executor has one for all.
    Raises SchedulerError, and then none of them is left."""
    environment = {KEY_VARIABLE: key} if key else {}
    stages = range(first, len(job.jobs))
    if profile.scheduler == "local":
        scripts = {stage: render(job, profile, run, images[stage], stage) for stage in stages}
        return [local.start(run, scripts, environment)]
    folder = run.path / "submissions"
    arrays = any(job.array_of(stage) for stage in stages)
    for place in (folder, run.job_file(0).parent, *([run.shards_dir] if arrays else [])):
        place.mkdir(exist_ok=True)
    job_ids: list[str] = []
    try:
        for stage in stages:
            after = job_ids[-1] if waits_for_another(job, stage, first) else ""
            script = render(job, profile, run, images[stage], stage, after, left_shards(run, job, stage))
            _, resources = job.jobs[stage]
            job_ids.append(str(slurm.submit_script(script, folder, resources.world_size, environment).job_id))
            write_atomic(run.job_file(stage), job_ids[-1] + "\n")
    except BaseException:
        if job_ids:
            slurm.cancel(run.name)
        raise
    return job_ids


def left_shards(run: RunDir, job: Job, stage: int) -> list[int] | None:
    """The shards of a stage that have not finished; None for a stage that is no job array. Where all have, but were
    killed before they could say it of the run, one of them says it."""
    if (array := job.array_of(stage)) is None:
        return None
    finished = frozenset() if job.serves(stage) else finished_shards(run, job.jobs[stage][0])
    return [shard for shard in range(array.shards) if shard not in finished] or [0]


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
        for file, text in prepared.image_records(building).items():
            file.write_text(text)
        take_snapshot(code, building, final.parent)
        fill(building)
        key = seal(secrets, building)
        try:
            building.path.rename(final)
        except OSError:
            raise taken from None
        return key
    except BaseException as error:
        shutil.rmtree(building.path, ignore_errors=True)
        if isinstance(error, OSError):
            why = (
                f"{error.strerror or error}; nothing was submitted; make room, or write another run_root in the profile"
            )
            raise OSError(error.errno, why, str(final)) from error
        raise
