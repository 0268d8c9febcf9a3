"""The second step of validation: keys that fit on their own but not together, or not on this cluster."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from shutil import which

from xgen.plan.evaluation_sense import check_evaluation, evaluation_warnings
from xgen.plan.layout import check_layout
from xgen.plan.lever import lever
from xgen.plan.memory import RESERVE, memory
from xgen.plan.numbers import SAVE_OVERHEAD, STOP_MARGIN, partition, plan
from xgen.plan.swept import check_points
from xgen.plan.tuned import beside
from xgen.spec import (
    Curate,
    Evaluate,
    Export,
    LoadedJob,
    Partition,
    Place,
    Preference,
    Pretrain,
    Problem,
    Profile,
    Regmix,
    Resources,
    Sft,
    SpecError,
    Stage,
    Sweep,
    Trained,
    Tuned,
    load_resolved,
)
from xgen.spec.base import nearest
from xgen.spec.units import format_bytes, format_duration


def check(loaded: LoadedJob, profile: Profile, *, stores: bool = True, first: int = 0) -> list[Problem]:
    """Everything that would make a job fail or lose work; empty when it makes sense. `stores` also asks for the token
    stores, which a plan does not need; the stages before `first` are done, and need not make sense here any more."""
    problems = [*_check_project(loaded, profile), *_check_resources(loaded, profile, first)]
    if problems:
        return problems  # the rest speaks of a partition, which may not exist
    problems += _check_container(loaded, profile)
    if isinstance(loaded.job, Trained):
        for place in _places(loaded.job, first):
            problems += _check_stage(loaded, loaded.job, place, profile)
            problems += _check_rate(loaded, place)
        if not problems:  # of a layout that cannot be there are no numbers
            problems += _check_stops(loaded, profile, first)
        if stores:
            problems += _check_sinks(loaded, loaded.job, profile)
            problems += missing_stores(loaded)
    if isinstance(loaded.job, Tuned) and stores:
        problems += _check_tuned(loaded, loaded.job, profile)
    if isinstance(loaded.job, Regmix):
        problems += _check_regmix(loaded, loaded.job, profile, stores=stores)
        problems += [] if problems else _check_stops(loaded, profile, first)
    if isinstance(loaded.job, Curate) and stores:
        problems += _check_curate(loaded, loaded.job)
    if isinstance(loaded.job, Export) and stores:
        problems += _check_export(loaded, loaded.job, profile)
    if isinstance(loaded.job, Evaluate):
        problems += check_evaluation(loaded, loaded.job, profile, stores=stores)
    if isinstance(loaded.job, Sweep):
        problems += check_points(loaded, loaded.job, lambda point: check(point, profile, stores=stores))
    return problems


def warnings(loaded: LoadedJob, profile: Profile, first: int = 0) -> list[str]:
    """What a person should know before submitting stage `first` and those after it, though it is no mistake."""
    notes = []
    for number, (_, resources) in list(enumerate(loaded.job.jobs))[first:]:
        numbers = plan(loaded.job, profile, number)
        where = partition(resources, profile)
        if where.preemptible and where.grace == 0:
            cost = f", about {format_duration(numbers.lost_seconds)} of training each time" if numbers.num_steps else ""
            notes.append(f"the partition preempts without grace: only periodic checkpoints protect the run{cost}")
    if isinstance(loaded.job, Pretrain):
        notes += [note for place in loaded.job.places[first:] for note in _whole_steps(place.stage)]
        notes += [note for before, after in pairwise(loaded.job.places[first:]) for note in _border(before, after)]
    if isinstance(loaded.job, Regmix):
        notes += _whole_steps(loaded.job.proxy.stages[0])
    if isinstance(loaded.job, Evaluate):
        return list(evaluation_warnings(loaded.job, profile))  # what is scored is written sample by sample
    return list(dict.fromkeys(notes))


def _whole_steps(stage: Stage) -> Iterator[str]:
    if stage.num_tokens > 1.05 * stage.tokens:
        steps = f"{stage.num_steps} step{'s' * (stage.num_steps > 1)}"
        yield f"stage {stage.name}: {stage.tokens} tokens become {stage.num_tokens}, {steps} of a whole global_batch"


def _border(before: Place, after: Place) -> Iterator[str]:
    """What is odd about a stage that follows another."""
    name, old, new = after.stage.name, before.stage, after.stage
    if new.seq_len < old.seq_len:
        yield f"stage {name}: seq_len {new.seq_len} is shorter than {old.seq_len} of the stage before"
    if new.rope_theta < old.rope_theta:
        yield f"stage {name}: rope_theta {new.rope_theta:g} is below {old.rope_theta:g} of the stage before"
    if after.lr_peak > before.lr_to and not new.lr.warmup:
        yield f"stage {name}: the learning rate jumps from {before.lr_to:g} to {after.lr_peak:g}; write lr.warmup"


def _places(job: Trained, first: int) -> tuple[Place, ...]:
    """Of the jobs from `first` on that train."""
    return tuple(job.place_of(stage) for stage in range(first, len(job.jobs)) if job.trains(stage))


def _at(loaded: LoadedJob, place: Place) -> str:
    """Key of a stage."""
    return "train" if isinstance(loaded.job, Tuned) else f"stages[{place.index}]"


def missing_stores(loaded: LoadedJob) -> list[Problem]:
    """Token stores of the spec that are not there."""
    if isinstance(loaded.job, Regmix):
        return [_of_proxy(problem) for problem in missing_stores(_proxy(loaded, loaded.job))]
    if not isinstance(loaded.job, Pretrain):
        return []
    data, validation = loaded.job.data, loaded.job.validation
    folders = {f"data.stores.{name}" if data.stores else "data.store": path for name, path in data.folders.items()}
    if validation:
        folders["validation.store"] = validation.store
    return [
        loaded.problem(key, f"{folder} is no token store; write `xgen data build {folder} --input …` first")
        for key, folder in folders.items()
        if not (Path(folder) / "meta.json").is_file()
    ]


def _check_export(loaded: LoadedJob, job: Export, profile: Profile) -> Iterator[Problem]:
    """What the container would be started with, and what it would lack."""
    run = Path(profile.run_root) / job.run  # an absolute path stays what it is
    if not (run / "spec.yaml").is_file():
        yield loaded.problem("run", f"{run} is no run directory; write the name of a run, or its absolute path")
    for key, path in (("out", job.out and Path(job.out).parent), ("tokenizer", job.tokenizer and Path(job.tokenizer))):
        if path and not path.exists():
            yield loaded.problem(key, f"{path} is not there; make it first")


def _check_tuned(loaded: LoadedJob, job: Tuned, profile: Profile) -> Iterator[Problem]:
    """What it would not find, and weights of another model."""
    for key, path in job.reads.items():
        if not Path(path).exists():
            yield loaded.problem(key, f"{path} is not there; name what exists")
    if isinstance(job, Sft | Preference) and job.data.out and not Path(job.data.out).parent.is_dir():
        yield loaded.problem("data.out", f"{Path(job.data.out).parent} is not there; make it first")
    if job.init.run is None:
        return
    run = Path(profile.run_root) / job.init.run  # an absolute path stays what it is
    try:
        parent = load_resolved(run / "spec.yaml")
    except (OSError, SpecError):
        yield loaded.problem("init.run", f"{run} is no run directory; write the name of a run, or its absolute path")
        return
    if not isinstance(parent, Trained):
        yield loaded.problem("init.run", f"{job.init.run} trained no weights; write the name of a run that trains")
    elif key := job.model.difference(parent.model):
        own, theirs = getattr(job.model, key), getattr(parent.model, key)
        yield loaded.problem(f"model.{key}", f"{own}, and {job.init.run} has {theirs}; write the model that it is of")


def _check_curate(loaded: LoadedJob, job: Curate) -> Iterator[Problem]:
    """What a shard would not find."""
    for key, path in job.reads.items():
        if not Path(path).exists():
            yield loaded.problem(key, f"{path} is not there; name what exists")
    for key, folder in (("out", job.out), ("work", job.work_folder)):
        if not Path(folder).parent.is_dir():
            yield loaded.problem(key, f"{Path(folder).parent} is not there; make it first")


def _check_regmix(loaded: LoadedJob, job: Regmix, profile: Profile, *, stores: bool) -> Iterator[Problem]:
    proxy, (place,) = _proxy(loaded, job), job.proxy.places
    yield from map(_of_proxy, _check_stage(proxy, job.proxy, place, profile))
    yield from map(_of_proxy, _check_rate(proxy, place))
    if stores:
        yield from missing_stores(loaded)
        if not Path(job.out).parent.is_dir():
            yield loaded.problem("out", f"{Path(job.out).parent} is not there; make it first")


def _proxy(loaded: LoadedJob, job: Regmix) -> LoadedJob:
    """As if it were a spec of its own."""
    origins = {key[1:]: file for key, file in loaded.origins.items() if key[0] == "proxy"}
    return replace(loaded, job=job.proxy, origins=origins)


def _of_proxy(problem: Problem) -> Problem:
    return replace(problem, key=f"proxy.{problem.key}")


def _check_project(loaded: LoadedJob, profile: Profile) -> Iterator[Problem]:
    """Where the profile lists projects, an account that is none of them would go by their budgets."""
    name = loaded.job.project
    if profile.projects and name is not None and name not in profile.projects:
        yield loaded.problem("project", f"{name!r} is not in the cluster profile; {nearest(name, profile.projects)}")


def _check_resources(loaded: LoadedJob, profile: Profile, first: int) -> list[Problem]:
    found: dict[str, str] = {}  # by key: what is wrong with the resources of several stages is said once
    for number, (_, resources) in list(enumerate(loaded.job.jobs))[first:]:
        found |= _wrong_resources(loaded, number, resources, profile)
    return [loaded.problem(key, message) for key, message in found.items()]


def _wrong_resources(
    loaded: LoadedJob, number: int, resources: Resources, profile: Profile
) -> Iterator[tuple[str, str]]:
    name, time_key = resources.partition, _set_at(loaded, number, "time")
    if name is not None and name not in profile.partitions:
        key = _set_at(loaded, number, "partition")
        yield key, f"{name!r} is not in the cluster profile; {nearest(name, profile.partitions)}"
        return
    lead, time, limit = (
        format_duration(seconds)
        for seconds in (loaded.job.lead, resources.time, partition(resources, profile).max_time)
    )
    if resources.time > partition(resources, profile).max_time:
        fix = f"write {limit} or less: the run goes on in the next attempt"
        yield time_key, f"{time} is over the partition's limit; {fix}"
    if loaded.job.lead >= resources.time and time_key == "resources.time":
        yield "lead", f"{lead} leaves nothing of the time limit {time}; write less"
    elif loaded.job.lead >= resources.time:
        yield time_key, f"{time} leaves nothing after the lead of {lead}; write more"


def _set_at(loaded: LoadedJob, stage: int, key: str) -> str:
    """Where a key of the resources of a stage is written: at it, at one before it, or for the whole job."""
    job = loaded.job
    if (isinstance(job, Tuned) and not job.trains(stage)) or (isinstance(job, Evaluate) and not job.array_of(stage)):
        for own in (("single",), ("rollout", "servers", "resources")):
            if (*own, key) in loaded.origins:
                return ".".join((*own, key))
    stages = (n for n in range(stage, -1, -1) if ("stages", n, "resources", key) in loaded.origins)
    return next((f"stages[{n}].resources.{key}" for n in stages), f"resources.{key}")


def _check_container(loaded: LoadedJob, profile: Profile) -> Iterator[Problem]:
    if profile.container.runtime != "none" and loaded.job.container.image is None:
        yield loaded.problem(
            "container.image",
            f"is missing, and {profile.container.runtime} runs here; write a name or a path",
        )
    python = profile.container.python
    if profile.scheduler == "local" and profile.container.runtime == "none" and python and not which(python):
        yield Problem("the cluster profile", "container.python", f"{python} is no program here; write an interpreter")
    for number, mount in enumerate(loaded.job.container.mounts):
        if not Path(mount.source).exists():
            yield loaded.problem(
                f"container.mounts[{number}]", f"{mount.source} does not exist; write an existing folder"
            )


def _check_sinks(loaded: LoadedJob, job: Trained, profile: Profile) -> Iterator[Problem]:
    """An image has packages of its own: there the job looks, as it starts."""
    for name in job.sinks.packages if profile.container.runtime == "none" else ():
        if importlib.util.find_spec(name) is None:
            said = f"the package {name} is not installed; write: pip install 'xgen[{name}]', or leave the sink out"
            yield loaded.problem(f"sinks.{name}", said)


def _check_stage(loaded: LoadedJob, job: Trained, place: Place, profile: Profile) -> Iterator[Problem]:
    stage, at = place.stage, _at(loaded, place)
    layout = list(check_layout(loaded, job.model, place, at))
    yield from layout or _check_memory(loaded, job, place, profile, at)
    scaling = stage.rope_scaling
    if scaling and scaling.original * scaling.factor < stage.seq_len:
        yield loaded.problem(
            f"{at}.rope_scaling.factor",
            f"{scaling.factor:g} times {scaling.original} is less than seq_len {stage.seq_len}; "
            f"write {-(-stage.seq_len // scaling.original)} or more",
        )


def _check_rate(loaded: LoadedJob, place: Place) -> Iterator[Problem]:
    """The learning rate of a stage, and what it takes over from the one before."""
    lr, at = place.stage.lr, f"{_at(loaded, place)}.lr"
    if place.lr_peak == 0:
        key = f"stages[{place.index - 1}].lr.to"
        message = f"0 is where {place.stage.name} would begin and stay; write more than 0, or {at}.peak"
        yield loaded.problem(key, message)
        return
    if lr.warmup > place.stage.num_steps:
        message = f"{lr.warmup} steps are more than the stage's {place.stage.num_steps}; write fewer"
        yield loaded.problem(f"{at}.warmup", message)
    if lr.shape == "stable" and lr.to:
        message = f"{lr.to:g} is never reached with shape: stable; write shape: linear, or leave it out"
        yield loaded.problem(f"{at}.to", message)
    elif lr.to > place.lr_peak:
        yield loaded.problem(f"{at}.to", f"{lr.to:g} is above the peak {place.lr_peak:g}; write less")


def _check_memory(loaded: LoadedJob, job: Trained, place: Place, profile: Profile, at: str) -> Iterator[Problem]:
    if profile.gpus.memory is None:
        return
    limit = profile.gpus.memory * (1 - RESERVE)
    need = memory(job.model, place, beside(job)).total
    if need > limit:
        fix = lever(job.model, place, limit, beside(job))
        yield loaded.problem(
            at,
            f"{place.stage.name} needs about {format_bytes(need)} on a GPU, and {format_bytes(limit)} of "
            f"{format_bytes(profile.gpus.memory)} are there; write {fix or 'more nodes and a larger fsdp'}",
        )


def _check_stops(loaded: LoadedJob, profile: Profile, first: int) -> Iterator[Problem]:
    """The longest of all stages counts, for the lead, and for each key that names a partition."""
    lead, graces = 0.0, dict[str, tuple[float, Partition]]()
    for number, (_, resources) in list(enumerate(loaded.job.jobs))[first:]:
        need, where = plan(loaded.job, profile, number).stop_seconds, partition(resources, profile)
        lead = max(lead, need)
        if where.preemptible and 0 < where.grace < need:  # with none, only periodic checkpoints protect it: a warning
            key = _set_at(loaded, number, "partition")
            graces[key] = max(graces.get(key, (0.0, where)), (need, where), key=lambda one: one[0])
    took = "to stop takes {}s (two steps, two saves, the margin)"
    for key, (need, where) in graces.items():
        enough = [name for name, other in profile.partitions.items() if not other.preemptible or other.grace >= need]
        fix = " or ".join(enough) or "one with a longer grace"
        # What no number of nodes makes shorter.
        nodes = ", or more nodes for faster steps and saves" if where.grace > STOP_MARGIN + 2 * SAVE_OVERHEAD else ""
        grace = format_duration(where.grace)
        yield loaded.problem(
            key, f"its grace of {grace} is too short: {took.format(math.ceil(need))}; write {fix}{nodes}"
        )
    if lead > loaded.job.lead:
        longer = format_duration(math.ceil(lead))
        text = (
            f"{format_duration(loaded.job.lead)} is too short: {took.format(math.ceil(lead))}; write {longer} or more"
        )
        shortest = min(resources.time for _, resources in loaded.job.jobs[first:])
        yield loaded.problem("lead", text + (", and a longer time limit" if lead >= shortest else ""))
