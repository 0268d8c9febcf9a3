"""`xgen exec` and `xgen shell`: a command beside a task of a run that runs, where that task is."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from xgen.cli.common import ClusterOption, RunArgument, find_run, usage
from xgen.cli.hold import ask

if TYPE_CHECKING:
    from xgen.cluster.inside import Task
    from xgen.cluster.slurm import QueueRow
    from xgen.runs import RunDir
    from xgen.spec import Job

RankOption = Annotated[
    int | None, typer.Option("--rank", metavar="N", min=0, help="Beside this rank. Default: 0, or the first of --node.")
]
NodeOption = Annotated[
    str | None, typer.Option("--node", metavar="NAME", help="On this node of the job, a name or its number from 0 on.")
]
ShardOption = Annotated[str | None, typer.Option("--shard", metavar="[STAGE/]N", help="Of this shard of a job array.")]


def command(
    run: RunArgument,
    words: Annotated[list[str], typer.Argument(metavar="-- COMMAND...", help="What to run, and its arguments.")],
    rank: RankOption = None,
    node: NodeOption = None,
    shard: ShardOption = None,
    cluster: ClusterOption = None,
) -> None:
    """Run a command beside a task of a run: on its node, in its container, with its environment and its GPUs.

    xgen exec RUN --rank 7 -- nvidia-smi

    It shares what the job has: what it takes of memory and time the training lacks. Ends with the command's exit code.
    """
    start(find_run(run, cluster), words, rank, node, shard, terminal=False)


def start(
    run: RunDir, words: list[str], rank: int | None, node: str | None, shard: str | None, *, terminal: bool
) -> None:
    """Becomes the command. Leaves with exit code 2 where there is no such task."""
    from xgen.cluster.inside import inside
    from xgen.spec import load_profile, load_resolved

    status, rows = ask(run)
    if status.state != "running":
        usage(f"{run.name} is {status.state}: no task of it runs; write xgen why {run.name}")
    job: Job = load_resolved(run.spec_file)
    argv = inside(
        _task(run, job, rows, rank, node, shard), job, load_profile(run.profile_file), words, terminal=terminal
    )
    sys.stdout.flush()
    os.execvp(argv[0], argv)


def _task(run: RunDir, job: Job, rows: list[QueueRow], rank: int | None, node: str | None, shard: str | None) -> Task:
    from xgen.cli.shards import arrays_of, find_shard, how_to_name
    from xgen.cluster import local
    from xgen.cluster.inside import Task

    part, stage_name, number = run, None, None
    arrays = arrays_of(job)
    if shard is not None:
        stage_name, number = find_shard(run, shard)
        part = run.shard(stage_name, number)
    elif (
        arrays and not any("_" not in row.job_id and row.state == "RUNNING" for row in rows) and run.shards_dir.is_dir()
    ):
        usage(f"{run.name} is a job array; {how_to_name(run, arrays, 'exec')}")
    stage = stage_of(run, job, stage_name)
    resources = job.jobs[stage][1]
    if rank is not None and rank >= resources.world_size:
        usage(f"--rank: {run.name} has ranks 0 to {resources.world_size - 1}; {rank} is none")
    if local.is_local(run):
        if node not in (None, "0", "localhost", os.uname().nodename):
            usage(f"--node: {run.name} is run by this machine alone; leave it out")
        return Task(part, part.last_attempt(), stage, rank or 0)
    row = next((r for r in rows if r.state == "RUNNING" and _is_of(r, number)), None)
    if row is None:
        usage(f"{run.name}: no job of it is in state RUNNING; look with xgen status {run.name}")
    nodes = _nodes(row.nodes)
    if node is None:
        rank = rank or 0
        index = rank // resources.tasks_per_node
    else:
        index = int(node) if node.isdecimal() and node not in nodes else nodes.index(node) if node in nodes else -1
        if not 0 <= index < len(nodes):
            usage(f"--node: {run.name} has no node {node}; it runs on {', '.join(nodes)}")
        first = index * resources.tasks_per_node
        if rank is not None and rank // resources.tasks_per_node != index:
            usage(f"--node {node} has ranks {first} to {first + resources.tasks_per_node - 1}; {rank} is none of them")
        rank = first if rank is None else rank
    return Task(part, part.last_attempt(), stage, rank, _raw_id(row.job_id), nodes[index])


def _is_of(row: QueueRow, shard: int | None) -> bool:
    number = row.job_id.partition("_")[2]
    return number == ("" if shard is None else str(shard))


def stage_of(run: RunDir, job: Job, name: str | None = None) -> int:
    """Which stage runs: by its name, or what the newest start was for."""
    from xgen.runs import read_events

    if name is None:
        name = next((e.stage or "" for e in reversed(read_events(run)) if e.event == "started"), "")
    return next((index for index, (stage, _) in enumerate(job.jobs) if stage == name), 0)


def _nodes(text: str) -> list[str]:
    from xgen.cluster.slurm import command as slurm_command

    return slurm_command("scontrol", "show", "hostnames", text).split()


def _raw_id(job_id: str) -> str:
    """srun takes no `12_3`."""
    from xgen.cluster.slurm import command as slurm_command

    if "_" not in job_id:
        return job_id
    return slurm_command("squeue", "--noheader", f"--jobs={job_id}", "--Format=JobID:|").split("|")[0].strip()
