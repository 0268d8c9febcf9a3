"""`xgen top`: the cluster now: free GPUs by partition, who holds what, which of your runs, what is out of use."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from xgen.cli.common import EXIT_SCHEDULER, ClusterOption, JsonOption, print_json, usage

if TYPE_CHECKING:
    from xgen.cluster.nodes import Excluded
    from xgen.cluster.slurm import QueueRow
    from xgen.drawing.tables import Table
    from xgen.metrics.slurm.usage import OutNode, PartitionUse, UserUse
    from xgen.spec import Profile

_QUESTIONS = 3
Row = TypeVar("Row")


def command(
    cluster: ClusterOption = None,
    users: Annotated[int, typer.Option("--users", metavar="N", help="Show the N users who hold most.")] = 10,
    as_json: JsonOption = False,
) -> None:
    """Show what the cluster has free, who holds the rest, and what is out of use: one sinfo and two squeue."""
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path

    from xgen.cluster import slurm
    from xgen.metrics.exporter import CollectorError
    from xgen.metrics.slurm.nodes import Nodes
    from xgen.metrics.slurm.queue import Queue
    from xgen.metrics.slurm.usage import by_partition, by_user, out_of_use
    from xgen.spec import find_profile, load_profile

    name, file = find_profile(cluster, Path.cwd())
    profile = load_profile(file)
    if profile.scheduler == "local":
        usage(f"cluster {name} has no queue: its runs are on this machine; write xgen status")
    unknown: list[str] = []

    def ask(what: str, question: Callable[[], list[Row]]) -> list[Row]:
        """What SLURM says to one question; that it says nothing to it is no reason not to show the rest."""
        try:
            return question()
        except (CollectorError, slurm.SchedulerError) as error:
            unknown.append(f"{what}: {error}")
            return []

    with ThreadPoolExecutor() as pool:  # all at once: a controller that hangs is waited for once
        of_nodes = pool.submit(ask, "nodes", Nodes().rows)
        of_jobs = pool.submit(ask, "who holds them and what waits", Queue().rows)
        of_mine = pool.submit(ask, "your jobs", slurm.queue)
    nodes, jobs, mine = of_nodes.result(), of_jobs.result(), of_mine.result()
    parts, people, broken = by_partition(nodes, jobs), by_user(jobs), out_of_use(nodes)
    kept_off = _excluded_nodes(profile)
    if as_json:
        facts = {"cluster": name, "partitions": parts, "users": people, "jobs": mine, "out_of_use": broken}
        facts["excluded"] = [one.model_dump() for one in kept_off]
        print_json(facts | {"unknown": unknown})
    else:
        blocks = [
            _partitions(parts),
            _users(people[:users]),
            _jobs(mine),
            _out(broken, time.time()),
            _excluded(kept_off),
        ]
        width = shutil.get_terminal_size().columns
        print("\n\n".join("\n".join(block.to_text(width)) for block in blocks if block.rows))
    for said in unknown:
        print(f"cluster {name}: not known: {said}", file=sys.stderr)
    if len(unknown) == _QUESTIONS:
        sys.exit(EXIT_SCHEDULER)


def _partitions(found: Sequence[PartitionUse]) -> Table:
    heads = ("partition", "nodes", "free", "out", "GPUs", "used", "free", "out", "waiting", "for GPUs")
    rows = [
        (
            one.partition, one.nodes, one.nodes_free, one.nodes_out, one.gpus, one.gpus_used, one.gpus_free,
            one.gpus_out, one.jobs_waiting, one.gpus_waited_for,
        )
        for one in found
    ]  # fmt: skip
    return _table(heads, rows)


def _users(found: Sequence[UserUse]) -> Table:
    heads = ("user", "jobs", "GPUs", "CPUs", "waiting", "for GPUs")
    return _table(
        heads, [(one.user, one.jobs, one.gpus, one.cpus, one.jobs_waiting, one.gpus_waited_for) for one in found]
    )


def _jobs(found: Sequence[QueueRow]) -> Table:
    """Of this user; the name of a run's job is the run's."""
    rows = [(row.name, row.job_id, row.state.lower(), row.partition, row.nodes or row.reason) for row in found]
    return _table(("your jobs", "job|", "state|", "partition|", "nodes, or why not|"), rows)


def _out(found: Sequence[OutNode], now: float) -> Table:
    from xgen.spec.units import format_duration

    rows = [
        (one.node, one.state, "" if one.since is None else format_duration(max(1, now - one.since)), one.reason)
        for one in found
    ]
    return _table(("out of use", "state|", "for|", "reason|"), rows)


def _excluded_nodes(profile: Profile) -> list[Excluded]:
    """The team's own list; one that cannot be read is no reason not to show the rest."""
    from pathlib import Path

    from xgen.cluster.nodes import read_nodes

    try:
        return [one.excluded for one in read_nodes(Path(profile.run_root), 0, time.time()) if one.excluded]
    except OSError:
        return []


def _excluded(found: Sequence[Excluded]) -> Table:
    """Nodes that jobs of this run root keep off, whatever SLURM gives them to; xgen nodes has the evidence."""
    from xgen.cli.common import printable
    from xgen.drawing.wording import moment

    rows = [(one.node, moment(one.until), printable(one.reason)) for one in found]
    return _table(("excluded", "until|", "reason (xgen nodes)|"), rows)


def _table(heads: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> Table:
    from xgen.drawing.tables import Table

    def text(value: object) -> str:
        return f"{value:,}" if isinstance(value, int) else str(value)

    return Table(heads, tuple(tuple(map(text, row)) for row in rows))
