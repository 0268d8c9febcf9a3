"""`xgen fork`: a new run that begins from a checkpoint of another, with other keys."""

from __future__ import annotations

import json
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xgen.cli import completion
from xgen.cli.common import (
    ClusterOption,
    JsonOption,
    OverBudgetOption,
    SetOption,
    find_checkpoint,
    print_json,
    usage,
    watch_it,
)

if TYPE_CHECKING:
    from xgen.cluster.prepare import Prepared
    from xgen.runs import RunDir
    from xgen.runs.origin import Origin
    from xgen.spec import Job, LoadedJob, Problem, Profile, Tuned
    from xgen.spec.changes import Changes
    from xgen.train.ckpt_admin import Checkpoint

DATA_NOTE = "the data order is another from this step on: text that was seen may come again"


@dataclass(frozen=True)
class Fork:
    """A fork that is checked and has left no trace yet."""

    parent: RunDir
    checkpoint: Checkpoint
    origin: Origin
    prepared: Prepared


def command(
    checkpoint: Annotated[
        str,
        typer.Argument(
            help="A run, and the step of one of its checkpoints. Default: the newest complete one.",
            metavar="RUN[@STEP]",
            show_default=False,
            autocompletion=completion.runs,
        ),
    ],
    overrides: SetOption = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="The new run's name. Default: as the other's.")
    ] = None,
    cluster: ClusterOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Verify the checkpoint, print the batch script, submit nothing.")
    ] = False,
    over_budget: OverBudgetOption = False,
    as_json: JsonOption = False,
) -> None:
    """Begin a new run from a checkpoint of another one, with changed keys."""
    from xgen.cli.budget import check_budget
    from xgen.cluster.prepare import check_with_scheduler
    from xgen.cluster.submit import submit
    from xgen.plan import warnings
    from xgen.runs.origin import read_beginning
    from xgen.train.ckpt_admin import carry

    parent, step = find_checkpoint(checkpoint, cluster)
    settings = [*(overrides or []), *([f"name={json.dumps(name)}"] if name is not None else [])]
    fork, loaded, profile = _prepare(parent, step, settings, cluster)
    over = check_budget([loaded], profile, anyway=over_budget, after=fork.origin.step)
    if not dry_run:
        check_with_scheduler(fork.prepared)
    _verify(fork)
    if dry_run:
        _report_dry(fork, as_json)
        for note in over:
            print(f"warning: {note}", file=sys.stderr)
        return
    how: list[str] = []

    def fill(building: RunDir) -> None:
        how.append(carry(fork.checkpoint.folder, building.checkpoints_dir / f"step-{fork.origin.step}"))
        fork.origin.write(building)
        if beginning := read_beginning(parent):
            beginning.write(building)

    try:
        job_ids, _ = submit(fork.prepared, fill)
    except FileNotFoundError as error:
        if fork.checkpoint.folder.exists():
            raise
        usage(f"{fork.origin.checkpoint} was deleted while it was carried over ({error.filename}); take a newer one")
    notes = [*over, *([DATA_NOTE] if fork.origin.data_changed else []), *warnings(loaded, profile, fork.prepared.first)]
    if as_json:
        facts = _facts(fork) | {
            "job_id": job_ids[0],
            "job_ids": job_ids,
            "path": fork.prepared.run.path,
            "checkpoint": how[0],
        }
        print_json(facts | {"warnings": notes})
        return
    new = fork.prepared.run.name
    print(f"{new}  {fork.origin}, checkpoint {how[0]}")
    print(f"  changed   {_changed(fork.origin) or 'nothing'}")
    print(f"  job       {', '.join(job_ids)}")
    print(watch_it(cluster, f"xgen status {new}", f"xgen logs -f {new}"))
    for note in notes:
        print(f"  warning   {note}", file=sys.stderr)


def describe_origin(origin: Origin) -> str:
    """`forked from RUN at step N, changed: …`."""
    changed = _changed(origin)
    return f"{origin}{f', changed: {changed}' if changed else ''}"


def _prepare(
    parent: RunDir, step: int | None, settings: list[str], cluster: str | None
) -> tuple[Fork, LoadedJob, Profile]:
    """All that can be checked without reading the checkpoint's bytes. Raises SpecError; leaves with exit code 2."""
    from xgen.cluster.prepare import prepare
    from xgen.plan import check
    from xgen.runs.origin import Origin, read_origin
    from xgen.spec import Pretrain, SpecError, find_profile, load_job, load_profile, load_resolved, project_root
    from xgen.spec.changes import changes, is_data_order

    root = project_root(Path.cwd())
    old = load_resolved(parent.spec_file)
    loaded = load_job(parent.spec_file, settings, root)
    cluster_name, profile = old.cluster or "", load_profile(parent.profile_file)
    if cluster is not None:
        cluster_name, file = find_profile(cluster, root)
        profile = load_profile(file)
    checkpoint = _find(parent, old, step)
    changed = {key: value for key, value in changes(old, loaded.job).items() if key not in ("name", "cluster")}
    first = loaded.job.place_after(checkpoint.step).index if isinstance(loaded.job, Pretrain) else 0
    if problems := [*_why_not(loaded, old, checkpoint, changed), *check(loaded, profile, first=first)]:
        raise SpecError(*problems)
    inherited = read_origin(parent)  # until it saves for the first time, a fork has another run's checkpoint
    before = inherited is not None and inherited.data_changed and inherited.step == checkpoint.step
    origin = Origin(
        parent=parent.name,
        parent_path=str(parent.path),
        step=checkpoint.step,
        changed=changed,
        data_changed=before or any(is_data_order(key) for key in changed),
        time=time.time(),
    )
    return Fork(parent, checkpoint, origin, prepare(loaded, cluster_name, profile, first=first)), loaded, profile


def _find(parent: RunDir, job: Job, step: int | None) -> Checkpoint:
    from xgen.cli.checkpoints import said_steps
    from xgen.spec import Trained
    from xgen.train.ckpt_admin import survey

    found = survey(parent, foreign=not isinstance(job, Trained))
    complete = [c for c in found if c.counts and step in (None, c.step)]
    if not complete and step is None:
        usage(f"{parent.name} has no complete checkpoint to begin from; write xgen submit {parent.spec_file}")
    if not complete:
        others = [f"{c.name} is {': '.join([c.state, *c.faults[:1]])}" for c in found if c.step == step]
        said = f" ({'; '.join(others)})" if others else ""
        usage(f"{parent.name} has no complete checkpoint of step {step}{said}; {said_steps(found)}")
    return complete[-1]


def _why_not(loaded: LoadedJob, old: Job, checkpoint: Checkpoint, changed: Changes) -> list[Problem]:
    """What of the checkpoint could not carry over to the new spec."""
    from xgen.spec import Pretrain, Tuned

    job, manifest = loaded.job, checkpoint.manifest
    problems = []
    for key in changed:
        if key == "kind" or key.split(".")[0] in ("model", "init", "lora"):
            message = "the checkpoint holds another; leave it, or write xgen submit with a spec of its own"
            problems.append(loaded.problem(key, f"{changed[key]} does not carry over: {message}"))
    if isinstance(job, Tuned) and manifest is not None:
        problems += _why_not_tuned(loaded, job, manifest.step, changed)
    if problems or not isinstance(job, Pretrain) or not isinstance(old, Pretrain) or manifest is None:
        return problems
    trained = old.place_after(manifest.step - 1).index  # the stage that the checkpoint was saved in
    for key in changed:
        match = re.fullmatch(r"stages\[(\d+)\]\.(global_batch|tokens)", key)
        # The budget of the stage itself may change: how far it has come does not depend on it.
        if match and int(match[1]) <= trained and (match[2] == "global_batch" or int(match[1]) < trained):
            message = "steps and tokens of the checkpoint are counted in its own batches; leave it"
            problems.append(loaded.problem(key, f"{changed[key]} does not carry over: {message}"))
    if problems:
        return problems
    place = job.places[trained]
    if manifest.step > place.last_step and trained < len(job.stages) - 1:
        message = (
            f"{place.stage.tokens} tokens are {place.stage.num_steps} steps, and {checkpoint.name} is step "
            f"{manifest.step - place.first_step} of {place.stage.name}; write "
            f"{(manifest.step - place.first_step) * place.stage.global_batch} or more, or an earlier step"
        )
        return [loaded.problem(f"stages[{trained}].tokens", message)]
    total, steps = sum(stage.tokens for stage in job.stages), sum(stage.num_steps for stage in job.stages)
    if manifest.tokens >= total or manifest.step >= steps:
        message = (
            f"{total} tokens are {steps} steps, and {checkpoint.name} has {manifest.tokens} tokens behind it; "
            "write more, or an earlier step"
        )
        problems.append(loaded.problem(f"stages[{len(job.stages) - 1}].tokens", message))
    return problems


def _why_not_tuned(loaded: LoadedJob, job: Tuned, step: int, changed: Changes) -> list[Problem]:
    """The same of what only a post-training has."""
    said = "steps and tokens of the checkpoint are counted in its own batches; leave it"
    counted = [key for key in changed if key in ("train.sequences", "train.seq_len")]
    problems = [loaded.problem(key, f"{changed[key]} does not carry over: {said}") for key in counted]
    if step >= job.train.steps:
        message = f"{job.train.steps} steps, and the checkpoint has {step} behind it; write more, or an earlier step"
        problems.append(loaded.problem("train.steps", message))
    return problems


def _verify(fork: Fork) -> None:
    """Leaves with exit code 2 when a byte of the checkpoint is not what it was."""
    from xgen.cli.checkpoints import reading, said_steps
    from xgen.train.ckpt_admin import check, survey

    checkpoint = fork.checkpoint
    with reading([checkpoint]) as tick:
        checked = check([checkpoint], tick)[0]
    if checked.faults:
        others = said_steps([c for c in survey(fork.parent) if c.step != checkpoint.step])
        usage(f"{fork.origin.checkpoint} does not verify: {checked.faults[0]}; {others}")
    if checked.state != "verified":
        print(f"note: {checkpoint.name} has a manifest of its program's own and is not verified", file=sys.stderr)


def _report_dry(fork: Fork, as_json: bool) -> None:
    if as_json:
        print_json(_facts(fork) | {"scripts": fork.prepared.scripts})
        return
    print(f"{fork.prepared.run.name} would be {fork.origin}: {_changed(fork.origin) or 'no change'}", file=sys.stderr)
    if fork.origin.data_changed:
        print(f"note: {DATA_NOTE}", file=sys.stderr)
    print(fork.prepared.preview, end="")


def _changed(origin: Origin) -> str:
    from xgen.spec.changes import show_changes

    return show_changes(origin.changed)


def _facts(fork: Fork) -> dict[str, object]:
    return {
        "run": fork.prepared.run.name,
        "parent": fork.origin.parent,
        "step": fork.origin.step,
        "changed": fork.origin.changed,
        "data_changed": fork.origin.data_changed,
    }
