"""`xgen usage`: GPU-hours by user, project, run, phase or loss, from the runs' events, beside SLURM's accounting."""

from __future__ import annotations

import csv
import shutil
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xgen.cli.common import ClusterOption, JsonOption, print_json, usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xgen.metrics.fleet.sums import By, Check, Sum, Unit
    from xgen.metrics.fleet.usage import Used, Uses
    from xgen.spec import Profile

_DAY = 86400.0


def command(
    cluster: ClusterOption = None,
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="7d, 12h, a date such as 2026-11-01, or all.")
    ] = "7d",
    by: Annotated[
        str,
        typer.Option("--by", metavar="KEYS", help="Of user, project, run, name, kind, and phase or lost; with commas."),
    ] = "user,project",
    cpus: Annotated[bool, typer.Option("--cpu", help="CPU-hours instead, of jobs without GPUs too.")] = False,
    accounting: Annotated[bool, typer.Option("--sacct/--no-sacct", help="Compare with SLURM's accounting.")] = True,
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print lines of CSV, without the totals.")] = False,
) -> None:
    """Show what was used and what of it was lost, and to what.

    GPU-hours count from SLURM's start of each attempt to its end, whatever the GPUs did. Useful is time that trained
    new steps, or validated; lost is the rest: starts, what a preemption or a crash cost (start, restore, and steps done
    again), saves, waiting for data, hangs, and steps that no checkpoint has. `--by phase` and `--by lost` divide it.

    xgen usage --since 30d --by project,lost
    """
    from pathlib import Path

    from xgen.cluster.status import ask_slurm
    from xgen.metrics.fleet.sums import sums
    from xgen.metrics.fleet.usage import uses_since
    from xgen.spec import find_profile, load_profile

    name, file = find_profile(cluster, Path.cwd())
    profile, now = load_profile(file), time.time()
    keys, begin = _keys(by), _since(since, now)
    unit: Unit = "CPU-hours" if cpus or profile.gpus.request == "none" else "GPU-hours"
    found = uses_since(Path(profile.run_root), ask_slurm, begin, now)
    groups, total = sums(found.rows, keys, unit), next(iter(sums(found.rows, (), unit)), None)
    if as_csv:
        _print_csv(groups, keys, unit)
        return
    checked, why_not = _check(found.rows, profile, unit, begin, now) if accounting else (None, "")
    if as_json:
        print_json(_facts(name, unit, begin, now, keys, groups, total, checked, why_not, found))
        return
    if total is None:
        print(f"no run of {name} was under way since {_date(begin)}; write --since all")
    else:
        lines = [*_table(groups, keys, unit, total), *_said(total, unit, cpus, found.rows)]
        print("\n".join(lines + ([] if not accounting else _compared(checked, why_not, unit))))
    for said in _not_known(found):
        print(said, file=sys.stderr)


def _keys(text: str) -> tuple[By, ...]:
    from xgen.metrics.fleet.sums import BY
    from xgen.spec.base import nearest

    known: dict[str, By] = {key: key for key in BY}
    keys = text.split(",")
    for key in keys:
        if key not in known:
            usage(f"--by: {key!r} is not known; {nearest(key, BY)}")
    if "phase" in keys and "lost" in keys:
        usage("--by: phase and lost divide the same hours; write one of them")
    return tuple(known[key] for key in keys)


def _since(text: str, now: float) -> float:
    from datetime import datetime

    from xgen.spec.units import parse_duration

    if text == "all":
        return 0.0
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        pass
    try:
        return max(0.0, now - parse_duration(text))
    except ValueError:
        usage(f"--since: {text!r} is no time; write e.g. 7d, 12h, 2026-11-01 or all")


def _check(rows: Sequence[Used], profile: Profile, unit: Unit, since: float, now: float) -> tuple[Check | None, str]:
    """Beside sacct; or why not."""
    from xgen.metrics.exporter import CollectorError
    from xgen.metrics.fleet.sums import check
    from xgen.metrics.slurm.accounting import held

    if profile.scheduler == "local" or not rows:
        return None, "runs of this machine have no accounting: the hours are those of the runs' own events"
    begin = max(since, min(one.use.started for one in rows) - _DAY)
    try:
        return check(rows, held((one.user for one in rows), begin, now), unit, now), ""
    except CollectorError as error:
        return None, f"without SLURM's accounting ({error}): the hours are those of the runs' own events alone"


def _table(groups: Sequence[Sum], keys: Sequence[By], unit: Unit, total: Sum) -> list[str]:
    from xgen.drawing.tables import Table
    from xgen.drawing.wording import share

    divided = "phase" in keys or "lost" in keys
    words = tuple(f"{key}|" for key in keys)
    if divided:
        rows = [(*one.key, f"{len(one.runs):,}", hours(one.hours), share(one.hours, total.hours)) for one in groups]
        return Table((*words, "runs", unit, "share"), tuple(rows), left=len(keys)).to_text(_width())
    rows = [_row(one.key, one) for one in groups]
    if len(rows) > 1:
        rows.append(_row(("total", *("" for _ in keys[1:])), total))
    return Table((*words, "runs", unit, "useful", "lost", "mostly to|"), tuple(rows), left=len(keys)).to_text(_width())


def _row(key: tuple[str, ...], one: Sum) -> tuple[str, ...]:
    from xgen.drawing.wording import share

    lost = sum(one.lost.values())
    most = ", ".join(f"{LOSSES[cause]} {share(part, one.hours)}" for cause, part in _largest(one.lost)[:2])
    return (*key, f"{len(one.runs):,}", hours(one.hours), share(one.useful, one.hours), hours(lost), most)


def _largest(parts: dict[str, float]) -> list[tuple[str, float]]:
    return sorted(((name, part) for name, part in parts.items() if part), key=lambda one: -one[1])


LOSSES = {
    "start": "first start", "save": "saving", "data_wait": "waiting for data", "preempted": "preemption",
    "time_limit": "time limits", "crashed": "crashes", "lost": "lost nodes", "other": "other restarts", "hang": "hangs",
    "unsaved": "unsaved work",
}  # fmt: skip


def _said(total: Sum, unit: Unit, asked: bool, rows: Sequence[Used]) -> list[str]:
    from xgen.drawing.wording import share

    phases = ", ".join(f"{phase} {share(part, total.hours)}" for phase, part in _largest(total.phases))
    lines = [f"by phase: {phases}"] if phases else []
    if total.queued >= 0.05:
        lines.append(f"runs waited {hours(total.queued)} hours in the queue, and held nothing meanwhile")
    if unit == "CPU-hours" and not asked:
        lines.append("this cluster has no GPUs to ask for: hours are CPU-hours")
    others = sum(one.num_cpus * one.use.held for one in rows if not one.num_gpus) / 3600
    if unit == "GPU-hours" and others:
        lines.append(f"jobs without GPUs held {hours(others)} CPU-hours besides: xgen usage --cpu")
    return lines


def _compared(checked: Check | None, why_not: str, unit: Unit) -> list[str]:
    from xgen.drawing.wording import many

    if checked is None:
        return [why_not]
    if not checked.sacct:
        return ["sacct knows none of these jobs: the hours are those of the runs' own events alone"]
    lines = [f"sacct has {hours(checked.sacct)} {unit} of the same jobs, {checked.difference:+.1%}"]
    if abs(checked.difference) > 0.01:
        runs = ", ".join(f"{run} {hours(events)} here, {hours(sacct)} there" for run, events, sacct in checked.runs)
        lines.append(f"  most apart: {runs}")
    if checked.unknown:
        those = f"{many(len(checked.unknown), 'run')} ({hours(sum(checked.unknown.values()))} {unit})"
        lines.append(f"sacct shows no job of {those}: hidden from you, or forgotten")
    return lines


def _not_known(found: Uses) -> list[str]:
    said = [f"the scheduler did not answer: {found.error}"] if found.error else []
    if found.unreadable:
        said.append(f"not counted, for you may not read them: {', '.join(found.unreadable[:5])} …"[:200])
    return said


def hours(number: float) -> str:
    """Three digits, and no more of a large number than there are hours."""
    if 0 < number < 0.0001:
        return "<0.0001"
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _width() -> int:
    return shutil.get_terminal_size().columns


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _print_csv(groups: Sequence[Sum], keys: Sequence[By], unit: Unit) -> None:
    from xgen.runs.accounting import CAUSES

    divided = "phase" in keys or "lost" in keys
    column = unit.lower().replace("-", "_")
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow([*keys, "runs", column, *([] if divided else ["useful", "queued_hours", *CAUSES])])
    for one in groups:
        more = [] if divided else [one.useful, one.queued, *(one.lost.get(cause, 0.0) for cause in CAUSES)]
        writer.writerow([*one.key, len(one.runs), *(f"{number:.6g}" for number in (one.hours, *more))])


def _facts(
    cluster: str, unit: Unit, since: float, now: float, keys: Sequence[By], groups: Sequence[Sum], total: Sum | None,
    checked: Check | None, why_not: str, found: Uses,
) -> dict[str, Any]:  # fmt: skip
    def fact(one: Sum) -> dict[str, Any]:
        more = {"useful": one.useful, "lost": one.lost, "phases": one.phases, "queued_hours": one.queued}
        divided = "phase" in keys or "lost" in keys
        return {"runs": len(one.runs), "hours": one.hours, **({} if divided and one is not total else more)}

    return {
        "cluster": cluster,
        "unit": unit,
        "since": since,
        "until": now,
        "by": keys,
        "rows": [dict(zip(keys, one.key, strict=True)) | fact(one) for one in groups],
        "total": fact(total) if total else None,
        "sacct": asdict(checked) | {"difference": checked.difference} if checked else None,
        "sacct_error": why_not,
        "unreadable": found.unreadable,
        "scheduler_error": found.error,
    }
