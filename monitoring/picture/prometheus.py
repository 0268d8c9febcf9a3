"""A dashboard's queries against a live Prometheus, with Grafana's variables filled in as Grafana does."""

from __future__ import annotations

import json
import math
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from picture.dashboard import Annotation, Panel, Target

_TIMEOUT = 30.0  # seconds
_POINTS = 700  # at most this many a series: about a panel's width in pixels
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


class QueryError(Exception):
    """Prometheus did not answer, or refused the query."""


@dataclass(frozen=True)
class Series:
    name: str  # the legend's text
    times: list[float]  # seconds since the epoch
    values: list[float]
    labels: Mapping[str, str] = field(default_factory=dict)
    step: float = 0  # seconds between two samples

    @property
    def finite(self) -> list[float]:
        return [value for value in self.values if math.isfinite(value)]

    @property
    def last(self) -> float:
        """The last finite value, as Grafana's `lastNotNull`; there must be one."""
        return self.finite[-1]


@dataclass(frozen=True)
class Mark:
    """A moment that is marked on every time axis, as an annotation is in Grafana."""

    time: float  # seconds since the epoch
    text: str
    color: str  # Grafana's name for it
    row: int  # number of its annotation: each has a place of its own for the names


@dataclass(frozen=True)
class Window:
    """What is drawn: values of the variables, from when until when (seconds since the epoch)."""

    variables: Mapping[str, str]
    start: float
    end: float


class Prometheus:
    """Queries over one window. Raises QueryError."""

    def __init__(self, url: str, window: Window) -> None:
        self._url, self._window = url.rstrip("/"), window
        scrape = self._scrape_interval()
        # As Grafana: a step is never finer than a scrape, and a rate always sees four of them.
        self.step = max(scrape, math.ceil((window.end - window.start) / _POINTS))
        self._scrape = scrape

    def panel(self, panel: Panel) -> list[list[Series]]:
        """For each target its series, empty when it has no finite value."""
        length = self._window.end - self._window.start
        step = max(self.step, _seconds(panel.interval), math.ceil(length / (panel.max_data_points or _POINTS)))
        return [self._target(target, step) for target in panel.targets]

    def marks(self, annotation: Annotation, row: int) -> list[Mark]:
        """As Grafana: the value is the time, in milliseconds; or a mark where the value comes above 0."""
        series = self._query(annotation.expr, self.step, instant=False, legend=annotation.title_format)
        if annotation.use_value_for_time:
            found = {(value / 1000, item.name) for item in series for value in item.values}
        else:
            found = {(time, item.name) for item in series for time in _rises(item, self.step)}
        within = sorted(mark for mark in found if self._window.start <= mark[0] <= self._window.end)
        return [Mark(time, text, annotation.icon_color, row) for time, text in within]

    def _target(self, target: Target, step: float) -> list[Series]:
        series = self._query(target.expr, step, instant=target.instant, legend=target.legend_format)
        return [item for item in series if item.finite]

    def _query(self, expr: str, step: float, *, instant: bool, legend: str) -> list[Series]:
        query = self._fill_in(expr, step)
        if instant:
            result = self._get("query", query=query, time=self._window.end)["result"]
        else:
            start = math.floor(self._window.start / step) * step
            result = self._get("query_range", query=query, start=start, end=self._window.end, step=step)["result"]
        found = []
        for item in result:
            samples = [item["value"]] if instant else item["values"]
            times, values = [float(t) for t, _ in samples], [float(v) for _, v in samples]
            found.append(Series(_legend(legend, item["metric"]), times, values, item["metric"], step))
        return found

    def _fill_in(self, expr: str, step: float) -> str:
        rate = max(step + self._scrape, 4 * self._scrape)
        known = {
            **self._window.variables,
            "__rate_interval": f"{math.ceil(rate * 1000)}ms",
            "__interval": f"{math.ceil(step * 1000)}ms",
            "__range": f"{math.ceil(self._window.end - self._window.start)}s",
        }

        def value(match: re.Match[str]) -> str:
            name = match[1] or match[2]
            if name not in known:
                raise QueryError(f"unknown variable ${name}")
            return known[name]

        return re.sub(r"\$\{(\w+)\}|\$([a-z_]\w*)", value, expr)  # $1 is PromQL's own

    def _scrape_interval(self) -> float:
        """Of the runs' scrape job, in seconds; Grafana is told it in the data source's settings."""
        config = yaml.safe_load(self._get("status/config")["yaml"])
        jobs = {job["job_name"]: job.get("scrape_interval") for job in config.get("scrape_configs", [])}
        text = jobs.get("xgen-runs") or config["global"]["scrape_interval"]
        return _seconds(text)

    def _get(self, path: str, **parameters: str | float) -> Any:
        url = f"{self._url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=_TIMEOUT) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")
            raise QueryError(_message(text) or f"{url}: {error}") from None
        except (urllib.error.URLError, TimeoutError, ValueError) as error:
            raise QueryError(f"{self._url} does not answer as a Prometheus does: {error}") from None


def _seconds(text: str) -> float:
    return sum(float(n) * _UNITS[unit] for n, unit in re.findall(r"(\d+)(ms|[smhd])", text))


def _rises(series: Series, step: float) -> list[float]:
    """When the value came above 0: the first sample of each stretch that is."""
    active = [time for time, value in zip(series.times, series.values, strict=True) if value > 0]
    return [time for before, time in zip([-math.inf, *active], active, strict=False) if time - before > 1.5 * step]


def _legend(text: str, labels: dict[str, str]) -> str:
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda match: labels.get(match[1], ""), text)


def _message(text: str) -> str:
    try:
        return str(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        return ""
