"""`xgen requeue`: save and stop now, and go on in a new attempt; from an older checkpoint if need be."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from xgen.cli.common import ClusterOption, JsonOption, RunArgument, find_run, print_json, usage
from xgen.cli.hold import ask, queue_rows

if TYPE_CHECKING:
    from xgen.cluster.status import RunStatus
    from xgen.runs import RunDir

_LOOK_EVERY = 2.0  # seconds between two looks at whether it has stopped, each a squeue
_MARGIN = 300.0  # seconds beyond the lead, in which a job has saved, for SLURM to clear up


def command(
    run: RunArgument,
    from_step: Annotated[
        int | None,
        typer.Option("--from", metavar="STEP", min=0, help="Go on from this checkpoint; the newer ones are set aside."),
    ] = None,
    cluster: ClusterOption = None,
    as_json: JsonOption = False,
) -> None:
    """Stop a run, as a preemption would, and let it go on in a new attempt. It saves first, and loses nothing.

    With --from it goes back: what is newer is set aside as by `xgen checkpoints RUN --rollback STEP`, while nothing of
    the run runs.
    """
    from xgen.cluster.orders import ask_to_stop
    from xgen.runs import EventWriter

    found = find_run(run, cluster)
    status, rows = ask(found)
    if from_step is not None:
        _go_back(found, status, from_step, as_json)
        return
    if status.state == "pending":
        usage(f"{found.name} is pending: nothing of it runs, and it begins from its newest checkpoint")
    EventWriter(found, "client", status.attempt, status.job_id).write("asked", reason="requeue", durable=True)
    jobs = ask_to_stop(found, rows)
    if not jobs:
        usage(f"{found.name}: its tasks do not run at the moment; look with xgen status {found.name}, and try again")
    if as_json:
        print_json({"run": found.name, "job_id": status.job_id, "asked": "requeue", "held": found.held_file.exists()})
        return
    held = f" and waits until xgen release {found.name}" if found.held_file.exists() else " and goes on"
    print(f"{found.name}, job {status.job_id}, is asked to save and stop{held}: xgen logs -f {found.name}")


def _go_back(run: RunDir, status: RunStatus, step: int, as_json: bool) -> None:
    from xgen.cli.checkpoints import rule_of
    from xgen.cli.checkpoints_change import set_back, sound_target
    from xgen.cluster.orders import ask_to_stop, hold, or_say, release
    from xgen.runs import EventWriter

    if rule_of(run) is None:
        usage(f"--from: {run.name} is a command, whose checkpoints are its own; write xgen fork {run.name}@{step}")
    sound_target(run, step, "--from")  # before anything is stopped
    was_held = run.held_file.exists()
    _, rows = ask(run)
    hold(run, rows)
    try:
        EventWriter(run, "client", status.attempt, status.job_id).write(
            "asked", step=step, reason="requeue from a checkpoint", durable=True
        )
        with _kept(run, step):
            if status.state == "running" and not ask_to_stop(run, rows):
                usage(f"{run.name}: its tasks do not run at the moment; try again")
            now = _await_stop(run)
        names = set_back(run, step, sound_target(run, step, "--from"), now)
    finally:
        if not was_held:
            with or_say(f"{run.name} is held: write xgen release {run.name} once it answers"):
                rows = queue_rows(run)
            release(run, rows)
    if as_json:
        print_json({"run": run.name, "job_id": now.job_id, "asked": "requeue", "from": step, "set_aside": names})
        return
    for name in names:
        print(f"set aside as {name}")
    print(f"{run.name} goes on from step {step}" + (f" after xgen release {run.name}" if was_held else ""))


@contextmanager
def _kept(run: RunDir, step: int) -> Iterator[None]:
    """The checkpoint is there afterwards too: the one that the trainer saves when it stops may be one too many."""
    import shutil

    from xgen.train.ckpt_admin import carry

    place, kept = run.checkpoints_dir / f"step-{step}", run.checkpoints_dir / f".kept-step-{step}"
    shutil.rmtree(kept, ignore_errors=True)  # of a command that was killed
    carry(place, kept)
    try:
        yield
        if not place.exists():
            kept.rename(place)
    finally:
        shutil.rmtree(kept, ignore_errors=True)


def _await_stop(run: RunDir) -> RunStatus:
    """Until it waits in the queue, held. A scheduler that does not answer meanwhile is asked again. Leaves with exit
    code 2 where it ended, or does not stop."""
    from xgen.cluster.slurm import UnansweredError
    from xgen.spec import load_resolved

    deadline = time.monotonic() + load_resolved(run.spec_file).lead + _MARGIN
    told = False
    while True:
        late = time.monotonic() > deadline
        try:
            status, rows = ask(run)
        except UnansweredError:
            if late:
                raise
        else:
            if status.state == "pending" and all(row.state not in ("RUNNING", "COMPLETING") for row in rows):
                return status
            if late:
                usage(f"{run.name} has been asked to stop and runs on as job {status.job_id}; nothing was set aside")
        if not told:
            told = True
            print(f"waiting until {run.name} has saved and stopped", file=sys.stderr)
        time.sleep(_LOOK_EVERY)
