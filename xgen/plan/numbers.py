"""The plan of each job of a spec: parameters, steps, FLOPs, time, memory, checkpoints, and what a stop needs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from xgen.plan.evaluation import Evaluation, evaluation
from xgen.plan.failures import GPU_MTTF, Saving, best_saving
from xgen.plan.memory import Memory, memory
from xgen.plan.tuned import (
    GENERATION_MFU,
    beside,
    flops_per_token,
    generated_tokens,
    generation_flops,
    generation_seconds,
    num_adapters,
    num_gpus,
)
from xgen.spec import (
    Evaluate,
    Partition,
    Preference,
    Pretrain,
    Profile,
    Regmix,
    Resources,
    Rl,
    Sft,
    Sweep,
    Trained,
    Tuned,
    Work,
)
from xgen.spec.points import jobs_of
from xgen.spec.units import format_duration

STOP_MARGIN = 5.0  # seconds for the agreement of the ranks, the barrier, the outcomes and the host's events
SAVE_OVERHEAD = 1.0  # seconds for opening, syncing and renaming: ours
_STAGING = 5e9  # bytes/s from a GPU into the host's memory, all GPUs of a node at once: ours
# Seconds that an asynchronous save holds up the training besides that copy: planning and agreement. Our saves of 1.2 GB
# on one rank, on a CPU, took 0.4 to 0.6 s, of which the copy is 0.24 s at this rate.
_STALL = 0.3
_BYTES_PER_PARAMETER = 12  # fp32 weights and the two moments of AdamW: what a checkpoint holds


@dataclass(frozen=True)
class Plan:
    """Of one job: a stage, or all of what has none. Times are seconds, sizes bytes.

    Work that trains nothing has no numbers of its own: they are 0.
    """

    stage: str
    num_ranks: int
    num_parameters: int
    num_steps: int
    tokens: int
    flops: float
    step_seconds: float
    train_seconds: float
    gpu_hours: float
    checkpoint_bytes: int
    save_seconds: float
    validation_seconds: float  # a batch of it, 0 without any
    stop_seconds: float  # what the work needs once it is told to stop
    stop_budget: float  # what it gets: the lead, or the grace of a partition that preempts
    lost_seconds: float  # what a kill without warning costs on average: half an interval, and a save
    memory: Memory | None = None  # of one GPU
    saving: Saving | None = None  # the best checkpoint interval
    num_runs: int = 1  # trainings of these numbers, each: the proxies of a regmix
    runs_at_once: int = 1
    num_trained: int = 0  # of the parameters; fewer with adapters
    generate_seconds: float = 0.0  # of a step, in which answers are generated
    mfu: float = 0.0  # that its time was reckoned with
    evaluation: Evaluation | None = None  # then what stands above is of all its checkpoints

    @property
    def tokens_per_second(self) -> float:
        """Of all ranks while they train."""
        return self.tokens / self.train_seconds if self.train_seconds else 0.0

    @property
    def all_seconds(self) -> float:
        """Of all runs, when those that may go at once do."""
        return self.train_seconds * math.ceil(self.num_runs / self.runs_at_once)


def plans(job: Work, profile: Profile, mttf: float | None = None) -> list[Plan]:
    """The plan of each job of the work, in turn."""
    return [plan(job, profile, stage, mttf) for stage in range(len(job.jobs))]


def plan(job: Work, profile: Profile, stage: int = 0, mttf: float | None = None) -> Plan:
    """Numbers of one job on a cluster; `mttf` is the mean time between failures of all its GPUs, in seconds, as seen
    in the training of Llama 3 by default.

    FLOPs are those of `flops_per_token`; time follows from them, the profile's peak FLOP/s and its MFU.
    """
    name, resources = job.jobs[stage]
    ranks = resources.world_size
    budget = stop_budget(job, partition(resources, profile))
    if isinstance(job, Regmix) and (array := job.array_of(stage)):
        at_once = min(array.shards, array.at_once or array.shards)
        one = plan(job.proxy, profile, mttf=mttf)
        return replace(one, stage=name, num_runs=job.num_proxies, runs_at_once=at_once)
    if isinstance(job, Sweep):
        return _of_points(job, profile, mttf)
    nothing = Plan(name, ranks, 0, 0, 0, 0.0, 0.0, 0.0, 0.0, 0, 0.0, 0.0, 0.0, budget, 0.0)
    if isinstance(job, Tuned) and not job.trains(stage):
        return _beside_training(job, profile, stage, nothing)
    if isinstance(job, Evaluate) and job.array_of(stage):
        return _scoring(job, profile, nothing)
    if not isinstance(job, Trained):
        return nothing
    model, place = job.model, job.place_of(stage)
    num_steps, batch = place.stage.num_steps, place.stage.global_batch
    per_token = flops_per_token(job, place.stage.seq_len)
    update_seconds = per_token * batch / (ranks * profile.gpus.flops * profile.gpus.mfu)
    flops, generate_seconds = float(per_token) * place.stage.num_tokens, 0.0
    if isinstance(job, Rl):
        generate_seconds = generation_seconds(job, profile, num_gpus(job, 0 if job.rollout.servers else stage))
        flops += 0 if job.rollout.servers else float(generation_flops(job)) * generated_tokens(job) * num_steps
    aside = isinstance(job, Rl) and job.rollout.servers and job.rollout.staleness
    step_seconds = max(update_seconds, generate_seconds) if aside else update_seconds + generate_seconds
    num_trained = num_adapters(model, job.adapters) if job.adapters else model.num_parameters
    checkpoint_bytes = num_trained * _BYTES_PER_PARAMETER
    # Every node writes its own shards.
    bandwidth = min(profile.write_bandwidth * resources.nodes, profile.aggregate_write_bandwidth or math.inf)
    save_seconds = SAVE_OVERHEAD + checkpoint_bytes / bandwidth
    # A forward pass, a third of a step's work, of one sequence a group of ranks.
    sequences = place.stage.sequences_per_step / (ranks // place.stage.parallelism.shared)
    validates = isinstance(job, Pretrain | Sft | Preference) and job.validation is not None
    validation_seconds = update_seconds / 3 / sequences if validates else 0.0
    stall, lag = save_seconds, 0.0
    if job.checkpoint.mode == "async":
        stall, lag = _STALL + checkpoint_bytes / ranks / _STAGING, save_seconds
    saving = best_saving(stall, lag, step_seconds, GPU_MTTF / ranks if mttf is None else mttf)
    interval = min(job.checkpoint.every, num_steps) * step_seconds
    return Plan(
        stage=name,
        num_ranks=ranks,
        num_parameters=model.num_parameters,
        num_trained=num_trained,
        num_steps=num_steps,
        tokens=place.stage.num_tokens,
        flops=flops,
        step_seconds=step_seconds,
        generate_seconds=generate_seconds,
        train_seconds=step_seconds * num_steps,
        gpu_hours=step_seconds * num_steps * ranks / 3600,
        checkpoint_bytes=checkpoint_bytes,
        save_seconds=save_seconds,
        validation_seconds=validation_seconds,
        # The ranks ask one another at a step and read the answer at the next; a save that is under way is finished.
        # Answers that are being generated are kept, not waited for.
        stop_seconds=2 * update_seconds + validation_seconds + 2 * save_seconds + STOP_MARGIN,
        stop_budget=budget,
        lost_seconds=min(interval / 2 + lag, step_seconds * num_steps),
        memory=memory(model, place, beside(job)),
        saving=saving,
        mfu=profile.gpus.mfu,
    )


def _beside_training(job: Tuned, profile: Profile, stage: int, nothing: Plan) -> Plan:
    """Of a job that prepares what the training reads, or serves it: numbers for what takes GPUs."""
    steps, gpus = job.train.steps, num_gpus(job, stage)
    if isinstance(job, Rl):  # generates for as long as the training lasts
        seconds, tokens = plan(job, profile, len(job.jobs) - 1).train_seconds, steps * generated_tokens(job)
        flops, mfu = float(generation_flops(job)) * tokens, GENERATION_MFU
    elif nothing.stage == "reference":  # one pass forward; were every pair seen once, of all that is trained on
        tokens = job.places[0].stage.num_tokens
        flops, mfu = float(job.model.flops_per_token(job.train.seq_len) // 3) * tokens, profile.gpus.mfu
        seconds = flops / (gpus * profile.gpus.flops * profile.gpus.mfu)
    else:
        return nothing
    return replace(
        nothing,
        num_ranks=gpus,
        num_parameters=job.model.num_parameters,
        num_steps=steps,
        tokens=tokens,
        flops=flops,
        step_seconds=seconds / steps,
        train_seconds=seconds,
        gpu_hours=seconds * gpus / 3600,
        mfu=mfu,
    )


def _scoring(job: Evaluate, profile: Profile, nothing: Plan) -> Plan:
    """Of the shards of an evaluation together."""
    one = evaluation(job, profile)
    times = one.num_checkpoints or 0
    return replace(
        nothing,
        num_ranks=num_gpus(job, 0),
        tokens=one.tokens * times,
        flops=one.flops * times,
        train_seconds=one.seconds * times,
        gpu_hours=one.gpu_hours * times,
        mfu=profile.gpus.mfu,
        evaluation=one,
    )


def _of_points(job: Sweep, profile: Profile, mttf: float | None) -> Plan:
    """Of the points of a sweep: the numbers of the first, but of what they take in all the mean."""
    array = job.array_of(0)
    shapes: dict[str, Plan] = {}  # points that differ in a rate or a seed take the same
    found = []
    for one in jobs_of(job):
        shape = _shape(one)
        if shape not in shapes:
            shapes[shape] = plan(one, profile, len(one.jobs) - 1, mttf)
        found.append(shapes[shape])
    assert array

    def mean(of: Callable[[Plan], float]) -> float:
        return sum(map(of, found)) / len(found)

    return replace(
        found[0],
        stage="",
        tokens=round(mean(lambda one: one.tokens)),
        flops=mean(lambda one: one.flops),
        train_seconds=mean(lambda one: one.train_seconds),
        gpu_hours=mean(lambda one: one.gpu_hours),
        num_runs=array.shards,
        runs_at_once=min(array.shards, array.at_once or array.shards),
    )


def _shape(job: Work) -> str:
    """What the numbers of a training depend on, and more."""
    parts = job.model_dump(mode="json", exclude={"seed", "optimizer", "guard", "restart", "env"})
    for stage in (*parts.get("stages", ()), parts.get("train")):
        if isinstance(stage, dict):
            stage.pop("lr", None)
    return repr(parts)


def cost(numbers: Plan) -> str:
    """Of several trainings together: `512 x 1,000,341,504 tokens: 5.12e+11 tokens, …`."""
    runs, tokens = numbers.num_runs, numbers.tokens
    hours, at_once = numbers.gpu_hours * runs, min(runs, numbers.runs_at_once)
    return (
        f"{runs} x {tokens:,} = {runs * tokens:,} tokens, {numbers.flops * runs:.3g} FLOP, {hours:,.3g} GPU-hours, "
        f"{format_duration(numbers.all_seconds)} with {at_once} at once"
    )


def partition(resources: Resources, profile: Profile) -> Partition:
    """The partition a job goes to; KeyError when the profile has none of that name."""
    return profile.partitions[resources.partition or profile.default_partition]


def stop_budget(job: Work, where: Partition) -> float:
    """On preemption the budget is the partition's grace, whatever the lead."""
    return float(min(job.lead, where.grace) if where.preemptible else job.lead)
