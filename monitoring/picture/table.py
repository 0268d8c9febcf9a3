"""Tables: a line a row, cells coloured or filled as their column says."""

from __future__ import annotations

import math
from itertools import pairwise

from picture import theme
from picture.canvas import Box, Canvas, frame
from picture.dashboard import Defaults, Panel
from picture.frames import Cell, Frame, frames
from picture.prometheus import Series
from picture.units import value_text

_ROW, _TOP = 31, 40  # pixels, on the scale on which a unit of height is 33: Grafana has 36 and 38


def table(canvas: Canvas, panel: Panel, box: Box, data: list[list[Series]]) -> None:
    frame(canvas, panel, box)
    [content] = frames(panel, data)
    fields = [panel.field(name) for name in content.fields]
    edges = _edges(box, fields)
    y = box.y + box.h - _TOP - 14
    for name, left in zip(content.fields, edges, strict=False):
        canvas.text(left + 8, y, name, size=theme.LABEL, va="center", color=theme.color("light-blue"))
    rows = _sorted(panel, content)
    room = int((box.h - _TOP - _ROW) // _ROW)
    for row in rows[: room if len(rows) <= room else room - 1]:
        y -= _ROW
        canvas.rectangle(Box(box.x + 8, y + _ROW / 2, box.w - 16, 0), theme.GRID, theme.GRID, rounding=0)
        for name, field, (left, right) in zip(content.fields, fields, pairwise(edges), strict=True):
            _cell(canvas, field, row.get(name), Box(left, y - _ROW / 2 + 1, right - left, _ROW - 2))
    if len(rows) > room:
        text = f"and {len(rows) - room + 1} more"
        canvas.text(box.x + 16, y - _ROW, text, size=theme.LABEL, va="center", color=theme.FAINT)


def columns_without_data(panel: Panel, data: list[list[Series]]) -> list[str]:
    """Columns without any value, but for those of which that is an answer."""
    [titles] = [step.options["renameByName"].values() for step in panel.transformations if step.id == "organize"]
    there = {name for content in frames(panel, data) for row in content.rows for name in row}
    return [title for title in titles if title not in there and not panel.field(title).no_value.startswith("none")]


def _cell(canvas: Canvas, field: Defaults, value: Cell | None, box: Box) -> None:
    text, color = _shown(field, value)
    kind = field.custom.cell_options.get("type", "auto")
    middle = box.y + box.h / 2
    if kind == "color-background" and color:
        canvas.rectangle(Box(box.x + 2, box.y, box.w - 4, box.h), color, color, rounding=2)
        color = theme.on(color)
    if kind == "gauge" and isinstance(value, float):
        room = box.w - 70
        part = min(1.0, max(0.0, value / (field.max or 1)))
        track = Box(box.x + 8, box.y + 4, room, box.h - 8)
        canvas.rectangle(track, theme.TRACK, theme.TRACK, rounding=0)
        canvas.rectangle(Box(track.x, track.y, room * part, track.h), color, color, rounding=0, z=-0.5)
        canvas.text(box.x + box.w - 8, middle, text, size=theme.LABEL, va="center", ha="right", color=color)
        return
    if field.links and value:
        color = theme.color("light-blue")
    plain = theme.TEXT if value is not None else theme.FAINT
    style = color if color and (kind != "auto" or field.links) else plain
    canvas.text(box.x + 8, middle, _fitted(text, box.w), size=theme.LABEL, va="center", color=style)


def _shown(field: Defaults, value: Cell | None) -> tuple[str, str]:
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return "" if field.no_value.startswith("none") else field.no_value, ""
    if mapped := field.mapped(value):
        return mapped[0], theme.color(mapped[1])
    if isinstance(value, str):
        return value, theme.color(field.threshold_color(-math.inf))
    text, suffix = value_text(value, field.unit, field.decimals)
    return f"{text} {suffix}".rstrip(), theme.color(field.threshold_color(value))


def _fitted(text: str, width: float) -> str:
    room = max(3, int((width - 10) / 6.9))
    return text if len(text) <= room else text[: room - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _edges(box: Box, fields: list[Defaults]) -> list[float]:
    """Where columns begin and end: those with a width have it, the others share what is left."""
    room, free = box.w - 16, [field for field in fields if not field.custom.width]
    taken = sum(field.custom.width or 0 for field in fields)
    shared = max(60.0, (room - taken) / len(free)) if free else 0
    scale = 1.0 if free and taken + shared * len(free) <= room else room / (taken + shared * len(free))
    edges = [box.x + 8]
    for field in fields:
        edges.append(edges[-1] + (field.custom.width or shared) * scale)
    return edges


def _sorted(panel: Panel, content: Frame) -> list[dict[str, Cell]]:
    rows = content.rows
    for sort in panel.options.sort_by:
        there = [row for row in rows if sort.display_name in row]
        missing = [row for row in rows if sort.display_name not in row]
        rows = sorted(there, key=lambda row: row[sort.display_name], reverse=sort.desc) + missing
    return rows
