"""`xgen runs clean`: remove runs that have ended, or their older checkpoints."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import typer

from xgen.cli.common import ClusterOption, JsonOption, print_json, run_root, usage

if TYPE_CHECKING:
    from pathlib import Path

    from xgen.cluster.status import RunStatus
    from xgen.runs import RunDir

app = typer.Typer(help="Runs as a whole.", no_args_is_help=True, rich_markup_mode=None)

_STATES = ("finished", "failed", "cancelled")
_MOST_SHOWN = 20


@app.callback()
def _runs() -> None:
    """Runs as a whole."""


@dataclass
class Plan:
    """What goes, with the bytes that this frees, and what stays though it was asked for, with the reason."""

    root: Path
    going: dict[str, int] = field(default_factory=dict)
    staying: dict[str, str] = field(default_factory=dict)
    rows: dict[str, RunStatus] = field(default_factory=dict)

    def run(self, name: str) -> RunDir:
        from xgen.runs import RunDir

        return RunDir(self.root / name)


@app.command()
def clean(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN]...", help="Only these runs, whatever their age. Default: all.")
    ] = None,
    older_than: Annotated[
        str, typer.Option("--older-than", metavar="DURATION", help="Of which nothing was heard for so long.")
    ] = "30d",
    state: Annotated[
        str, typer.Option("--state", metavar="STATE,STATE", help="Which have ended so: finished, failed, cancelled.")
    ] = ",".join(_STATES),
    keep_checkpoints: Annotated[
        int | None,
        typer.Option(
            "--keep-checkpoints", metavar="N", min=1, help="Keep the runs, and the newest N checkpoints of each."
        ),
    ] = None,
    referred: Annotated[
        bool,
        typer.Option("--referred", help="Also runs that others refer to: forks, evaluations, steps of a pipeline."),
    ] = False,
    give_up: Annotated[
        bool,
        typer.Option(
            "--give-up", help="Of the runs that are named also those that could go on, with their last checkpoint."
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Remove it. Without this nothing is removed.")] = False,
    cluster: ClusterOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what would be removed of your runs that have ended, and remove it with --yes.

    A run that waits, runs or is lost stays, whatever is asked. So does one that could be resumed from a checkpoint,
    unless it is named and to be given up; and one that another run refers to.
    """
    if give_up and not names:
        usage("--give-up: name the runs that are given up, whose last checkpoint goes too")
    plan = _plan(run_root(cluster), names or [], _seconds(older_than), _states(state))
    if keep_checkpoints is None:
        _keep_what_can_go_on(plan, give_up=give_up)
    if not referred:
        _keep_what_is_named(plan, all_stay=keep_checkpoints is not None)
    if keep_checkpoints is None:
        _remove_runs(plan, yes=yes, as_json=as_json)
    else:
        _thin(plan, keep_checkpoints, yes=yes, as_json=as_json)


def _seconds(text: str) -> int:
    from xgen.spec.units import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        usage(f"--older-than: {error}")


def _states(text: str) -> tuple[str, ...]:
    found = tuple(text.replace(" ", "").split(","))
    if wrong := [one for one in found if one not in _STATES]:
        usage(f"--state: {wrong[0]!r} is none that is removed; write {', '.join(_STATES)}")
    return found


def _plan(root: Path, names: list[str], seconds: int, states: tuple[str, ...]) -> Plan:
    """Of the runs of this person those that have ended."""
    from xgen.cluster.index import statuses
    from xgen.cluster.remembered import cache_file
    from xgen.cluster.status import ask_slurm

    found = statuses(root, ask_slurm, cache_file(root))
    plan = Plan(root, rows={row.name: row for row in found.rows})
    if unknown := [name for name in names if name not in plan.rows]:
        usage(f"no run {unknown[0]} in {root}; write its whole name")
    before = time.time() - seconds
    for name, row in plan.rows.items():
        path = root / name
        if names and name not in names:
            continue
        if path.stat().st_uid != os.getuid():
            if names:
                plan.staying[name] = "it is somebody else's"
        elif row.state not in states:
            if names:
                plan.staying[name] = f"it is {row.state}"
        elif names or _last_heard(path) < before:
            plan.going[name] = 0
    return plan


def _keep_what_is_named(plan: Plan, *, all_stay: bool) -> None:
    """What a run refers to that stays, be it one of those that were asked for. `all_stay`: every run does, and only
    checkpoints go."""
    from xgen.cluster.references import free_of_references, references

    if not plan.going:
        return
    referring = references(plan.run(name) for name in plan.rows)
    if all_stay:
        kept = {name: referring[name] for name in plan.going if name in referring}
    else:
        kept = free_of_references(plan.going, referring)
    for name, others in kept.items():
        plan.staying[name] = f"{', '.join(sorted(others)[:3])}{' …' if len(others) > 3 else ''} refers to it"
        del plan.going[name]


def _last_heard(path: Path) -> float:
    try:
        with os.scandir(path / "events") as entries:
            return max((entry.stat().st_mtime for entry in entries), default=path.stat().st_mtime)
    except FileNotFoundError:
        return path.stat().st_mtime


def _keep_what_can_go_on(plan: Plan, *, give_up: bool) -> None:
    """Of what has not finished, whatever `xgen resume` would take up."""
    for name in list(plan.going):
        run, state = plan.run(name), plan.rows[name].state
        if state == "finished" or give_up:
            continue
        steps = run.checkpoint_steps()
        if steps or run.shards_dir.is_dir():
            what = f"its last checkpoint is step {steps[-1]}" if steps else "its shards have results"
            plan.staying[name] = f"it is {state}, and {what}; --give-up {name}"
            del plan.going[name]


def _remove_runs(plan: Plan, *, yes: bool, as_json: bool) -> None:
    import shutil

    from xgen.cluster.removal import Busy, half_removed, remove, size_of, unused_code

    for name in plan.going:
        plan.going[name] = size_of(plan.root / name)
    leftovers = {path: size_of(path) for path in (*half_removed(plan.root), *unused_code(plan.root))}
    failed = False
    if yes:
        for name in list(plan.going):
            try:
                remove(plan.run(name), _STATES)
            except (Busy, OSError) as error:
                failed = failed or isinstance(error, OSError)
                plan.staying[name] = str(error)
                del plan.going[name]
        leftovers |= {path: size_of(path) for path in unused_code(plan.root) if path not in leftovers}
        for path in list(leftovers):
            shutil.rmtree(path, ignore_errors=True)  # another may be removing it
            if path.exists():
                failed = True
                plan.staying[path.name] = "not all of it can be removed"
                del leftovers[path]
    if as_json:
        print_json(
            {
                "removed" if yes else "would_remove": [
                    {"run": name, "state": plan.rows[name].state, "bytes": size} for name, size in plan.going.items()
                ],
                "leftovers": [{"path": path, "bytes": size} for path, size in leftovers.items()],
                "staying": plan.staying,
                "bytes": sum(plan.going.values()) + sum(leftovers.values()),
            }
        )
    else:
        _say(plan, leftovers, yes=yes)
    if failed:
        sys.exit(1)


def _say(plan: Plan, leftovers: dict[Path, int], *, yes: bool) -> None:
    from xgen.drawing.wording import many
    from xgen.spec.units import format_bytes

    count = many(len(plan.going), "run")
    for name, why in list(plan.staying.items())[:_MOST_SHOWN]:
        print(f"stays   {name}: {why}")
    if (more := len(plan.staying) - _MOST_SHOWN) > 0:
        print(f"stay    {more} more: --json")
    verb = "removed" if yes else "remove "
    for name, size in sorted(plan.going.items(), key=lambda item: -item[1])[:_MOST_SHOWN]:
        print(f"{verb} {format_bytes(size):>9}  {plan.rows[name].state:<9}  {name}")
    if (more := len(plan.going) - _MOST_SHOWN) > 0:
        rest = sum(sorted(plan.going.values())[:more])
        print(f"{verb} {format_bytes(rest):>9}  {more} more: --json")
    if leftovers:
        print(f"{verb} {format_bytes(sum(leftovers.values())):>9}  what removed runs have left behind")
    whole = sum(plan.going.values()) + sum(leftovers.values())
    if not plan.going and not leftovers:
        print("nothing to remove")
    elif yes:
        print(f"{count} gone, {format_bytes(whole)} free")
    else:
        print(f"{count}, {format_bytes(whole)}; nothing is removed yet: write it again with --yes")


def _thin(plan: Plan, keep: int, *, yes: bool, as_json: bool) -> None:
    """All but the newest checkpoints of each run; of those that stay one at least verifies."""
    from xgen.cluster.removal import Busy, only_mine
    from xgen.spec.units import format_bytes
    from xgen.train.ckpt_admin import Checkpoint, Rule, Unsafe, check, choose, delete, survey

    def is_sound(checkpoint: Checkpoint) -> bool:
        return check([checkpoint])[0].state == "verified"

    freed, gone, failed = 0, dict[str, list[str]](), False
    for name in plan.going:
        run = plan.run(name)
        try:
            with only_mine(run, _STATES):
                doomed = choose(survey(run), Rule(keep), [], is_sound)
                for checkpoint in doomed:
                    size = delete(checkpoint) if yes else checkpoint.size
                    freed += size
                    gone.setdefault(name, []).append(checkpoint.name)
                    if not as_json:
                        print(f"{'removed' if yes else 'remove '} {format_bytes(size):>9}  {name}  {checkpoint.name}")
        except (Busy, Unsafe, OSError) as error:
            failed = failed or isinstance(error, OSError)
            plan.staying[name] = str(error)
    if as_json:
        print_json({"removed" if yes else "would_remove": gone, "staying": plan.staying, "bytes": freed})
    else:
        for name, why in plan.staying.items():
            print(f"stays   {name}: {why}")
        said = f"{sum(map(len, gone.values()))} checkpoints of {len(gone)} runs, {format_bytes(freed)}"
        print(said if yes or not gone else f"{said}; nothing is removed yet: write it again with --yes")
    if failed:
        sys.exit(1)
