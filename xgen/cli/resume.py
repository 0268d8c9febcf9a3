"""`xgen resume`: take up a run that ended without finishing, on other resources if need be."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xgen.cli.common import ClusterOption, JsonOption, RunArgument, find_run, print_json, usage

if TYPE_CHECKING:
    from xgen.cluster.status import RunStatus
    from xgen.runs import RunDir
    from xgen.spec import Job, LoadedJob, Profile
    from xgen.spec.changes import Changes

_LOCK_TIME = 600.0  # seconds for whoever submits for the run already
_STILL_THERE = "resumed: its job was still in the queue"
_CANCEL_TIME = 30.0  # seconds that a resume waits for the end of a run that is being cancelled
TOPOLOGY_NOTE = (
    "another topology: the data order is exactly the same, losses agree to about 1e-4; they are equal to the bit "
    "at the same one only"
)


def command(
    run: RunArgument,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change a key that does not change what is computed: resources.*, checkpoint.*, restart.*, lead, "
            "data.workers, data.prefetch, container.*, env.*, and of stages.N: resources.*, parallelism.*, "
            "micro_batch, activation_checkpointing, compile; of an evaluation array.shards, at_once and published too.",
        ),
    ] = None,
    again: Annotated[
        list[str] | None,
        typer.Option("--from", metavar="STEP", help="Of a pipeline: run this step anew, and all that need it."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Of a pipeline: show which steps would run, and why; submit nothing.")
    ] = False,
    cluster: ClusterOption = None,
    as_json: JsonOption = False,
) -> None:
    """Submit a run again: same directory, same code, from its newest checkpoint that verifies.

    Of a pipeline: the steps that did not finish, or whose spec is another now, and all that need them. There --set is
    STEP.KEY=VALUE.
    """
    from xgen.cluster.pipeline import is_pipeline
    from xgen.cluster.submit import left_shards, next_stage, resubmit, tell_queued
    from xgen.runs.shards import set_shards_aside
    from xgen.spec import load_profile, load_resolved
    from xgen.spec.changes import SHARDS, is_topology, show_changes

    found = find_run(run, cluster)
    if is_pipeline(found):
        from xgen.cli.pipeline_submit import resume_pipeline

        resume_pipeline(found, overrides or [], again or [], dry_run=dry_run, as_json=as_json)
        return
    if again or dry_run:
        usage(f"{found.name} is no pipeline: --from and --dry-run are of one")
    status = _once_cancelled(found, hold(found))
    if _goes_on(found, status, as_json=as_json):
        return
    _refuse(status)
    profile = load_profile(found.profile_file)
    job: Job = load_resolved(found.spec_file)
    undo: list[Callable[[], object]] = []
    changed: Changes = {}
    from_step = max(found.checkpoint_steps(), default=0)
    first = next_stage(found, job)
    if overrides:
        loaded, changed = _changed(found, job, profile, overrides, first)
        if changed:
            job = loaded.job
            undo += replace_spec(found, loaded, profile, changed, first)
            if SHARDS in changed and job.array_of(first):
                undo.append(set_shards_aside(found, job.jobs[first][0]))
    if found.cancelled_file.exists():
        undo.append(found.cancelled_file.touch)
        found.cancelled_file.unlink()  # before the job is there, which would obey it
    found.held_file.unlink(missing_ok=True)  # as would what is resumed
    left = left_shards(found, job, first)
    try:
        _check_budget(found, job)
        job_ids = resubmit(found, job, profile, first)
    except BaseException:
        for step in reversed(undo):
            step()
        raise
    reason = f"resumed with {show_changes(changed)}" if changed else "resumed"
    tell_queued(found, job, job_ids, first, status.attempt, reason)
    note = TOPOLOGY_NOTE if any(is_topology(key) for key in changed) else ""
    if as_json:
        facts = {"run": found.name, "job_id": job_ids[0], "job_ids": job_ids, "from_step": from_step, "shards": left}
        print_json(facts | {"changed": changed, "note": note or None})
        return
    print(f"{found.name} resumes as job {', '.join(job_ids)} {_from_where(job, first, from_step, left)}")
    if changed:
        print(f"  changed   {show_changes(changed)}")
    if note:
        print(f"  note      {note}")


def _refuse(status: RunStatus) -> None:
    """Leaves with exit code 2 where there is nothing to resume."""
    if status.state == "blocked":
        usage(f"{status.name} is a step that waits: {status.reason}; write xgen resume of its pipeline")
    if status.state == "running" and status.reason == "is being cancelled":
        usage(f"{status.name} is being cancelled and still saves, job {status.job_id}: try again when it has ended")
    if status.state in ("pending", "running"):
        usage(f"{status.name} is {status.state} as job {status.job_id}: nothing to resume")
    if status.state == "finished":
        usage(f"{status.name} has finished: nothing to resume")


def _once_cancelled(run: RunDir, status: RunStatus) -> RunStatus:
    """The state of a run; of one that is being cancelled, once that is done, or after some time."""
    import sys
    import time

    from xgen.cluster.status import ask_slurm, run_status

    if status.state == "running" and status.reason == "is being cancelled":
        print(f"{run.name} is being cancelled; waiting for its end, {_CANCEL_TIME:.0f} s at most", file=sys.stderr)
    deadline = time.monotonic() + _CANCEL_TIME
    while status.state == "running" and status.reason == "is being cancelled" and time.monotonic() < deadline:
        time.sleep(1)
        status = run_status(run, ask_slurm([run]))
    return status


def _check_budget(run: RunDir, job: Job) -> None:
    """Leaves with exit code 2 where the GPU-hours of the run are used up: its next attempt would be refused."""
    from xgen.runs.outcome import gpu_seconds

    limit = job.restart.max_gpu_hours
    if limit is not None and (used := gpu_seconds(run) / 3600) >= limit:
        usage(
            f"{run.name} has used {used:.3g} GPU-hours, and restart.max_gpu_hours is {limit:g}; "
            f"write --set restart.max_gpu_hours={used * 2:.2g}, or what it may use in all"
        )


def _goes_on(run: RunDir, status: RunStatus, *, as_json: bool) -> bool:
    """Whether it is marked as cancelled and its job waits all the same: that job goes on."""
    if not let_go_on(run, status):
        return False
    if as_json:
        facts = {"run": run.name, "job_id": status.job_id, "job_ids": [status.job_id], "from_step": status.durable_step}
        print_json(facts | {"shards": None, "changed": {}, "note": _STILL_THERE})
    else:
        print(f"{run.name} goes on as job {status.job_id}, which was still in the queue")
    return True


def let_go_on(run: RunDir, status: RunStatus) -> bool:
    """Of a run that is marked as cancelled and whose job waits all the same, as SLURM was not told, or did not answer,
    the mark goes. Whether it was one."""
    from xgen.runs import EventWriter

    if status.state != "pending" or not run.cancelled_file.exists():
        return False
    run.cancelled_file.unlink()
    EventWriter(run, "client", status.attempt, status.job_id).write("queued", reason=_STILL_THERE, durable=True)
    return True


def hold(run: RunDir) -> RunStatus:
    """The state of a run that nobody else resumes, prunes or rolls back until this process ends.

    Two resumes at once would both find that nothing runs, and the second would seal the secrets with a key that the
    first's job does not have. Leaves with exit code 2 for a run that is not this person's or cannot be read; raises
    SchedulerError where nobody says whether it runs: unknown is not gone.
    """
    from xgen.cluster.slurm import SchedulerError, is_alive
    from xgen.cluster.status import QueueView, ask_queue, not_ours, run_status
    from xgen.spec import load_profile

    if said := not_ours(run):
        usage(f"{run.name}: {said}")
    _lock(run)
    profile = load_profile(run.profile_file)
    view = QueueView({}) if profile.scheduler == "local" else ask_queue([run])
    if view.jobs is None:
        raise SchedulerError(view.error)
    status = run_status(run, view)
    if status.state == "unreadable":
        usage(f"{run.name} cannot be read: {status.reason}")
    if status.state == "lost" and profile.scheduler == "slurm" and is_alive(run.name, status.job_id):
        said = f"squeue does not show job {status.job_id} and scontrol does, as while a controller restarts"
        raise SchedulerError(f"{said}; nothing was submitted, try again")
    return status


def _lock(run: RunDir) -> None:
    """Until this process ends. A guard job holds it for as long as it asks SLURM. Leaves with exit code 2."""
    from xgen.cluster.alone import lock_file, take

    if take(lock_file(run), _LOCK_TIME) is None:
        usage(f"{run.name} is being resumed or settled by somebody else since {_LOCK_TIME:.0f} s; try again")


def _from_where(job: Job, stage: int, step: int, shards: list[int] | None) -> str:
    from xgen.spec import Trained

    name = job.jobs[stage][0]
    if shards is not None and (array := job.array_of(stage)):
        return f"with {len(shards)} of {array.shards} shards" + (f" of stage {name}" if name else "")
    trains = isinstance(job, Trained) and job.trains(stage)
    if name and not trains:
        return f"from stage {name}"
    return f"from step {step}" if trains or step else "from its beginning"


def _changed(run: RunDir, job: Job, profile: Profile, overrides: list[str], first: int) -> tuple[LoadedJob, Changes]:
    """The spec with other keys, checked from stage `first` on, and the keys. Raises SpecError; leaves with exit code 2
    for a key that changes what is computed."""
    from xgen.plan import check
    from xgen.spec import Evaluate, SpecError, load_job, project_root
    from xgen.spec.changes import changes, may_resume

    loaded = load_job(run.spec_file, overrides, project_root(Path.cwd()))
    changed = changes(job, loaded.job)
    if forbidden := [key for key in changed if not may_resume(key, job)]:
        settings = " ".join(f"--set {shlex.quote(override)}" for override in overrides)
        again = f"submit {run.spec_file}" if isinstance(job, Evaluate) else f"fork {run.name}"  # it has no checkpoint
        usage(
            f"--set: {', '.join(forbidden)}: not to be changed in a run, for it changes what is computed; "
            f"use: xgen {again} {settings}"
        )
    problems = check(loaded, profile, first=first) if changed else []
    if problems:
        raise SpecError(*problems)
    return loaded, changed


def replace_spec(
    run: RunDir, loaded: LoadedJob, profile: Profile, changed: Changes, first: int
) -> list[Callable[[], object]]:
    """Write the new spec, and what is another image; the old ones are kept under numbers. Returns how to
    undo it. Raises SpecError, before anything is written, when the runtime or the scheduler refuses."""
    from xgen.cluster.prepare import check_with_scheduler, prepare_again
    from xgen.cluster.swept import point_files
    from xgen.spec import dump

    prepared = prepare_again(run, loaded, profile, changed=changed, first=first)
    check_with_scheduler(prepared)
    written = {run.spec_file: dump(loaded.job), **prepared.image_records(run, new=True), **point_files(run, loaded.job)}
    return [_rewrite(file, text) for file, text in written.items()]


def _rewrite(file: Path, text: str) -> Callable[[], object]:
    """New text for a file; the old file stays beside it as NAME.N.SUFFIX. Returns what brings it back."""
    from xgen.runs import write_atomic

    if not file.exists():
        write_atomic(file, text)
        return file.unlink
    number = 1
    while (kept := file.with_suffix(f".{number}{file.suffix}")).exists():
        number += 1
    shutil.copy2(file, kept)
    times = file.stat()
    write_atomic(file, text)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # runs are listed by the age of their spec
    return lambda: kept.replace(file)
