"""Grafana's tables of query results, and those of its transformations that the dashboards use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from picture.dashboard import Panel
from picture.prometheus import Series

Cell = float | str


@dataclass(frozen=True)
class Frame:
    """Rows by field; `label` is what the frame was split by."""

    fields: list[str]
    rows: list[dict[str, Cell]]
    label: str = ""

    def numbers(self, field: str) -> list[float]:
        return [float(row.get(field, "nan")) for row in self.rows]


def frames(panel: Panel, data: list[list[Series]]) -> list[Frame]:
    """What the panel draws: the results as tables, transformed in turn."""
    found = [_table(panel, index, series) for index, series in enumerate(data)]
    for step in panel.transformations:
        found = _STEPS[step.id](found, step.options)
    return found


def _table(panel: Panel, index: int, series: list[Series]) -> Frame:
    value = f"Value #{panel.targets[index].ref_id}" if len(panel.targets) > 1 else "Value"
    rows: list[dict[str, Cell]] = [
        {"Time": time, **one.labels, value: number}
        for one in series
        for time, number in zip(one.times, one.values, strict=True)
    ]
    labels = sorted({label for one in series for label in one.labels})
    return Frame(["Time", *labels, value], rows)


def _merge(found: list[Frame], _: dict[str, Any]) -> list[Frame]:
    """One row for all that agree in the fields that every frame has."""
    found = [frame for frame in found if frame.rows]
    if len(found) < 2:
        return found
    shared = [field for field in found[0].fields if all(field in frame.fields for frame in found)]
    fields = list(dict.fromkeys(field for frame in found for field in frame.fields))
    merged: list[dict[str, Cell]] = []
    by_key: dict[tuple[Cell, ...], list[dict[str, Cell]]] = {}
    for frame in found:
        for row in frame.rows:
            same = by_key.setdefault(tuple(row.get(field, "") for field in shared), [])
            mates = [there for there in same if all(there.get(key, value) == value for key, value in row.items())]
            for there in mates:
                there.update(row)
            if not mates:
                same.append(dict(row))
                merged.append(same[-1])
    return [Frame(fields, merged)]


def _organize(found: list[Frame], options: dict[str, Any]) -> list[Frame]:
    order, titles = options["indexByName"], options["renameByName"]
    done = []
    for frame in found:
        kept = [field for field in frame.fields if not options["excludeByName"].get(field)]
        kept.sort(key=lambda field: order.get(field, len(order)))
        rows = [{titles.get(field, field): row[field] for field in kept if field in row} for row in frame.rows]
        done.append(Frame([titles.get(field, field) for field in kept], rows))
    return done


def _filter(found: list[Frame], options: dict[str, Any]) -> list[Frame]:
    names = options["include"]["names"]
    return [Frame([field for field in frame.fields if field in names], frame.rows) for frame in found]


def _partition(found: list[Frame], options: dict[str, Any]) -> list[Frame]:
    [label] = options["fields"]
    [frame] = found
    values = list(dict.fromkeys(str(row[label]) for row in frame.rows))
    fields = [field for field in frame.fields if field != label]
    return [Frame(fields, [row for row in frame.rows if row[label] == value], value) for value in values]


def _matrix(found: list[Frame], options: dict[str, Any]) -> list[Frame]:
    [frame] = found
    column, row_field, value = options["columnField"], options["rowField"], options["valueField"]
    names = list(dict.fromkeys(str(row[column]) for row in frame.rows))
    rows: dict[str, dict[str, Cell]] = {}
    for row in frame.rows:
        key = str(row[row_field])
        rows.setdefault(key, {row_field: key})[str(row[column])] = row[value]
    return [Frame([row_field, *names], list(rows.values()))]


_STEPS = {
    "merge": _merge,
    "organize": _organize,
    "filterFieldsByName": _filter,
    "partitionByValues": _partition,
    "groupingToMatrix": _matrix,
}
