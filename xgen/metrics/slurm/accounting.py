"""From the accounting database, at its own slow pace: fair-share (`sshare`), the jobs that ended and what jobs held
(`sacct`)."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from prometheus_client.core import Metric

from xgen.metrics.exporter.collector import CollectorError, counters, gauges
from xgen.metrics.exporter.command import output
from xgen.metrics.slurm.rows import EndedRow, HeldRow, ShareRow, columns, parse

# State of an ended job, and sacct's code for it.
ENDED = {
    "completed": "CD", "failed": "F", "timeout": "TO", "cancelled": "CA", "node_fail": "NF", "preempted": "PR",
    "out_of_memory": "OOM", "boot_fail": "BF", "deadline": "DL", "requeued": "RQ",
}  # fmt: skip
_LATE = 600.0  # seconds by which the database may hear of an end too late
_HELD_TIMEOUT = 120.0  # seconds; a month of a large cluster
_LONGEST = 86400.0  # seconds to look back at most, after it was away
_SHARES = {
    "": ("fairshare", "Fair-share factor, 0 to 1; under Fair Tree only users have one."),
    "_raw_shares": ("raw_shares", "Shares that were assigned."),
    "_norm_shares": ("norm_shares", "The same over all."),
    "_raw_usage_cpu_seconds": ("raw_usage", "Usage in CPU seconds, weighed and decayed."),
    "_norm_usage": ("norm_usage", "The same over all."),
}


def _output(command: Sequence[str], timeout: float) -> str | None:
    """All that a command prints of the accounting; None on a cluster that keeps none, which is no fault. Raises
    CollectorError."""
    try:
        return output(command, timeout)
    except CollectorError:
        if _keeps_none(timeout):
            return None
        raise


def _keeps_none(timeout: float) -> bool:
    try:
        said = output(("scontrol", "show", "config"), timeout)
    except CollectorError:
        return False
    found = re.search(r"^AccountingStorageType\s*=\s*(\S+)", said, re.MULTILINE)
    return found is not None and found[1] in ("accounting_storage/none", "(null)")


class Shares:
    name = "shares"
    interval = 300.0
    timeout = 60.0

    def poll(self) -> Iterable[Metric]:
        command = ("sshare", "--all", "--noheader", "--parsable2", f"--format={columns(ShareRow)}")
        rows = parse(ShareRow, _output(command, self.timeout) or "", "sshare")
        accounts = {(row.account,): row for row in rows if not row.user}
        # A user with an association for each partition has several rows for one account: the last one counts.
        users = {(row.account, row.user): row for row in rows if row.user}
        for kind, labels, of in (("account", ["account"], accounts), ("user", ["account", "user"], users)):
            for suffix, (field, text) in _SHARES.items():
                known = {key: value for key, row in of.items() if (value := getattr(row, field)) is not None}
                yield gauges(f"slurm_{kind}_fairshare{suffix}", text, labels, known)
        yield gauges(
            "xgen_slurm_account_level_fairshare",
            "Fair Tree: shares over usage among the account's siblings; below 1: it has had more than its share.",
            ["account"],
            {key: row.level for key, row in accounts.items() if row.level is not None},
        )


class Ended:
    """Counts from its own start on. An end that is told late, or seen twice, counts once."""

    name = "ended"
    interval = 300.0
    timeout = 60.0

    def __init__(self, partitions: Iterable[str] = ()) -> None:
        self._counts = Counter({(state, partition): 0 for partition in partitions for state in ENDED})
        self._seen: set[EndedRow] = set()
        self._asked = time.time()
        self._started = int(self._asked)  # ends are told in whole seconds: one in the second of the start is no earlier

    def poll(self) -> Iterable[Metric]:
        now = time.time()
        since = min(now - self._asked + _LATE, _LONGEST)
        command = (
            "sacct", "--allusers", "--allocations", "--duplicates", "--noheader", "--parsable2",
            f"--starttime=now-{since:.0f}seconds", "--endtime=now", f"--state={','.join(ENDED.values())}",
            f"--format={columns(EndedRow)}",
        )  # fmt: skip
        told = _output(command, self.timeout)
        if told is None:
            return ()
        self._count(parse(EndedRow, told, "sacct"), now - since)
        self._asked = now
        return self._metrics()

    def _count(self, rows: Sequence[EndedRow], since: float) -> None:
        ended = {row for row in rows if row.end is not None and row.end >= max(since, self._started)}
        for row in ended - self._seen:
            for state in ENDED:  # a partition that is new begins with zeros
                self._counts[state, row.partition] += 0
            state = row.state.lower()
            self._counts[state if state in ENDED else "other", row.partition] += 1
        self._seen = ended  # the next poll looks back no further than this one did

    def _metrics(self) -> Iterator[Metric]:
        yield counters(
            "xgen_slurm_jobs_ended_total",
            "Jobs that ended since the exporter started; each end of a requeued job is one.",
            ["state", "partition"],
            self._counts,
        )


def held(users: Iterable[str], since: float, now: float) -> list[HeldRow]:
    """What the jobs of these users held since then, by sacct: a row for each time that a job was started; one that runs
    ends now. Raises CollectorError, also where there is no accounting."""
    command = (
        "sacct", f"--user={','.join(sorted(set(users)))}", "--allocations", "--duplicates", "--truncate", "--noheader",
        "--parsable2", f"--starttime=now-{max(1.0, now - since):.0f}seconds", "--endtime=now",
        f"--format={columns(HeldRow)}",
    )  # fmt: skip
    return [row for row in parse(HeldRow, output(command, _HELD_TIMEOUT), "sacct") if row.start is not None]
