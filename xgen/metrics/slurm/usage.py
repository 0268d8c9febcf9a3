"""Who has what of a cluster now: nodes and GPUs by partition, jobs and GPUs by user, what is out of use and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from xgen.cluster import values
from xgen.metrics.slurm.rows import JobRow, NodeRow


@dataclass(frozen=True)
class PartitionUse:
    """Nodes and GPUs of a partition; those of nodes that take no work are `out`."""

    partition: str
    nodes: int
    nodes_free: int  # of which nothing is allocated
    nodes_out: int
    gpus: int
    gpus_used: int
    gpus_free: int
    gpus_out: int
    jobs_waiting: int
    gpus_waited_for: int


@dataclass(frozen=True)
class UserUse:
    user: str
    jobs: int
    gpus: int
    cpus: int
    jobs_waiting: int
    gpus_waited_for: int


@dataclass(frozen=True)
class OutNode:
    """A node that takes no work; `since` in seconds since 1970."""

    node: str
    state: str
    reason: str
    since: float | None


def by_partition(nodes: Iterable[NodeRow], jobs: Sequence[JobRow]) -> list[PartitionUse]:
    """In the order of sinfo. A job that waits in several partitions counts in each."""
    rows: dict[str, list[NodeRow]] = {}
    for row in nodes:
        rows.setdefault(row.partition, []).append(row)
    waiting, wanted = Counter[str](), Counter[str]()
    for job in _in_state(jobs, "PENDING"):
        for partition in job.partitions:
            waiting[partition] += job.num_jobs
            wanted[partition] += job.num_jobs * job.gpus
    found = []
    for partition, some in rows.items():
        working = [row for row in some if _works(row)]
        used, usable = (sum(values.gpus(getattr(row, name)) for row in working) for name in ("gres_used", "gres"))
        total = sum(values.gpus(row.gres) for row in some)
        found.append(
            PartitionUse(
                partition=partition,
                nodes=len(some),
                nodes_free=sum(row.cpus[0] == 0 for row in working),
                nodes_out=len(some) - len(working),
                gpus=total,
                gpus_used=used,
                gpus_free=usable - used,
                gpus_out=total - usable,
                jobs_waiting=waiting[partition],
                gpus_waited_for=wanted[partition],
            )
        )
    return found


def by_user(jobs: Sequence[JobRow]) -> list[UserUse]:
    """Who has most GPUs first, then CPUs, then most that wait."""
    sums: dict[str, Counter[str]] = {}
    for state in ("RUNNING", "PENDING"):
        for job in _in_state(jobs, state):
            mine = sums.setdefault(job.user, Counter())
            mine[f"jobs {state}"] += job.num_jobs
            mine[f"gpus {state}"] += job.num_jobs * job.gpus
            mine[f"cpus {state}"] += job.num_jobs * job.cpus
    found = [
        UserUse(
            user=user,
            jobs=one["jobs RUNNING"],
            gpus=one["gpus RUNNING"],
            cpus=one["cpus RUNNING"],
            jobs_waiting=one["jobs PENDING"],
            gpus_waited_for=one["gpus PENDING"],
        )
        for user, one in sums.items()
    ]
    return sorted(found, key=lambda one: (-one.gpus, -one.cpus, -one.jobs_waiting, one.user))


def out_of_use(nodes: Iterable[NodeRow]) -> list[OutNode]:
    """Each node once."""
    once = {row.node: row for row in nodes}
    return [OutNode(row.node, row.state, row.reason, row.reason_time) for row in once.values() if not _works(row)]


def _works(row: NodeRow) -> bool:
    return values.base_state(row.state) in values.WORKING and "*" not in row.state


def _in_state(jobs: Iterable[JobRow], state: str) -> Iterable[JobRow]:
    return (job for job in jobs if job.state == state)
