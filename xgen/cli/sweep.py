"""`xgen sweep`: the points of a sweep in a table, by any number that they have written."""

from __future__ import annotations

import csv
import math
import shlex
import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xgen.cli.common import ClusterOption, JsonOption, RunArgument, find_run, print_json, usage

if TYPE_CHECKING:
    from xgen.cluster.status import ShardsStatus
    from xgen.cluster.swept import Result
    from xgen.runs import RunDir
    from xgen.spec import Sweep

_LONGEST = 60  # characters of a reason in the table; --json has all of it


def command(
    run: RunArgument,
    cluster: ClusterOption = None,
    metric: Annotated[
        str | None,
        typer.Option(
            "--metric",
            metavar="NAME",
            help="loss, validation, validation.DOMAIN, a number of metrics/steps.jsonl, SUITE/TASK/LENGTH of an "
            "evaluation, else one of result.json. Default: the spec's metric, or the loss.",
        ),
    ] = None,
    at: Annotated[
        str, typer.Option("--at", metavar="last|best|STEP", help="Which value of it; STEP compares like with like.")
    ] = "last",
    best: Annotated[
        str | None,
        typer.Option("--best", metavar="lowest|highest", help="Default: as in the spec; the lowest of a loss."),
    ] = None,
    top: Annotated[int | None, typer.Option("--top", metavar="N", help="Only the N best points.")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values instead of text.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the points of a sweep, the best first, and the best one's settings as --set options to copy.

    A point that the rule has stopped early stands below those that went on, and says why. `xgen logs RUN --shard N`
    and `xgen show RUN --shard N` speak of point N; `xgen resume RUN` runs what is not done.
    """
    from xgen.cluster.swept import results

    found = find_run(run, cluster)
    sweep = _sweep_of(found)
    name, highest = _metric(sweep, metric, best)
    if at not in ("last", "best") and not (at.isdecimal() and int(at) > 0):
        usage(f"--at: {at!r} is no step; write last, best or a step, e.g. 500")
    if top is not None and top < 1:
        usage(f"--top: {top} shows nothing; write 1 or more")
    shards, note = _shards(found)
    rows = results(found, sweep, shards, name, int(at) if at.isdecimal() else at, highest)[:top]
    if as_json:
        facts = {"run": found.name, "metric": name, "best": "highest" if highest else "lowest", "at": at}
        print_json({**facts, "scheduler": note or None, "points": [_facts(row) for row in rows]})
    elif as_csv:
        _print_csv(rows, name)
    else:
        _print(found, rows, name, at)
        if note:
            print(f"the scheduler did not answer, so points that run are shown as waiting: {note}", file=sys.stderr)


def _sweep_of(run: RunDir) -> Sweep:
    from xgen.spec import Sweep, load_resolved

    job = load_resolved(run.spec_file)
    if not isinstance(job, Sweep):
        usage(f"{run.name} is no sweep but a {getattr(job, 'kind', 'job')}; write xgen show {run.name}")
    return job


def _metric(sweep: Sweep, metric: str | None, best: str | None) -> tuple[str | None, bool]:
    """Name, and whether the highest is the best. Leaves with exit code 2 where nobody says."""
    from xgen.spec.points import metric_of
    from xgen.spec.sweep import is_loss

    if best not in (None, "lowest", "highest"):
        usage(f"--best: {best!r} is neither; write lowest or highest")
    name = metric_of(sweep, metric)
    if best is None and metric in (None, sweep.metric):
        best = sweep.best
    elif best is None and metric and not is_loss(metric):
        usage(f"--metric: is {metric} better when it is high? write --best highest, or --best lowest")
    return name, best == "highest"


def _shards(run: RunDir) -> tuple[ShardsStatus, str]:
    """How far the shards are, and what the scheduler said where it does not know."""
    from xgen.cli.shards import ask_shards
    from xgen.cluster.status import ShardsStatus, ask_slurm

    view = ask_slurm([run])
    found = ask_shards(run, view)
    return (found[0] if found else ShardsStatus("", 0, 0, [], [], [])), "" if view.jobs is not None else view.error


def _facts(row: Result) -> dict[str, Any]:
    from xgen.spec.points import settings

    finite = row.value is not None and math.isfinite(row.value)
    return {
        "point": row.point,
        "state": row.state,
        "step": row.step,
        "value": row.value if finite else None,
        "finite": row.value is None or finite,
        "why": row.why or None,
        "settings": row.settings,
        "set": settings(row.settings),
        "path": row.path,
    }


def _print_csv(rows: Sequence[Result], metric: str | None) -> None:
    keys = list(dict.fromkeys(key for row in rows for key in row.settings))
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(["point", *keys, "state", "step", metric or "value", "why"])
    for row in rows:
        table.writerow(
            [row.point, *(row.settings.get(key, "") for key in keys), row.state, row.step, _plain(row), row.why]
        )


def _plain(row: Result) -> object:
    return "" if row.value is None else row.value


def _print(run: RunDir, rows: Sequence[Result], metric: str | None, at: str) -> None:
    from xgen.drawing.tables import Table

    keys = list(dict.fromkeys(key for row in rows for key in row.settings))
    heads = ("point", *(f"{name}|" for name in _short_names(keys)), "state|", "step", metric or "value")
    cells = [
        (str(row.point), *(_show(row.settings.get(key, "")) for key in keys), row.state, f"{row.step:,}", _value(row))
        for row in rows
    ]
    counts = ", ".join(f"{sum(row.state == one for row in rows)} {one}" for one in dict.fromkeys(r.state for r in rows))
    print(f"{run.name}  {len(rows)} points: {counts}{f'; {metric}, {at}' if metric else ''}")
    for line in Table(heads, tuple(cells)).to_text(shutil.get_terminal_size().columns):
        print(line)
    for row in rows:
        if row.why:
            why = row.why if len(row.why) <= _LONGEST else f"{row.why[: _LONGEST - 1]}…"
            print(f"  point {row.point} {row.state}: {why}")
    first = next(iter(rows), None)
    if first and first.value is not None and math.isfinite(first.value):
        from xgen.spec.points import settings

        print(
            f"best: point {first.point}: " + " ".join(f"--set {shlex.quote(one)}" for one in settings(first.settings))
        )


def _short_names(keys: Sequence[str]) -> list[str]:
    """The last words of each that tell it from the others: `lr.peak` of `stages.0.lr.peak`."""
    short = []
    for key in keys:
        parts = key.split(".")
        for length in range(1, len(parts) + 1):
            tail = ".".join(parts[-length:])
            others = [other for other in keys if other != key and (other == tail or other.endswith(f".{tail}"))]
            if not others and not parts[-length].isdecimal():
                break
        short.append(tail)
    return short


def _show(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _value(row: Result) -> str:
    return "-" if row.value is None else f"{row.value:.5g}"
