"""`xgen status`: all runs, or one run with its timeline."""

from __future__ import annotations

import gc
import shutil
import sys
import textwrap
import time
from typing import TYPE_CHECKING, Annotated

import typer

from xgen.cli import completion
from xgen.cli.common import ClusterOption, JsonOption, find_run, no_runs, print_json, run_root, usage
from xgen.cli.pipeline import shows_pipeline

if TYPE_CHECKING:
    from pathlib import Path

    from xgen.cluster.index import Statuses
    from xgen.cluster.status import QueueView, RunStatus
    from xgen.runs import Event, Ledger, RunDir

NO_ANSWER = "the scheduler did not answer: "
_INDENT = 35  # of what an event says that needs more than a line
# Events that a person follows; the rest is for the ledger.
_TIMELINE = {
    "submitted", "queued", "started", "restore_end", "first_step", "signal", "checkpoint_durable",
    "checkpoint_failed", "checkpoint_rejected", "rolled_back", "guard", "straggler", "held", "released", "requeued",
    "shard_given_up", "evaluated", "cancelled", "failed", "stage_finished", "finished",
}  # fmt: skip


def command(
    run: Annotated[
        str | None,
        typer.Argument(help="A run: its name, or its first letters.", metavar="[RUN]", autocompletion=completion.runs),
    ] = None,
    cluster: ClusterOption = None,
    last: Annotated[
        int, typer.Option("--last", metavar="N", help="Of runs that have ended, those among the N newest of all.")
    ] = 20,
    ended: Annotated[bool, typer.Option("--ended", help="All that have ended, too.")] = False,
    everywhere: Annotated[
        bool, typer.Option("--all", help="Of every known cluster, side by side; each has 30 seconds to answer.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show all runs that wait, run or are lost and the newest that have ended, or one run: its state, its timeline, and
    where the time went.

    One squeue, whatever the number of runs. `xgen watch` shows the same as it changes. `xgen status --all` asks every
    cluster that has a profile, also those that are reached over ssh (docs/remote.md), at the same time.
    """
    gc.disable()  # over in a second, of which looking for garbage would take a tenth
    if everywhere and (run is not None or cluster is not None):
        usage(f"--all: asks every cluster for all its runs; leave out {'RUN' if run is not None else '--cluster'}")
    if run is not None:
        from xgen.cli.settled import settled_view

        one = find_run(run, cluster)
        if not shows_pipeline(one, "status", as_json=as_json):
            _one(one, settled_view(one, "xgen status"), as_json)
        return
    if last < 1:
        usage(f"--last: {last} shows nothing; write 1 or more")
    newest = None if ended else last
    if everywhere:
        from xgen.cli.status_all import show_all

        show_all(newest, as_json)
        return
    root = run_root(cluster)
    found = runs_below(root, newest)
    if as_json:
        print_json(found.rows)
    elif not found.rows:
        print(no_runs(root))
    else:
        sys.stdout.write("".join(f"{line}\n" for line in table(found.rows, shutil.get_terminal_size().columns)))
    if found.num_left_out and not as_json:
        print(f"and {found.num_left_out:,} older that have ended: xgen status --ended")
    if found.error:
        print(f"{NO_ANSWER}{found.error}", file=sys.stderr)


def runs_below(root: Path, newest: int | None) -> Statuses:
    """The runs that the command lists."""
    from xgen.cluster.index import statuses
    from xgen.cluster.remembered import cache_file
    from xgen.cluster.status import ask_slurm

    return statuses(root, ask_slurm, cache_file(root), newest)


def table(rows: list[RunStatus], width: int, clusters: list[str] | None = None) -> list[str]:
    """A line a run, with the reason behind it where all have room, else below. `clusters`: of each run."""
    header = (*(["cluster"] if clusters else []), "run", "state", "job", "attempt", "step", "saved", "restarts")
    cells: list[tuple[str, ...]] = [
        (r.name, r.state, r.job_id or "-", str(r.attempt), _step(r.step), _step(r.durable_step), str(r.restarts))
        for r in rows
    ]
    if clusters:
        cells = [(cluster, *cell) for cluster, cell in zip(clusters, cells, strict=True)]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    line = "  ".join(f"{{:<{width}}}" for width in widths)
    lines, reasons = [line.format(*row) for row in (header, *cells)], ["reason", *(r.reason for r in rows)]
    if len(lines[0]) + 2 + max(map(len, reasons)) <= width:
        return [f"{text}  {reason}".rstrip() for text, reason in zip(lines, reasons, strict=True)]
    below = [_cut(f"    {reason}", width) if reason else "" for reason in ("", *reasons[1:])]
    return [part for text, reason in zip(lines, below, strict=True) for part in (text.rstrip(), reason) if part]


def _step(number: int) -> str:
    return str(number) if number else "-"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _one(run: RunDir, view: QueueView, as_json: bool) -> None:
    from xgen.cli.fork import describe_origin
    from xgen.cli.scores import evaluation_facts, evaluation_lines
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
    scored = evaluation_facts(run, ledger) if status.state != "unreadable" else None
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
                "evaluation": scored,
                "attempts": ledger.attempts,
                "events": [event.model_dump(exclude_none=True) for event in events],
            }
        )
        return
    width = shutil.get_terminal_size().columns
    said = f"{status.name}  {status.state}{f' ({status.reason})' if status.reason else ''}"
    print(textwrap.fill(said, width, subsequent_indent="  "))
    if status.state == "unreadable":
        return
    if origin:
        print(f"  {describe_origin(origin)}")
    if beginning:
        print(f"  began with the weights of {beginning}")
    steps = f"step {status.step}, saved {status.durable_step}, " if (trains := is_training(run, ledger)) else ""
    print(f"  {steps}job {status.job_id}, attempt {status.attempt}")
    for one in worth_saying(shards):
        for line in shards_lines(run, one):
            print(f"  {line}")
    for line in evaluation_lines(scored) if scored else ():
        print(f"  {line}")
    for line in timeline(events):
        print(textwrap.fill(f"  {line}", width, subsequent_indent=" " * _INDENT))
    for line in where_time_went(ledger, now, trains):
        print(textwrap.fill(f"  {line}", width, subsequent_indent="    "))
    if status.state in ("failed", "lost"):
        print(f"do: xgen why {status.name}")


def is_training(run: RunDir, ledger: Ledger) -> bool:
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
            *(_restart(event) if event.event == "requeued" else _what(event)),
            f"job {event.job_id}" if event.event in ("queued", "started") and event.job_id else "",
        ]
        said = event.event.replace("_", " ")
        lines.append(f"{event.time - events[0].time:8.1f} s  {said:<20} {', '.join(f for f in facts if f)}".rstrip())
    return lines


def _what(event: Event) -> tuple[str, ...]:
    seconds = f"{event.seconds:.2f} s" if event.seconds is not None else ""
    return seconds, event.signal or "", event.action or "", event.nodes or "", event.reason or ""


def _restart(event: Event) -> tuple[str, ...]:
    """Why the attempt ended, by which means the next one comes, and when."""
    from xgen.drawing.wording import duration
    from xgen.runs.history import ENDS

    means = "as a successor" if event.action == "successor" else ""
    pause = f"in {duration(event.seconds)}" if event.seconds else ""
    return ENDS.get(event.reason or "", event.reason or ""), means, pause


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
