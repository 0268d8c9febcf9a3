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
    from pathlib import Path

    from xgen.runs import RunDir


def command(
    run: RunArgument,
    cluster: ClusterOption = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends; new attempts too.")] = False,
    errors: Annotated[bool, typer.Option("--err", help="The error stream (Python's warnings and tracebacks).")] = False,
    attempt: Annotated[int | None, typer.Option("--attempt", metavar="N", help="Default: the newest.")] = None,
) -> None:
    """Print a run's log. Lines begin with the rank that printed them."""
    found = find_run(run, cluster)
    name = "err.log" if errors else "out.log"
    number = attempt or found.last_attempt()
    if not number and not follow:
        usage(f"{found.name} has not started; write xgen status {found.name}")
    if number and not found.attempt_dir(number).is_dir():
        usage(f"{found.name} has no attempt {number}; it has {found.last_attempt()}")
    if not follow:
        _copy(found.attempt_dir(number) / name, 0)
        return
    _follow(found, name, number)


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


def _follow(run: RunDir, name: str, number: int) -> None:
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
        newest = run.last_attempt()
        if number:
            offset = _copy(run.attempt_dir(number) / name, offset)
        if newest > number:
            number, offset = number + 1, 0
            print(f"--- attempt {number}", flush=True)
        elif state in ("finished", "failed", "cancelled", "lost"):
            if state == "lost":
                print(f"{run.name} is lost: {reason}", file=sys.stderr)
            return
        else:
            time.sleep(0.5)
