"""From the text of `scontrol show` and `sacctmgr` to facts. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from xgen.cluster import values
from xgen.cluster.site.facts import Association, Qos, SiteGpus, SiteNode, SitePartition

# What sacctmgr is asked for, in this order.
ASSOCIATION_COLUMNS = ("Account", "Partition", "QOS", "DefaultQOS", "MaxWall", "MaxTRES", "GrpTRES")
QOS_COLUMNS = ("Name", "GraceTime", "Preempt", "PreemptMode", "Flags", "MaxWall", "MaxTRESPU")


def config(text: str) -> dict[str, str]:
    """Settings of `scontrol show config`, those of cgroup.conf too, keys as SLURM spells them."""
    found = re.findall(r"^(\w+(?:\[\d+\])?)\s*= ?(.*?)\s*$", text, re.MULTILINE)
    return {key: "" if value == "(null)" else value for key, value in found}


def partitions(text: str, settings: Mapping[str, str]) -> tuple[SitePartition, ...]:
    """Of `scontrol show partition -o`."""
    return tuple(_partition(record, settings) for record in values.records(text) if record["PartitionName"])


def _partition(record: Mapping[str, str], settings: Mapping[str, str]) -> SitePartition:
    return SitePartition(
        name=record["PartitionName"],
        state=record["State"],
        default=record["Default"] == "YES",
        max_time=values.duration(record["MaxTime"]),
        default_time=values.duration(record["DefaultTime"]),
        preempt_mode=preempt_mode(record["PreemptMode"] or settings.get("PreemptMode", "")),
        grace=values.duration(record["GraceTime"]) or 0,
        priority_tier=_count(record["PriorityTier"]),
        num_nodes=_count(record["TotalNodes"]),
        nodes=values.hosts(values.text(record["Nodes"])),
        oversubscribe=record["OverSubscribe"],
        max_nodes=_count(record["MaxNodes"]),
        allow_accounts=_allowed(record["AllowAccounts"]),
        deny_accounts=_list(record["DenyAccounts"]),
        allow_groups=_allowed(record["AllowGroups"]),
        allow_qos=_allowed(record["AllowQos"]),
        qos=values.text(record["QoS"]) or None,
        root_only=record["RootOnly"] == "YES",
        hidden=record["Hidden"] == "YES",
        deny_qos=_list(record["DenyQos"]),
    )


def nodes(text: str) -> tuple[SiteNode, ...]:
    """Of `scontrol -d show node -o`."""
    return tuple(_node(record) for record in values.records(text) if record["NodeName"])


def _node(record: Mapping[str, str]) -> SiteNode:
    memory = _count(record["RealMemory"])
    used = record["GresUsed"]
    return SiteNode(
        name=record["NodeName"],
        state=_state(record["State"]),
        address=record["NodeAddr"],
        cpus=_count(record["CPUTot"]),
        memory=None if memory is None else memory << 20,
        gpus=_gpus(record["Gres"]),
        gpus_used=values.gpus(values.gres(used)) if used else None,
        features=_list(record["ActiveFeatures"]),
        partitions=_list(record["Partitions"]),
        reason=re.sub(r" \[[^\[\]]*@[^\[\]]*\]$", "", values.text(record["Reason"])),
        reserved=bool({"RESERVED", "MAINTENANCE", "MAINT"} & set(record["State"].split("+"))),
    )


def associations(text: str) -> tuple[Association, ...]:
    """Of `sacctmgr -nP show assoc format=…` with ASSOCIATION_COLUMNS."""
    return tuple(
        Association(account, partition or None, _list(qos), default or None, values.duration(wall), tres, group)
        for account, partition, qos, default, wall, tres, group in _rows(text, len(ASSOCIATION_COLUMNS))
    )


def qos(text: str) -> tuple[Qos, ...]:
    """Of `sacctmgr -nP show qos format=…` with QOS_COLUMNS."""
    return tuple(
        Qos(
            name=name,
            grace=values.duration(grace) or 0,
            preempts=_list(preempts),
            preempt_mode=None if mode.lower() == "cluster" else preempt_mode(mode),
            flags=_list(flags),
            max_wall=values.duration(wall),
            max_tres_per_user=tres,
        )
        for name, grace, preempts, mode, flags, wall, tres in _rows(text, len(QOS_COLUMNS))
    )


def _rows(text: str, columns: int) -> list[list[str]]:
    return [parts for line in text.splitlines() if len(parts := line.split("|")) == columns]


def preempt_mode(text: str) -> str | None:
    """GANG is said beside another word, which says what becomes of a job: `GANG,SUSPEND`."""
    words = [word for word in text.upper().split(",") if word and word != "WITHIN"]
    return next((word for word in words if word != "GANG"), words[0] if words else None)


def _state(text: str) -> str:
    """sinfo's word for `MIXED+DRAIN`, `DOWN*+DRAIN+INVALID_REG`."""
    base, *flags = text.split("+")
    silent = {"NOT_RESPONDING"} if base.endswith("*") else set[str]()
    return values.node_state(values.base_state(base), {*flags, *silent})


def _gpus(gres: str) -> tuple[SiteGpus, ...]:
    kinds = [(kind.partition(":"), count) for kind, count in values.gres(gres).items()]
    return tuple(SiteGpus(count, kind or None) for (name, _, kind), count in kinds if name == "gpu")


def _count(text: str) -> int | None:
    return int(text) if text.isdecimal() else None


def _list(text: str) -> tuple[str, ...]:
    return tuple(filter(None, values.text(text).split(",")))


def _allowed(text: str) -> tuple[str, ...] | None:
    return None if text in ("ALL", "") else _list(text)
