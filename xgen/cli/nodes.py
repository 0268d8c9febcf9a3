"""`xgen nodes`: nodes that the team's jobs are kept from, and those that jobs died by; exclude one, or clear it."""

from __future__ import annotations

import re
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xgen.cli.common import ClusterOption, JsonOption, print_json, printable, usage

if TYPE_CHECKING:
    from xgen.cluster.nodes import NodeRecord
    from xgen.spec import Profile

app = typer.Typer(
    help="Nodes that are excluded, and why; exclude one, or clear it (docs/nodes.md).\n\n"
    "The list is the team's: it lies beside the runs, and every later submission, requeue and successor keeps off.\n\n"
    "  xgen nodes                                             what is on the list, and what was blamed\n\n"
    "  xgen nodes exclude g17 --for 6h --reason 'slow NIC'    keep off it for six hours\n\n"
    "  xgen nodes clear g17                                   give it to jobs again",
    invoke_without_command=True,
    rich_markup_mode=None,
)

_LONGEST = 3650 * 86400  # seconds: a date that everybody can write

NodesArgument = Annotated[list[str], typer.Argument(metavar="NODE", help="SLURM's names of nodes.")]


@app.callback()
def list_command(context: typer.Context, cluster: ClusterOption = None, as_json: JsonOption = False) -> None:
    if context.invoked_subcommand is not None:
        context.obj = (cluster, as_json)
        return
    from xgen.cluster.nodes import read_nodes

    _, profile = _profile(cluster)
    now = time.time()
    records = read_nodes(Path(profile.run_root), profile.nodes.window, now)
    if as_json:
        print_json([_facts(record) for record in records])
        return
    for line in _lines(records, profile, now):
        print(line)


@app.command(name="exclude")
def exclude_command(
    context: typer.Context,
    nodes: NodesArgument,
    duration: Annotated[str, typer.Option("--for", metavar="TIME", help="E.g. 6h or 2d. Default: the profile's.")] = "",
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for those who read the list.")] = "",
    cluster: ClusterOption = None,
    as_json: JsonOption = False,
) -> None:
    """Keep later jobs of this run root off a node, until a time. Jobs that run or wait already are left alone."""
    from xgen.cluster import slurm
    from xgen.cluster.nodes import all_nodes, exclude
    from xgen.drawing.wording import moment
    from xgen.spec.units import format_duration, parse_duration

    cluster, as_json = _or_before(context, cluster, as_json)
    name, profile = _profile(cluster)
    try:
        seconds = parse_duration(duration) if duration else profile.nodes.exclude_for
    except ValueError as error:
        usage(f"--for: {error}")
    where = "--for" if duration else f"nodes.exclude_for of cluster {name}"
    if seconds > _LONGEST:
        longest = format_duration(_LONGEST)
        usage(f"{where}: {duration or format_duration(seconds)} is longer than {longest}; write that, or less")
    if seconds < 1:
        usage(f"{where}: 0s is no time at all; write e.g. 6h, or: xgen nodes clear NODE")
    _check_names(nodes)
    try:
        known = all_nodes()
    except slurm.SchedulerError as error:
        print(f"not checked whether there is such a node: {error}", file=sys.stderr)
    else:
        if unknown := [node for node in nodes if node not in known]:
            usage(f"{unknown[0]} is no node of cluster {name}; sinfo -N names them")
    decisions = [exclude(Path(profile.run_root), node, seconds, _one_line(reason), time.time()) for node in nodes]
    if as_json:
        print_json([one.model_dump() for one in decisions])
        return
    for one in decisions:
        print(f"{one.node} is excluded until {moment(one.until)}; xgen nodes clear {one.node} gives it back")


@app.command(name="clear")
def clear_command(
    context: typer.Context, nodes: NodesArgument, cluster: ClusterOption = None, as_json: JsonOption = False
) -> None:
    """Give a node to jobs again at once; deaths so far count no more."""
    from xgen.cluster.nodes import clear, read_nodes

    cluster, as_json = _or_before(context, cluster, as_json)
    _, profile = _profile(cluster)
    _check_names(nodes)
    now, root = time.time(), Path(profile.run_root)
    known = {one.node for one in read_nodes(root, profile.nodes.window, now)}
    if unknown := [node for node in nodes if node not in known]:
        usage(f"{unknown[0]}: nothing is on record of it; xgen nodes shows what is")
    decisions = [clear(root, node, now) for node in nodes]
    if as_json:
        print_json([one.model_dump() for one in decisions])
        return
    for one in decisions:
        print(f"{one.node} is cleared: jobs that are submitted from now on may get it")


def _profile(cluster: str | None) -> tuple[str, Profile]:
    from xgen.spec import find_profile, load_profile

    name, file = find_profile(cluster, Path.cwd())
    profile = load_profile(file)
    if profile.scheduler == "local":
        usage(f"cluster {name} has one node, this machine: none can be excluded")
    return name, profile


def _or_before(context: typer.Context, cluster: str | None, as_json: bool) -> tuple[str | None, bool]:
    """Options may stand before the word too: `xgen nodes --cluster dev clear g17`."""
    before, json_before = context.obj
    return cluster or before, as_json or json_before


def _check_names(nodes: list[str]) -> None:
    for node in nodes:
        if "[" in node or "," in node:
            usage(f"{node!r} is a list; write each node by itself: scontrol show hostnames '{node}'")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", node):
            usage(f"{node!r} is no name of a node")


def _one_line(text: str) -> str:
    return " ".join(printable(text).split())[:200]


def _facts(record: NodeRecord) -> dict[str, object]:
    return {
        "node": record.node,
        "excluded": record.excluded.model_dump() if record.excluded else None,
        "deaths": record.deaths,
        "runs": record.runs,
        "blames": [blame.model_dump() for blame in record.blames],
    }


def _lines(records: list[NodeRecord], profile: Profile, now: float) -> list[str]:
    from xgen.drawing.tables import Table
    from xgen.drawing.wording import moment

    if not records:
        return ["no node is excluded, and none was blamed for a death"]
    rows = []
    for record in records:
        one = record.excluded
        state = (
            f"excluded, {_rest(one.until - now)} left" if one else f"{record.deaths} of {profile.nodes.deaths} deaths"
        )
        since = one.since if one else record.blames[-1].time
        rows.append((record.node, state, moment(since), moment(one.until) if one else "-", one.by if one else "-"))
    width = shutil.get_terminal_size().columns
    lines = []
    table = Table(("node", "state|", "since|", "until|", "by|"), tuple(rows)).to_text(width)
    if len(table) != len(records) + 1:  # it was cut into blocks
        return [*table, *(line for record in records for line in _why(record, width))]
    lines = [table[0]]
    for line, record in zip(table[1:], records, strict=True):
        lines += [line, *_why(record, width)]
    return lines


def _why(record: NodeRecord, width: int) -> list[str]:
    """Reason and evidence of a node, below its line."""
    import textwrap

    last = record.blames[-1] if record.blames else None
    said = record.excluded.reason if record.excluded else f"{last.kind}: {last.reason}" if last else ""
    runs = record.runs
    shown = ", ".join(runs[:3]) + (f" and {len(runs) - 3} more" if len(runs) > 3 else "")
    parts = [part for part in (said, f"({shown})" if shown else "") if part]
    return textwrap.wrap(printable(" ".join(parts)), width, initial_indent="  ", subsequent_indent="  ")


def _rest(seconds: float) -> str:
    from xgen.spec.units import format_duration

    return format_duration(seconds if seconds < 60 else seconds // 60 * 60)
