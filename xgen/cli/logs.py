"""`xgen logs`: what the tasks and the batch script printed, across attempts."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from xgen.cli.common import ClusterOption, RunArgument, find_run, usage

# Seconds between two calls of squeue: it says when a run is lost; of any other end the run's own files tell.
_ASK_EVERY = 30.0

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from xgen.runs import RunDir


def command(
    run: RunArgument,
    cluster: ClusterOption = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends; new attempts too.")] = False,
    errors: Annotated[bool, typer.Option("--err", help="The error stream (Python's warnings and tracebacks).")] = False,
    attempt: Annotated[int | None, typer.Option("--attempt", metavar="N", help="Default: the newest.")] = None,
    shard: Annotated[
        str | None,
        typer.Option("--shard", metavar="[STAGE/]N", help="One shard of a job array; with its stage if several have."),
    ] = None,
) -> None:
    """Print a run's log. Lines begin with the rank that printed them."""
    found = find_run(run, cluster)
    name = "err.log" if errors else "out.log"
    part, said, has_ended = found, found.name, _never
    if shard is not None:
        part, said, has_ended = _shard(found, shard)
    number = attempt or part.last_attempt()
    if not number and not follow:
        usage(f"{said} has not started; write xgen status {found.name}")
    if number and not part.attempt_dir(number).is_dir():
        usage(f"{said} has no attempt {number}; it has {part.last_attempt()}")
    if shard is None:
        _refuse_array(found, number)
    if not follow:
        _copy(part.attempt_dir(number) / name, 0)
        return
    _follow(found, part, name, number, has_ended)


def _never() -> bool:
    return False


def _shard(run: RunDir, text: str) -> tuple[RunDir, str, Callable[[], bool]]:
    """Where the logs of a shard lie, what to call it, and whether it has ended."""
    from xgen.cli.shards import find_shard
    from xgen.runs.shards import has_ended

    stage, number = find_shard(run, text)
    return run.shard(stage, number), f"shard {text} of {run.name}", lambda: has_ended(run, stage, number)


def _refuse_array(run: RunDir, attempt: int) -> None:
    """Leaves with exit code 2 where an attempt of the run is a job array: its shards have the logs."""
    from xgen.cli.shards import arrays_of, how_to_name
    from xgen.spec import load_resolved

    if not run.shards_dir.is_dir() or (attempt and (run.attempt_dir(attempt) / "out.log").exists()):
        return
    job = load_resolved(run.spec_file)
    if attempt or (job.array_of(0) and not job.serves(0)):
        usage(f"{run.name} is a job array, and each of its shards has a log; {how_to_name(run, arrays_of(job))}")


def _copy(path: Path, offset: int) -> int:
    """Print the file from `offset` on; returns where it ended."""
    if not path.is_file():
        return offset
    with path.open("rb") as file:
        file.seek(offset)
        while chunk := file.read(1 << 16):
            sys.stdout.buffer.write(chunk)
            offset += len(chunk)
    sys.stdout.flush()
    return offset


def _follow(run: RunDir, part: RunDir, name: str, number: int, has_ended: Callable[[], bool]) -> None:
    """Until the run ends, or `part` of it: the run itself, or a shard."""
    from xgen.cluster.local import is_local
    from xgen.cluster.status import QueueView, ask_queue, last_decision, run_state
    from xgen.runs import EventReader

    offset, reader, last, asked, view = 0, EventReader(run), None, -_ASK_EVERY, QueueView(None)
    while True:
        # The queue first: what is gone from it has said how it ended. And the state before the log: what was printed
        # before the end is then still to be copied.
        if not is_local(run) and time.monotonic() > asked + _ASK_EVERY:
            view, asked = ask_queue([run]), time.monotonic()
        last = last_decision(reader.new(), last)
        state, reason = run_state(run, last, view)
        ended = has_ended() or state in ("finished", "failed", "cancelled", "lost")
        newest = part.last_attempt()
        if number:
            offset = _copy(part.attempt_dir(number) / name, offset)
        if newest > number:
            number, offset = number + 1, 0
            print(f"--- attempt {number}", flush=True)
        elif ended:
            if state == "lost":
                print(f"{run.name} is lost: {reason}", file=sys.stderr)
            return
        else:
            time.sleep(0.5)
