"""Who can be preempted by whom, of what SLURM says. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from xgen.cluster.site.access import job_qos
from xgen.cluster.site.facts import Site, SitePartition
from xgen.cluster.site.parse import preempt_mode


@dataclass(frozen=True)
class Preemption:
    """Of jobs in a partition. `by` names the partitions, or the QOS, whose jobs may take their place."""

    mode: str  # CANCEL, REQUEUE, SUSPEND, GANG
    grace: float  # seconds
    by: tuple[str, ...]
    by_qos: bool  # else by partitions


def preemption(site: Site, partition: SitePartition) -> Preemption | None:
    """None: nobody can, as far as SLURM says.

    By QOS it is that of a job which counts: here the one that a job of this user has when it names none, or all that it
    may name where it must.
    """
    kind = site.config.get("PreemptType", "").removeprefix("preempt/")
    everywhere = preempt_mode(site.config.get("PreemptMode", ""))
    if everywhere == "OFF":  # of no use then what a partition says
        return None
    if kind == "partition_prio":
        by = tuple(other.name for other in site.partitions if _is_over(other, partition))
        mode, grace = partition.preempt_mode, partition.grace
    elif kind == "qos":
        names = set(job_qos(site, partition) or ())
        below = {name for one in site.qos for name in one.preempts}
        own = [one for one in site.qos if one.name in names & below]
        by = tuple(one.name for one in site.qos if set(one.preempts) & names)
        mode = next((one.preempt_mode for one in own if one.preempt_mode), everywhere)
        grace = min((one.grace for one in own), default=0)
    else:
        return None
    return Preemption(mode, grace, by, by_qos=kind == "qos") if by and mode not in (None, "OFF") else None


def _is_over(other: SitePartition, partition: SitePartition) -> bool:
    tiers = (other.priority_tier, partition.priority_tier)
    above = tiers[0] is not None and tiers[1] is not None and tiers[0] > tiers[1]
    return above and bool(set(other.nodes) & set(partition.nodes))


def hears_of_it(site: Site) -> bool:
    """Whether a preempted job gets the signal that it asked for. Newer versions know it by either name."""
    words = {*map(str.lower, site.words("SlurmctldParameters")), *map(str.lower, site.words("PreemptParameters"))}
    return bool(words & {"preempt_send_user_signal", "send_user_signal"})
