"""Whoever wants to hear of runs is told while the exporter watches; how often that worked is a metric."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from prometheus_client.core import Metric

from xgen.metrics.exporter.collector import counters
from xgen.notify import Notifier
from xgen.spec import Profile


class Messages:
    """A hook that hangs or fails holds up this collector alone, and for a minute at most."""

    name = "messages"
    interval = 30.0
    timeout = 20.0

    def __init__(self, profile: Profile, cluster: str, lost: Callable[[], Mapping[str, str]]) -> None:
        """`lost`: runs of which the scheduler has no job although nobody decided, with what is said of them."""
        self._notifier = Notifier(Path(profile.run_root), cluster, profile)
        self._lost = lost
        self._counts: Counter[tuple[str, str]] = Counter()
        self._said: set[tuple[str, str]] = set()

    def poll(self) -> Iterable[Metric]:
        for one in self._notifier.look(self._lost()):
            self._counts[one.channel, "sent" if one.is_sent else "failed"] += 1
            if not one.is_sent and (one.channel, one.result) not in self._said:  # once, and not at each look
                self._said.add((one.channel, one.result))
                print(f"xgen exporter: {one.run}: {one.channel}: {one.result}", file=sys.stderr, flush=True)
        text = "Messages about runs, by channel; failed: tries, of which each message has up to five."
        return [counters("xgen_notifications_total", text, ["channel", "result"], self._counts)]
