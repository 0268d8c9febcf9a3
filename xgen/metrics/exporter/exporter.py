"""All collectors of a cluster, and the page that a scrape gets."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from prometheus_client.core import Metric

from xgen.metrics.exporter.collector import Collector, counters, gauge, gauges
from xgen.metrics.exporter.command import kill_running
from xgen.metrics.exporter.page import Part, join, join_gzip, render
from xgen.metrics.exporter.poller import Poller


@dataclass(frozen=True)
class _Page:
    parts: Sequence[Part]
    gzip: bytes
    expires: float  # monotonic seconds; then something in it is too old


class Exporter:
    """Polls each collector at its own pace. A page is made when a poll ends; a scrape gets the one that is there."""

    def __init__(self, collectors: Sequence[Collector], version: str, log: Callable[[str], None] | None = None) -> None:
        self.pollers = {collector.name: Poller(collector, self._made, log) for collector in collectors}
        if len(self.pollers) != len(collectors):
            raise ValueError(f"two collectors of one name: {', '.join(c.name for c in collectors)}")
        self._version, self._started = version, time.time()
        self._making = threading.Lock()
        self._page = self._made()

    def start(self) -> None:
        # A second apart, so that two that compute do not do so together; never by more than an interval allows.
        for number, poller in enumerate(self.pollers.values()):
            poller.start(min(number, poller.collector.interval / 2))

    def close(self) -> None:
        """No poll begins any more, and the commands of those that run are killed."""
        for poller in self.pollers.values():
            poller.stop()
        kill_running()

    def page(self, gzip: bool = False) -> bytes:
        page = self._page
        if time.monotonic() > page.expires:
            page = self._made()
        return page.gzip if gzip else join(page.parts)

    def _made(self) -> _Page:
        with self._making:
            pollers = self.pollers.values()
            # Before what it is about: too early is no harm.
            expires = min((poller.expires for poller in pollers if poller.part() is not None), default=float("inf"))
            fresh = [part for poller in pollers if (part := poller.part()) is not None]
            parts = [*fresh, render(self._own())]
            self._page = _Page(parts, join_gzip(parts), expires)
            return self._page

    def _own(self) -> Iterator[Metric]:
        """About itself; some ten series a collector."""
        pollers = {(name,): poller for name, poller in self.pollers.items()}
        states = {key: poller.state for key, poller in pollers.items()}
        yield gauges("xgen_exporter_build_info", "1 for the version that runs.", ["version"], {(self._version,): 1})
        yield gauge("xgen_exporter_start_timestamp_seconds", "When it started.", self._started)
        success = {key: float(poller.healthy()) for key, poller in pollers.items()}
        durations = {key: s.duration for key, s in states.items() if s.duration is not None}
        # The second name is that of the SLURM exporters in use, which their dashboards ask for.
        for prefix in ("xgen_exporter", "slurm_exporter"):
            text = "1: the collector's last poll succeeded, and not longer ago than three intervals."
            yield gauges(f"{prefix}_collector_success", text, ["collector"], success)
            text = "How long its last poll took."
            yield gauges(f"{prefix}_collector_duration_seconds", text, ["collector"], durations)
        yield gauges(
            "xgen_exporter_collector_interval_seconds",
            "Time from poll to poll; what is older than three of them is not served.",
            ["collector"],
            {key: poller.collector.interval for key, poller in pollers.items()},
        )
        yield gauges(
            "xgen_exporter_collector_last_success_timestamp_seconds",
            "When its last good poll ended; absent: never.",
            ["collector"],
            {key: s.last_success for key, s in states.items() if s.last_success},
        )
        yield counters(
            "xgen_exporter_collector_errors_total",
            "Polls that failed, by reason.",
            ["collector", "reason"],
            {(*key, reason): count for key, s in states.items() for reason, count in s.errors.items()},
        )
        series = {key: part.num_series if (part := p.part()) is not None else 0 for key, p in pollers.items()}
        yield gauges("xgen_exporter_series", "Series of the collector that are served now.", ["collector"], series)
