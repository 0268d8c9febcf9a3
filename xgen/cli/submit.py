"""`xgen submit`: check a spec, show what will run, submit it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from xgen.cli.budget import check_budget
from xgen.cli.common import (
    ClusterOption,
    JsonOption,
    OverBudgetOption,
    RuntimeOption,
    SetOption,
    SpecArgument,
    check_init,
    check_mixture,
    each_point,
    load_checked,
    print_json,
    usage,
    watch_it,
)
from xgen.cli.evaluated import check_evaluated
from xgen.cli.shards import describe_array, first_shard

if TYPE_CHECKING:
    from xgen.cluster.prepare import Prepared
    from xgen.cluster.snapshot import Code
    from xgen.spec import Profile, Work
    from xgen.spec.image import Reference


def command(
    spec: SpecArgument,
    cluster: ClusterOption = None,
    overrides: SetOption = None,
    runtime: RuntimeOption = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Print the batch script and submit nothing. Of several stages: each script below a line "
            "`# ---- ...`, which is no part of it; JOB_OF_X stands for the number that the job of stage X will get.",
        ),
    ] = False,
    reuse: Annotated[
        str | None,
        typer.Option("--reuse", metavar="RUN", help="Of a pipeline: take over what an earlier run of it has finished."),
    ] = None,
    run_id: Annotated[
        str | None,
        typer.Option("--id", metavar="ID", help="Six characters that name the run: a second submission is refused."),
    ] = None,
    over_budget: OverBudgetOption = False,
    as_json: JsonOption = False,
) -> None:
    """Submit a job spec.

    The spec is checked in three steps: its shape, its sense on this cluster, and the scheduler's own check. The
    run directory is complete before the job is in the queue.
    """
    import re

    from xgen.spec.pipeline_load import is_pipeline

    if run_id is not None and not re.fullmatch(r"[a-z0-9]{6}", run_id):
        usage(f"--id: {run_id!r} is not six lower case letters or digits; write e.g. --id k3f9ab")
    if is_pipeline(spec):
        from xgen.cli.pipeline_submit import submit_pipeline

        submit_pipeline(
            spec, cluster, overrides or [], runtime, run_id,
            dry_run=dry_run, as_json=as_json, reuse=reuse, over_budget=over_budget,
        )  # fmt: skip
        return
    if reuse:
        usage(f"--reuse: {spec} is no pipeline")
    loaded, name, profile = load_checked(spec, overrides, cluster, runtime)
    if loaded.job.notify:
        from xgen.notify import check_hooks  # mail and TLS are 50 ms, for runs that tell somebody

        check_hooks(loaded)
    for one in each_point(loaded):
        check_mixture(one.job)
        check_init(one, profile)
        check_evaluated(one, profile)
    over = check_budget([loaded], profile, anyway=over_budget)

    from xgen.cluster.prepare import check_with_scheduler, prepare
    from xgen.cluster.submit import submit

    prepared = prepare(loaded, name, profile, run_id, pin=_pin_or_warn if dry_run else None)
    if dry_run:
        print(prepared.preview, end="")
        for line in _costs(loaded.job, profile):
            print(f"cost: {line}", file=sys.stderr)
        for note in over:
            print(f"warning: {note}", file=sys.stderr)
        return
    estimate = check_with_scheduler(prepared)
    job_ids, code = submit(prepared)

    from xgen.plan import warnings

    notes = [*over, *warnings(loaded, profile)]
    if as_json:
        print_json(
            {
                "run": prepared.run.name,
                "job_id": job_ids[0],
                "job_ids": job_ids,
                "path": prepared.run.path,
                "cluster": name,
                "image": prepared.image.to_dict(),
                "commit": code.commit,
                "changed": code.changed,
                "warnings": notes,
            }
        )
        return
    _report(prepared, code, job_ids, estimate, _costs(loaded.job, profile), cluster or loaded.job.cluster)
    for note in notes:
        print(f"  warning   {note}", file=sys.stderr)


def _pin_or_warn(reference: Reference) -> str:
    """A dry run works where the registry cannot be reached, and says what it could not find out."""
    from xgen.images.registry import RegistryError, resolve_digest

    try:
        return resolve_digest(reference)
    except RegistryError as error:
        print(f"warning: the tag is not pinned to a digest yet: {error}", file=sys.stderr)
        return ""


def _report(
    prepared: Prepared, code: Code, job_ids: list[str], estimate: str, costs: list[str], cluster: str | None
) -> None:
    from xgen.spec import Sweep

    starts = (
        f", could start at {estimate.split(' start at ')[1].split(' ', maxsplit=1)[0]}"
        if " start at " in estimate
        else ""
    )
    jobs = prepared.job.jobs
    print(f"{prepared.run.name}  {_size(prepared, 0) if len(jobs) == 1 else f'{len(jobs)} stages'}")
    print(f"  code      {code}")
    print(f"  image     {_image(prepared)}")
    if len(jobs) == 1:
        print(f"  job       {job_ids[0]}{starts}")
    else:
        width = max(9, *(len(name) for name, _ in jobs))
        for stage, (name, _) in enumerate(jobs):
            job_id = job_ids[min(stage, len(job_ids) - 1)]  # the local executor has one for all
            order = "beside" if stage and prepared.job.serves(stage - 1) else "after"
            after = starts if stage == 0 else f", {order} {jobs[stage - 1][0]}"
            print(f"  {name:<{width}} job {job_id}  {_size(prepared, stage)}{after}")
    for line in costs:
        print(f"  cost      {line}")
    name = prepared.run.name
    shard = f" --shard {first}" if (first := first_shard(prepared.job)) else ""
    table = [f"xgen sweep {name}"] if isinstance(prepared.job, Sweep) else []
    print(watch_it(cluster, f"xgen status {name}", f"xgen logs -f {name}{shard}", *table))


def _costs(job: Work, profile: Profile) -> list[str]:
    """Of work that is many trainings."""
    from xgen.plan import cost, plans

    return [cost(one) for one in plans(job, profile) if one.num_runs > 1 and one.num_steps]


def _size(prepared: Prepared, stage: int) -> str:
    _, resources = prepared.job.jobs[stage]
    where = resources.partition or prepared.profile.default_partition
    array = prepared.job.array_of(stage)
    shards = f"{describe_array(array)}, each " if array else ""
    return f"{shards}{resources.nodes} nodes x {resources.tasks_per_node} tasks in {where}"


def _image(prepared: Prepared) -> str:
    image, runtime = prepared.image, prepared.profile.container.runtime
    if image.kind == "none":
        return "none: the files of the nodes"
    return f"{image.reference} ({runtime}, {image.kind})  {image.digest[:19] or 'without a digest'}"
