"""`xgen evals fetch`: the data sets of an evaluation's harness, while there is a network."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xgen.cli.common import JsonOption, print_json, usage

if TYPE_CHECKING:
    from xgen.evals.harness.fetch import Fetched


def command(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="Spec of an evaluate job.", show_default=False)],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the spec; repeatable.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Bring the data sets of all tasks of `harness` into harness.datasets, and load them without a network.

    Run it where there is a network and an environment with lm-eval; called again, it goes on where it was. HF_TOKEN
    opens what is gated (GPQA), HF_ENDPOINT names a mirror. For example:

    xgen evals fetch jobs/4b/evaluate.yaml
    """
    from xgen.evals.harness.fetch import fetch
    from xgen.runs import Refused
    from xgen.spec import Evaluate, load_job

    job = load_job(spec, overrides or []).job
    if not isinstance(job, Evaluate) or job.harness is None:
        usage(f"{spec}: has no `harness` whose data sets could come; write the spec of an evaluate job with one")
    try:
        found = fetch(job.harness, (lambda _: None) if as_json else _show, bars=sys.stderr.isatty())
    except Refused as error:
        usage(str(error))
    except RuntimeError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    if as_json:
        print_json({"folder": job.harness.datasets, "tasks": [asdict(one) for one in found]})
        return
    total, tasks = sum(one.documents for one in found), "task" if len(found) == 1 else "tasks"
    print(f"{job.harness.datasets}  {len(found)} {tasks}, {total:,} documents, all load without a network")


def _show(one: Fetched) -> None:
    came = f"{one.bytes / 1e6:,.1f} MB came" if one.bytes else "was there"
    of = f" of {one.tasks} tasks" if one.tasks > 1 else ""
    print(f"  {one.name:<24}{one.documents:>10,} documents{of}, {came}", flush=True)
