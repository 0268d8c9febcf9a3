"""The facts of a site. What SLURM did not say, or says in a way that we cannot read, is None, and never a guess."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from xgen.cluster import values


@dataclass(frozen=True)
class SitePartition:
    """Times in seconds. Of a list of who may use it None is: all."""

    name: str
    state: str  # UP, DOWN, DRAIN, INACTIVE
    default: bool
    max_time: float | None  # None: no limit
    default_time: float | None  # None: the partition's max_time
    preempt_mode: str | None  # OFF, CANCEL, REQUEUE, SUSPEND or GANG: its own, or the cluster's
    grace: float
    priority_tier: int | None
    num_nodes: int | None
    nodes: tuple[str, ...]
    oversubscribe: str  # NO, YES:4, FORCE:1, EXCLUSIVE
    max_nodes: int | None  # a job; None: no limit
    allow_accounts: tuple[str, ...] | None
    deny_accounts: tuple[str, ...]
    allow_groups: tuple[str, ...] | None
    allow_qos: tuple[str, ...] | None
    qos: str | None  # whose limits hold for all jobs in it
    root_only: bool
    hidden: bool
    deny_qos: tuple[str, ...] = ()


@dataclass(frozen=True)
class SiteGpus:
    count: int
    type: str | None  # as gres.conf names it; None: it does not


@dataclass(frozen=True)
class SiteNode:
    name: str
    state: str  # sinfo's word, e.g. `mixed`, `draining`, `down*`
    address: str  # as the controller reaches it
    cpus: int | None
    memory: int | None  # bytes that jobs may have
    gpus: tuple[SiteGpus, ...]
    gpus_used: int | None
    features: tuple[str, ...]
    partitions: tuple[str, ...]
    reason: str  # why it is out of use; '' where nobody says so
    reserved: bool = False  # for a reservation or its maintenance, whatever runs on it now

    @property
    def num_gpus(self) -> int:
        return sum(gpus.count for gpus in self.gpus)

    @property
    def takes_work(self) -> bool:
        """Or has it, and takes more later."""
        return values.base_state(self.state) in values.WORKING and "*" not in self.state


@dataclass(frozen=True)
class Association:
    """What the accounting lets this user do, as a member of an account."""

    account: str
    partition: str | None  # the only one in which it counts; None: all
    qos: tuple[str, ...]
    default_qos: str | None
    max_wall: float | None  # seconds
    max_tres: str  # of a job, e.g. `gres/gpu=8`
    group_tres: str  # of all jobs together


@dataclass(frozen=True)
class Qos:
    name: str
    grace: float  # seconds
    preempts: tuple[str, ...]  # other QOS
    preempt_mode: str | None  # None: the cluster's
    flags: tuple[str, ...]
    max_wall: float | None  # seconds
    max_tres_per_user: str


@dataclass(frozen=True)
class Site:
    """One cluster, as it was when it was asked."""

    cluster: str  # ClusterName
    version: str  # e.g. 23.11.4
    config: Mapping[str, str]  # `scontrol show config`; '' where SLURM prints (null)
    partitions: tuple[SitePartition, ...]
    nodes: tuple[SiteNode, ...]
    user: str
    accounting: bool | None = None  # whether sacct and sacctmgr answer; None: it was not asked
    default_account: str | None = None
    associations: tuple[Association, ...] = ()
    qos: tuple[Qos, ...] = ()
    groups: tuple[str, ...] = ()  # of the user, as this machine knows them; none: it was not asked
    unanswered: tuple[str, ...] = field(default=())  # `what: SLURM's own words`

    @property
    def release(self) -> tuple[int, int] | None:
        """(23, 11) of 23.11.4, to compare with."""
        found = re.match(r"(\d+)\.(\d+)", self.version)
        return (int(found[1]), int(found[2])) if found else None

    def words(self, key: str) -> tuple[str, ...]:
        """A setting that is a list, e.g. SlurmctldParameters."""
        return tuple(filter(None, re.split(r"[,;\s]+", self.config.get(key, ""))))

    def seconds(self, key: str) -> float | None:
        """A setting that is a time, e.g. KillWait; None where it is not said, or no limit."""
        return values.duration(self.config.get(key, ""))

    def nodes_of(self, partition: str) -> tuple[SiteNode, ...]:
        return tuple(node for node in self.nodes if partition in node.partitions)
