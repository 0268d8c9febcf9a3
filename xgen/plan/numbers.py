"""The plan of a spec: parameters, steps, FLOPs, time, memory, checkpoints, and what a stop needs."""

from __future__ import annotations

from dataclasses import dataclass

from xgen.spec import Command, Partition, Pretrain, Profile

STOP_MARGIN = 5.0  # seconds for the agreement of the ranks, the barrier, the outcomes and the host's events
_BYTES_PER_PARAMETER = 12  # fp32 weights and the two moments of AdamW: what a checkpoint holds


@dataclass(frozen=True)
class Plan:
    """Estimates are for the whole run unless they say otherwise; times are seconds, sizes bytes.

    A command has no numbers of its own: they are 0.
    """

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
    stop_seconds: float  # one step, one save and the margin: what the work needs once it is told to stop
    stop_budget: float  # what it gets: the lead, or the grace of a partition that preempts
    lost_seconds: float  # what a kill without warning costs on average: half a checkpoint interval


def plan(job: Pretrain | Command, profile: Profile) -> Plan:
    """Numbers of a job on a cluster.

    FLOPs are 6 N + 6 L d T a token, forward and backward (causal attention counted at half; PaLM,
    arXiv 2204.02311, appendix B). Time follows from the profile's peak FLOP/s and MFU.
    """
    ranks = job.resources.world_size
    budget = stop_budget(job, partition(job, profile))
    if isinstance(job, Command):
        return Plan(ranks, 0, 0, 0, 0.0, 0.0, 0.0, 0.0, 0, 0.0, 0.0, budget, 0.0)
    model, stage = job.model, job.stage
    tokens = stage.num_steps * stage.global_batch
    per_token = 6 * model.num_parameters + 6 * model.num_layers * model.dim * stage.seq_len
    step_seconds = per_token * stage.global_batch / (ranks * profile.gpus.flops * profile.gpus.mfu)
    checkpoint_bytes = model.num_parameters * _BYTES_PER_PARAMETER
    # Every node writes its own shards; a second for opening, syncing and renaming.
    save_seconds = 1.0 + checkpoint_bytes / (profile.write_bandwidth * job.resources.nodes)
    return Plan(
        num_ranks=ranks,
        num_parameters=model.num_parameters,
        num_steps=stage.num_steps,
        tokens=tokens,
        flops=float(per_token) * tokens,
        step_seconds=step_seconds,
        train_seconds=step_seconds * stage.num_steps,
        gpu_hours=step_seconds * stage.num_steps * ranks / 3600,
        checkpoint_bytes=checkpoint_bytes,
        save_seconds=save_seconds,
        stop_seconds=step_seconds + save_seconds + STOP_MARGIN,
        stop_budget=budget,
        lost_seconds=min(job.checkpoint.every, stage.num_steps) * step_seconds / 2,
    )


def partition(job: Pretrain | Command, profile: Profile) -> Partition:
    """The partition the job goes to; KeyError when the profile has none of that name."""
    return profile.partitions[job.resources.partition or profile.default_partition]


def stop_budget(job: Pretrain | Command, where: Partition) -> float:
    """On preemption the budget is the partition's grace, whatever the lead."""
    return float(min(job.lead, where.grace) if where.preemptible else job.lead)
