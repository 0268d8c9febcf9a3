"""From a prepared submission to a job in the queue: the run directory first, complete, then one call to the scheduler
a stage."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress

from xgen.cluster import local, slurm
from xgen.cluster.asked import asked_of, submit_once
from xgen.cluster.behind import Behind, held, note, repoint
from xgen.cluster.group import group_of, open_to
from xgen.cluster.guard import submit_guard
from xgen.cluster.nodes import exclusions
from xgen.cluster.pipeline import membership
from xgen.cluster.prepare import Prepared, pinned_images, waits_for_another
from xgen.cluster.render import render
from xgen.cluster.secrets import KEY_VARIABLE, read_secrets, seal
from xgen.cluster.snapshot import Code, check_command, inspect_code, take_snapshot
from xgen.cluster.swept import point_files
from xgen.images.resolve import Image
from xgen.runs import EventWriter, RunDir, read_attempt_outcome, write_atomic
from xgen.runs.shards import finished_shards, forget_ended, given_up_shards
from xgen.spec import Job, Pretrain, Problem, Profile, SpecError, Sweep, dump
from xgen.spec.points import jobs_of


def submit(prepared: Prepared, fill: Callable[[RunDir], None] = lambda _: None) -> tuple[list[str], Code]:
    """Create the run directory and submit. Returns the id of each job and the code that was pinned; on a failure
    nothing is left behind, unless the scheduler cannot say that it has no such job: then a cancelled run stays.

    `fill` puts more into the directory, which has not got its name yet.

    Raises SpecError when a secret is missing or the run exists, SchedulerError when the scheduler refuses.
    """
    code = inspect_code(prepared.root)
    run = prepared.run
    key = create(prepared, code, fill)
    try:
        job_ids = launch(run, prepared.job, prepared.profile, prepared.images, key, prepared.first)
    except slurm.UnansweredError as error:
        _withdraw(run, prepared.profile)
        said = f"{run.name} is marked as cancelled, so that nothing of it runs, and stays: submit again"
        raise slurm.UnansweredError(f"{error}; {said}") from None
    except BaseException:
        _withdraw(run, prepared.profile)
        raise
    tell_queued(run, prepared.job, job_ids, prepared.first)
    return job_ids, code


def create(prepared: Prepared, code: Code, fill: Callable[[RunDir], None] = lambda _: None) -> str:
    """The run directory, complete, of a run that has no job yet. Returns the key of its secrets. Raises SpecError."""
    secrets = read_secrets(prepared.job)
    for one in jobs_of(prepared.job) if isinstance(prepared.job, Sweep) else [prepared.job]:
        check_command(one, code)
    key = _create(prepared, code, secrets, fill)
    client = EventWriter(prepared.run, "client", 0, "")
    try:
        client.write("submitted", reason=f"cluster {prepared.cluster}", durable=True)
    except BaseException:
        shutil.rmtree(prepared.run.path, ignore_errors=True)
        raise
    return key


def tell_queued(
    run: RunDir, job: Job, job_ids: list[str], first: int, attempt: int = 0, reason: str | None = None
) -> None:
    """The events of jobs that have just been submitted: of stage `first`, and of those after it that have one."""
    for job_id, (stage, _) in zip(job_ids, job.jobs[first:], strict=False):  # the local executor has one for all
        EventWriter(run, "client", attempt, job_id).write("queued", stage=stage or None, reason=reason, durable=True)
    if member := membership(run):  # what was said of the pipeline's end holds no longer
        pipeline = RunDir(run.path.parent / member.pipeline)
        with suppress(OSError):  # it may be somebody else's, or gone
            EventWriter(pipeline, "client", 0, job_ids[0]).write("queued", reason=f"step {member.step}: {run.name}")


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
        if jobs or any(asked_of(run)):  # it may be heard yet
            return
    shutil.rmtree(run.path, ignore_errors=True)


def resubmit(
    run: RunDir, job: Job, profile: Profile, first: int, behind: Sequence[Behind] = (), *, wait: int | None = None
) -> list[str]:
    """New jobs for a run that ended, from stage `first` on: the same image and code, its secrets read anew; of a job
    array, the shards that have not finished. Returns their ids. They wait for the runs that this one is `behind`, and
    whoever waits for this run waits for them. `wait`: nobody has asked for it, the run is settled; failures go on being
    counted, shards that were given up stay so, and it begins in so many seconds.

    Raises SpecError when a secret is missing, SchedulerError when the scheduler refuses.
    """
    key = seal(read_secrets(job), run)
    if profile.scheduler == "slurm" and any(job.serves(stage) for stage in range(len(job.jobs))):
        slurm.cancel(run.name)  # what is left of those that served it: the new ones would wait for their locks
    if wait is None:
        run.resumed_file.touch()
    run.ended_file.unlink(missing_ok=True)
    for stage, (name, _) in list(enumerate(job.jobs))[first:]:
        if wait is None or job.serves(stage):
            forget_ended(run, name, finished=job.serves(stage))
    images, settles = pinned_images(run, job), wait is not None
    job_ids = launch(run, job, profile, images, key, first, behind, wait or 0, keep=settles)
    if profile.scheduler == "slurm":
        repoint(run, job_ids[-1])
    return job_ids


def next_stage(run: RunDir, job: Job) -> int:
    """In which a run goes on: a training after its newest checkpoint, any other in the first stage that is not done."""
    if isinstance(job, Pretrain):
        return job.place_after(max(run.checkpoint_steps(), default=0)).index
    outcomes = (read_attempt_outcome(run, attempt) for attempt in range(1, run.last_attempt() + 1))
    return max((o.stage + 1 for o in outcomes if o and o.status == "stage_finished"), default=0)


def launch(
    run: RunDir,
    job: Job,
    profile: Profile,
    images: tuple[Image, ...],
    key: str,
    first: int,
    behind: Sequence[Behind] = (),
    wait: int = 0,
    *,
    keep: bool = False,
) -> list[str]:
    """Hand a run to the scheduler, with the key of its secrets: a job for each stage from `first` on, which starts when
    the one before has finished, or beside one that serves it; the first also waits for the runs that it is `behind`.
    Returns their ids; the local executor has one for all, and does not wait. None begins before `wait` seconds.
    Raises SchedulerError, and then none of them is left: one that may have been heard all the same finds the run
    cancelled. `keep`: what is left goes on, and the next who settles the run submits the rest."""
    environment = {KEY_VARIABLE: key} if key else {}
    stages = range(first, len(job.jobs))
    if profile.scheduler == "local":
        scripts = {stage: render(job, profile, run, images[stage], stage) for stage in stages}
        return [local.start(run, scripts, environment, wait)]
    folder = run.path / "submissions"  # submitit's
    arrays = any(job.array_of(stage) for stage in stages)
    for place in (folder, run.job_file(0).parent, *([run.shards_dir] if arrays else [])):
        place.mkdir(exist_ok=True)
    job_ids: list[str] = []
    try:
        for stage in stages:
            after = job_ids[-1] if waits_for_another(job, stage, first) else ""
            name, resources = job.jobs[stage]
            with held([] if after else behind) as terms:
                shards = left_shards(run, job, stage, but=given_up_shards(run, name))
                excluded = exclusions(job, profile, stage, time.time())
                if str(excluded) and stage == first:
                    print(f"  nodes     {excluded}", file=sys.stderr)
                script = render(
                    job, profile, run, images[stage], stage, after, shards, terms.values(), excluded.nodes,
                    wait if stage == first else 0,
                )  # fmt: skip
                comment = f"stage:{name}" if name else ""
                job_ids.append(submit_once(run, stage, script, resources.world_size, environment, comment))
                note(terms, job_ids[-1])
                if job.restart.guard and not job.serves(stage):
                    write_atomic(run.job_file(stage).with_suffix(".sh"), script)  # a guard may submit it again
                    submit_guard(run, job, profile, stage, job_ids[-1], environment)
    except BaseException:
        if not keep and (job_ids or any(asked_of(run))):
            _cancel_what_was_heard(run)
        raise
    return job_ids


def _cancel_what_was_heard(run: RunDir) -> None:
    """Of a submission that is not complete. A job that nobody can speak of now finds the marker when it starts."""
    if any(asked_of(run)):
        run.cancelled_file.touch()
    try:
        slurm.cancel(run.name)
    except slurm.SchedulerError:
        run.cancelled_file.touch()


def left_shards(run: RunDir, job: Job, stage: int, but: Collection[int] = ()) -> list[int] | None:
    """The shards of a stage that have not finished, `but` for some; None for a stage that is no job array. Where all
    have, but were killed before they could say it of the run, one of them says it."""
    if (array := job.array_of(stage)) is None:
        return None
    finished = frozenset() if job.serves(stage) else finished_shards(run, job.jobs[stage][0])
    return [shard for shard in range(array.shards) if shard not in finished and shard not in but] or [0]


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
        if group := group_of(prepared.job, prepared.profile):
            open_to(group, building)
        write_atomic(building.spec_file, dump(prepared.job))
        write_atomic(building.profile_file, dump(prepared.profile))
        for file, text in point_files(building, prepared.job).items():
            file.parent.mkdir(exist_ok=True)
            file.write_text(text, encoding="utf-8")  # hundreds: the folder is renamed as a whole
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
