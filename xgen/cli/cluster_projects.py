"""`xgen cluster projects`: the projects of a profile, and what each has left."""

from __future__ import annotations

import shutil
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xgen.cli import completion
from xgen.cli.common import JsonOption, print_json

if TYPE_CHECKING:
    from xgen.drawing.tables import Table
    from xgen.metrics.fleet.balance import Balance
    from xgen.metrics.fleet.space import Held
    from xgen.spec import Profile


def command(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            show_default=False,
            autocompletion=completion.clusters,
            help="A name or a file. Default: $XGEN_CLUSTER.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the projects of a profile: account, group, GPU-hours used and left in the window of each, bytes held.

    GPU-hours are those of `xgen usage --by project`; `over` says what a submission over the budget meets. Bytes are
    those on the disk of its run directories; of a file that several share each counts its part. They are measured where
    a project has a quota.
    """
    from xgen.cluster.status import ask_slurm
    from xgen.metrics.fleet.balance import balances
    from xgen.metrics.fleet.space import held, held_by
    from xgen.spec import find_profile, load_profile

    name, file = find_profile(name, Path.cwd())
    profile = load_profile(file)
    root = Path(profile.run_root)
    found, uses = balances(root, profile.projects, ask_slurm, time.time())
    quotas = {name: project.quota for name, project in profile.projects.items() if project.quota}
    sizes = held_by(root, quotas, ask_slurm)
    spaces = {name: held(name, quota, sizes.users[name]) for name, quota in quotas.items()}
    if as_json:
        print_json(
            {
                "cluster": name,
                "projects": [
                    profile.projects[one.project].model_dump(mode="json", exclude={"budget", "quota"})
                    | asdict(one)
                    | {"account": profile.account_of(one.project), "left": one.left, "over": _over(profile, one)}
                    | _space(profile, one.project, spaces)
                    for one in found
                ],
                "unreadable": sorted({*uses.unreadable, *sizes.unreadable}),
                "scheduler_error": uses.error,
            }
        )
    elif found:
        print("\n".join(_table(profile, found, spaces).to_text(shutil.get_terminal_size().columns)))
    else:
        print(f"{file}: lists no projects: a spec's `project:` is the SLURM account itself")
    if uses.error:
        print(f"the scheduler did not answer: {uses.error}", file=sys.stderr)
    if unreadable := {*uses.unreadable, *sizes.unreadable}:
        print(f"not counted, for you may not read them: {len(unreadable)} runs", file=sys.stderr)


def _over(profile: Profile, one: Balance) -> str | None:
    budget = profile.projects[one.project].budget
    return budget.over if budget else None


def _space(profile: Profile, name: str, spaces: dict[str, Held]) -> dict[str, object]:
    """Of a project without a quota nothing is measured."""
    quota, now = profile.projects[name].quota, spaces.get(name)
    return {
        "bytes": now.used if now else None,
        "quota": now.limit if now else None,
        "bytes_by_user": now.users if now else [],
        "over_quota": quota.over if quota else None,
    }


def _table(profile: Profile, found: list[Balance], spaces: dict[str, Held]) -> Table:
    from xgen.cli.usage import hours
    from xgen.drawing.tables import Table
    from xgen.spec.units import format_bytes, format_duration

    rows = tuple(
        (
            one.project,
            profile.account_of(one.project) or "",
            profile.projects[one.project].group or "-",
            hours(one.used),
            "no limit" if one.limit is None else hours(one.limit),
            "-" if one.left is None else hours(max(0.0, one.left)),
            format_duration(one.per),
            _over(profile, one) or "-",
            ", ".join(f"{user} {hours(part)}" for user, part in one.users[:3]) or "-",
            format_bytes(now.used) if (now := spaces.get(one.project)) else "-",
            format_bytes(now.limit) if now else "no limit",
        )
        for one in found
    )
    heads = ("project", "account|", "group|", "used", "limit", "left", "in", "over|", "mostly by|", "holds", "of")
    return Table(heads, rows)
