"""`xgen cluster show`: a profile, where it was found, and what its site says of it now."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xgen.cli import completion
from xgen.cli.common import EXIT_SCHEDULER, JsonOption, print_json

if TYPE_CHECKING:
    from xgen.cluster.site import Site
    from xgen.cluster.site.compare import Compared, PartitionNow
    from xgen.drawing.tables import Table
    from xgen.spec import Profile


_WIDE = 120  # columns: a line that the terminal breaks reads better than a table in two


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
    """Show a profile beside what its site says now: ! marks what differs, with the line to change.

    Below it the partitions, with what is free in them. Run it where SLURM's commands are.
    """  # fmt: skip
    from xgen.cluster.site import ask_site
    from xgen.cluster.site.compare import compare, partitions_now
    from xgen.cluster.slurm import SchedulerError
    from xgen.spec import find_profile, load_profile
    from xgen.spec.layers import places, show_key

    name, file = find_profile(name, Path.cwd())
    profile = load_profile(file)
    site: Site | None = None
    silent = ""
    if profile.scheduler == "slurm":
        try:
            site = ask_site()
        except SchedulerError as error:
            silent = str(error)
    rows = compare(profile, site) if site else []
    now = partitions_now(profile, site) if site else []
    found_at = places(file, [row.key for row in rows if row.write])
    if as_json:
        facts = [asdict(row) | {"key": show_key(row.key), "place": found_at.get(row.key)} for row in rows]
        print_json(
            {
                "cluster": name, "file": str(file), "profile": profile.model_dump(mode="json"),
                "site": _site_facts(site), "compared": facts, "partitions": now, "unknown": _unknown(site, silent),
            }
        )  # fmt: skip
    else:
        _print(name, file, profile, site, rows, now, found_at)
    for said in _unknown(site, silent):
        print(f"cluster {name}: not known: {said}", file=sys.stderr)
    if silent:
        sys.exit(EXIT_SCHEDULER)


def _unknown(site: Site | None, silent: str) -> list[str]:
    return [silent] if silent else list(site.unanswered) if site else []


def _site_facts(site: Site | None) -> dict[str, object] | None:
    if site is None:
        return None
    accounts = list(dict.fromkeys(one.account for one in site.associations))
    return {
        "cluster": site.cluster, "version": site.version, "accounting": site.accounting, "user": site.user,
        "default_account": site.default_account, "accounts": accounts,
    }  # fmt: skip


def _print(
    name: str,
    file: Path,
    profile: Profile,
    site: Site | None,
    rows: Sequence[Compared],
    now: Sequence[PartitionNow],
    found_at: dict[tuple[str | int, ...], str],
) -> None:
    from xgen.spec.layers import show_key

    width = shutil.get_terminal_size().columns
    container = profile.container
    print(f"{name}  {file}")
    print(f"  runs       {profile.run_root}")
    print(f"  container  {container.runtime}{f', images in {container.image_dir}' if container.image_dir else ''}")
    if profile.scheduler == "local":
        print("  scheduler  none: runs are processes of this machine, and there is nothing to compare")
    if site is None:
        return
    accounts = ", ".join(dict.fromkeys(one.account for one in site.associations))
    print(f"  site       {site.cluster}, SLURM {site.version}{f'; your accounts: {accounts}' if accounts else ''}")
    print()
    print("\n".join(_compared(rows).to_text(max(width, _WIDE))))
    for row in rows:
        if row.write:
            print(f"! {found_at.get(row.key, file)}: {show_key(row.key)}: write {row.write}")
    print()
    print("\n".join(_partitions(now).to_text(width)))
    if any(not part.in_profile for part in now):
        print("* is not in the profile")


def _compared(rows: Sequence[Compared]) -> Table:
    from xgen.drawing.tables import Table
    from xgen.spec.layers import show_key

    cells = tuple((f"{'!' if row.write else ' '} {show_key(row.key)}", row.profile, row.site) for row in rows)
    return Table(("  key", "profile|", "the site says|"), cells)


def _partitions(found: Sequence[PartitionNow]) -> Table:
    from xgen.drawing.tables import Table
    from xgen.spec.units import format_duration

    rows = tuple(
        (
            f"{part.name}{'' if part.in_profile else '*'}",
            part.state.lower() if part.closed is None else "closed",
            "no limit" if part.max_time is None else format_duration(part.max_time),
            f"{', '.join(part.preempted_by)} ({part.preempt_mode})" if part.preempted_by else "-",
            "-" if part.grace is None else format_duration(part.grace),
            *("?" if n is None else str(n) for n in (part.nodes, part.nodes_out, part.gpus, part.gpus_free)),
        )
        for part in found
    )  # fmt: skip
    heads = ("partition", "state|", "max time", "preempted by|", "grace", "nodes", "out", "GPUs", "free")
    return Table(heads, rows)
