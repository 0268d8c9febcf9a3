"""One painter per panel type. Each gets the panel's box on the figure and the series of its targets."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from picture import theme
from picture.canvas import Box, Canvas, date, frame, paint_marks, style_time
from picture.dashboard import Panel
from picture.frames import frames
from picture.legend import color_of, legend_list, list_height
from picture.lines import timeseries, xychart
from picture.prometheus import Series
from picture.table import table
from picture.units import value_text


def stat(canvas: Canvas, panel: Panel, box: Box, data: list[list[Series]]) -> None:
    """One big number, or the name of the series."""
    series = data[0][0]
    defaults, value = panel.field_config.defaults, series.last
    fixed, mapped = panel.overridden(series.name, "color"), defaults.mapped(value)
    name = fixed["fixedColor"] if fixed else defaults.color.fixed_color or defaults.threshold_color(value)
    color = theme.color(mapped[1] if mapped else name)
    frame(canvas, panel, box)
    if panel.options.text_mode == "name":
        text, suffix = series.name, ""
    else:
        text, suffix = (mapped[0], "") if mapped else value_text(value, defaults.unit, defaults.decimals)
    if panel.options.color_mode == "background":
        inner = Box(box.x + 8, box.y + 8, box.w - 16, box.h - 44)
        canvas.rectangle(inner, color, color)
        color = theme.on(color)
    ax = canvas.axes(box, 8, 8, 8, 36)
    ax.axis("off")
    shown = ax.text(0.5, 0.5, text, size=30, weight="bold", color=color, ha="center", va="center")
    shown.set_fontsize(min(30, 30 * (0.9 if not suffix else 0.6) * ax.bbox.width / shown.get_window_extent().width))
    if suffix:
        width = shown.get_window_extent().width / ax.bbox.width
        unit = ax.text(0.5, 0.5, suffix, size=16, color=color, ha="left", va="center")
        space = 0.03 + unit.get_window_extent().width / ax.bbox.width
        shown.set_x(0.5 - space / 2)
        unit.set_position((0.5 - space / 2 + width / 2 + 0.03, 0.46))


def state_timeline(canvas: Canvas, panel: Panel, box: Box, data: list[list[Series]]) -> None:
    """A bar for as long as a value stays the same, a gap where there is none; a line a series."""
    frame(canvas, panel, box)
    drawn = [series for target in data for series in target]
    ax = canvas.axes(box, 18, 18, 30, 40)
    if len(drawn) > 1:
        names = [ax.text(0, 0, series.name, size=theme.LABEL) for series in drawn]
        left = 18 + min(220, max(name.get_window_extent().width for name in names) + 12)
        ax.remove()
        ax = canvas.axes(box, left, 18, 30, 40)
        ax.set_yticks([len(drawn) - row - 0.5 for row in range(len(drawn))], [series.name for series in drawn])
    else:
        ax.set_yticks([])
    ax.set_ylim(0, len(drawn))
    for row, series in enumerate(drawn):
        _paint_states(canvas, ax, panel, series, len(drawn) - row - 1)
    style_time(canvas, ax)
    paint_marks(canvas, ax, labelled=False)


def _paint_states(canvas: Canvas, ax: Axes, panel: Panel, series: Series, low: float) -> None:
    defaults, length = panel.field_config.defaults, canvas.window.end - canvas.window.start
    for start, end, value in _stretches(series, series.step or canvas.step):
        mapped = defaults.mapped(value)
        color = theme.color(mapped[1] if mapped else defaults.threshold_color(value))
        ax.add_patch(Rectangle((date(start), low + 0.08), date(end - start), 0.84, fc=color, alpha=0.8, lw=0))
        text = mapped[0] if mapped else f"{value:g}"
        if (end - start) / length * ax.bbox.width > 14 + 7 * len(text):
            place = (date(start + 6 * length / ax.bbox.width), low + 0.5)
            ax.text(*place, text, size=theme.LABEL, va="center", color=theme.on(color))


def bar_gauge(canvas: Canvas, panel: Panel, box: Box, data: list[list[Series]]) -> None:
    """A horizontal bar per series, its name at the left and its value at the right."""
    frame(canvas, panel, box)
    defaults = panel.field_config.defaults
    drawn = [series for target in data for series in target]
    ax = canvas.axes(box, 14, 14, 14, 42)
    ax.axis("off")
    ax.set_xlim(0, ax.bbox.width)
    ax.set_ylim(len(drawn), 0)
    texts = [" ".join(value_text(s.last, defaults.unit, defaults.decimals)).rstrip() for s in drawn]
    left = max(88.0, 16 + max(7.2 * len(series.name) for series in drawn))
    right = ax.bbox.width - max(34.0, 10 + max(9.5 * len(text) for text in texts))
    largest = max(defaults.max or 1e-9, *(series.last for series in drawn)) if defaults.max else 0
    largest = largest or max(1.0 if defaults.decimals == 0 else 1e-9, *(series.last for series in drawn))
    for row, (series, text) in enumerate(zip(drawn, texts, strict=True)):
        by_level = defaults.color.mode == "thresholds" and not panel.overridden(series.name, "color")
        color = theme.color(defaults.threshold_color(series.last)) if by_level else color_of(panel, series.name, row)
        low, high = row + 0.2, 0.6
        if len(drawn) < 3:  # not a slab
            low, high = row + 0.35, 0.3
        ax.add_patch(Rectangle((left, low), right - left, high, fc=theme.TRACK, lw=0))
        ax.add_patch(Rectangle((left, low), (right - left) * series.last / largest, high, fc=color, lw=0))
        ax.text(0, row + 0.5, series.name, size=theme.LABEL, color=theme.TEXT, va="center")
        shown = color if series.last else theme.FAINT
        ax.text(ax.bbox.width, row + 0.5, text, size=theme.TITLE, color=shown, va="center", ha="right", weight="bold")


def bar_chart(canvas: Canvas, panel: Panel, box: Box, data: list[list[Series]]) -> None:
    """A horizontal bar a row, divided into its columns."""
    frame(canvas, panel, box)
    [content] = frames(panel, data)
    across, *parts = content.fields
    colors = [color_of(panel, part, index) for index, part in enumerate(parts)]
    left = min(box.w / 2, 28 + max(7.2 * len(str(row[across])) for row in content.rows))
    bottom = 32 + list_height(parts, box.w - 16)
    ax = canvas.axes(box, left, 18, bottom, 44)
    ax.axis("off")
    sums = [sum(float(row.get(part, 0)) for part in parts) for row in content.rows]
    percent = panel.options.stacking == "percent"
    ax.set_xlim(0, 1 if percent else max(sums))
    ax.set_ylim(len(content.rows), 0)
    for index, (row, whole) in enumerate(zip(content.rows, sums, strict=True)):
        begin = 0.0
        for part, color in zip(parts, colors, strict=True):
            size = float(row.get(part, 0)) / (whole if percent else 1)
            ax.add_patch(Rectangle((begin, index + 0.15), size, 0.7, fc=color, alpha=0.85, lw=0))
            begin += size
        y = box.y + box.h - 44 - (box.h - 44 - bottom) * (index + 0.5) / len(content.rows)
        canvas.text(box.x + left - 8, y, str(row[across]), size=theme.LABEL, ha="right", va="center")
    legend_list(canvas, box, parts, colors)


PAINTERS = {
    "stat": stat,
    "timeseries": timeseries,
    "state-timeline": state_timeline,
    "bargauge": bar_gauge,
    "barchart": bar_chart,
    "table": table,
    "xychart": xychart,
}


def _stretches(series: Series, step: float) -> list[tuple[float, float, float]]:
    """(start, end, value) for as long as samples follow each other with the same value."""
    found: list[tuple[float, float, float]] = []
    for time, value in zip(series.times, series.values, strict=True):
        if found and found[-1][2] == value and time - found[-1][1] < step:
            found[-1] = (found[-1][0], time + step, value)
        else:
            found.append((time, time + step, value))
    return found
