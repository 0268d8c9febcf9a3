"""`xgen data curate`: the steps of a curation in this process and its children, without a scheduler."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xgen.cli.common import JsonOption, SetOption, SpecArgument, WorkersOption, print_json, usage

if TYPE_CHECKING:
    from xgen.data.progress import Progress
    from xgen.spec import Curate

OnlyOption = Annotated[
    list[str] | None, typer.Option("--only", metavar="STEP", help="Run this step alone; may be repeated.")
]


def command(
    spec: SpecArgument,
    overrides: SetOption = None,
    only: OnlyOption = None,
    workers: WorkersOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Curate text here and now: what `xgen submit SPEC` does in job arrays, with the same result.

    Interrupted, it goes on where it was when it is called again. For example:

    xgen data curate jobs/tiny/curate.yaml --workers 2
    """
    import time

    from xgen.data.errors import InterruptedBuildError, StoreError
    from xgen.data.progress import show_progress
    from xgen.spec import Curate, load_job

    job = load_job(spec, overrides or []).job
    if not isinstance(job, Curate):
        usage(f"{spec}: kind: {job.kind} is no curation; write the spec of a curate job")
    if unknown := next((step for step in only or () if step not in job.steps), None):
        usage(f"--only {unknown} is no step of this job; write one of {', '.join(job.steps)}")
    seconds: dict[str, float] = {}
    try:
        with show_progress() as progress:
            for step in job.steps:
                if only and step not in only:
                    continue
                began = time.monotonic()
                _run(job, step, workers, progress)
                seconds[step] = round(time.monotonic() - began, 2)
    except InterruptedBuildError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    except StoreError as error:
        usage(str(error))
    if as_json:
        print_json({"out": job.out, "seconds": seconds, "report": _report(Path(job.out))})
        return
    for step, spent in seconds.items():
        print(f"  {step:<10}{spent:>9.1f} s")
    _show(Path(job.out))


def _run(job: Curate, step: str, workers: int, progress: Progress) -> None:
    from xgen.data.curate.steps.parallel import run_shards
    from xgen.spec.curate import SINGLE_STEPS

    run_shards(job, step, 1 if step in SINGLE_STEPS else workers, progress)


def _report(out: Path) -> dict[str, object] | None:
    import json

    from xgen.data.curate.report_model import REPORT_FILE

    if not (out / REPORT_FILE).is_file():
        return None
    found: dict[str, object] = json.loads((out / REPORT_FILE).read_bytes())
    return found


def _show(out: Path) -> None:
    from xgen.data.curate.report_model import REPORT_FILE, read_report

    if not (out / REPORT_FILE).is_file():
        return
    report = read_report(out)
    print(f"{out}")
    print(f"  {'step':<20}{'documents':>12}{'MB':>10}  dropped most by")
    for step in report.steps:
        most = ", ".join(f"{reason.name} {reason.dropped.documents:,}" for reason in step.reasons[:3])
        print(f"  {step.name:<20}{step.kept.documents:>12,}{step.kept.bytes / 1e6:>10,.1f}  {most}")
    for row in report.quarantine:
        print(f"  {'dropped' if row.read else 'not read'}: {row.records:,}  {row.reason}")
    for mixture in report.mixtures:
        print(f"  mixture {mixture.name}: {mixture.written:,} of {mixture.budget:,} tokens, {mixture.fingerprint}")
        for line in mixture.unmet:
            print(f"    {line}")
