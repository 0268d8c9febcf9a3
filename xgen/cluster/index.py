"""The state of all runs below a run root. Of ten thousand that have ended no event is read again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from xgen.cluster.remembered import Entry, Remembered
from xgen.cluster.status import QueueView, RunStatus, run_status
from xgen.runs import RUN_NAME, RunDir
from xgen.runs.rundir import orders_below, submitted_at

DECIDED = ("finished", "failed", "cancelled")
_TABLE = "statuses_1"  # another number when RunStatus changes
_ENDED = (*DECIDED, "unreadable")


@dataclass(frozen=True)
class Statuses:
    """The oldest first. `error`: of a scheduler that did not answer."""

    rows: list[RunStatus]
    error: str
    num_left_out: int  # that ended, and are not among the newest


def statuses(
    run_root: Path, ask: Callable[[list[RunDir]], QueueView], index: Path, newest: int | None = None
) -> Statuses:
    """Of the `newest` runs and of each that has not ended, or of all, as `run_status` has it.

    What was decided stays so until a person orders something, which adds to the client's events; of the others `ask` is
    asked, once, and a run that the queue has a job of is always read.
    """
    table = Remembered(index, _TABLE)
    known = table.read()
    times: dict[str, float] = {}
    kept: set[str] = set()
    for name, path in _folders(run_root):
        if (entry := known.get(name)) is not None and entry[0] == orders_below(path):
            times[name] = entry[1]
            kept.add(name)
        elif (submitted := submitted_at(path)) is not None:
            times[name] = submitted
    names = sorted(times, key=times.__getitem__)
    view = ask([RunDir(run_root / name) for name in names if name not in kept])
    shown = names if newest is None else names[-newest:]
    always, rows, new = set(shown), [], []
    for name in names:
        status = None
        if name in kept and not (view.jobs and name in view.jobs):
            if name not in always:
                continue
            status = _remembered(known[name][2])
        if status is None:
            run = RunDir(run_root / name)
            orders = orders_below(str(run.path))  # before its events: what is ordered meanwhile is read next time
            status = run_status(run, view)
            if status.state in DECIDED:
                new.append(Entry(name, orders, times[name], json.dumps(asdict(status))))
        if name in always or status.state not in _ENDED:
            rows.append(status)
    if new:
        table.write(new)
    return Statuses(rows, view.error, len(names) - len(rows))


def _folders(run_root: Path) -> list[tuple[str, str]]:
    """Name and path of what may be a run."""
    try:
        with os.scandir(run_root) as entries:
            return [(entry.name, entry.path) for entry in entries if RUN_NAME.match(entry.name)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _remembered(text: str) -> RunStatus | None:
    try:
        return RunStatus(**json.loads(text))
    except (TypeError, ValueError):  # of another version, or damaged
        return None
