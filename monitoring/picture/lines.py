"""Curves: values over time, stacked or not, and one value over another."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from picture import theme
from picture.canvas import Box, Canvas, bare, date, frame, paint_marks, style_time
from picture.dashboard import Custom, Panel
from picture.frames import frames
from picture.legend import color_of, legend_list, legend_table, list_height
from picture.prometheus import Series
from picture.units import Scale, scale_for

_LABELLED_ROWS = 8  # panels of at least this height name their marks


def timeseries(canvas: Canvas, panel: Panel, box: Box, data: list[list[Series]]) -> None:
    """Lines, or bands stacked on each other."""
    frame(canvas, panel, box)
    defaults = panel.field_config.defaults
    custom, legend = defaults.custom, panel.options.legend
    table = legend.show_legend and legend.display_mode == "table"
    drawn = [series for target in data for series in target]
    names = [series.name for series in drawn]
    listed = list_height(names, box.w - 16) if legend.show_legend and not table else 0
    stacked = custom.stacking.mode == "normal"
    largest = max(_highest(drawn, stacked), abs(defaults.max or 0))
    scale = scale_for(defaults.unit, largest)
    colors = [color_of(panel, name, i) for i, name in enumerate(names)]
    ax = canvas.axes(box, 66, 208 if table else 18, 34 + listed + (4 if listed else 0), 44)
    if stacked:
        _paint_bands(ax, drawn, colors, scale, custom)
    else:
        for series, color in zip(drawn, colors, strict=True):
            _paint_line(canvas, ax, panel, series, color, scale)
    _style(canvas, ax, panel, scale)
    if custom.thresholds_style.mode != "off":
        _paint_limits(ax, panel, scale)
    _fit_labels(canvas, ax, box.x + 10)
    if listed:
        legend_list(canvas, box, names, colors)
    if table:
        legend_table(canvas, panel, box, drawn, colors)


def xychart(canvas: Canvas, panel: Panel, box: Box, data: list[list[Series]]) -> None:
    """A curve a frame: its first number across, its second up."""
    frame(canvas, panel, box)
    curves = frames(panel, data)
    across, up = panel.field("Value #A"), panel.field("Value #B")
    pairs = [(curve.numbers("Value #A"), curve.numbers("Value #B")) for curve in curves]
    scales = [
        scale_for(field.unit, float(np.nanmax([np.nanmax(np.abs(pair[i])) for pair in pairs])))
        for i, field in enumerate((across, up))
    ]
    names = [curve.label for curve in curves]
    colors = [color_of(panel, name, i) for i, name in enumerate(names)]
    ax = canvas.axes(box, 66, 18, 60 + list_height(names, box.w - 16), 44)
    marker = "o" if "points" in panel.field_config.defaults.custom.show else ""
    for (xs, ys), color in zip(pairs, colors, strict=True):
        across_of, up_of = np.asarray(xs) / scales[0].factor, np.asarray(ys) / scales[1].factor
        ax.plot(across_of, up_of, color=color, lw=2, marker=marker, ms=6)
    for axis, scale in zip((ax.xaxis, ax.yaxis), scales, strict=True):
        axis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
        axis.set_major_formatter(FuncFormatter(lambda value, _, scale=scale: scale.label(value)))
    ax.grid(color=theme.GRID, lw=0.8)
    bare(ax)
    ax.set_xlabel(across.display_name, color=theme.FAINT, size=theme.TICK)
    _fit_labels(canvas, ax, box.x + 10)
    legend_list(canvas, box, names, colors)


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
    times, values = _with_gaps(series, series.step or canvas.step, custom.span_nulls)
    scaled = np.asarray(values) / scale.factor
    interpolation = panel.overridden(series.name, "custom.lineInterpolation") or custom.line_interpolation
    steps = interpolation == "stepAfter"
    dates = [date(t) for t in times]
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


def _paint_bands(ax: Axes, drawn: list[Series], colors: list[str], scale: Scale, custom: Custom) -> None:
    """A series that has no sample adds nothing; where none has, the bands are broken, unless they span gaps."""
    times = sorted({time for series in drawn for time in series.times})
    dates, alpha = [date(t) for t in times], custom.fill_opacity / 100
    if custom.span_nulls:
        bands = [np.interp(times, series.times, series.values) / scale.factor for series in drawn]
        ax.stackplot(dates, bands, colors=colors, alpha=alpha, lw=0)
        return
    step = drawn[0].step
    if custom.draw_style == "bars":
        below: dict[float, float] = {}
        for series, color in zip(drawn, colors, strict=True):
            heights = [value / scale.factor for value in series.values]
            bottoms = [below.get(time, 0.0) for time in series.times]
            below |= {t: low + high for t, low, high in zip(series.times, bottoms, heights, strict=True)}
            ax.bar([date(t) for t in series.times], heights, date(0.9 * step), bottoms, color=color, alpha=alpha, lw=0)
        return
    breaks = [index + 1 for index, (a, b) in enumerate(pairwise(times)) if b - a > 1.5 * step]
    samples = [dict(zip(series.times, series.values, strict=True)) for series in drawn]
    for first, end in pairwise((0, *breaks, len(times))):
        part = [[series.get(time, 0) / scale.factor for time in times[first:end]] for series in samples]
        ax.stackplot(dates[first:end], part, colors=colors, alpha=alpha, lw=0)


def _paint_limits(ax: Axes, panel: Panel, scale: Scale) -> None:
    for step in panel.field_config.defaults.thresholds.steps:
        if step.value is not None:
            ax.axhline(step.value / scale.factor, color=theme.color(step.color), lw=1, ls=(0, (6, 4)))


def _style(canvas: Canvas, ax: Axes, panel: Panel, scale: Scale) -> None:
    defaults = panel.field_config.defaults
    low, high = ax.get_ylim()
    if defaults.min is not None or (defaults.custom.axis_soft_min is not None and low > 0):
        low = (defaults.min if defaults.min is not None else defaults.custom.axis_soft_min or 0.0) / scale.factor
    if defaults.max is not None:
        high = defaults.max / scale.factor
    ax.set_ylim(low, high if high > low else low + 1)
    ax.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=defaults.decimals == 0, steps=[1, 2, 2.5, 5, 10]))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: scale.label(value)))
    ax.grid(axis="y", color=theme.GRID, lw=0.8)
    style_time(canvas, ax)
    paint_marks(canvas, ax, labelled=panel.grid_pos.h >= _LABELLED_ROWS)


def _fit_labels(canvas: Canvas, ax: Axes, left: float) -> None:
    """Move the left edge of the axes so that the widest label begins at this pixel."""
    widest = min(label.get_window_extent().x0 for label in ax.get_yticklabels())
    place, shift = ax.get_position(), (left - widest) / canvas.figure.bbox.width
    ax.set_position((place.x0 + shift, place.y0, place.width - shift, place.height))
