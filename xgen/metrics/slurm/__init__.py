"""SLURM's queue, nodes, scheduler and accounting, each asked by one command at its own pace."""

from __future__ import annotations

from collections.abc import Sequence

from xgen.metrics.exporter import Collector
from xgen.metrics.slurm.accounting import Ended, Shares
from xgen.metrics.slurm.nodes import Nodes
from xgen.metrics.slurm.queue import Queue
from xgen.metrics.slurm.scheduler import Controller, Scheduler


def collectors(partitions: Sequence[str], as_json: bool = False) -> list[Collector]:
    """All of them. `partitions` are those that get a zero before their first job; `as_json`: squeue and sinfo."""
    return [
        Controller(),
        Queue(partitions, as_json),
        Nodes(as_json),
        Scheduler(),
        Shares(),
        Ended(partitions),
    ]


__all__ = ["Controller", "Ended", "Nodes", "Queue", "Scheduler", "Shares", "collectors"]
