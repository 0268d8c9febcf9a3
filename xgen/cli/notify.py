"""`xgen notify`: tell whoever wants to know what has happened to runs; for cron, where no exporter does it."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from xgen.cli import completion
from xgen.cli.common import ClusterOption, JsonOption, find_run, print_json, usage

if TYPE_CHECKING:
    from pathlib import Path

    from xgen.notify import Told
    from xgen.runs import RunDir
    from xgen.spec import Profile


def command(
    run: Annotated[
        str | None,
        typer.Argument(
            help="What was told of this run, and what could not be.", metavar="[RUN]", autocompletion=completion.runs
        ),
    ] = None,
    cluster: ClusterOption = None,
    test: Annotated[bool, typer.Option("--test", help="Send a test message to all who would be told of RUN.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Send what is new to those whom specs (`notify:`) and the cluster profile name, each fact once.

    `xgen exporter` and `xgen watch` do the same while they run. Where neither runs, a line of crontab does:

    */5 * * * * xgen notify --cluster NAME

    Exit code 1 says that a message could not be sent; it is tried again up to four times. A hook that fails never harms
    the run.
    """
    from pathlib import Path

    from xgen.spec import find_profile, load_profile

    if run is None and test:
        usage("--test: of which run? write xgen notify RUN --test")
    name, file = find_profile(cluster, Path.cwd())
    profile = load_profile(file)
    if run is None:
        _report(_look(Path(profile.run_root), name, profile), as_json)
        return
    found = find_run(run, cluster)
    if test:
        _report(_test(found, name, profile), as_json)
    else:
        _tries(found, as_json)


def _look(run_root: Path, cluster: str, profile: Profile) -> list[Told]:
    from xgen.cluster.index import statuses
    from xgen.cluster.remembered import cache_file
    from xgen.cluster.status import ask_slurm
    from xgen.notify import Notifier

    listed = statuses(run_root, ask_slurm, cache_file(run_root), newest=1)
    lost = {row.name: row.reason for row in listed.rows if row.state == "lost"}
    return Notifier(run_root, cluster, profile).look(lost)


def _test(run: RunDir, cluster: str, profile: Profile) -> list[Told]:
    from xgen.notify import Fact, Notifier

    told = Notifier(run.path.parent, cluster, profile).send_now(
        run, Fact("test", "finish", "test", time.time(), 0, "", 0, 0)
    )
    if not told:
        usage(f"nobody is told of {run.name}: neither its spec nor the profile of {cluster} has notify: …")
    return told


def _report(told: list[Told], as_json: bool) -> None:
    if as_json:
        print_json(told)
    for one in told if not as_json else ():
        print(f"{one.run}  {one.fact}  {one.channel}  {one.result}", file=sys.stdout if one.is_sent else sys.stderr)
    sys.exit(0 if all(one.is_sent for one in told) else 1)


def _tries(run: RunDir, as_json: bool) -> None:
    from xgen.notify.claims import tries

    made = tries(run)
    if as_json:
        print_json(made)
        return
    if not made:
        print(f"nobody was told anything of {run.name}")
    for one in made:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.time))
        print(f"{when}  {one.fact:<14} {one.channel:<13} {one.result}{f', try {one.number}' if one.number > 1 else ''}")
