"""Who can be preempted by whom, of what SLURM says. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from xgen.cluster.site.facts import Site, SitePartition


@dataclass(frozen=True)
class Preemption:
    """Of jobs in a partition. `by` names the partitions, or the QOS, whose jobs may take their place."""

    mode: str  # CANCEL, REQUEUE, SUSPEND, GANG
    grace: float  # seconds
    by: tuple[str, ...]
    by_qos: bool  # else by partitions


def preemption(site: Site, partition: SitePartition) -> Preemption | None:
    """None: nobody can, as far as SLURM says.

    By QOS it is that of a job which counts: here the user's default one, or the partition's.
    """
    kind = site.config.get("PreemptType", "").removeprefix("preempt/")
    mode = partition.preempt_mode
    if kind == "partition_prio" and mode not in (None, "OFF"):
        by = tuple(other.name for other in site.partitions if _is_over(other, partition))
        return Preemption(mode, partition.grace, by, by_qos=False) if mode and by else None
    if kind == "qos":
        names = _qos_of(site, partition)
        by = tuple(one.name for one in site.qos if set(one.preempts) & set(names))
        own = [one for one in site.qos if one.name in names]
        mode = next((one.preempt_mode for one in own if one.preempt_mode), mode)
        if by and mode not in (None, "OFF"):
            return Preemption(mode, max((one.grace for one in own), default=0), by, by_qos=True)
    return None


def _is_over(other: SitePartition, partition: SitePartition) -> bool:
    tiers = (other.priority_tier, partition.priority_tier)
    above = tiers[0] is not None and tiers[1] is not None and tiers[0] > tiers[1]
    return above and bool(set(other.nodes) & set(partition.nodes))


def _qos_of(site: Site, partition: SitePartition) -> tuple[str, ...]:
    """Those that a job there has when it names none."""
    own = [one.default_qos for one in site.associations if one.partition in (None, partition.name)]
    mine = {*own, partition.qos, None if any(own) or not site.associations else "normal"}
    return tuple(sorted(name for name in mine if name))
