"""What every collector is: something that is asked at its own pace, and either answers whole or says why not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol, get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

Reason = Literal["timeout", "exit", "missing", "malformed", "too_many_series", "crashed"]
REASONS: tuple[Reason, ...] = get_args(Reason)


class Collector(Protocol):
    """One source of metrics; polled in a thread of its own, so it may block, and keep what it needs between polls."""

    name: str
    interval: float  # seconds from poll to poll; what is older than three of them is not served
    timeout: float  # seconds that one command of a poll may take

    def poll(self) -> Iterable[Metric]:
        """All that it knows now. Raises CollectorError; half a result is none."""
        ...


class CollectorError(Exception):
    """A poll that failed; `reason` is a label, the text is for the log."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def gauges(name: str, text: str, labels: Sequence[str], values: Mapping[Any, float]) -> Metric:
    """`values` by the tuple of the labels' values."""
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def counters(name: str, text: str, labels: Sequence[str], values: Mapping[Any, float]) -> Metric:
    """`name` ends in _total."""
    family = CounterMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family
