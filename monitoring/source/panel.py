"""What every panel has: queries, a unit, colours that mean something, a text for when there is nothing to show."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

Json = dict[str, Any]
# What a value means: the colour of the least ones, then (from this value on, colour). Grafana's own default is red
# above 80, so none is left to it.
Levels = tuple[str | tuple[float, str], ...]
Texts = Mapping[str | int, tuple[str, str]]  # value: (text, colour)

PLAIN: Levels = ("text",)
NOTHING = "\N{EN DASH}"
DATASOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True)
class Query:
    expr: str
    legend: str = ""
    instant: bool = False
    table: bool = False


@dataclass(frozen=True)
class Named:
    """How the series of this name is drawn."""

    name: str
    color: str = ""
    dashed: bool = False
    steps: bool = False  # a value stays until the next one

    def override(self) -> Json:
        properties: list[Json] = []
        if self.color:
            properties.append({"id": "color", "value": fixed(self.color)})
        if self.dashed:
            properties.append({"id": "custom.lineStyle", "value": {"dash": [6, 6], "fill": "dash"}})
        if self.steps:
            properties.append({"id": "custom.lineInterpolation", "value": "stepAfter"})
        return by_name(self.name, properties)


@dataclass(frozen=True)
class Link:
    title: str
    url: str

    def json(self) -> Json:
        return {"title": self.title, "url": self.url, "targetBlank": False}


@dataclass(frozen=True, kw_only=True)
class Panel(ABC):
    """A panel without its place. `no_value` beginning with "none" says that emptiness is an answer, not a fault."""

    type: ClassVar[str]

    title: str
    description: str
    width: int  # of 24
    queries: tuple[Query, ...] = ()
    unit: str = "none"
    decimals: int | None = None
    low: float | None = None
    high: float | None = None
    no_value: str = NOTHING
    color: str = ""  # of all; empty: by the series, or by the levels
    levels: Levels = PLAIN
    texts: Texts = field(default_factory=dict)
    series: tuple[Named, ...] = ()
    links: tuple[Link, ...] = ()
    points: int | None = None  # at most this many a series
    step: str = ""  # at least this long, "2m": for counters that are polled more slowly than Prometheus scrapes

    def json(self, number: int, place: Json) -> Json:
        panel: Json = {
            "id": number,
            "type": self.type,
            "title": self.title,
            "description": self.description,
            "datasource": DATASOURCE,
            "gridPos": place,
            "fieldConfig": {"defaults": self._defaults(), "overrides": self.overrides()},
            "options": self.options(),
            "targets": [_target(query, index) for index, query in enumerate(self.queries)],
        }
        if self.points:
            panel["maxDataPoints"] = self.points
        if self.step:
            panel["interval"] = self.step
        if steps := self.transformations():
            panel["transformations"] = [{"id": name, "options": options} for name, options in steps]
        return panel

    @abstractmethod
    def options(self) -> Json:
        """How this type of panel shows its values."""

    def custom(self) -> Json:
        """What only this type of panel has for each field."""
        return {}

    def color_mode(self) -> str:
        """What colours the values where no colour is fixed."""
        return "thresholds"

    def overrides(self) -> list[Json]:
        return [named.override() for named in self.series]

    def transformations(self) -> list[tuple[str, Json]]:
        return []

    def _defaults(self) -> Json:
        defaults: Json = {
            "color": fixed(self.color) if self.color else {"mode": self.color_mode()},
            "mappings": mappings(self.texts),
            "noValue": self.no_value,
            "thresholds": thresholds(self.levels),
            "unit": self.unit,
        }
        limits = {"decimals": self.decimals, "min": self.low, "max": self.high}
        defaults |= {key: value for key, value in limits.items() if value is not None}
        if self.links:
            defaults["links"] = [link.json() for link in self.links]
        if custom := self.custom():
            defaults["custom"] = custom
        return defaults


def fixed(color: str) -> Json:
    return {"fixedColor": color, "mode": "fixed"}


def by_name(name: str, properties: list[Json]) -> Json:
    return {"matcher": {"id": "byName", "options": name}, "properties": properties}


def thresholds(levels: Levels) -> Json:
    pairs = [(None, level) if isinstance(level, str) else level for level in levels]
    return {"mode": "absolute", "steps": [{"color": color, "value": value} for value, color in pairs]}


def mappings(texts: Texts) -> list[Json]:
    if not texts:
        return []
    options = {
        str(value): {"color": color, "index": index, "text": text}
        for index, (value, (text, color)) in enumerate(texts.items())
    }
    return [{"type": "value", "options": options}]


def reference(index: int) -> str:
    """Grafana's name for the query of this index."""
    return chr(ord("A") + index)


def _target(query: Query, index: int) -> Json:
    target: Json = {
        "datasource": DATASOURCE,
        "editorMode": "code",
        "expr": query.expr,
        "instant": query.instant,
        "legendFormat": query.legend,
        "range": not query.instant,
        "refId": reference(index),
    }
    return target | {"format": "table"} if query.table else target
