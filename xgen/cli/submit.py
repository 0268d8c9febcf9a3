"""`xgen submit`: check a spec, show what will run, submit it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from xgen.cli.common import (
    ClusterOption,
    JsonOption,
    SetOption,
    SpecArgument,
    load_checked,
    print_json,
    usage,
)

if TYPE_CHECKING:
    from xgen.cluster.snapshot import Code
    from xgen.cluster.submit import Prepared


def command(
    spec: SpecArgument,
    cluster: ClusterOption = None,
    overrides: SetOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the batch script and submit nothing.")] = False,
    run_id: Annotated[
        str | None,
        typer.Option("--id", metavar="ID", help="Six characters that name the run: a second submission is refused."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Submit a job spec.

    The spec is checked in three steps: its shape, its sense on this cluster, and the scheduler's own check. The
    run directory is complete before the job is in the queue.
    """
    import re

    if run_id is not None and not re.fullmatch(r"[a-z0-9]{6}", run_id):
        usage(f"--id: {run_id!r} is not six lower case letters or digits; write e.g. --id k3f9ab")
    loaded, name, profile = load_checked(spec, overrides, cluster)

    from xgen.cluster.submit import check_with_scheduler, prepare, submit

    prepared = prepare(loaded, name, profile, run_id)
    if dry_run:
        print(prepared.script, end="")
        return
    estimate = check_with_scheduler(prepared)
    job_id, code = submit(prepared)

    from xgen.plan import warnings

    notes = warnings(loaded, profile)
    if as_json:
        print_json(
            {
                "run": prepared.run.name,
                "job_id": job_id,
                "path": prepared.run.path,
                "cluster": name,
                "commit": code.commit,
                "changed": code.changed,
                "warnings": notes,
            }
        )
        return
    _report(prepared, code, job_id, estimate)
    for note in notes:
        print(f"  warning   {note}", file=sys.stderr)


def _report(prepared: Prepared, code: Code, job_id: str, estimate: str) -> None:
    job, profile = prepared.job, prepared.profile
    where = job.resources.partition or profile.default_partition
    starts = (
        f", could start at {estimate.split(' start at ')[1].split(' ', maxsplit=1)[0]}"
        if " start at " in estimate
        else ""
    )
    image = job.container.image if profile.container.runtime != "none" else None
    print(f"{prepared.run.name}  {job.resources.nodes} nodes x {job.resources.gpus_per_node} tasks in {where}")
    print(f"  code      {code}")
    print(f"  image     {f'{image} ({profile.container.runtime})' if image else 'none: the files of the nodes'}")
    print(f"  job       {job_id}{starts}")
    print(f"watch it:   xgen status {prepared.run.name}      xgen logs -f {prepared.run.name}")
