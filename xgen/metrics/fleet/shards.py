"""GPU time of a job array: each shard holds GPUs of its own, whenever it comes to run."""

from __future__ import annotations

from xgen.cluster.status import ShardsStatus
from xgen.runs import EventReader, Ledger, RunDir


class ShardTimes:
    """Seconds for which shards of a stage had a job; what has ended is one number."""

    def __init__(self, run: RunDir, stage: str) -> None:
        self._run, self._stage = run, stage
        self._ended: set[int] = set()
        self._seconds = 0.0  # of those
        self._others: dict[int, tuple[EventReader, Ledger]] = {}
        self._running: list[int] = []

    def read(self, status: ShardsStatus) -> None:
        """Raises OSError."""
        ended = {*status.finished, *status.given_up}
        self._running = status.running
        for number in (ended - self._ended) | set(status.running) | self._others.keys():
            reader, ledger = self._others.setdefault(number, self._new(number))
            for event in reader.new():
                ledger.add(event)
            if number in ended:
                self._seconds += _held(ledger, 0.0)
                del self._others[number]
        self._ended |= ended

    def seconds(self, at: float) -> float:
        """Of one that has no job now, up to its last sign of life."""
        others = self._others.items()
        return self._seconds + sum(_held(ledger, at if n in self._running else 0.0) for n, (_, ledger) in others)

    def _new(self, number: int) -> tuple[EventReader, Ledger]:
        return EventReader(self._run.shard(self._stage, number), thinned=True), Ledger()


def _held(ledger: Ledger, at: float) -> float:
    totals = ledger.totals(at)
    return sum(totals.values()) - totals["queued"]
