"""`xgen evals`: the report of an evaluate run, and the data sets that one needs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xgen.cli import evals_fetch
from xgen.cli.common import ClusterOption, JsonOption, RunArgument, find_run, printable, usage

if TYPE_CHECKING:
    from xgen.runs import RunDir
    from xgen.spec import Evaluate

app = typer.Typer(help="Evaluations of checkpoints.", no_args_is_help=True, rich_markup_mode=None)
app.command("fetch")(evals_fetch.command)


@app.command()
def report(
    run: RunArgument,
    step: Annotated[
        int | None, typer.Option("--step", metavar="N", help="The checkpoint; default: the newest.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Write results.json, results.md and pictures there.")
    ] = None,
    cluster: ClusterOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what an evaluation has found, at any time, from the samples that are scored so far.

    For example: xgen evals report eval-abc123 --out report
    """
    from xgen.data.errors import StoreError
    from xgen.evals.report import choose, collect, draw, write_report
    from xgen.evals.report.render import to_text
    from xgen.runs import Refused

    found = find_run(run, cluster)
    job = evaluation_of(found)
    try:
        results = collect(found, job)
        chosen = choose(results, step)
        files = write_report(results, out, step) if out else []
    except (Refused, StoreError) as error:
        usage(str(error))
    if as_json:
        print(results.model_dump_json(indent=2))
        return
    for line in to_text(draw(results, chosen)[0], shutil.get_terminal_size().columns):
        print(printable(line))
    if files:
        print(f"\n{files[1]} and {len(files) - 1} more files")


def evaluation_of(run: RunDir) -> Evaluate:
    """The spec of an evaluate run. Leaves with exit code 2 for a run of another kind, or one that cannot be read."""
    from xgen.spec import Evaluate, load_resolved

    job = load_resolved(run.spec_file)
    if not isinstance(job, Evaluate):
        usage(f"{run.name} is a run of kind {job.kind}; `xgen evals report` takes one of kind evaluate")
    return job
