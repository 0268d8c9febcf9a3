"""`xgen status`: all runs, or one run with its timeline."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from xgen.cli.common import ClusterOption, JsonOption, find_run, print_json, run_root, usage

if TYPE_CHECKING:
    from xgen.cluster.status import QueueView
    from xgen.runs import Event, Ledger, RunDir

# Events that a person follows; the rest is for the ledger.
_TIMELINE = {
    "submitted", "queued", "started", "restore_end", "first_step", "signal", "checkpoint_durable",
    "checkpoint_failed", "checkpoint_rejected", "rolled_back", "guard", "straggler", "requeued", "shard_given_up",
    "cancelled", "failed", "stage_finished", "finished",
}  # fmt: skip


def command(
    run: Annotated[str | None, typer.Argument(help="A run: its name, or its first letters.", metavar="[RUN]")] = None,
    cluster: ClusterOption = None,
    last: Annotated[int, typer.Option("--last", metavar="N", help="Show the N newest runs.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """Show all runs in one table, or one run: its state, its timeline, and where the time went."""
    from xgen.cluster.local import is_local
    from xgen.cluster.status import QueueView, ask_queue, run_status
    from xgen.runs import list_runs

    def ask(runs: list[RunDir]) -> QueueView:
        of_slurm = [run for run in runs if not is_local(run)]
        return ask_queue(of_slurm) if of_slurm else QueueView(None)

    if run is not None:
        found = find_run(run, cluster)
        _one(found, ask([found]), as_json)
        return
    if last < 1:
        usage(f"--last: {last} shows nothing; write 1 or more")
    root = run_root(cluster)
    runs = list_runs(root)[-last:]
    view = ask(runs)
    rows = [run_status(r, view) for r in runs]
    if as_json:
        print_json(rows)
        return
    if not rows:
        print(f"no runs in {root}; write xgen submit SPEC")
        return
    header = ("run", "state", "job", "attempt", "step", "saved", "restarts", "reason")
    cells = [
        (
            r.name,
            r.state,
            r.job_id,
            str(r.attempt),
            str(r.step),
            str(r.durable_step),
            str(r.restarts),
            r.reason,
        )
        for r in rows
    ]
    widths = [max(len(row[i]) for row in (header, *cells)) for i in range(len(header))]
    for row in (header, *cells):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if view.error:
        print(f"the scheduler did not answer: {view.error}", file=sys.stderr)


def _one(run: RunDir, view: QueueView, as_json: bool) -> None:
    from xgen.cli.fork import describe_origin
    from xgen.cli.shards import ask_shards, shards_facts, shards_lines, worth_saying
    from xgen.cluster.status import run_status
    from xgen.runs import read_events, replay
    from xgen.runs.origin import read_beginning, read_origin

    try:
        events = read_events(run)
    except OSError:  # the state says so
        events = []
    status = run_status(run, view, events)
    ledger = replay(events)
    now = time.time()
    origin = read_origin(run) if status.state != "unreadable" else None
    beginning = read_beginning(run) if status.state != "unreadable" else None
    shards = ask_shards(run, view) if status.state != "unreadable" else []
    if as_json:
        print_json(
            {
                "status": status,
                "path": run.path,
                "origin": origin.model_dump() if origin else None,
                "init": beginning.model_dump() if beginning else None,
                "phases": ledger.totals(now),
                "ettr": ledger.ettr(now),
                "shards": [shards_facts(run, one) for one in shards],
                "attempts": ledger.attempts,
                "events": [event.model_dump(exclude_none=True) for event in events],
            }
        )
        return
    print(f"{status.name}  {status.state}{f' ({status.reason})' if status.reason else ''}")
    if status.state == "unreadable":
        return
    if origin:
        print(f"  {describe_origin(origin)}")
    if beginning:
        print(f"  began with the weights of {beginning}")
    steps = f"step {status.step}, saved {status.durable_step}, " if (trains := _trains(run, ledger)) else ""
    print(f"  {steps}job {status.job_id}, attempt {status.attempt}")
    for one in worth_saying(shards):
        for line in shards_lines(run, one):
            print(f"  {line}")
    for line in timeline(events):
        print(f"  {line}")
    for line in where_time_went(ledger, now, trains):
        print(f"  {line}")


def _trains(run: RunDir, ledger: Ledger) -> bool:
    """Whether the work has steps: of a command or a curation there is only queue and work to tell."""
    from xgen.spec import SpecError, Trained, load_resolved

    if ledger.highest_step:
        return True
    try:
        return isinstance(load_resolved(run.spec_file), Trained)
    except (OSError, SpecError):
        return True


def timeline(events: list[Event]) -> list[str]:
    """One line per event that a person follows, with the seconds since submission."""
    lines = []
    for event in events:
        if event.event not in _TIMELINE:
            continue
        facts = [
            f"attempt {event.attempt}" if event.attempt else "",
            f"stage {event.stage}" if event.stage else "",
            f"step {event.step}" if event.step is not None else "",
            f"{event.seconds:.2f} s" if event.seconds is not None else "",
            event.signal or "",
            event.action or "",
            event.nodes or "",
            event.reason or "",
            f"job {event.job_id}" if event.event in ("queued", "started") and event.job_id else "",
        ]
        said = event.event.replace("_", " ")
        lines.append(f"{event.time - events[0].time:8.1f} s  {said:<20} {', '.join(f for f in facts if f)}".rstrip())
    return lines


def where_time_went(ledger: Ledger, now: float, trains: bool = True) -> list[str]:
    """Seconds and share of each phase that was, and of a training the effective training time ratio."""
    totals: dict[str, float] = {phase: seconds for phase, seconds in ledger.totals(now).items() if seconds > 0}
    wall = sum(totals.values())
    if wall <= 0:
        return []
    if not trains and "start" in totals:  # which lasts until a first step
        totals["work"] = totals.pop("start")
    shares = ", ".join(f"{phase} {seconds:.1f} s ({seconds / wall:.0%})" for phase, seconds in totals.items())
    return [shares] if not trains else [shares, f"effective training time ratio {ledger.ettr(now):.1%} of {wall:.1f} s"]
