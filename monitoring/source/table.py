"""A table: rows are what one query's labels name, each further column is a query of its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from monitoring.source.panel import (
    NOTHING,
    Json,
    Levels,
    Link,
    Panel,
    Query,
    Texts,
    by_name,
    mappings,
    reference,
    thresholds,
)

_CELLS: dict[str, Json] = {
    "text": {"type": "auto"},
    "color": {"type": "color-text"},
    "filled": {"type": "color-background", "mode": "basic"},
    "bar": {"type": "gauge", "mode": "basic", "valueDisplayMode": "text"},
}


@dataclass(frozen=True, kw_only=True)
class Column:
    """The label of this name, or the value of a query that has the table's labels, or some of them."""

    title: str
    label: str = ""
    expr: str = ""
    unit: str = "none"
    decimals: int | None = None
    show: Literal["text", "color", "filled", "bar"] = "text"
    levels: Levels = ()
    texts: Texts = field(default_factory=dict)
    high: float | None = None
    width: int | None = None  # pixels
    link: Link | None = None
    no_value: str = NOTHING  # "none…": a column without a value is no fault

    def override(self) -> Json:
        properties: list[Json] = [{"id": "noValue", "value": self.no_value}]
        if self.expr:
            properties.append({"id": "unit", "value": self.unit})
        if self.decimals is not None:
            properties.append({"id": "decimals", "value": self.decimals})
        if self.levels:
            properties.append({"id": "thresholds", "value": thresholds(self.levels)})
            properties.append({"id": "color", "value": {"mode": "thresholds"}})
        if self.texts:
            properties.append({"id": "mappings", "value": mappings(self.texts)})
        if self.high is not None:
            properties += [{"id": "min", "value": 0}, {"id": "max", "value": self.high}]
        if self.show != "text":
            properties.append({"id": "custom.cellOptions", "value": _CELLS[self.show]})
        if self.width:
            properties.append({"id": "custom.width", "value": self.width})
        if self.link:
            properties.append({"id": "links", "value": [self.link.json()]})
        return by_name(self.title, properties)


@dataclass(frozen=True, kw_only=True)
class Table(Panel):
    """`rows` is a query whose labels are shown; its value is not. Its labels are those of the columns, no more."""

    type: ClassVar[str] = "table"
    rows: str
    columns: tuple[Column, ...]
    sort: str  # title of a column; a minus before it: the largest first

    def __post_init__(self) -> None:
        values = [column.expr for column in self.columns if column.expr]
        object.__setattr__(self, "queries", tuple(Query(e, instant=True, table=True) for e in (self.rows, *values)))

    def options(self) -> Json:
        return {
            "cellHeight": "sm",
            "footer": {"show": False, "reducer": ["sum"], "countRows": False, "fields": ""},
            "frameIndex": 0,
            "showHeader": True,
            "sortBy": [{"displayName": self.sort.removeprefix("-"), "desc": self.sort.startswith("-")}],
        }

    def custom(self) -> Json:
        return {"align": "auto", "cellOptions": _CELLS["text"], "inspect": False}

    def overrides(self) -> list[Json]:
        return [column.override() for column in self.columns]

    def transformations(self) -> list[tuple[str, Json]]:
        many = any(column.expr for column in self.columns)
        names = iter(f"Value #{reference(index)}" if many else "Value" for index in range(len(self.queries)))
        hidden = {"Time": True, next(names): True}
        fields = [column.label or next(names) for column in self.columns]
        titles = [column.title for column in self.columns]
        order = {name: index for index, name in enumerate(fields)}
        renamed = dict(zip(fields, titles, strict=True))
        organize: Json = {"excludeByName": hidden, "indexByName": order, "renameByName": renamed}
        return [("merge", {}), ("organize", organize)]
