"""Limits of the site: which partitions there are, for how long, how large a node is, who may use them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from xgen.cluster.doctor.finding import Finding
from xgen.cluster.doctor.need import Need
from xgen.cluster.site import Site, SitePartition
from xgen.cluster.site.access import why_closed
from xgen.cluster.site.draft import max_time
from xgen.spec import Profile
from xgen.spec.base import nearest
from xgen.spec.units import format_bytes, format_duration


def find_partitions(site: Site, profile: Profile, needs: Sequence[Need]) -> Iterator[Finding]:
    if not site.partitions:
        return
    there = {part.name: part for part in site.partitions}
    good = []
    for name in profile.partitions:
        part = there.get(name)
        if part is None:
            yield Finding(
                "partition",
                "failed",
                f"SLURM has no partition {name}: sbatch refuses what goes there",
                f"profile: partitions.{name}: rename or remove it; {nearest(name, there)}",
            )
        elif part.state not in ("UP", ""):
            yield Finding(
                "partition",
                "failed",
                f"partition {name} is {part.state}: no job starts in it",
                f"scontrol update PartitionName={name} State=UP, or another partition",
            )
        elif closed := why_closed(site, part):
            said = f"partition {name} is closed to {site.user}: {closed}"
            yield Finding("partition", "failed", said, f"profile: partitions.{name}: remove it")
        elif refused := _refused(part, site, needs):
            yield refused
        elif (nodes := site.nodes_of(name)) and not any(node.takes_work for node in nodes):
            reasons = ", ".join(sorted({f"{node.state}{f' ({node.reason})' * bool(node.reason)}" for node in nodes}))
            yield Finding(
                "partition",
                "warning",
                f"none of the {len(nodes)} nodes of partition {name} takes work: {reasons}",
                f"mended, scontrol update NodeName={','.join(node.name for node in nodes[:4])} State=RESUME",
            )
        else:
            good.append(name)
    if good:
        yield Finding("partition", "ok", ", ".join(good))


def _refused(part: SitePartition, site: Site, needs: Sequence[Need]) -> Finding | None:
    """The account that a spec or the user's default names, where another of the user's may use it."""
    accounts = {need.account or site.default_account for need in needs if need.partition == part.name}
    for account in sorted(filter(None, accounts)):
        allowed = part.allow_accounts
        if account in part.deny_accounts or (allowed is not None and account not in allowed):
            said = f"account {account} may not use partition {part.name}"
            write = f"project: {allowed[0]}" if allowed else "another project"
            return Finding("partition", "failed", said, f"spec: {write}, or another partition")
    return None


def find_time_limit(site: Site, profile: Profile, needs: Sequence[Need]) -> Iterator[Finding]:
    """What is longer waits for ever, or is refused (EnforcePartLimits)."""
    good = []
    for part in site.partitions:
        own = profile.partitions.get(part.name)
        if own is None:
            continue
        seconds, why = max_time(site, part)
        if seconds is None:
            good.append(f"{part.name}: none")
            continue
        limit = format_duration(seconds)
        longest = max((n for n in needs if n.partition == part.name), key=lambda n: n.time, default=None)
        lines = [f"profile: partitions.{part.name}.max_time: {limit}"] if own.max_time > seconds else []
        if longest and longest.time > seconds:
            said = f"{longest.name} asks for {format_duration(longest.time)} in {part.name}, and {why}"
            lines.insert(0, f"spec: resources.time: {limit} or less: the run goes on in the next attempt")
            yield Finding("time limit", "failed", said, "\n".join(lines))
        elif lines:
            said = f"{why} in {part.name}, and the profile lets {format_duration(own.max_time)} pass"
            yield Finding("time limit", "failed", said, lines[0])
        else:
            good.append(f"{part.name}: {limit}")
    if good:
        yield Finding("time limit", "ok", "; ".join(good))


def find_kill_wait(site: Site, profile: Profile, needs: Sequence[Need]) -> Iterator[Finding]:
    """What is left to whoever hears SIGTERM only: at the time limit, or by scancel."""
    there = site.seconds("KillWait")
    if there is None:
        return
    longest = max(needs, key=lambda need: need.save_seconds, default=None)
    lines = [f"profile: kill_wait: {format_duration(there)}"] if profile.kill_wait > there else []
    wanted = max(profile.kill_wait, math.ceil(longest.save_seconds) if longest else 0)
    slurm_line = f"slurm.conf: KillWait={wanted}, then scontrol reconfigure"
    if longest and longest.save_seconds > there:
        seconds = math.ceil(longest.save_seconds)
        said = f"KillWait={there:g}, and a save of {longest.name} takes {seconds} s: one that SIGTERM begins is killed"
        yield Finding("kill wait", "warning", said, "\n".join([slurm_line, *lines]))
    elif lines:
        said = f"KillWait={there:g}, and the profile says kill_wait: {format_duration(profile.kill_wait)}"
        yield Finding("kill wait", "warning", said, f"{slurm_line}; or {lines[0]}")
    else:
        yield Finding("kill wait", "ok", format_duration(there))


def find_node_size(site: Site, profile: Profile, needs: Sequence[Need]) -> Iterator[Finding]:
    """Jobs that no node, or too few, can hold."""
    del profile
    for need in needs:
        nodes = site.nodes_of(need.partition)
        if not nodes:
            continue
        if need.nodes > len(nodes):
            said = f"{need.name} asks for {need.nodes} nodes, and {need.partition} has {len(nodes)}"
            yield Finding("node size", "failed", said, f"spec: resources.nodes: {len(nodes)} or less")
            continue
        cpus = max((node.cpus for node in nodes if node.cpus is not None), default=None)
        if cpus is not None and need.cpus_per_node > cpus:
            said = f"{need.name} asks for {need.cpus_per_node} CPUs a node, and {need.partition} has {cpus} at most"
            most = cpus // max(1, need.gpus_per_node)
            yield Finding("node size", "failed", said, f"spec: resources.cpus_per_task: {most} or less")
        memory = max((node.memory for node in nodes if node.memory is not None), default=None)
        if memory is not None and need.memory is not None and need.memory > memory:
            has = format_bytes(memory)
            said = f"{need.name} asks for {format_bytes(need.memory)} a node, and {need.partition} has {has} at most"
            yield Finding("node size", "failed", said, f"spec: resources.memory: {has} or less")


def find_array(site: Site, profile: Profile, needs: Sequence[Need]) -> Iterator[Finding]:
    del profile
    most = site.config.get("MaxArraySize", "")
    shards = max((need.shards for need in needs), default=0)
    if not most.isdecimal() or not shards:
        return
    if shards > int(most):
        said = f"{shards} shards, and MaxArraySize is {most}"
        fix = f"spec: {most} shards or less; or slurm.conf: MaxArraySize={shards}, and slurmctld started again"
        yield Finding("job array", "failed", said, fix)
    else:
        yield Finding("job array", "ok", f"{shards} shards of at most {most}")
