"""`xgen show`: the attempts of a run, and where its time and its GPU-hours went."""

from __future__ import annotations

import shutil
import textwrap
import time
from typing import TYPE_CHECKING, Annotated

import typer

from xgen.cli.common import ClusterOption, JsonOption, RunArgument, find_run, print_json
from xgen.cli.pipeline import shows_pipeline
from xgen.drawing.wording import duration, many

if TYPE_CHECKING:
    from xgen.runs import Ledger, RunDir
    from xgen.runs.history import Row

_HANG = "attempts/{:04d}/hang/summary.txt says where each rank stood"
_HEADER = ("attempt", "job", "nodes", "queued", "start", "restore", "train", "replay", "save", "lost")


def command(
    run: RunArgument,
    cluster: ClusterOption = None,
    shard: Annotated[
        str | None, typer.Option("--shard", metavar="[STAGE/]N", help="The attempts of one shard of a job array.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show every attempt of a run: how long it waited, started and trained, what was lost, and why it ended."""
    from xgen.cli.settled import settled_view
    from xgen.cli.status import is_training
    from xgen.runs import read_attempt_outcome, read_events, replay
    from xgen.runs.history import history
    from xgen.runs.slow import often_slow
    from xgen.spec import load_profile

    whole = found = find_run(run, cluster)
    if shows_pipeline(found, "times", as_json=as_json):
        return
    if shard is not None:
        from xgen.cli.shards import find_shard

        found = whole.shard(*find_shard(whole, shard))
    if not replay(read_events(whole)).is_over:
        settled_view(whole, "xgen show")
    now, events = time.time(), read_events(found)
    outcomes = [read_attempt_outcome(found, number) for number in range(1, found.last_attempt() + 1)]
    rows, ledger = history(events, outcomes, now), replay(events)
    if as_json:
        print_json(
            {
                "run": whole.name,
                "shard": shard,
                "attempts": rows,
                "phases": ledger.totals(now),
                "ettr": ledger.ettr(now),
                "gpu_hours": gpu_hours(rows, gpus_of(whole, shard is not None)),
                "hangs": [event.model_dump(exclude_none=True) for event in events if event.event == "hang"],
                "slow": often_slow(events),
            }
        )
        return
    print(f"{whole.name}{f' shard {shard}' if shard is not None else ''}  {_count(rows)}")
    width = shutil.get_terminal_size().columns
    trains = is_training(whole, ledger)
    for line in _table(rows, width, trains):
        print(line)
    hung = [event.attempt for event in events if event.event == "hang"]
    notes = [f"attempt {number} hung: {_HANG.format(number)}" for number in hung]
    if slow := often_slow(events):
        notes.append(f"slow: {slow}")
    cpus = load_profile(whole.profile_file).gpus.request == "none"
    hours = gpu_hours(rows, gpus_of(whole, shard is not None, cpus=cpus))
    for line in (*_sums(ledger, hours, "CPU-hours" if cpus else "GPU-hours", now, trains), *notes):
        print(textwrap.fill(line, width, subsequent_indent="  "))


def _count(rows: list[Row]) -> str:
    return "has not started" if not rows else many(len(rows), "attempt")


def _table(rows: list[Row], width: int, trains: bool) -> list[str]:
    """A line for each attempt; why it ended stands behind it where there is room, else below. What trains nothing
    works from its start on."""
    if not rows:
        return []
    stages = any(row.stage for row in rows)
    header = ("attempt", "stage", *_HEADER[1:]) if stages else _HEADER
    names = header if trains else tuple("work" if name == "start" else name for name in header)
    cells = [names, *(_cells(row, stages) for row in rows)]
    # What no attempt has is no column.
    shown = [i for i in range(len(header)) if header[i] in _HEADER[:2] or any(row[i] != "-" for row in cells[1:])]
    widths = {i: max(len(row[i]) for row in cells) for i in shown}
    lines = ["  ".join(row[i].ljust(widths[i]) for i in shown).rstrip() for row in cells]
    ends = ["ended", *(row.ended or "running" for row in rows)]
    room = max(map(len, lines)) + 2
    if room + max(map(len, ends)) <= width:
        return [f"{line.ljust(room)}{end}" for line, end in zip(lines, ends, strict=True)]
    return [lines[0], *(text for line, end in zip(lines[1:], ends[1:], strict=True) for text in (line, f"  {end}"))]


def _cells(row: Row, stages: bool) -> tuple[str, ...]:
    lost = "-" if not row.lost_steps else f"{row.lost_steps:,} steps"
    return (
        str(row.number),
        *((row.stage or "-",) if stages else ()),
        row.job_id or "-",
        row.nodes or "-",
        *map(duration, (row.queued, row.start, row.restore, row.train, row.replayed, row.saving)),
        "?" if row.lost_steps is None else lost,
    )


def _sums(ledger: Ledger, hours: dict[str, float], unit: str, now: float, trains: bool) -> list[str]:
    """Shares of the wall time by phase, and the hours with what was no new training."""
    from xgen.cli.status import where_time_went

    lines = where_time_went(ledger, now, trains)
    if total := sum(hours.values()):
        parts = ", ".join(f"{what} {part / total:.1%}" for what, part in hours.items() if part)
        lines.append(f"{total:,.3g} {unit}: {parts}" if trains else f"{total:,.3g} {unit}")
    return lines


def gpus_of(run: RunDir, of_shard: bool, *, cpus: bool = False) -> dict[str, int]:
    """GPUs, or CPUs, of the job of each stage. A job array holds what its shards hold, each at its own time: 0 for the
    whole."""
    from xgen.spec import load_resolved

    job, found = load_resolved(run.spec_file), dict[str, int]()
    for stage, (name, one) in enumerate(job.jobs):
        held = one.world_size * one.cpus_per_task if cpus else one.nodes * one.gpus_per_node
        found[name] = held if of_shard or job.array_of(stage) is None else 0
    return found


def gpu_hours(rows: list[Row], gpus: dict[str, int]) -> dict[str, float]:
    parts = {"start": 0.0, "restore": 0.0, "train": 0.0, "replayed": 0.0, "saving": 0.0}
    for row in rows:
        number = gpus.get(row.stage, next(iter(gpus.values()), 0))
        for part in parts:
            parts[part] += number * getattr(row, part) / 3600
    return parts
