"""The controller: whether it answers (`scontrol ping`), and how it does (`sdiag`, as text: alike in all versions)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client.core import Metric

from xgen.metrics.exporter import CollectorError
from xgen.metrics.exporter.collector import gauge, gauges
from xgen.metrics.exporter.command import output

# Metric, section of sdiag's output (its first word; "": above all sections), line, text. Times are microseconds.
_LINES = (
    ("threads", "", "Server thread count", "Threads of the controller."),
    ("queue_size", "", "Agent queue size", "Messages that wait to be sent."),
    ("dbd_queue_size", "", "DBD Agent queue size", "Messages that wait for the accounting database."),
    ("jobs_submitted", "", "Jobs submitted", "Jobs submitted since sdiag was reset, at midnight as a rule."),
    ("jobs_started", "", "Jobs started", "Jobs started since then."),
    ("jobs_completed", "", "Jobs completed", "Jobs completed since then."),
    ("jobs_canceled", "", "Jobs canceled", "Jobs cancelled since then."),
    ("jobs_failed", "", "Jobs failed", "Jobs failed since then: launch or node."),
    ("last_cycle", "Main", "Last cycle", "Last cycle of the main scheduler, in microseconds."),
    ("mean_cycle", "Main", "Mean cycle", "Mean cycle of the main scheduler, in microseconds."),
    ("cycle_per_minute", "Main", "Cycles per minute", "Cycles of the main scheduler a minute."),
    ("backfill_last_cycle", "Backfilling", "Last cycle", "Last backfill cycle, in microseconds."),
    ("backfill_mean_cycle", "Backfilling", "Mean cycle", "Mean backfill cycle, in microseconds."),
    ("backfill_depth_mean", "Backfilling", "Depth Mean", "Jobs that a backfill cycle looks at."),
    (
        "backfilled_jobs_since_start_total",
        "Backfilling",
        "Total backfilled jobs (since last slurm start)",
        "Jobs started by backfill since the controller started.",
    ),
    (
        "backfilled_jobs_since_cycle_total",
        "Backfilling",
        "Total backfilled jobs (since last stats cycle start)",
        "Jobs started by backfill since sdiag was reset.",
    ),
    (
        "backfilled_heterogeneous_total",
        "Backfilling",
        "Total backfilled heterogeneous job components",
        "Components of heterogeneous jobs started by backfill.",
    ),
)
_RPC = re.compile(r"^\s+(\S+)\s+\(\s*\d+\)\s+count:(\d+)\s+ave_time:(\d+)\s+total_time:(\d+)")


class Controller:
    """A ping costs the controller next to nothing; that it fails is what it is asked for, so this never does."""

    name = "controller"
    interval = 30.0
    timeout = 20.0

    def poll(self) -> Iterable[Metric]:
        try:
            up = " is UP" in output(("scontrol", "ping"), self.timeout)
        except CollectorError as error:
            if error.reason == "missing":
                raise
            up = False
        yield gauge("xgen_slurm_controller_up", "1: slurmctld, or its backup, answers scontrol ping.", up)


class Scheduler:
    name = "scheduler"
    interval = 60.0
    timeout = 30.0

    def poll(self) -> Iterable[Metric]:
        version = output(("sinfo", "--version"), self.timeout).split()
        yield gauges(
            "slurm_info",
            "1 for the version of SLURM's commands.",
            ["type", "binary", "version"],
            {("general", "", version[-1] if version else "unknown"): 1},
        )
        yield from _metrics(output(("sdiag",), self.timeout))


def _metrics(text: str) -> Iterator[Metric]:
    numbers, rpcs = _read(text)
    if ("", "Server thread count") not in numbers:
        raise CollectorError("malformed", f"sdiag: no thread count in {text[:120]!r}")
    for name, section, line, help_text in _LINES:
        # What a cluster without backfill does not say is absent.
        if (section, line) in numbers:
            yield gauge(f"slurm_scheduler_{name}", help_text, numbers[section, line])
    for prefix, label in (("slurm_rpc_stats", "operation"), ("slurm_user_rpc_stats", "user")):
        of = rpcs[label]
        for index, (suffix, what) in enumerate(
            (("", "RPCs"), ("_avg_time", "Mean microseconds"), ("_total_time", "Microseconds"))
        ):
            found = {(name,): figures[index] for name, figures in of.items()}
            yield gauges(f"{prefix}{suffix}", f"{what} by {label}, since sdiag was reset.", [label], found)


def _read(text: str) -> tuple[Mapping[tuple[str, str], float], Mapping[str, Mapping[str, tuple[int, int, int]]]]:
    """Numbers by section and line, and RPCs (count, mean, total) by operation and by user."""
    numbers: dict[tuple[str, str], float] = {}
    rpcs: dict[str, dict[str, tuple[int, int, int]]] = {"operation": {}, "user": {}}
    section, kind = "", "operation"
    for line in text.splitlines():
        key, _, value = line.strip().rpartition(":")
        if line.startswith(("Main ", "Backfill", "Remote ", "Pending ")):
            section = line.split(" ")[0]
            kind = "user" if "by user" in line else "operation"
        elif found := _RPC.match(line):
            rpcs[kind][found[1]] = int(found[2]), int(found[3]), int(found[4])
        elif value.strip().isdecimal():
            numbers[section, key] = float(value)
    return numbers, rpcs
