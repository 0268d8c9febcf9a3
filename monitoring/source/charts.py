"""The types of panel that draw numbers, bars and lines; all are in Grafana 9 to 13 (xychart: from 10.4 on)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from monitoring.source.panel import Json, Panel, Query, by_name, reference

_LAST: Json = {"calcs": ["lastNotNull"], "fields": "", "values": False}


@dataclass(frozen=True, kw_only=True)
class Stat(Panel):
    """One big number, or the name of the series that has it."""

    type: ClassVar[str] = "stat"
    show: Literal["value", "name"] = "value"
    filled: bool = False  # the colour behind it, not in it

    def options(self) -> Json:
        return {
            "colorMode": "background" if self.filled else "value",
            "graphMode": "none",
            "justifyMode": "center",
            "orientation": "auto",
            "reduceOptions": _LAST,
            "textMode": self.show,
        }


@dataclass(frozen=True, kw_only=True)
class Bars(Panel):
    """A horizontal bar a series."""

    type: ClassVar[str] = "bargauge"

    def options(self) -> Json:
        return {
            "displayMode": "basic",
            "minVizHeight": 10,
            "minVizWidth": 0,
            "orientation": "horizontal",
            "reduceOptions": _LAST,
            "showUnfilled": True,
            "valueMode": "text",
        }


@dataclass(frozen=True, kw_only=True)
class States(Panel):
    """A band for as long as a value stays the same; `texts` or `levels` say what each value is."""

    type: ClassVar[str] = "state-timeline"

    def options(self) -> Json:
        return {
            "alignValue": "left",
            "legend": _legend(""),
            "mergeValues": True,
            "rowHeight": 0.8,
            "showValue": "auto",
            "tooltip": {"mode": "single", "sort": "none"},
        }

    def custom(self) -> Json:
        return {"fillOpacity": 75, "lineWidth": 0}


@dataclass(frozen=True, kw_only=True)
class Lines(Panel):
    """Curves over time."""

    type: ClassVar[str] = "timeseries"
    legend: Literal["", "list", "table"] = ""
    axis: Literal["from zero", "to zero", "free"] = "to zero"  # "to zero": below it where values are
    line: float = 1.5
    fill: int = 0
    steps: bool = False
    span_gaps: bool = False
    stacked: bool = False
    bars: bool = False  # a bar a sample: of counts that are 0 most of the time, a line of one sample is not seen
    limits: bool = False  # the levels are drawn as lines

    def color_mode(self) -> str:
        return "palette-classic"

    def options(self) -> Json:
        return {"legend": _legend(self.legend), "tooltip": {"mode": "multi", "sort": "none"}}

    def custom(self) -> Json:
        soft = {"axisSoftMin": 0} if self.axis == "to zero" else {}
        return soft | {
            "axisBorderShow": False,
            "drawStyle": "bars" if self.bars else "line",
            "fillOpacity": self.fill,
            "gradientMode": "none",
            "lineInterpolation": "stepAfter" if self.steps else "linear",
            "lineWidth": self.line,
            "pointSize": 4,
            "showPoints": "never",
            "spanNulls": self.span_gaps,
            "stacking": {"group": "A", "mode": "normal" if self.stacked else "none"},
            "thresholdsStyle": {"mode": "dashed" if self.limits else "off"},
        }

    def _defaults(self) -> Json:
        return super()._defaults() | ({"min": 0} if self.axis == "from zero" else {})


@dataclass(frozen=True, kw_only=True)
class Bands(Lines):
    """Areas that lie on each other: the top edge is the sum."""

    legend: Literal["", "list", "table"] = "list"
    axis: Literal["from zero", "to zero", "free"] = "from zero"
    line: float = 0
    fill: int = 75
    stacked: bool = True


@dataclass(frozen=True, kw_only=True)
class Curves(Panel):
    """One value over another, a curve for each value of a label: what Prometheus has over time only.

    Two range queries as tables are merged on time and label, and split by the label again.
    """

    type: ClassVar[str] = "xychart"
    x: str
    x_title: str
    x_unit: str
    y: str
    y_title: str
    label: str = "run"
    dots: bool = False  # at each value: of few, a line does not show where they are, and of one there is none
    points: int | None = 300

    def __post_init__(self) -> None:
        queries = (Query(self.x, table=True), Query(self.y, table=True))
        object.__setattr__(self, "queries", queries)

    def json(self, number: int, place: Json) -> Json:
        # Without a version Grafana takes the options for those of 10.3, which named them otherwise.
        return super().json(number, place) | {"pluginVersion": "11.0.0"}

    def color_mode(self) -> str:
        return "palette-classic"

    def options(self) -> Json:
        legend = _legend("list")
        return {"legend": legend, "mapping": "auto", "series": [], "tooltip": {"mode": "single", "sort": "none"}}

    def custom(self) -> Json:
        show, size = ("points+lines", 8) if self.dots else ("lines", 4)
        return {"show": show, "lineWidth": 2, "pointSize": {"fixed": size}, "axisLabel": self.y_title}

    def overrides(self) -> list[Json]:
        across: list[Json] = [
            {"id": "displayName", "value": self.x_title},
            {"id": "unit", "value": self.x_unit},
            {"id": "custom.axisLabel", "value": self.x_title},
        ]
        named: list[Json] = [{"id": "displayName", "value": f"${{__field.labels.{self.label}}}"}]
        return [by_name("Value #A", across), by_name("Value #B", named)]

    def transformations(self) -> list[tuple[str, Json]]:
        fields = [self.label, *(f"Value #{reference(index)}" for index in range(2))]
        return [
            ("merge", {}),
            ("filterFieldsByName", {"include": {"names": fields}}),
            ("partitionByValues", {"fields": [self.label]}),
        ]


@dataclass(frozen=True, kw_only=True)
class Shares(Panel):
    """A bar for each value of `rows`, divided into the values of `parts`."""

    type: ClassVar[str] = "barchart"
    expr: str
    rows: str
    parts: str
    percent: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "queries", (Query(self.expr, instant=True, table=True),))

    def color_mode(self) -> str:
        return "palette-classic"

    def options(self) -> Json:
        return {
            "barRadius": 0,
            "barWidth": 0.8,
            "fullHighlight": False,
            "groupWidth": 0.7,
            "legend": _legend("list"),
            "orientation": "horizontal",
            "showValue": "never",
            "stacking": "percent" if self.percent else "normal",
            "tooltip": {"mode": "multi", "sort": "none"},
            "xTickLabelRotation": 0,
            "xTickLabelMaxLength": 30,
        }

    def custom(self) -> Json:
        return {"fillOpacity": 80, "lineWidth": 0}

    def transformations(self) -> list[tuple[str, Json]]:
        matrix = {"columnField": self.parts, "rowField": self.rows, "valueField": "Value", "emptyValue": "null"}
        return [("groupingToMatrix", matrix)]


def _legend(form: str) -> Json:
    table = form == "table"
    return {
        "calcs": ["lastNotNull"] if table else [],
        "displayMode": "table" if table else "list",
        "placement": "right" if table else "bottom",
        "showLegend": bool(form),
    }
