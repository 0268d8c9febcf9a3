"""Jobs in the queue: by state, user, account, partition and reason, from one `squeue`.

The names are those of the SLURM exporters in use. An array counts as many jobs as it has tasks, everywhere; a job that
waits in several partitions counts in each, and once in the totals.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from prometheus_client.core import Metric

from xgen.metrics.exporter.collector import gauge, gauges
from xgen.metrics.exporter.command import chunks, output
from xgen.metrics.slurm import json_rows
from xgen.metrics.slurm.rows import JobRow, parse, wide_columns

_COMMAND = ("squeue", "--all", "--states=all")
_MAX_JSON = 1 << 32  # bytes; never in memory as a whole
# The states that exporters in use have a metric for. Those in which a job has ended are of the last MinJobAge seconds.
STATES = (
    "pending", "running", "suspended", "cancelled", "completing", "completed", "configuring", "failed", "timeout",
    "preempted", "node_fail",
)  # fmt: skip
_MAX_REASONS = 100
# What somebody chose, or a limit of theirs: such a job does not wait for the scheduler. Beginnings of its reason.
_BY_CHOICE = (
    "JobHeld", "Dependency", "BeginTime", "JobArrayTaskLimit", "Assoc", "QOS", "launch_failed", "JobHold", "Max",
    "Licenses", "Reservation", "AccountingPolicy",
)  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """For collectors that want to know of jobs, too: so they need no squeue of their own."""

    time: float  # seconds since 1970, when it was asked
    rows: Sequence[JobRow]


class Queue:
    name = "queue"
    interval = 30.0
    timeout = 25.0

    def __init__(self, partitions: Iterable[str] = (), as_json: bool = False) -> None:
        self._partitions = set(partitions)  # those that get a 0; also every one that was ever seen
        self._as_json = as_json
        self.answer: Answer | None = None  # the last good one
        self.asked = threading.Event()  # once, whatever came of it

    def poll(self) -> Iterable[Metric]:
        now = time.time()
        try:
            self.answer = Answer(now, self.rows())
        finally:
            self.asked.set()
        return self._metrics(self.answer.rows, now)

    def rows(self) -> list[JobRow]:
        """Raises CollectorError."""
        if self._as_json:
            return list(json_rows.jobs(chunks((*_COMMAND, "--json"), self.timeout, _MAX_JSON)))
        command = (*_COMMAND, "--noheader", "--noconvert", f"--Format={wide_columns(JobRow)}")
        return parse(JobRow, output(command, self.timeout), "squeue")

    def _metrics(self, rows: Sequence[JobRow], now: float) -> Iterator[Metric]:
        known = {reason for reason, _ in Counter(row.reason for row in rows).most_common(_MAX_REASONS)}
        jobs: dict[str, Counter[tuple[str, ...]]] = {state: Counter() for state in STATES}
        cores: dict[str, Counter[tuple[str, ...]]] = {state: Counter() for state in STATES}
        totals, core_totals = Counter[str](), Counter[str]()
        waiting: Counter[tuple[str, str]] = Counter()
        oldest: dict[str, float] = {}
        for row in rows:
            state, number = row.state.lower(), row.num_jobs
            totals[state] += number
            core_totals[state] += number * row.cpus
            self._partitions.update(row.partitions)
            if state not in jobs:
                continue
            reason = row.reason if row.reason in known else "other"
            for partition in row.partitions:
                key = (row.user, partition, reason) if state == "pending" else (row.user, partition)
                jobs[state][key] += number
                cores[state][key] += number * row.cpus
                if state == "pending":
                    waiting[partition, reason] += number
                    if row.eligible and not row.reason.startswith(_BY_CHOICE):
                        oldest[partition] = max(oldest.get(partition, 0.0), now - row.eligible)
        for state in STATES:
            labels = ["user", "partition", "reason"] if state == "pending" else ["user", "partition"]
            yield gauges(f"slurm_queue_{state}", f"Jobs in state {state}.", labels, jobs[state])
            yield gauges(f"slurm_cores_{state}", f"CPUs of jobs in state {state}.", labels, cores[state])
            yield gauge(f"slurm_jobs_{state}", f"Jobs in state {state}, each once.", totals[state])
        yield gauge("slurm_jobs_cores_running", "CPUs of all running jobs.", core_totals["running"])
        yield gauge("slurm_jobs_cores_pending", "CPUs that all pending jobs ask for.", core_totals["pending"])
        yield from _by("user", rows)
        yield from _by("account", rows)
        yield from self._by_partition(jobs)
        labels = ["partition", "reason"]
        yield gauges("xgen_slurm_pending_jobs", "Pending jobs by what they wait for.", labels, waiting)
        yield gauges(
            "xgen_slurm_queue_oldest_pending_seconds",
            "How long the job that waits longest could have run, had the scheduler let it; 0: none waits for it.",
            ["partition"],
            {(partition,): oldest.get(partition, 0.0) for partition in self._partitions},
        )

    def _by_partition(self, jobs: dict[str, Counter[tuple[str, ...]]]) -> Iterator[Metric]:
        for state in ("pending", "running"):
            count = Counter(dict.fromkeys(self._partitions, 0))
            for (_, partition, *_), number in jobs[state].items():
                count[partition] += number
            values = {(partition,): number for partition, number in count.items()}
            yield gauges(f"slurm_partition_jobs_{state}", f"Jobs of the partition, {state}.", ["partition"], values)


def _by(label: str, rows: Sequence[JobRow]) -> Iterator[Metric]:
    """What each user, or account, has."""
    states = ("pending", "running", "suspended")
    jobs: dict[str, Counter[tuple[str]]] = {state: Counter() for state in states}
    cpus, gpus = Counter[tuple[str]](), Counter[tuple[str]]()
    for row in rows:
        state, key = row.state.lower(), (getattr(row, label),)
        if state in jobs:
            jobs[state][key] += row.num_jobs
        if state == "running":
            cpus[key] += row.num_jobs * row.cpus
            gpus[key] += row.num_jobs * row.gpus
    for state in states:
        yield gauges(f"slurm_{label}_jobs_{state}", f"Jobs of the {label}, {state}.", [label], jobs[state])
    yield gauges(f"slurm_{label}_cpus_running", f"CPUs of the {label}'s running jobs.", [label], cpus)
    yield gauges(f"slurm_{label}_gpus_running", f"GPUs allocated to the {label}'s running jobs.", [label], gpus)
