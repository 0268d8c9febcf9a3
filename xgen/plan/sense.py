"""The second step of validation: keys that fit on their own but not together, or not on this cluster."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from xgen.plan.layout import check_layout
from xgen.plan.lever import lever
from xgen.plan.memory import RESERVE, memory
from xgen.plan.numbers import partition, plan, plans
from xgen.spec import Export, LoadedJob, Place, Pretrain, Problem, Profile
from xgen.spec.base import nearest
from xgen.spec.units import format_bytes, format_duration


def check(loaded: LoadedJob, profile: Profile, *, stores: bool = True, first: int = 0) -> list[Problem]:
    """Everything that would make a job fail or lose work; empty when it makes sense. `stores` also asks for the token
    stores, which a plan does not need; the stages before `first` are done, and need not make sense here any more."""
    problems = list(_check_resources(loaded, profile, first))
    if problems:
        return problems  # the rest speaks of a partition, which may not exist
    problems += _check_container(loaded, profile)
    if isinstance(loaded.job, Pretrain):
        for place in loaded.job.places[first:]:
            problems += _check_stage(loaded, loaded.job, place, profile)
            problems += _check_rate(loaded, place)
        if not problems:  # of a layout that cannot be there are no numbers
            problems += _check_stops(loaded, profile, first)
        if stores:
            problems += missing_stores(loaded)
    if isinstance(loaded.job, Export) and stores:
        problems += _check_export(loaded, loaded.job, profile)
    return problems


def warnings(loaded: LoadedJob, profile: Profile) -> list[str]:
    """What a person should know before submitting, though it is no mistake."""
    notes = []
    for numbers, (_, resources) in zip(plans(loaded.job, profile), loaded.job.jobs, strict=True):
        where = partition(resources, profile)
        if where.preemptible and where.grace == 0:
            cost = f", about {format_duration(numbers.lost_seconds)} of training each time" if numbers.num_steps else ""
            notes.append(f"the partition preempts without grace: only periodic checkpoints protect the run{cost}")
    if isinstance(loaded.job, Pretrain):
        notes += [note for before, after in pairwise(loaded.job.places) for note in _border(before, after)]
    return list(dict.fromkeys(notes))


def _border(before: Place, after: Place) -> Iterator[str]:
    """What is odd about a stage that follows another."""
    name, old, new = after.stage.name, before.stage, after.stage
    if new.seq_len < old.seq_len:
        yield f"stage {name}: seq_len {new.seq_len} is shorter than {old.seq_len} of the stage before"
    if new.rope_theta < old.rope_theta:
        yield f"stage {name}: rope_theta {new.rope_theta:g} is below {old.rope_theta:g} of the stage before"
    if after.lr_peak > before.lr_to and not new.lr.warmup:
        yield f"stage {name}: the learning rate jumps from {before.lr_to:g} to {after.lr_peak:g}; write lr.warmup"


def missing_stores(loaded: LoadedJob) -> list[Problem]:
    """Token stores of the spec that are not there."""
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


def _check_resources(loaded: LoadedJob, profile: Profile, first: int) -> Iterator[Problem]:
    seen = set()
    for number, (_, resources) in list(enumerate(loaded.job.jobs))[first:]:
        own = isinstance(loaded.job, Pretrain) and loaded.job.stages[number].resources is not None
        at = f"stages[{number}].resources" if own else "resources"
        if resources in seen:
            continue
        seen.add(resources)
        name = resources.partition
        if name is not None and name not in profile.partitions:
            yield loaded.problem(
                f"{at}.partition",
                f"{name!r} is not in the cluster profile; {nearest(name, profile.partitions)}",
            )
            continue
        where = partition(resources, profile)
        if resources.time > where.max_time:
            yield loaded.problem(
                f"{at}.time",
                f"{format_duration(resources.time)} is over the partition's limit; "
                f"write {format_duration(where.max_time)} or less: the run goes on in the next attempt",
            )
        if loaded.job.lead >= resources.time:
            yield loaded.problem(
                "lead",
                f"{format_duration(loaded.job.lead)} leaves nothing of the time limit "
                f"{format_duration(resources.time)}; write less",
            )


def _check_container(loaded: LoadedJob, profile: Profile) -> Iterator[Problem]:
    if profile.container.runtime != "none" and loaded.job.container.image is None:
        yield loaded.problem(
            "container.image",
            f"is missing, and {profile.container.runtime} runs here; write a name or a path",
        )
    for number, mount in enumerate(loaded.job.container.mounts):
        if not Path(mount.source).exists():
            yield loaded.problem(
                f"container.mounts[{number}]", f"{mount.source} does not exist; write an existing folder"
            )


def _check_stage(loaded: LoadedJob, job: Pretrain, place: Place, profile: Profile) -> Iterator[Problem]:
    stage, at = place.stage, f"stages[{place.index}]"
    layout = list(check_layout(loaded, job.model, place))
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
    lr, at = place.stage.lr, f"stages[{place.index}].lr"
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


def _check_memory(loaded: LoadedJob, job: Pretrain, place: Place, profile: Profile, at: str) -> Iterator[Problem]:
    if profile.gpus.memory is None:
        return
    limit = profile.gpus.memory * (1 - RESERVE)
    need = memory(job.model, place).total
    if need > limit:
        fix = lever(job.model, place, limit)
        yield loaded.problem(
            at,
            f"{place.stage.name} needs about {format_bytes(need)} on a GPU, and {format_bytes(limit)} of "
            f"{format_bytes(profile.gpus.memory)} are there; write {fix or 'more nodes and a larger fsdp'}",
        )


def _check_stops(loaded: LoadedJob, profile: Profile, first: int) -> Iterator[Problem]:
    seen = set()
    for number, (_, resources) in list(enumerate(loaded.job.jobs))[first:]:
        numbers = plan(loaded.job, profile, number)
        where = partition(resources, profile)
        if numbers.stop_seconds <= numbers.stop_budget or (where.preemptible and where.grace == 0):
            continue
        need = f"a step, a save and the margin take {numbers.stop_seconds:.0f}s"
        if where.preemptible and where.grace < loaded.job.lead:
            key, message = (
                "resources.partition",
                f"its grace of {format_duration(where.grace)} is too short: {need}; "
                "write another partition, or more nodes for faster saves",
            )
        else:
            longer = format_duration(int(numbers.stop_seconds) + 1)
            key, message = (
                "lead",
                f"{format_duration(loaded.job.lead)} is too short: {need}; write {longer} or more",
            )
        if key not in seen:
            yield loaded.problem(key, message)
        seen.add(key)
