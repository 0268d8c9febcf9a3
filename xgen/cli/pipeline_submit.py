"""`xgen submit` and `xgen resume` of a pipeline: all of it is checked, then each step that has to run is submitted."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from xgen.cli.common import print_json, usage, watch_it
from xgen.cli.pipeline import check_steps, graph, table, trial

if TYPE_CHECKING:
    from xgen.cluster.pipeline import Record
    from xgen.cluster.pipeline_plan import Intent
    from xgen.cluster.pipeline_state import StepState
    from xgen.cluster.prepare import Prepared
    from xgen.cluster.snapshot import Code
    from xgen.runs import RunDir
    from xgen.spec import Problem, Profile
    from xgen.spec.pipeline_load import LoadedPipeline, LoadedStep

_VERBS = {
    "reuse": "is reused", "wait": "goes on", "submit": "to be submitted", "resume": "to be resumed",
    "anew": "to be made anew",
}  # fmt: skip


@dataclass(frozen=True)
class Draft:
    """A submission that was checked and has left no trace yet."""

    run: RunDir
    found: LoadedPipeline
    profile: Profile
    cluster: str
    record: Record  # as it will be
    intents: list[Intent]
    states: Mapping[str, StepState]
    steps: Mapping[str, LoadedStep]  # with the names that their runs will have
    problems: list[Problem]


def submit_pipeline(
    spec: Path, cluster: str | None, overrides: list[str], runtime: str | None, run_id: str | None,
    *, dry_run: bool, as_json: bool, reuse: str | None = None, over_budget: bool = False,
) -> None:  # fmt: skip
    """A new pipeline. With `reuse`, what an earlier one has finished is not done again."""
    from xgen.cluster.behind import locked
    from xgen.cluster.pipeline_submit import create_pipeline
    from xgen.runs import RunDir, new_run_id
    from xgen.spec import Problem, SpecError
    from xgen.spec.pipeline_load import load_pipeline

    found = load_pipeline(spec, overrides)
    name, profile = find_place(found, cluster, runtime)
    run = RunDir(Path(profile.run_root).absolute() / f"{found.pipeline.name}-{run_id or new_run_id()}")
    if run.path.exists():
        raise SpecError(Problem("", "--id", f"{run.name} exists; write `xgen resume {run.name}`, or another id"))
    old, states = _earlier(reuse, cluster, profile) if reuse else (None, {})
    draft = _draft(run, found, name, profile, runtime, overrides, old, states, set())
    if _is_all(draft, dry_run=dry_run, as_json=as_json, over_budget=over_budget):
        return
    code = _refuse_early(draft)
    create_pipeline(run, found.pipeline, profile, draft.record)
    with locked(run.path / ".resume.lock"):  # nobody resumes it before all of it is submitted
        jobs = _execute(draft, code)
    _show(draft, jobs, as_json=as_json, code=str(code[0]))
    if not as_json:
        print(watch_it(cluster or found.pipeline.cluster, f"xgen status {run.name}", f"xgen watch {run.name}"))


def resume_pipeline(run: RunDir, overrides: list[str], again: Collection[str], *, dry_run: bool, as_json: bool) -> None:
    """What of a pipeline did not finish or is another since, and all below it."""
    from xgen.cli.resume import hold
    from xgen.cluster import local
    from xgen.cluster.pipeline import read_record
    from xgen.cluster.pipeline_submit import repair, states_of, take_in
    from xgen.runs import write_atomic
    from xgen.spec import dump, load_profile
    from xgen.spec.base import nearest
    from xgen.spec.pipeline_load import load_pipeline

    status = hold(run)
    record = read_record(run)
    assert record
    profile = load_profile(run.profile_file)
    if profile.scheduler == "local" and local.is_alive(run):
        usage(f"{run.name} is {status.state}: its supervisor goes on with it; xgen cancel {run.name} stops it")
    file = Path(record.file)
    if not file.is_file():
        file = run.spec_file
        print(f"note: {record.file} is gone; the pipeline is taken as it was submitted", file=sys.stderr)
    overrides = [*record.overrides, *overrides]
    found = load_pipeline(file, overrides, _root(record, run))
    if profile.scheduler == "slurm" and not dry_run:
        take_in(run, record)
    states = states_of(run, record, profile)
    if profile.scheduler == "slurm" and not dry_run:
        repair(run, record, states)
    if unknown := set(again) - found.pipeline.steps.keys():
        usage(f"--from: {min(unknown)!r} is no step of {run.name}; {nearest(min(unknown), found.pipeline.steps)}")
    draft = _draft(run, found, record.cluster, profile, record.runtime, overrides, record, states, again)
    if _is_all(draft, dry_run=dry_run, as_json=as_json, over_budget=True):  # it goes on, and somebody is told
        return
    freed = _let_go_on(draft)
    if not any(one.runs for one in draft.intents):
        if freed:
            run.cancelled_file.unlink(missing_ok=True)
            _show(draft, {}, as_json=as_json)
            return
        if all(one.action == "reuse" for one in draft.intents):
            usage(f"{run.name} has finished, and nothing of it has changed; --from STEP runs a step again")
        usage(f"{run.name} is {status.state}: nothing to submit")
    code = _refuse_early(draft)
    run.cancelled_file.unlink(missing_ok=True)
    write_atomic(run.spec_file, dump(found.pipeline))
    draft.record.write(run)
    jobs = _execute(draft, code)
    _show(draft, jobs, as_json=as_json)


def find_place(found: LoadedPipeline, cluster: str | None, runtime: str | None) -> tuple[str, Profile]:
    """Name and profile of the cluster. Raises SpecError."""
    from xgen.spec import find_profile, load_profile, with_runtime

    name, file = find_profile(cluster or found.pipeline.cluster, found.root)
    profile = load_profile(file)
    return name, profile if runtime is None else with_runtime(profile, runtime)


def _root(record: Record, run: RunDir) -> Path:
    """Of the project whose specs the steps name."""
    from xgen.spec import project_root

    file = Path(record.file)
    return project_root(file.parent if file.parent.is_dir() else run.path)


def _earlier(reuse: str, cluster: str | None, profile: Profile) -> tuple[Record, dict[str, StepState]]:
    from xgen.cli.common import find_run
    from xgen.cluster.pipeline import read_record
    from xgen.cluster.pipeline_submit import states_of

    run = find_run(reuse, cluster)
    record = read_record(run)
    if record is None:
        usage(f"--reuse: {run.name} is no pipeline; name the run of one")
    if run.path.parent.resolve() != Path(profile.run_root).resolve():
        usage(f"--reuse: {run.name} lies in {run.path.parent}, and runs of this cluster in {profile.run_root}")
    finished = {name: one for name, one in states_of(run, record, profile).items() if one.state == "finished"}
    return record, finished


def _draft(
    run: RunDir, found: LoadedPipeline, cluster: str, profile: Profile, runtime: str | None, overrides: list[str],
    old: Record | None, states: Mapping[str, StepState], again: Collection[str],
) -> Draft:  # fmt: skip
    """Names, fingerprints, what is to be done with each step, and the check of all that is to run. Raises SpecError
    for specs that cannot be read; leaves with exit code 2 where a step that is at work would have to be another."""
    from xgen.cluster.pipeline import Record, StepRecord, fingerprint
    from xgen.cluster.pipeline_plan import Wanted, at_work, intents
    from xgen.runs import new_run_id
    from xgen.spec.pipeline_load import resolve

    pipeline, root = found.pipeline, Path(profile.run_root).absolute()
    own = {name: f"{pipeline.name}-{name}-{run.name[-6:]}" for name in pipeline.order}
    runs = dict(own)
    if old:
        runs |= {name: old.steps[name].run for name in runs if name in old.steps and name in states}
    wanted: list[Wanted] = []
    prints: dict[str, str] = {}
    before, steps = dict(runs), resolve(found, root, runs)
    for step in steps:
        seen = {other: prints[other] for other, how in step.needs.items() if how == "ok"}
        prints[step.name] = fingerprint(step.loaded, runs, seen)
        wanted.append(Wanted(step.name, step.needs, prints[step.name]))
    todo = intents(wanted, old, states, again)
    if busy := next(iter(at_work(todo, states)), None):
        usage(
            f"step {busy.step} is {busy.state} with the spec that it had; write xgen cancel {busy.run} first, "
            f"or take back the change\nnothing was submitted"
        )
    for one in todo:
        fresh = one.action == "anew" or (
            one.action == "submit" and (root / runs[one.step] / "attempts" / "0001").exists()
        )
        if fresh:
            name = own[one.step]
            number = 0
            while (root / name).exists():  # not by chance: a dry run names the same
                number += 1
                name = f"{own[one.step][:-6]}{new_run_id(f'{own[one.step]} {number}')}"
            runs[one.step] = name
    done = {one.step for one in todo if one.action == "reuse"}
    with trial(found, runs, profile, done) as (place, tried):
        problems = check_steps(found, place, tried, profile.run_root, done)
    if runs != before:  # what others take of these is another
        steps = resolve(found, root, runs)
    records = {
        step.name: StepRecord(
            run=step.run, kind=step.loaded.job.kind, needs=dict(step.needs), fingerprint=prints[step.name],
            earlier=_before(old, step.name, step.run),
        )
        for step in steps
    }  # fmt: skip
    record = Record(file=str(found.file), overrides=overrides, cluster=cluster, runtime=runtime, steps=records)
    by_name = {step.name: step for step in steps}
    return Draft(run, found, profile, cluster, record, todo, states, by_name, problems)


def _is_all(draft: Draft, *, dry_run: bool, as_json: bool, over_budget: bool) -> bool:
    """Whether no more is asked for than what would be done, which is shown. Raises SpecError with what is wrong; leaves
    with exit code 2 where a project refuses what its steps ask for together."""
    from xgen.cli.budget import check_budget
    from xgen.spec import SpecError

    if dry_run:
        _show(draft, {}, as_json=as_json)
    if draft.problems:
        raise SpecError(*draft.problems)
    new = [draft.steps[one.step].loaded for one in draft.intents if one.action in ("submit", "anew")]
    for note in check_budget(new, draft.profile, anyway=over_budget):
        print(f"warning: {note}", file=sys.stderr)
    return dry_run


def _before(old: Record | None, step: str, run: str) -> list[str]:
    if old is None or step not in old.steps:
        return []
    before = old.steps[step]
    return before.earlier if before.run == run else [*before.earlier, before.run]


def _refuse_early(draft: Draft) -> tuple[Code, dict[str, Prepared]]:
    """All that the scheduler, the runtime, the images or the checkout would refuse, before anything is submitted: the
    code that is pinned, and each new run. Raises SpecError."""
    from xgen.cluster.prepare import check_with_scheduler, prepare
    from xgen.cluster.secrets import read_secrets
    from xgen.cluster.snapshot import check_command, inspect_code
    from xgen.spec import SpecError
    from xgen.spec.pipeline_load import told_of

    code = inspect_code(draft.found.root)
    prepared: dict[str, Prepared] = {}
    asked: set[str] = set()
    problems = []
    for one in draft.intents:
        if one.action not in ("submit", "anew"):
            continue
        step = draft.steps[one.step]
        try:
            ready = prepare(step.loaded, draft.cluster, draft.profile, step.run[-6:])
            read_secrets(ready.job)
            check_command(ready.job, code)
            if (alike := _asks_for(ready)) not in asked:
                check_with_scheduler(ready)
                asked.add(alike)
            prepared[one.step] = ready
        except SpecError as error:
            problems += [told_of(draft.found.file, one.step, problem) for problem in error.problems]
    if problems:
        raise SpecError(*problems)
    return code, prepared


def _asks_for(prepared: Prepared) -> str:
    """What the scheduler is asked for, without names: steps that ask for the same are checked once."""
    lines = (line for script in prepared.scripts for line in script.splitlines() if line.startswith("#SBATCH"))
    return "\n".join(line for line in lines if prepared.run.name not in line)


def _execute(draft: Draft, ready: tuple[Code, dict[str, Prepared]]) -> dict[str, list[str]]:
    """Submit what has to run, in order. Returns the ids of jobs by step. Raises SpecError, SchedulerError: what was
    submitted by then stays, and `xgen resume` goes on."""
    from xgen.cluster.pipeline_submit import behind_of, start_local, submit_new
    from xgen.cluster.slurm import SchedulerError
    from xgen.runs import EventWriter

    code, prepared = ready
    is_local = draft.profile.scheduler == "local"
    jobs: dict[str, list[str]] = {}
    todo = [one for one in draft.intents if one.runs]
    try:
        for one in todo:
            if one.action == "resume":
                jobs[one.step] = _resume(draft, one.step, set(jobs), only_prepare=is_local)
                continue
            behind = [] if is_local else behind_of(draft.run, draft.record, one.step, draft.states, set(jobs))
            jobs[one.step] = submit_new(draft.run, one.step, prepared[one.step], code, behind, only_create=is_local)
        if is_local:
            process = start_local(draft.run, [one.step for one in todo])
            jobs = {step: [process] for step in jobs}
    except (SchedulerError, OSError) as error:
        said = f"{error}; {len(jobs)} of {len(todo)} steps were submitted: xgen resume {draft.run.name} goes on"
        raise SchedulerError(said) from None
    first = next(iter(jobs.values()))[0]
    EventWriter(draft.run, "client", 0, first).write("queued", reason=f"{len(todo)} steps", durable=True)
    return jobs


def _let_go_on(draft: Draft) -> bool:
    """Steps that are marked as cancelled and whose jobs wait all the same, as SLURM was not told of it. Whether there
    are any."""
    from xgen.cli.resume import let_go_on
    from xgen.cluster.pipeline import step_run
    from xgen.cluster.status import ask_queue, run_status

    runs = [step_run(draft.run, draft.record, one.step) for one in draft.intents if one.action == "wait"]
    runs = [run for run in runs if run.cancelled_file.exists()]
    if not runs or draft.profile.scheduler == "local":
        return False
    view = ask_queue(runs)
    freed = [let_go_on(run, run_status(run, view)) for run in runs]
    return any(freed)


def _resume(draft: Draft, step: str, running: set[str], *, only_prepare: bool) -> list[str]:
    """A step goes on in its own run; with other resources where the spec now says so. Nothing where somebody else has
    resumed it since."""
    from xgen.cli.resume import hold, replace_spec
    from xgen.cluster.pipeline import step_run
    from xgen.cluster.pipeline_submit import behind_of, go_on
    from xgen.cluster.submit import next_stage
    from xgen.spec import load_resolved
    from xgen.spec.changes import changes

    run = step_run(draft.run, draft.record, step)
    status = hold(run)
    if status.state in ("pending", "running", "finished"):
        return [status.job_id]
    run.held_file.unlink(missing_ok=True)  # as of any run that is resumed
    loaded, old = draft.steps[step].loaded, load_resolved(run.spec_file)
    job = loaded.job.model_copy(update={"cluster": old.cluster})
    if changed := changes(old, job):
        replace_spec(run, replace(loaded, job=job), draft.profile, changed, next_stage(run, job))
    if only_prepare:
        run.cancelled_file.unlink(missing_ok=True)
        return [""]
    return go_on(run, behind_of(draft.run, draft.record, step, draft.states, running))


def _show(draft: Draft, jobs: Mapping[str, list[str]], *, as_json: bool, code: str = "") -> None:
    """The graph, with what was or would be done."""
    by_name = {one.step: one for one in draft.intents}
    if as_json:
        print_json(
            {
                "run": draft.run.name,
                "path": draft.run.path,
                "cluster": draft.cluster,
                "steps": [
                    {
                        "step": name, "run": step.run, "kind": step.kind, "needs": step.needs,
                        "action": by_name[name].action, "why": by_name[name].why, "job_ids": jobs.get(name, []),
                    }
                    for name, step in draft.record.steps.items()
                ],
            }
        )  # fmt: skip
        return
    steps = draft.record.steps
    print(f"{draft.run.name}  {len(steps)} steps on {draft.cluster}")
    if code:
        print(f"  code      {code}")
    rows = [
        (f"  {lead}{name}", steps[name].kind, _done(by_name[name], jobs.get(name)), steps[name].run, after)
        for name, lead, after in graph({name: step.needs for name, step in steps.items()})
    ]
    for line in table(rows):
        print(line)


def _done(intent: Intent, jobs: list[str] | None) -> str:
    if jobs and jobs[0]:
        numbers = jobs[0] if len(jobs) == 1 else f"{jobs[0]}-{jobs[-1]}" if len(jobs) > 2 else ", ".join(jobs)
        said = {"submit": "job", "resume": "resumed as job", "anew": "anew as job"}[intent.action]
        return f"{said} {numbers}"
    why = f": {intent.why}" if intent.why else ""
    return f"{_VERBS[intent.action]}{why}"
