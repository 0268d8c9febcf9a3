"""A submission that is ready: what will run, in which images, checked with the runtime and the scheduler."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from xgen.cluster import slurm
from xgen.cluster.group import why_not
from xgen.cluster.nodes import exclusions
from xgen.cluster.render import container_box, render
from xgen.cluster.runtimes import RUNTIMES
from xgen.images.resolve import NO_IMAGE, Image, resolve_image
from xgen.runs import RunDir, new_run_id
from xgen.spec import Job, LoadedJob, Problem, Profile, SpecError, Sweep
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
        excluded = exclusions(self.job, self.profile, stage, time.time()).nodes
        return render(self.job, self.profile, self.run, self.images[stage], stage, after, exclude=excluded)

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
    job, images = loaded.job, pinned_images(run, loaded.job)
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
    if said := why_not(job, profile):
        problems[loaded.problem("project", said)] = None
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


def pinned_images(run: RunDir, job: Job) -> tuple[Image, ...]:
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
    except slurm.UnansweredError:
        raise  # nothing is wrong with the spec
    except slurm.SchedulerError as error:
        said = str(error)
        if "job array" in said and (most := slurm.max_array_size()):
            what = "points: as many as" if isinstance(prepared.job, Sweep) else "array.shards:"
            said += f"; write {what} {most} or less, which is MaxArraySize there"
        raise SpecError(Problem(f"cluster {prepared.cluster}", "sbatch --test-only", said)) from None
    return estimates[0]


def waits_for_another(job: Job, stage: int, first: int) -> bool:
    """Whether the job of a stage starts when that of the stage before has finished, in a run from stage `first` on."""
    return stage > first and not job.serves(stage - 1)
