"""A pipeline's own directory, and its steps one after the other into the queue: each is submitted once, whoever is
killed in between."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from xgen.cluster import local, slurm
from xgen.cluster.asked import adopt, asked_of
from xgen.cluster.behind import Behind, held, note
from xgen.cluster.pipeline import Membership, Record, step_run
from xgen.cluster.pipeline_state import AT_WORK, StepState, step_states
from xgen.cluster.prepare import Prepared
from xgen.cluster.snapshot import Code
from xgen.cluster.status import QueueView, ask_queue, ask_state
from xgen.cluster.submit import create, launch, next_stage, resubmit, tell_queued
from xgen.runs import EventWriter, RunDir, write_atomic
from xgen.spec import Profile, dump, load_profile, load_resolved
from xgen.spec.pipeline import Pipeline

TODO = "XGEN_STEPS"  # the steps that a supervisor of the local executor is to run
_PATIENCE = 60.0  # seconds until the queue has forgotten a job that was cancelled


def states_of(pipeline: RunDir, record: Record, profile: Profile) -> dict[str, StepState]:
    """Of each step, by one question to the scheduler. Raises SchedulerError where nobody says what runs."""
    view = QueueView(None)
    if profile.scheduler == "slurm":
        view = ask_queue([pipeline])
        if view.jobs is None:
            raise slurm.SchedulerError(view.error)
    return {one.step: one for one in step_states(pipeline, record, view, ask_state)}


def create_pipeline(run: RunDir, pipeline: Pipeline, profile: Profile, record: Record) -> None:
    """Its directory, beside its place and then renamed: with the names of all runs that it will have. Raises OSError,
    FileExistsError where there is one."""
    building = RunDir(run.path.with_name(f".{run.name}.tmp"))
    shutil.rmtree(building.path, ignore_errors=True)
    run.path.parent.mkdir(parents=True, exist_ok=True)
    try:
        building.create()
        write_atomic(building.spec_file, dump(pipeline))
        write_atomic(building.profile_file, dump(profile))
        record.write(building)
        if profile.scheduler == "local":
            (building.path / "local").mkdir()
        if run.path.exists():
            raise FileExistsError(run.path)
        building.path.rename(run.path)
    except BaseException:
        shutil.rmtree(building.path, ignore_errors=True)
        raise
    EventWriter(run, "client", 0, "").write("submitted", reason=f"{len(record.steps)} steps", durable=True)


def submit_new(
    pipeline: RunDir, step: str, prepared: Prepared, code: Code, behind: Sequence[Behind], *, only_create: bool
) -> list[str]:
    """A run for a step that has not begun: what a submission that was killed has left of it goes first, and was never
    started. Returns the ids of its jobs; of the local executor, which submits when its turn comes, none."""
    run = prepared.run
    shutil.rmtree(run.path, ignore_errors=True)
    key = create(prepared, code, lambda building: Membership(pipeline=pipeline.name, step=step).write(building))
    if only_create:
        (run.path / "local").mkdir()  # nobody need ask SLURM of it
        return []
    job_ids = launch(run, prepared.job, prepared.profile, prepared.images, key, prepared.first, behind)
    tell_queued(run, prepared.job, job_ids, prepared.first)
    return job_ids


def go_on(run: RunDir, behind: Sequence[Behind] = ()) -> list[str]:
    """New jobs for the run of a step that ended without finishing, from where it was; also its first ones."""
    job, profile = load_resolved(run.spec_file), load_profile(run.profile_file)
    first = next_stage(run, job)
    attempt = run.last_attempt()
    was_cancelled = run.cancelled_file.exists()
    run.cancelled_file.unlink(missing_ok=True)  # before the job is there, which would obey it
    try:
        job_ids = resubmit(run, job, profile, first, behind)
    except BaseException:
        if was_cancelled:
            run.cancelled_file.touch()
        raise
    tell_queued(run, job, job_ids, first, attempt, "resumed" if attempt else None)
    return job_ids


def behind_of(
    pipeline: RunDir, record: Record, step: str, states: Mapping[str, StepState], running: set[str]
) -> list[Behind]:
    """The runs that the jobs of a step have to wait for: those that are in the queue. `running` are steps that were
    submitted just now."""
    found = []
    for other, how in record.steps[step].needs.items():
        if other in running or (other in states and states[other].state in AT_WORK):
            run = step_run(pipeline, record, other)
            found.append(Behind(run, len(load_resolved(run.spec_file).jobs) - 1, how))
    return found


def take_in(pipeline: RunDir, record: Record) -> None:
    """Jobs that a client has submitted and not lived to note. Raises SchedulerError where that cannot be told."""
    runs = [step_run(pipeline, record, step) for step in record.steps]
    for run in runs:
        if any(asked_of(run)):
            _await(partial(_is_taken_in, run), "is still being submitted")


def _is_taken_in(run: RunDir) -> bool:
    adopt(run)
    return not any(asked_of(run))


def repair(pipeline: RunDir, record: Record, states: dict[str, StepState]) -> None:
    """After a submission that was killed: of a run that waits in the queue with fewer jobs than it has stages all are
    cancelled, and it has not begun; of one with all of them it is noted which they are, and for whom they wait."""
    waiting = [one.step for one in states.values() if one.state == "pending" and not one.begun]
    incomplete = [step for step in waiting if not _is_noted(pipeline, record, step, states)]
    if not incomplete:
        return
    rows = slurm.queue()
    gone: set[str] = set()
    for step in incomplete:
        run = step_run(pipeline, record, step)
        job = load_resolved(run.spec_file)
        ids = sorted({row.job_id.partition("_")[0] for row in rows if row.name == run.name}, key=int)
        if len(ids) != len(job.jobs):
            slurm.cancel(run.name)
            gone.add(run.name)
            continue
        run.job_file(0).parent.mkdir(exist_ok=True)
        for stage, job_id in enumerate(ids):
            write_atomic(run.job_file(stage), job_id + "\n")
        with held(behind_of(pipeline, record, step, states, set())) as terms:
            for stage, job_id in enumerate(ids):
                if not stage or job.serves(stage - 1):
                    note(terms, job_id)
    _await(lambda: not gone & {row.name for row in slurm.queue()}, "is still being cancelled")
    for step in waiting:
        run = step_run(pipeline, record, step)
        if run.name in gone:
            shutil.rmtree(run.path, ignore_errors=True)
            one = states[step]
            states[step] = StepState(step, one.run, one.kind, "lost", "it was not submitted", one.needs, begun=False)


def _is_noted(pipeline: RunDir, record: Record, step: str, states: Mapping[str, StepState]) -> bool:
    """Whether every job of it is on record, and for whom it waits, if any of those is still at work."""
    run = step_run(pipeline, record, step)
    last = len(load_resolved(run.spec_file).jobs) - 1
    if not run.job_file(last).is_file():
        return False
    first = run.job_file(0).read_text(encoding="utf-8").strip()
    others = behind_of(pipeline, record, step, states, set())
    return any((other.run.path / "waiting" / first).is_file() for other in others) or not others


def _await(done: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not done():
        if time.monotonic() > deadline:
            raise slurm.SchedulerError(f"a job of a step {what} after {_PATIENCE:.0f} s; try again")
        time.sleep(0.5)


def start_local(pipeline: RunDir, steps: Sequence[str]) -> str:
    """The supervisor that runs these steps, each once those that it needs have ended. Returns its process id."""
    return local.start(pipeline, {}, {TODO: ",".join(steps)})
