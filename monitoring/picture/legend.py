"""Legends: names in lines below, or a table with last values beside; and the colours that they explain."""

from __future__ import annotations

from picture import theme
from picture.canvas import Box, Canvas
from picture.dashboard import Panel
from picture.prometheus import Series
from picture.units import value_text

_LINE = 20  # pixels
_ROWS = 2  # of names at most


def color_of(panel: Panel, name: str, index: int) -> str:
    """As Grafana: what is fixed for the series, for all, or the next of the palette."""
    override = panel.overridden(name, "color")
    if override:
        return theme.color(override["fixedColor"])
    fixed = panel.field_config.defaults.color.fixed_color
    return theme.color(fixed) if fixed else theme.PALETTE[index % len(theme.PALETTE)]


def list_height(names: list[str], width: float) -> float:
    """Pixels that a list of these names takes."""
    return _LINE * len(_lines(names, width))


def legend_list(canvas: Canvas, box: Box, names: list[str], colors: list[str]) -> None:
    index = 0
    lines = _lines(names, box.w - 16)
    for row, line in enumerate(lines):
        y = box.y + 12 + _LINE * (len(lines) - 1 - row)
        x = box.x + 12
        for name in line:
            canvas.rectangle(Box(x, y - 1.5, 14, 3), colors[index], colors[index], rounding=1)
            x = canvas.text(x + 20, y, name, size=theme.TICK, va="center") + 16
            index += 1
    if index < len(names):
        canvas.text(x, y, f"+{len(names) - index}", size=theme.TICK, va="center", color=theme.FAINT)


def legend_table(canvas: Canvas, panel: Panel, box: Box, drawn: list[Series], colors: list[str]) -> None:
    """Name and last value, in the order in which the bands lie on each other."""
    top, left, right = box.y + box.h - 56, box.x + box.w - 186, box.x + box.w - 16
    room = int((box.h - 70) // 25) + 1
    pairs = list(reversed(list(zip(drawn, colors, strict=True))))
    for row, (series, color) in enumerate(pairs[:room]):
        y = top - row * 25
        canvas.rectangle(Box(left, y - 3, 16, 6), color, color, rounding=1)
        canvas.text(left + 24, y, series.name, size=theme.LABEL, va="center")
        value = " ".join(value_text(series.last, panel.field_config.defaults.unit, None))
        canvas.text(right, y, value, size=theme.LABEL, va="center", ha="right", color=theme.FAINT)
    if len(pairs) > room:
        canvas.text(right, box.y + 12, f"+{len(pairs) - room}", size=theme.TICK, ha="right", color=theme.FAINT)


def _lines(names: list[str], width: float) -> list[list[str]]:
    """The names in at most `_ROWS` lines; those that do not fit are left out."""
    lines: list[list[str]] = [[]]
    left = width
    for name in names:
        needs = 40 + 7.2 * len(name)
        if needs > left and lines[-1]:
            if len(lines) == _ROWS:
                break
            lines.append([])
            left = width
        lines[-1].append(name)
        left -= needs
    return lines
