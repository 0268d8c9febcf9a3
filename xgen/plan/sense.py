"""The second step of validation: keys that fit on their own but not together, or not on this cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from xgen.plan.numbers import partition, plan
from xgen.spec import LoadedJob, Pretrain, Problem, Profile
from xgen.spec.base import nearest
from xgen.spec.units import format_duration


def check(loaded: LoadedJob, profile: Profile) -> list[Problem]:
    """Everything that would make the job fail or lose work; empty when it makes sense."""
    problems = list(_check_resources(loaded, profile))
    if problems:
        return problems  # the rest speaks of a partition, which may not exist
    problems += _check_container(loaded, profile)
    if isinstance(loaded.job, Pretrain):
        problems += _check_training(loaded, loaded.job)
        problems += _check_stop(loaded, profile)
    return problems


def warnings(loaded: LoadedJob, profile: Profile) -> list[str]:
    """What a person should know before submitting, though it is no mistake."""
    where = partition(loaded.job, profile)
    if not (where.preemptible and where.grace == 0):
        return []
    numbers = plan(loaded.job, profile)
    cost = f", about {format_duration(numbers.lost_seconds)} of training each time" if numbers.num_steps else ""
    return [f"the partition preempts without grace: only periodic checkpoints protect the run{cost}"]


def _check_resources(loaded: LoadedJob, profile: Profile) -> Iterator[Problem]:
    resources = loaded.job.resources
    name = resources.partition
    if name is not None and name not in profile.partitions:
        yield loaded.problem(
            "resources.partition",
            f"{name!r} is not in the cluster profile; {nearest(name, profile.partitions)}",
        )
        return
    where = partition(loaded.job, profile)
    if resources.time > where.max_time:
        yield loaded.problem(
            "resources.time",
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


def _check_training(loaded: LoadedJob, job: Pretrain) -> Iterator[Problem]:
    stage, ranks = job.stage, job.resources.world_size
    at = "stages[0]"
    if stage.global_batch % stage.seq_len:
        near = max(1, round(stage.global_batch / stage.seq_len)) * stage.seq_len
        yield loaded.problem(
            f"{at}.global_batch",
            f"{stage.global_batch} tokens are no whole number of sequences of {stage.seq_len}; write {near}",
        )
    parallel = stage.parallelism
    shared = parallel.tp * parallel.cp  # ranks that work on the same samples
    others = parallel.replicate * shared
    fsdp = parallel.fsdp or max(1, ranks // others)
    if fsdp * others != ranks:
        factors = f"fsdp {fsdp} x replicate {parallel.replicate}" + "".join(
            f" x {name} {size}" for name, size in (("tp", parallel.tp), ("cp", parallel.cp)) if size > 1
        )
        yield loaded.problem(
            f"{at}.parallelism",
            f"{factors} is not {ranks}, the ranks of {job.resources.nodes} nodes "
            f"x {job.resources.gpus_per_node} GPUs; write fsdp: {max(1, ranks // others)}",
        )
    elif stage.sequences_per_step % (ranks // shared * stage.micro_batch) and not stage.global_batch % stage.seq_len:
        unit = ranks // shared * stage.micro_batch * stage.seq_len
        yield loaded.problem(
            f"{at}.global_batch",
            f"{stage.sequences_per_step} sequences do not divide over {ranks // shared} ranks with micro_batch "
            f"{stage.micro_batch}; write a multiple of {unit} tokens",
        )
    yield from _check_split(loaded, job, at)
    if stage.lr.warmup > stage.num_steps:
        yield loaded.problem(
            f"{at}.lr.warmup",
            f"{stage.lr.warmup} steps are more than the stage's {stage.num_steps}; write fewer",
        )
    if stage.lr.to > stage.lr.peak:
        yield loaded.problem(f"{at}.lr.to", f"{stage.lr.to:g} is above the peak {stage.lr.peak:g}; write less")
    for name, folder in job.data.folders.items():
        if not (Path(folder) / "meta.json").is_file():
            key = f"data.stores.{name}" if job.data.stores else "data.store"
            yield loaded.problem(key, f"{folder} is no token store; write `xgen data build {folder} --input …` first")


def _check_split(loaded: LoadedJob, job: Pretrain, at: str) -> Iterator[Problem]:
    """What tensor and context parallelism demand of the model and the sequence."""
    model, stage = job.model, job.stage
    tp, cp = stage.parallelism.tp, stage.parallelism.cp
    if model.num_kv_heads % tp or model.num_heads % tp:
        yield loaded.problem(
            f"{at}.parallelism.tp",
            f"{tp} does not divide the model's {model.num_heads} heads and {model.num_kv_heads} KV heads; write less",
        )
    if tp > job.resources.gpus_per_node:
        yield loaded.problem(
            f"{at}.parallelism.tp",
            f"{tp} is more than a node's {job.resources.gpus_per_node} GPUs, and it talks at every layer; "
            f"write {job.resources.gpus_per_node} or less",
        )
    # Each rank gets two blocks of 128 tokens (FlexAttention's), one from the head and one from the tail, to balance.
    unit = 256 * cp
    if cp > 1 and stage.seq_len % unit:
        yield loaded.problem(
            f"{at}.parallelism.cp",
            f"{cp} does not divide seq_len {stage.seq_len} into blocks of 128, two a rank; "
            f"write a seq_len that is a multiple of {unit}, or a smaller cp",
        )


def _check_stop(loaded: LoadedJob, profile: Profile) -> Iterator[Problem]:
    numbers = plan(loaded.job, profile)
    where = partition(loaded.job, profile)
    if numbers.stop_seconds <= numbers.stop_budget or (where.preemptible and where.grace == 0):
        return
    need = f"a step, a save and the margin take {numbers.stop_seconds:.0f}s"
    if where.preemptible and where.grace < loaded.job.lead:
        yield loaded.problem(
            "resources.partition",
            f"its grace of {format_duration(where.grace)} is too short: {need}; "
            "write another partition, or more nodes for faster saves",
        )
    else:
        longer = format_duration(int(numbers.stop_seconds) + 1)
        yield loaded.problem("lead", f"{format_duration(loaded.job.lead)} is too short: {need}; write {longer} or more")
