"""A row type for each of SLURM's commands: the command's format is derived from it, and its output read by it.

No row has a place for a command line, an environment, a comment or the name of a job: they are never asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from xgen.cluster import values
from xgen.metrics.exporter import CollectorError


def _column(name: str, read: Callable[[str], Any] = str) -> Any:
    return field(metadata={"column": name, "read": read})


def _partitions(text: str) -> tuple[str, ...]:
    """A job may wait in several; sinfo marks the default one with a star."""
    return tuple(name.rstrip("*") for name in text.split(","))


def _cpus(text: str) -> tuple[int, int, int, int]:
    alloc, idle, other, total = (values.count(part) for part in text.split("/"))
    return alloc, idle, other, total


@dataclass(frozen=True, slots=True)
class JobRow:
    """`squeue --Format`: a job, or all tasks of an array that wait together."""

    job: str = _column("JobArrayID")
    user: str = _column("UserName")
    account: str = _column("Account", values.text)
    partitions: tuple[str, ...] = _column("Partition", _partitions)
    state: str = _column("State")
    cpus: int = _column("NumCPUs", values.count)  # of each task
    eligible: float | None = _column("EligibleTime", values.time)
    gpus: int = _column("tres-alloc", values.tres_gpus)  # of each task; what it asks for while it waits
    reason: str = _column("Reason", values.reason)

    @property
    def num_jobs(self) -> int:
        return values.num_tasks(self.job)


@dataclass(frozen=True, slots=True)
class NodeRow:
    """`sinfo --Node --Format`: a node in one of its partitions."""

    node: str = _column("NodeList")
    partition: str = _column("PartitionName")
    state: str = _column("StateLong")  # with sinfo's marks, e.g. `down*`
    cpus: tuple[int, int, int, int] = _column("CPUsState", _cpus)  # allocated, idle, other, total
    mem_alloc: int = _column("AllocMem", values.count)  # MiB
    mem_total: int = _column("Memory", values.count)
    gres: Mapping[str, int] = _column("Gres", values.gres)
    gres_used: Mapping[str, int] = _column("GresUsed", values.gres)
    features: str = _column("features_act", values.text)
    reason_time: float | None = _column("TimeStamp", values.time)
    reason: str = _column("Reason", values.text)  # free, so it is the last


@dataclass(frozen=True, slots=True)
class ShareRow:
    """`sshare --parsable2`: an account, or a user in one."""

    account: str = _column("Account", str.strip)
    user: str = _column("User")
    raw_shares: float | None = _column("RawShares", values.number)
    norm_shares: float | None = _column("NormShares", values.number)
    raw_usage: float | None = _column("RawUsage", values.number)
    norm_usage: float | None = _column("NormUsage", values.number)
    fairshare: float | None = _column("FairShare", values.number)
    level: float | None = _column("LevelFS", values.number)


@dataclass(frozen=True, slots=True)
class EndedRow:
    """`sacct --parsable2`: one end of a job; a requeued one has several."""

    job: str = _column("JobIDRaw")
    state: str = _column("State", lambda text: text.split(" ")[0])  # CANCELLED by 1000
    partition: str = _column("Partition")
    end: float | None = _column("End", values.time)


@dataclass(frozen=True, slots=True)
class HeldRow:
    """`sacct --parsable2`: what a job held from a start to an end."""

    job: str = _column("JobID")  # 812_3 of a shard
    state: str = _column("State", lambda text: text.split(" ")[0])
    start: float | None = _column("Start", values.time)
    end: float | None = _column("End", values.time)  # None: it runs
    nodes: int = _column("NNodes", values.count)
    cpus: int = _column("AllocCPUS", values.count)
    gpus: int = _column("AllocTRES", values.tres_gpus)


_Row = TypeVar("_Row", JobRow, NodeRow, ShareRow, EndedRow, HeldRow)


def columns(row: type[_Row]) -> str:
    """What `--format` of sshare and sacct takes."""
    return ",".join(field.metadata["column"] for field in fields(row))


def wide_columns(row: type[_Row]) -> str:
    """What `--Format` of squeue and sinfo takes: each as wide as it is, a bar after all but the last."""
    return ":|,".join(field.metadata["column"] for field in fields(row)) + ":"


def parse(row: type[_Row], text: str, command: str) -> list[_Row]:
    """All rows, or CollectorError: where one is not understood, nor are the numbers of the whole."""
    readers = [field.metadata["read"] for field in fields(row)]
    if text and not text.endswith("\n"):
        raise _malformed(command, text[text.rfind("\n") + 1 :], "the output ends in the middle of a line")
    rows = []
    for line in _lines(text):
        parts = line.split("|", len(readers) - 1)
        if len(parts) != len(readers):
            raise _malformed(command, line, f"{len(parts)} columns instead of {len(readers)}")
        try:
            rows.append(row(*(read(part) for read, part in zip(readers, parts, strict=True))))
        except (ValueError, KeyError) as error:
            raise _malformed(command, line, str(error)) from None
    return rows


def _lines(text: str) -> list[str]:
    """Lines of a table. A free text that breaks, as a reason can, goes on in lines without a bar: left out."""
    lines = [line for line in text.split("\n") if line.strip()]
    return [line for number, line in enumerate(lines) if number == 0 or "|" in line]


def _malformed(command: str, line: str, why: str) -> CollectorError:
    return CollectorError("malformed", f"{command}: {line[:120]!r}: {why}")
