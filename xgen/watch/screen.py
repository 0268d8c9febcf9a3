"""All runs that are watched, and the frames made of them."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.text import Text

from xgen.cluster.index import DECIDED, statuses
from xgen.cluster.local import is_local
from xgen.cluster.remembered import cache_file
from xgen.cluster.status import QueueView, RunStatus, ask_queue
from xgen.runs import RunDir
from xgen.watch.findings import find
from xgen.watch.frame import About, Row, fitting, frame, ordered
from xgen.watch.source import Source, queue_row
from xgen.watch.view import View

ASK_EVERY = 30.0  # seconds: polling squeue faster is what overloads slurmctld
_NEWEST = 20  # runs of which also those that have ended are looked at
_KEPT = 3600.0  # seconds for which a run that has ended stays on the screen


class Screen:
    """Asks the queue twice a minute at most, and reads what runs have written since whenever a frame is made."""

    def __init__(self, run_root: Path, cluster: str, names: list[str] | None) -> None:
        """`names`: only these runs, and these however long ago they ended."""
        self._root, self._cluster, self._names = run_root, cluster, names
        self._sources: dict[str, Source] = {}
        self._statuses: list[RunStatus] = []
        self._queue = QueueView(None)
        self._asked = self._listed = 0.0
        self._error = ""

    def frame(self, width: int, height: int, *, unicode: bool = True, leaves: bool = False) -> Text:
        """One screen."""
        now = time.time()
        rows = self._rows(now)
        for row in fitting(rows, width, height):
            self._sources[row.view.name].look_closely()
        # With what the closer look has shown, which may be a run that is slow.
        rows = self._rows(now, read=False)
        about = About(self._cluster, now, self._asked, self._error, leaves)
        return frame(rows, about, width, height, unicode=unicode)

    def facts(self) -> list[dict[str, Any]]:
        """All rows, for programs."""
        now = time.time()
        for row in self._rows(now):
            self._sources[row.view.name].look_closely()
        return [
            asdict(replace(row.view, newest={})) | {"level": row.finding.level.name.lower(), "wrong": row.finding.text}
            for row in self._rows(now, read=False)
        ]

    def lost(self) -> dict[str, str]:
        """Runs that nobody decided, with what is said of them."""
        return {status.name: status.reason for status in self._statuses if status.state == "lost"}

    def _rows(self, now: float, *, read: bool = True) -> list[Row]:
        if now - self._listed >= ASK_EVERY:
            self._list(now)
        rows = []
        for status in self._statuses:
            source = self._sources[status.name]
            if read:
                source.read(now)
            view = source.view(status, queue_row(self._queue, status.name))
            if self._is_shown(view, now):
                rows.append(Row(view, find(view, now)))
        return ordered(rows)

    def _list(self, now: float) -> None:
        self._listed = now
        found = statuses(self._root, self._ask, cache_file(self._root), None if self._names else _NEWEST)
        self._error = found.error
        self._statuses = [row for row in found.rows if self._names is None or row.name in self._names]
        names = {status.name for status in self._statuses}
        self._sources = {name: source for name, source in self._sources.items() if name in names}
        for name in names - self._sources.keys():
            self._sources[name] = Source(RunDir(self._root / name))

    def _ask(self, runs: list[RunDir]) -> QueueView:
        of_slurm = [run for run in runs if not is_local(run)]
        if of_slurm:
            self._queue, self._asked = ask_queue(of_slurm), time.time()
        return self._queue

    def _is_shown(self, view: View, now: float) -> bool:
        return self._names is not None or view.state not in DECIDED or now - view.last_event_time < _KEPT
