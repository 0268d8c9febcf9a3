"""All runs below run_root, from their own files: what they are, how far, where their time and their GPUs went."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client.core import Metric

from xgen.cluster.settle import is_not_launched
from xgen.cluster.slurm import QueueRow
from xgen.cluster.status import QueueView, queue_view
from xgen.metrics.exporter import CollectorError
from xgen.metrics.exporter.collector import gauge, gauges
from xgen.metrics.fleet.families import families
from xgen.metrics.fleet.tracked import ENDED, Tracked
from xgen.metrics.slurm.queue import Queue
from xgen.runs import RUN_NAME, RunDir
from xgen.runs.rundir import size_of_orders
from xgen.runs.users import user_name

_KEPT = 7 * 86400.0  # seconds after its last event for which a run that has ended is served
_FRESH = 3  # intervals of the queue
# In which squeue --states=all still shows a job that is gone.
_GONE = {
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED",
    "TIMEOUT",
}  # fmt: skip


class Runs:
    """Reads what was added to the events since the last poll; of `queue` it takes the last answer, if there is one."""

    name = "runs"
    interval = 30.0
    timeout = 30.0  # none of its own commands: how long a first poll waits for the queue's

    def __init__(self, run_root: Path, cluster: str, partition: str, queue: Queue | None = None) -> None:
        """`partition`: that of runs which name none."""
        self._root, self._cluster, self._partition, self._queue = run_root, cluster, partition, queue
        self._runs: dict[str, Tracked] = {}
        self._left_out: dict[str, int] = {}  # ended long ago: size of what people had ordered by then
        self._sees_all = os.geteuid() == 0
        self.names: dict[str, str] | None = None  # of runs, by the numbers of their jobs; None: not known yet
        self.lost: dict[str, str] = {}  # runs that nobody decided, and why they are thought lost
        self.not_launched: dict[str, QueueRow] = {}  # jobs of runs that SLURM holds since a node could not start them
        self.looked = threading.Event()  # once, whatever came of it

    def poll(self) -> Iterable[Metric]:
        try:
            return self._poll()
        finally:
            self.looked.set()

    def _poll(self) -> Iterable[Metric]:
        if self._queue is not None:
            self._queue.asked.wait(self.timeout)
        self._look_around()
        unreadable, now = set(), time.time()
        for name, run in self._runs.items():
            try:
                run.read(now)
            except OSError:
                unreadable.add(name)
        names = self.names = {number: name for name, run in self._runs.items() for number in run.job_ids}
        now = time.time()
        view, asked = self._view(names, now)
        for name, run in list(self._runs.items()):
            if name in unreadable:
                continue
            try:
                run.judge(view, asked, now)
            except OSError:
                unreadable.add(name)
                continue
            if run.state in ENDED and now - run.last_event > _KEPT:
                self._leave_out(run)
        self.lost = {name: "no job of it is in the queue" for name, run in self._runs.items() if run.is_lost}
        self.not_launched = {name: row for name, row in (view.jobs or {}).items() if is_not_launched(row)}
        served = [run for name, run in self._runs.items() if name not in unreadable]
        return self._metrics(served, len(unreadable), now)

    def _look_around(self) -> None:
        """Runs that are new, that are gone, and that a person has resumed after a long time."""
        found = set()
        try:
            with os.scandir(self._root) as entries:
                for entry in entries:
                    if RUN_NAME.match(entry.name):
                        found.add(entry.name)
        except OSError as error:
            raise CollectorError("missing", f"{self._root}: {error.strerror}") from None
        for name in self._runs.keys() - found:
            del self._runs[name]
        for name in self._left_out.keys() - found:
            del self._left_out[name]
        for name in found - self._runs.keys():
            run = RunDir(self._root / name)
            if self._left_out.get(name) != size_of_orders(run) and _is_one(run):
                self._left_out.pop(name, None)
                self._runs[name] = Tracked(run)

    def _leave_out(self, run: Tracked) -> None:
        self._left_out[run.run.name] = run.orders
        del self._runs[run.run.name]

    def _view(self, names: dict[str, str], now: float) -> tuple[QueueView, float]:
        """What the queue's collector has seen of the runs' jobs, and when."""
        answer = self._queue.answer if self._queue else None
        if self._queue is None or answer is None or now - answer.time > _FRESH * self._queue.interval:
            return QueueView(None), 0.0
        me = user_name(os.geteuid())
        rows = []
        for row in answer.rows:
            self._sees_all |= row.user != me
            if row.state not in _GONE and (name := names.get(row.job.partition("_")[0])):
                rows.append(QueueRow(row.job, name, row.state, row.reason, row.partitions[0], "", "", ""))
        return queue_view(rows, self._sees_all), answer.time

    def _metrics(self, runs: list[Tracked], num_unreadable: int, now: float) -> Iterator[Metric]:
        yield from families(runs, self._cluster, self._partition, now)
        disk = os.statvfs(self._root)
        for what, blocks in (("size", disk.f_blocks), ("free", disk.f_bavail)):
            text = f"Bytes of the file system that holds the runs: {what}; what is kept for root is not free."
            yield gauges(f"xgen_filesystem_{what}_bytes", text, ["path"], {(str(self._root),): disk.f_frsize * blocks})
        counts = {"served": len(runs), "left_out": len(self._left_out), "unreadable": num_unreadable}
        text = "Run directories: left_out are those that ended over 7 days ago."
        yield gauges("xgen_run_directories", text, ["state"], {(state,): count for state, count in counts.items()})
        text = "Whole lines in the events of the runs served that are no event: torn by a crash, or of a newer version."
        yield gauge("xgen_run_event_lines_skipped", text, sum(run.num_skipped for run in runs))


def _is_one(run: RunDir) -> bool:
    try:
        run.spec_file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False  # no run, or none yet
    except OSError:
        pass
    return True
