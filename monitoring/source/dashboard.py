"""A dashboard: variables, annotations, links, and rows of panels that fill the width."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from monitoring.source.panel import DATASOURCE, Json, Link, Panel

_WIDTH = 24
TAG = "xgen"


@dataclass(frozen=True)
class Variable:
    """Values of a label, as PromQL's label_values finds them."""

    name: str
    label: str
    query: str
    many: bool = False  # several can be chosen
    all: bool = False  # and all are, at first

    def json(self) -> Json:
        variable: Json = {
            "name": self.name,
            "label": self.label,
            "type": "query",
            "datasource": DATASOURCE,
            "query": {"query": self.query, "refId": self.name},
            "refresh": 2,
            "sort": 1,
            **_VARIABLE,
            "includeAll": self.all,
            "multi": self.many,
        }
        # Not the list of thousands of names that Grafana would write into every query.
        return variable | {"allValue": ".*"} if self.all else variable


@dataclass(frozen=True)
class Annotation:
    """A mark on the time axes: at the time that the value is (milliseconds), or where it comes above 0."""

    name: str
    color: str
    expr: str
    title: str
    text: str
    value_is_time: bool
    shown: bool = True  # at first; a click on its name shows and hides it

    def json(self) -> Json:
        return {
            "name": self.name,
            "datasource": DATASOURCE,
            "enable": self.shown,
            "hide": False,
            "iconColor": self.color,
            "expr": self.expr,
            "step": "15s",
            "titleFormat": self.title,
            "textFormat": self.text,
            "tagKeys": "",
            "useValueForTime": self.value_is_time,
        }


@dataclass(frozen=True)
class Row:
    """Panels beside each other, of this height in Grafana's units (30 pixels)."""

    height: int
    panels: tuple[Panel, ...]


@dataclass(frozen=True, kw_only=True)
class Dashboard:
    name: str  # of the file; the uid is xgen-NAME
    title: str
    description: str
    since: str = "now-6h"
    variables: tuple[Variable, ...]
    annotations: tuple[Annotation, ...] = ()
    links: tuple[Link, ...] = ()
    rows: tuple[Row, ...]

    @property
    def uid(self) -> str:
        return f"xgen-{self.name}"

    def json(self) -> Json:
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": [TAG],
            "schemaVersion": 39,
            "version": 1,
            "editable": True,
            "fiscalYearStartMonth": 0,
            "graphTooltip": 1,
            "refresh": "30s",
            "timezone": "browser",
            "time": {"from": self.since, "to": "now"},
            "timepicker": {},
            "links": [
                *({**_OTHERS, "type": "link", "title": link.title, "url": link.url} for link in self.links),
                _OTHERS,
            ],
            "templating": {"list": [_DATASOURCE_VARIABLE, *(variable.json() for variable in self.variables)]},
            "annotations": {"list": [annotation.json() for annotation in self.annotations]},
            "panels": list(self._panels()),
        }

    def _panels(self) -> Iterator[Json]:
        number, top = 1, 0
        for row in self.rows:
            left = 0
            for panel in row.panels:
                yield panel.json(number, {"h": row.height, "w": panel.width, "x": left, "y": top})
                number, left = number + 1, left + panel.width
            assert left == _WIDTH, f"{self.name}: the row of {row.panels[0].title!r} is {left} wide, not {_WIDTH}"
            top += row.height


def open_dashboard(name: str, title: str, **variables: str) -> Link:
    """A link that keeps the time range and the data source and sets these variables."""
    chosen = "".join(f"&var-{key}={value}" for key, value in variables.items())
    return Link(title, f"/d/xgen-{name}?var-datasource=${{datasource}}{chosen}&${{__url_time_range}}")


_VARIABLE: Json = {
    "hide": 0,
    "includeAll": False,
    "multi": False,
    "options": [],
    "regex": "",
    "skipUrlSync": False,
}
_DATASOURCE_VARIABLE: Json = {
    "name": "datasource",
    "label": "Data source",
    "type": "datasource",
    "query": "prometheus",
    "refresh": 1,
    **_VARIABLE,
}
_OTHERS: Json = {
    "title": "",
    "type": "dashboards",
    "tags": [TAG],
    "asDropdown": False,
    "includeVars": False,
    "keepTime": True,
    "targetBlank": False,
    "icon": "external link",
    "tooltip": "",
    "url": "",
}
