"""`xgen checkpoints`: what a run has saved; verify it, thin it out, go back to an older one."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xgen.cli.common import ClusterOption, JsonOption, RunArgument, find_run, print_json, usage

if TYPE_CHECKING:
    from xgen.runs import RunDir
    from xgen.train.ckpt_admin import Checkpoint, Rule, Tick
    from xgen.train.manifest import Manifest

StepsArgument = Annotated[
    list[int] | None, typer.Argument(help="Only those of these steps.", metavar="STEP", show_default=False)
]


def command(
    run: RunArgument,
    steps: StepsArgument = None,
    cluster: ClusterOption = None,
    verify: Annotated[bool, typer.Option("--verify", help="Read every byte and name every fault.")] = False,
    prune: Annotated[bool, typer.Option("--prune", help="Delete what the rule of the spec does not keep.")] = False,
    keep: Annotated[
        int | None, typer.Option("--keep", metavar="N", help="With --prune: the newest N stay, not the spec's rule.")
    ] = None,
    keep_every: Annotated[
        int | None, typer.Option("--keep-every", metavar="M", help="With --prune: those of every M steps stay.")
    ] = None,
    keep_best: Annotated[
        int | None, typer.Option("--keep-best", metavar="B", help="With --prune: the B of the lowest loss stay.")
    ] = None,
    rejected: Annotated[
        bool, typer.Option("--rejected", help="With --prune: delete rejected, broken and unfinished ones too.")
    ] = False,
    rolled_back: Annotated[
        bool, typer.Option("--rolled-back", help="With --prune: delete those that a rollback set aside too.")
    ] = False,
    rollback: Annotated[
        int | None,
        typer.Option("--rollback", metavar="STEP", help="Set newer ones aside: a resume begins at this step."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the checkpoints of a run, or verify, prune or roll them back."""
    if verify + prune + (rollback is not None) > 1:
        usage("--verify, --prune and --rollback are three commands; write one of them")
    given = [("--keep", keep), ("--keep-every", keep_every), ("--keep-best", keep_best)]
    for name, number in given:
        if number is not None and number < (least := 1 if name == "--keep" else 0):
            usage(f"{name}: {number} is less than {least}; write {least} or more")
    flags = [*given, ("--rejected", rejected or None), ("--rolled-back", rolled_back or None)]
    if not prune and (only := next((name for name, value in flags if value is not None), None)):
        usage(f"{only} goes with --prune; add it")
    if dry_run and not prune and rollback is None:
        usage("--dry-run: nothing would be changed anyway; leave it out")
    if steps and (prune or rollback is not None):
        usage(f"{steps[0]}: a step goes with --verify, or after --rollback")
    found = find_run(run, cluster)
    if not prune and rollback is None:
        _list(found, steps or [], verify, as_json)
        return
    from xgen.cli.checkpoints_change import Deleting, roll_back, run_prune

    if rollback is not None:
        roll_back(found, rollback, dry_run=dry_run, as_json=as_json)
        return
    run_prune(found, Deleting(keep, keep_every, keep_best, rejected, rolled_back), dry_run=dry_run, as_json=as_json)


def _list(run: RunDir, steps: list[int], verify: bool, as_json: bool) -> None:
    from xgen.cli.fork import describe_origin
    from xgen.runs.origin import forks_of, read_origin
    from xgen.train.ckpt_admin import check, reasons, survey

    rule = rule_of(run)
    everything = survey(run, foreign=rule is None)
    kept, forks = (reasons(everything, rule) if rule else {}), forks_of(run)
    if missing := [str(step) for step in steps if not any(c.step == step for c in everything)]:
        usage(f"{run.name} has no checkpoint of step {', '.join(missing)}; {said_steps(everything)}")
    found = [c for c in everything if not steps or c.step in steps]
    if verify:
        with reading(found) as tick:
            found = check(found, tick)
    faults = [f"{c.name}: {fault}" for c in found for fault in c.faults] if verify else []
    origin = read_origin(run)
    if as_json:
        print_json(
            {
                "run": run.name,
                "path": run.checkpoints_dir,
                "origin": origin.model_dump() if origin else None,
                "rule": rule,
                "checkpoints": [_facts(c, kept.get(c.step, []), forks.get(c.step, [])) for c in found],
            }
        )
    else:
        if origin:
            print(f"{run.name} was {describe_origin(origin)}")
        _table(run, found, {c.name: _why(c, kept, forks) for c in found})
    for fault in faults:
        print(fault, file=sys.stderr)
    if faults:
        sys.exit(1)


def rule_of(run: RunDir) -> Rule | None:
    """The rule of the run's spec; None where the checkpoints are a program's own."""
    from xgen.spec import Trained, load_resolved
    from xgen.train.ckpt_admin import Rule

    job = load_resolved(run.spec_file)
    if not isinstance(job, Trained):
        return None
    return Rule(job.checkpoint.keep, job.checkpoint.keep_every, job.checkpoint.keep_best)


def said_steps(checkpoints: list[Checkpoint]) -> str:
    """The steps that count, as the hint of an error."""
    known = [str(c.step) for c in checkpoints if c.counts]
    return f"write one of {', '.join(known[-12:])}" if known else "it has none that is complete"


@contextmanager
def reading(checkpoints: list[Checkpoint]) -> Iterator[Tick]:
    """Shows on a terminal how many bytes were read."""
    from xgen.images.progress import Silent, Terminal
    from xgen.spec.units import format_bytes

    names = checkpoints[0].name if len(checkpoints) == 1 else f"{len(checkpoints)} checkpoints"
    shown = Terminal(sys.stderr) if sys.stderr.isatty() else Silent()
    with shown.step(f"reading {names}, {format_bytes(sum(c.size for c in checkpoints))}") as tick:
        yield tick


def _table(run: RunDir, checkpoints: list[Checkpoint], why: dict[str, str]) -> None:
    from xgen.spec.units import format_bytes

    if not checkpoints:
        print(f"{run.name} has no checkpoints yet")
        return
    header = ("step", "tokens", "age", "size", "ranks", "loss", "state", "why it stays")
    rows = [(*_cells(c), why[c.name]) for c in checkpoints]
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    for row in (header, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    complete = [c for c in checkpoints if c.counts]
    number = len(checkpoints) - len(complete)
    others = f", {number} other{'s' * (number > 1)}" if number else ""
    size = format_bytes(sum(c.size for c in checkpoints))
    print(f"{len(complete)} complete{others}, {size} in {run.checkpoints_dir}")


def _cells(checkpoint: Checkpoint) -> tuple[str, ...]:
    from xgen.spec.units import format_bytes, format_duration

    manifest, seconds = checkpoint.manifest, max(0, int(time.time() - checkpoint.saved_at))
    unit = next((u for u in (86400, 3600, 60) if seconds >= 2 * u), 1)
    return (
        str(checkpoint.step),
        _count(manifest.tokens) if manifest else "-",
        format_duration(seconds // unit * unit),
        format_bytes(checkpoint.size),
        f"{manifest.world_size}{_mesh(manifest)}" if manifest else "-",
        f"{manifest.loss:.4f}" if manifest and manifest.loss is not None else "-",
        checkpoint.state,
    )


def _mesh(manifest: Manifest) -> str:
    parts = [f"{name} {size}" for name, size in manifest.mesh if size > 1] if manifest.mesh else []
    return f" ({', '.join(parts)})" if parts else ""


def _count(tokens: int) -> str:
    """Three digits and the unit of `parse_tokens`."""
    for size, unit in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "k")):
        if tokens >= size:
            return f"{tokens / size:.3g}{unit}"
    return str(tokens)


def _why(checkpoint: Checkpoint, kept: dict[int, list[str]], forks: dict[int, list[str]]) -> str:
    """What keeps a complete one, the name or the first fault of any other."""
    if not checkpoint.counts:
        return "; ".join([checkpoint.name, *checkpoint.faults[:1]])
    forked = [f"forked by {name}" for name in forks.get(checkpoint.step, [])]
    return ", ".join([*kept.get(checkpoint.step, []), *forked]) or "-"


def _facts(checkpoint: Checkpoint, kept: list[str], forks: list[str]) -> dict[str, Any]:
    manifest = checkpoint.manifest
    return {
        "name": checkpoint.name,
        "step": checkpoint.step,
        "state": checkpoint.state,
        "size": checkpoint.size,
        "saved_at": checkpoint.saved_at,
        "tokens": manifest.tokens if manifest else None,
        "ranks": manifest.world_size if manifest else None,
        "mesh": manifest.mesh.model_dump() if manifest and manifest.mesh else None,
        "loss": manifest.loss if manifest else None,
        "attempt": manifest.attempt if manifest else None,
        "kept_by": kept if checkpoint.counts else [],
        "forked_by": forks,
        "faults": checkpoint.faults,
    }
