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
            "micro_batch, activation_checkpointing, compile.",
        ),
    ] = None,
    cluster: ClusterOption = None,
    as_json: JsonOption = False,
) -> None:
    """Submit a run again: same directory, same code, from its newest checkpoint that verifies."""
    from xgen.cluster.submit import left_shards, resubmit, tell_queued
    from xgen.spec import load_profile, load_resolved
    from xgen.spec.changes import is_topology, show_changes

    found = find_run(run, cluster)
    status = hold(found)
    if status.state in ("pending", "running"):
        usage(f"{found.name} is {status.state} as job {status.job_id}: nothing to resume")
    if status.state == "finished":
        usage(f"{found.name} has finished: nothing to resume")
    profile = load_profile(found.profile_file)
    job: Job = load_resolved(found.spec_file)
    undo: list[Callable[[], object]] = []
    changed: Changes = {}
    from_step = max(found.checkpoint_steps(), default=0)
    first = _stage(found, job, from_step)
    if overrides:
        loaded, changed = _changed(found, job, profile, overrides, first)
        if changed:
            job = loaded.job
            undo += _replace(found, loaded, profile, changed, first)
    if found.cancelled_file.exists():
        undo.append(found.cancelled_file.touch)
        found.cancelled_file.unlink()  # before the job is there, which would obey it
    left = left_shards(found, job, first)
    try:
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


def hold(run: RunDir) -> RunStatus:
    """The state of a run that nobody else resumes, prunes or rolls back until this process ends.

    Two resumes at once would both find that nothing runs, and the second would seal the secrets with a key that the
    first's job does not have. Leaves with exit code 2 for a run that is not this person's or cannot be read; raises
    SchedulerError where nobody says whether it runs: unknown is not gone.
    """
    import fcntl

    from xgen.cluster.slurm import SchedulerError
    from xgen.cluster.status import QueueView, ask_queue, not_ours, run_status
    from xgen.spec import load_profile

    if said := not_ours(run):
        usage(f"{run.name}: {said}")
    fcntl.flock(os.open(run.path / ".resume.lock", os.O_CREAT | os.O_WRONLY, 0o664), fcntl.LOCK_EX)
    profile = load_profile(run.profile_file)
    view = QueueView({}) if profile.scheduler == "local" else ask_queue([run])
    if view.jobs is None:
        raise SchedulerError(view.error)
    status = run_status(run, view)
    if status.state == "unreadable":
        usage(f"{run.name} cannot be read: {status.reason}")
    return status


def _stage(run: RunDir, job: Job, step: int) -> int:
    """In which a run goes on: a training after its checkpoint of that step, any other in the first that is not done."""
    from xgen.runs import read_attempt_outcome
    from xgen.spec import Pretrain

    if isinstance(job, Pretrain):
        return job.place_after(step).index
    outcomes = (read_attempt_outcome(run, attempt) for attempt in range(1, run.last_attempt() + 1))
    return max((o.stage + 1 for o in outcomes if o and o.status == "stage_finished"), default=0)


def _from_where(job: Job, stage: int, step: int, shards: list[int] | None) -> str:
    from xgen.spec import Trained

    name = job.jobs[stage][0]
    if shards is not None and (array := job.array_of(stage)):
        return f"with {len(shards)} of {array.shards} shards" + (f" of stage {name}" if name else "")
    trains = isinstance(job, Trained) and job.trains(stage)
    return f"from stage {name}" if name and not trains else f"from step {step}"


def _changed(run: RunDir, job: Job, profile: Profile, overrides: list[str], first: int) -> tuple[LoadedJob, Changes]:
    """The spec with other keys, checked from stage `first` on, and the keys. Raises SpecError; leaves with exit code 2
    for a key that changes what is computed."""
    from xgen.plan import check
    from xgen.spec import SpecError, load_job, project_root
    from xgen.spec.changes import changes, may_resume

    loaded = load_job(run.spec_file, overrides, project_root(Path.cwd()))
    changed = changes(job, loaded.job)
    if forbidden := [key for key in changed if not may_resume(key)]:
        settings = " ".join(f"--set {shlex.quote(override)}" for override in overrides)
        usage(
            f"--set: {', '.join(forbidden)}: not to be changed in a run, for it changes what is computed; "
            f"use: xgen fork {run.name} {settings}"
        )
    problems = check(loaded, profile, first=first) if changed else []
    if problems:
        raise SpecError(*problems)
    return loaded, changed


def _replace(
    run: RunDir, loaded: LoadedJob, profile: Profile, changed: Changes, first: int
) -> list[Callable[[], object]]:
    """Write the new spec, and what is another image; the old ones are kept under numbers. Returns how to
    undo it. Raises SpecError, before anything is written, when the runtime or the scheduler refuses."""
    from xgen.cluster.submit import check_with_scheduler, prepare_again
    from xgen.spec import dump

    prepared = prepare_again(run, loaded, profile, changed=changed, first=first)
    check_with_scheduler(prepared)
    written = {run.spec_file: dump(loaded.job), **prepared.image_records(run, new=True)}
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
