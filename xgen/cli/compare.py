"""`xgen compare`: runs against each other and against published scores."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from xgen.cli import completion
from xgen.cli.common import ClusterOption, JsonOption, find_checkpoint, printable, usage


def command(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN[@STEP]...",
            help="Runs that train or evaluate, the first being the one that the others are held against.",
            show_default=False,
            autocompletion=completion.runs,
        ),
    ],
    report: Annotated[
        bool, typer.Option("--report", help="Also against the published scores of other models.")
    ] = False,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric", metavar="PATTERN", help="Only these: loss, validation/DOMAIN, SUITE/TASK/LENGTH; * is anything."
        ),
    ] = None,
    level: Annotated[float, typer.Option("--level", metavar="SHARE", help="Of the intervals and the tests.")] = 0.95,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Write compare.json, compare.md and pictures there.")
    ] = None,
    cluster: ClusterOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what differs between runs, and whether it is more than noise: losses, scores, cost.

    A training brings along what evaluations beside it have found of it: of its newest checkpoint, or of that of STEP.
    For example: xgen compare base-abc123 wide-def456 --report --out compared
    """
    if len(runs) == 1 and not report:
        usage(f"{runs[0]} alone: name another run, or write --report to hold it against published scores")
    if not 0.5 <= level < 1:
        usage(f"--level: {level:g} is no share of certainty; write e.g. 0.95")
    from xgen.data.errors import StoreError
    from xgen.evals.compare import compare, find_sides, write_comparison
    from xgen.evals.compare.render import to_text
    from xgen.evals.published import rows
    from xgen.runs import Refused

    wanted = [find_checkpoint(run, cluster) for run in runs]
    try:
        sides, unreadable = find_sides(wanted)
        found = compare(sides, level, metric or (), rows() if report else (), unreadable)
        files = write_comparison(found, sides, out) if out else []
    except (Refused, StoreError) as error:
        usage(str(error))
    if as_json:
        print(found.model_dump_json(indent=2))
        return
    for line in to_text(found, shutil.get_terminal_size().columns):
        print(printable(line))
    if files:
        print(f"\n{files[1]} and {len(files) - 1} more files")
