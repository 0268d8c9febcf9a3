"""A profile beside what its site says now. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from xgen.cluster.site.access import why_closed
from xgen.cluster.site.draft import (
    gpu_request,
    gpu_types,
    max_time,
    partition_values,
    restart_by,
)
from xgen.cluster.site.facts import Site, SitePartition
from xgen.cluster.site.preemption import preemption
from xgen.spec import Partition, Profile
from xgen.spec.layers import Key
from xgen.spec.units import format_duration


@dataclass(frozen=True)
class Compared:
    """A value of a profile, and what the site says of it. `write`: what to write instead; '' where they agree."""

    key: Key
    profile: str
    site: str
    write: str = ""


@dataclass(frozen=True)
class PartitionNow:
    """A partition as it is now, whether it stands in the profile or not."""

    name: str
    in_profile: bool
    state: str
    max_time: float | None  # seconds; None: no limit
    preempted_by: tuple[str, ...]
    preempt_mode: str | None
    grace: float | None  # seconds
    nodes: int
    nodes_out: int | None  # that take no work; None: SLURM does not say it of nodes
    gpus: int | None
    gpus_free: int | None  # None: SLURM does not say what is used
    closed: str | None  # what keeps this user out of it


def compare(profile: Profile, site: Site) -> list[Compared]:
    """What SLURM says something of, in the order of a profile."""
    return [*_partitions(profile, site), *_gpus(profile, site), *_times(profile, site), *_restart(profile, site)]


def partitions_now(profile: Profile, site: Site) -> list[PartitionNow]:
    return [_now(profile, site, part) for part in site.partitions]


def _now(profile: Profile, site: Site, part: SitePartition) -> PartitionNow:
    nodes = site.nodes_of(part.name)
    working = [node for node in nodes if node.takes_work]
    open_ones = [node for node in working if not node.reserved]
    used = [node.gpus_used for node in open_ones]
    free = sum(n.num_gpus for n in open_ones) - sum(filter(None, used)) if None not in used and site.nodes else None
    found = preemption(site, part)
    return PartitionNow(
        name=part.name,
        in_profile=part.name in profile.partitions,
        state=part.state,
        max_time=max_time(site, part)[0],
        preempted_by=found.by if found else (),
        preempt_mode=found.mode if found else None,
        grace=found.grace if found else None,
        nodes=len(nodes) if site.nodes else len(part.nodes),
        nodes_out=len(nodes) - len(working) if site.nodes else None,
        gpus=sum(node.num_gpus for node in nodes) if site.nodes else None,
        gpus_free=free,
        closed=why_closed(site, part),
    )


def _partitions(profile: Profile, site: Site) -> Iterator[Compared]:
    known = {part.name: part for part in site.partitions}
    for name, ours in profile.partitions.items() if known else ():
        key: Key = ("partitions", name)
        if name not in known:
            yield Compared(key, "a partition", "no such partition", f"one of {', '.join(known)}, or nothing")
        elif closed := why_closed(site, known[name]):
            yield Compared(key, "a partition", f"closed to you: {closed}", "nothing")
        else:
            yield from _values(key, ours, site, known[name])


def _values(key: Key, ours: Partition, site: Site, part: SitePartition) -> Iterator[Compared]:
    theirs = Partition.model_validate(partition_values(site, part))
    seconds, limit = max_time(site, part)
    longer = seconds is not None and ours.max_time > theirs.max_time
    write = format_duration(theirs.max_time) if longer else ""
    yield Compared((*key, "max_time"), format_duration(ours.max_time), limit, write)
    found = preemption(site, part)
    said = f"by {', '.join(found.by)}, PreemptMode={found.mode}" if found else "nothing preempts its jobs"
    by_qos = site.config.get("PreemptType", "").endswith("/qos")  # of a job, which may name another
    differs = ours.preemptible != theirs.preemptible and not (by_qos and ours.preemptible)
    yield Compared((*key, "preemptible"), _word(ours.preemptible), said, _word(theirs.preemptible) if differs else "")
    if theirs.preemptible:
        here, there = format_duration(ours.grace), format_duration(theirs.grace)
        yield Compared((*key, "grace"), here, f"GraceTime={theirs.grace}", there if here != there else "")


def _gpus(profile: Profile, site: Site) -> Iterator[Compared]:
    ours, (theirs, why) = profile.gpus.request, gpu_request(site)
    works = ours == theirs or (ours, theirs) == ("gres", "gpus-per-node")
    if site.nodes:
        yield Compared(("gpus", "request"), ours, why, "" if works else theirs)
    types = [name for name in gpu_types(site) if name]
    if types and ours != "none":
        kind = profile.gpus.type
        unknown = kind is not None and kind not in types
        yield Compared(("gpus", "type"), kind or "any", f"Gres: {', '.join(types)}", types[0] if unknown else "")
    elif profile.gpus.type and site.nodes:
        yield Compared(("gpus", "type"), profile.gpus.type, "Gres without a type", "null")


def _times(profile: Profile, site: Site) -> Iterator[Compared]:
    seconds = site.seconds("KillWait")
    if seconds is not None:
        there = format_duration(seconds)
        yield Compared(
            ("kill_wait",), format_duration(profile.kill_wait), f"KillWait={seconds:.0f}",
            there if seconds != profile.kill_wait else "",
        )  # fmt: skip


def _restart(profile: Profile, site: Site) -> Iterator[Compared]:
    theirs, why = restart_by(site)
    fails = profile.restart_by == "requeue" and theirs == "successor"
    yield Compared(("restart_by",), profile.restart_by, why, theirs if fails else "")


def _word(value: bool) -> str:
    return "true" if value else "false"
