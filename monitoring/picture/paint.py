"""One painter per panel type. Each gets the panel's box on the figure and the series of its targets."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from picture import theme
from picture.dashboard import Panel
from picture.prometheus import Mark, Series, Window
from picture.units import Scale, scale_for, value_text

_TICKS = (1, 2, 5, 10, 20, 30, 40, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800)
_LABELLED_ROWS = 8  # panels of at least this height name their marks
# Height and alignment of the names of each annotation, in the order of the dashboard's list.
_NAME_PLACES = ((1.015, "bottom"), (0.975, "top"), (0.025, "bottom"))


@dataclass(frozen=True)
class Box:
    """A rectangle on the figure, in pixels from the lower left."""

    x: float
    y: float
    w: float
    h: float


@dataclass(frozen=True)
class Canvas:
    figure: Figure
    window: Window
    step: float  # seconds between two samples
    marks: list[Mark]

    def axes(self, box: Box, left: float, right: float, bottom: float, top: float) -> Axes:
        """Axes within a box, with these margins in pixels."""
        width, height = self.figure.bbox.width, self.figure.bbox.height
        place = (
            (box.x + left) / width,
            (box.y + bottom) / height,
            (box.w - left - right) / width,
            (box.h - bottom - top) / height,
        )
        return self.figure.add_axes(place, facecolor="none")

    def text(self, x: float, y: float, text: str, **style: object) -> float:
        """Write at this pixel; returns the pixel where the text ends."""
        width, height = self.figure.bbox.width, self.figure.bbox.height
        written = self.figure.text(x / width, y / height, text, **{"color": theme.TEXT, **style})  # type: ignore[arg-type]
        return float(written.get_window_extent().x1)

    def rectangle(self, box: Box, face: str, edge: str, rounding: float = 4) -> None:
        shape = f"round,pad=0,rounding_size={rounding}"
        patch = FancyBboxPatch((box.x, box.y), box.w, box.h, boxstyle=shape, fc=face, ec=edge, lw=0.8, transform=None)
        patch.set_zorder(-1)  # below the axes
        self.figure.add_artist(patch)


def frame(canvas: Canvas, panel: Panel, box: Box) -> None:
    canvas.rectangle(box, theme.PANEL, theme.BORDER)
    canvas.text(box.x + 12, box.y + box.h - 11, panel.title, size=theme.TITLE, va="top")


def no_data(canvas: Canvas, panel: Panel, box: Box, text: str) -> None:
    frame(canvas, panel, box)
    middle = (box.x + box.w / 2, box.y + box.h / 2 - 8)
    canvas.text(*middle, text, size=theme.TITLE, ha="center", va="center", color=theme.color("red"))


def stat(canvas: Canvas, panel: Panel, box: Box, data: list[list[Series]]) -> None:
    """One big number, or the name of the series."""
    series = data[0][0]
    defaults, value = panel.field_config.defaults, series.last
    fixed = panel.overridden(series.name, "color")
    name = fixed["fixedColor"] if fixed else defaults.color.fixed_color or panel.threshold_color(value)
    color = theme.color(name)
    frame(canvas, panel, box)
    if panel.options.text_mode == "name":
        text, suffix = series.name, ""
    else:
        text, suffix = value_text(value, defaults.unit, defaults.decimals)
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


def timeseries(canvas: Canvas, panel: Panel, box: Box, data: list[list[Series]]) -> None:
    """Lines, or bands stacked on each other."""
    frame(canvas, panel, box)
    defaults = panel.field_config.defaults
    custom, legend = defaults.custom, panel.options.legend
    table = legend.show_legend and legend.display_mode == "table"
    listed = legend.show_legend and not table
    drawn = [series for target in data for series in target]
    stacked = custom.stacking.mode == "normal"
    largest = max(_highest(drawn, stacked), abs(defaults.max or 0))
    scale = scale_for(defaults.unit, largest)
    colors = [_series_color(panel, series, i) for i, series in enumerate(drawn)]
    ax = canvas.axes(box, 66, 208 if table else 18, 58 if listed else 34, 44)
    if stacked:
        _paint_bands(ax, drawn, colors, scale, custom.fill_opacity / 100)
    else:
        for series, color in zip(drawn, colors, strict=True):
            _paint_line(canvas, ax, panel, series, color, scale)
    _style(canvas, ax, panel, scale)
    _fit_labels(ax, box.x + 10)
    if listed:
        _legend_list(canvas, box, drawn, colors)
    if table:
        _legend_table(canvas, panel, box, drawn, colors)


def state_timeline(canvas: Canvas, panel: Panel, box: Box, data: list[list[Series]]) -> None:
    """A bar for as long as a value stays the same, a gap where there is none."""
    frame(canvas, panel, box)
    ax = canvas.axes(box, 18, 18, 30, 40)
    for series in data[0]:
        for start, end, value in _stretches(series, canvas.step):
            color = theme.color(panel.threshold_color(value))
            ax.add_patch(Rectangle((_date(start), 0.08), _date(end - start), 0.84, fc=color, alpha=0.8, lw=0))
            if (end - start) / (canvas.window.end - canvas.window.start) > 0.06:
                text = panel.mapped(value) or f"{value:g}"
                offset = 6 * (canvas.window.end - canvas.window.start) / ax.bbox.width
                place = (_date(start + offset), 0.5)
                ax.text(*place, text, size=theme.LABEL, va="center", color=theme.on(color))
    ax.set_ylim(0, 1)
    _style_time(canvas, ax)
    _paint_marks(canvas, ax, labelled=False)
    ax.set_yticks([])


def bar_gauge(canvas: Canvas, panel: Panel, box: Box, data: list[list[Series]]) -> None:
    """A horizontal bar per series, its name at the left and its value at the right."""
    frame(canvas, panel, box)
    defaults = panel.field_config.defaults
    drawn = [series for target in data for series in target]
    ax = canvas.axes(box, 14, 14, 14, 42)
    ax.axis("off")
    ax.set_xlim(0, ax.bbox.width)
    ax.set_ylim(len(drawn), 0)
    left, right = 88, ax.bbox.width - 34
    largest = max(1.0, defaults.max or 0, *(series.last for series in drawn))
    for row, series in enumerate(drawn):
        color = _series_color(panel, series, row)
        text = "".join(value_text(series.last, defaults.unit, defaults.decimals))
        ax.add_patch(Rectangle((left, row + 0.2), right - left, 0.6, fc=theme.TRACK, lw=0))
        ax.add_patch(Rectangle((left, row + 0.2), (right - left) * series.last / largest, 0.6, fc=color, lw=0))
        ax.text(0, row + 0.5, series.name, size=theme.LABEL, color=theme.TEXT, va="center")
        shown = color if series.last else theme.FAINT
        ax.text(ax.bbox.width, row + 0.5, text, size=theme.TITLE, color=shown, va="center", ha="right", weight="bold")


PAINTERS = {"stat": stat, "timeseries": timeseries, "state-timeline": state_timeline, "bargauge": bar_gauge}


def _date(time: float) -> float:
    """matplotlib's time: days since the epoch."""
    return time / 86400


def _series_color(panel: Panel, series: Series, index: int) -> str:
    override = panel.overridden(series.name, "color")
    if override:
        return theme.color(override["fixedColor"])
    fixed = panel.field_config.defaults.color.fixed_color
    return theme.color(fixed) if fixed else theme.PALETTE[index % len(theme.PALETTE)]


def _highest(drawn: list[Series], stacked: bool) -> float:
    return math.fsum(max(s.finite) for s in drawn) if stacked else max(max(map(abs, s.finite)) for s in drawn)


def _with_gaps(series: Series, step: float, span_nulls: bool) -> tuple[list[float], list[float]]:
    """A NaN where samples are missing, so that the line breaks there."""
    times: list[float] = []
    values: list[float] = []
    for time, value in zip(series.times, series.values, strict=True):
        if times and time - times[-1] > 1.5 * step and not span_nulls:
            times.append(times[-1] + step)
            values.append(math.nan)
        times.append(time)
        values.append(value)
    return times, values


def _paint_line(canvas: Canvas, ax: Axes, panel: Panel, series: Series, color: str, scale: Scale) -> None:
    custom = panel.field_config.defaults.custom
    times, values = _with_gaps(series, canvas.step, custom.span_nulls)
    scaled = np.asarray(values) / scale.factor
    interpolation = panel.overridden(series.name, "custom.lineInterpolation") or custom.line_interpolation
    steps = interpolation == "stepAfter"
    dates = [_date(t) for t in times]
    style = panel.overridden(series.name, "custom.lineStyle")
    ax.plot(
        dates,
        scaled,
        color=color,
        lw=custom.line_width,
        ls="--" if style else "-",
        drawstyle="steps-post" if steps else "default",
        solid_capstyle="round",
    )
    if custom.fill_opacity:
        alpha = custom.fill_opacity / 100
        ax.fill_between(dates, scaled, 0, color=color, alpha=alpha, lw=0, step="post" if steps else None)


def _paint_bands(ax: Axes, drawn: list[Series], colors: list[str], scale: Scale, alpha: float) -> None:
    times = sorted({time for series in drawn for time in series.times})
    bands = [np.interp(times, series.times, series.values) / scale.factor for series in drawn]
    ax.stackplot([_date(t) for t in times], bands, colors=colors, alpha=alpha, lw=0)


def _style(canvas: Canvas, ax: Axes, panel: Panel, scale: Scale) -> None:
    defaults = panel.field_config.defaults
    low, high = ax.get_ylim()
    if defaults.min is not None or (defaults.custom.axis_soft_min is not None and low > 0):
        low = (defaults.min if defaults.min is not None else defaults.custom.axis_soft_min or 0.0) / scale.factor
    ax.set_ylim(low, high if high > low else low + 1)
    ax.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=defaults.decimals == 0, steps=[1, 2, 2.5, 5, 10]))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: scale.label(value)))
    ax.grid(axis="y", color=theme.GRID, lw=0.8)
    _style_time(canvas, ax)
    _paint_marks(canvas, ax, labelled=panel.grid_pos.h >= _LABELLED_ROWS)


def _fit_labels(ax: Axes, left: float) -> None:
    """Move the left edge of the axes so that the widest label begins at this pixel."""
    widest = min(label.get_window_extent().x0 for label in ax.get_yticklabels())
    place, shift = ax.get_position(), (left - widest) / ax.get_figure(root=True).bbox.width  # type: ignore[union-attr]
    ax.set_position((place.x0 + shift, place.y0, place.width - shift, place.height))


def time_form(length: float) -> str:
    """How the time axes of a window of this many seconds count from its start."""
    return "min:s" if length < 3600 else "h:min" if length < 2 * 86400 else "days"


def _since(seconds: float, form: str) -> str:
    if form == "days":
        return f"{seconds / 86400:g}"
    major, minor = divmod(round(seconds / (60 if form == "h:min" else 1)), 60)
    return f"{major}:{minor:02}"


def _style_time(canvas: Canvas, ax: Axes) -> None:
    window = canvas.window
    ax.set_xlim(_date(window.start), _date(window.end))
    length = window.end - window.start
    pixel = length / ax.bbox.width
    every = next((tick for tick in _TICKS if tick >= 64 * pixel), _TICKS[-1])
    ticks = np.arange(0, length - 14 * pixel, every)
    ax.set_xticks([_date(window.start + t) for t in ticks], [_since(t, time_form(length)) for t in ticks])
    ax.grid(axis="x", color=theme.GRID, lw=0.8)
    ax.tick_params(colors=theme.FAINT, labelsize=theme.TICK, length=0, pad=5)
    ax.set_axisbelow(True)
    for spine in ax.spines.values():
        spine.set_visible(False)


def _paint_marks(canvas: Canvas, ax: Axes, labelled: bool) -> None:
    """A line at each mark; its name too, where there is room for it."""
    written: dict[int, float] = {}  # pixel up to which the names of a row are written
    for mark in canvas.marks:
        color, when = theme.color(mark.color), _date(mark.time)
        ax.axvline(when, color=color, lw=1, ls=(0, (4, 3)) if mark.row == 0 else "-", alpha=0.9)
        pixel = ax.transData.transform((when, 0))[0]
        if labelled and pixel > written.get(mark.row, -np.inf):
            height, align = _NAME_PLACES[mark.row % len(_NAME_PLACES)]
            at_edge = pixel > ax.bbox.x1 - 70
            ax.annotate(
                mark.text,
                (when, height),
                xytext=((-3 if at_edge else 3) if mark.row else 0, 0),
                xycoords=ax.get_xaxis_transform(),
                textcoords="offset points",
                size=theme.TICK,
                color=color,
                ha="right" if at_edge else "left",
                va=align,
                bbox={"facecolor": theme.PANEL, "alpha": 0.8, "linewidth": 0, "pad": 1},
            )
            written[mark.row] = pixel + 70


def _legend_list(canvas: Canvas, box: Box, drawn: list[Series], colors: list[str]) -> None:
    handles = [Line2D([], [], color=color, lw=2.5) for color in colors]
    canvas.figure.legend(
        handles,
        [series.name for series in drawn],
        loc="lower left",
        bbox_to_anchor=((box.x + 8) / canvas.figure.bbox.width, (box.y + 4) / canvas.figure.bbox.height),
        ncols=len(drawn),
        frameon=False,
        fontsize=theme.TICK,
        labelcolor=theme.TEXT,
        handlelength=1.1,
        handletextpad=0.5,
        columnspacing=1.2,
    )


def _legend_table(canvas: Canvas, panel: Panel, box: Box, drawn: list[Series], colors: list[str]) -> None:
    """Name and last value, in the order in which the bands lie on each other."""
    top, left, right = box.y + box.h - 56, box.x + box.w - 186, box.x + box.w - 16
    for row, (series, color) in enumerate(reversed(list(zip(drawn, colors, strict=True)))):
        y = top - row * 25
        canvas.rectangle(Box(left, y - 3, 16, 6), color, color, rounding=1)
        canvas.text(left + 24, y, series.name, size=theme.LABEL, va="center")
        value = " ".join(value_text(series.last, panel.field_config.defaults.unit, None))
        canvas.text(right, y, value, size=theme.LABEL, va="center", ha="right", color=theme.FAINT)


def _stretches(series: Series, step: float) -> list[tuple[float, float, float]]:
    """(start, end, value) for as long as samples follow each other with the same value."""
    found: list[tuple[float, float, float]] = []
    for time, value in zip(series.times, series.values, strict=True):
        if found and found[-1][2] == value and time - found[-1][1] < step:
            found[-1] = (found[-1][0], time + step, value)
        else:
            found.append((time, time + step, value))
    return found
