"""Curves over steps, drawn without Prometheus: one look for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import matplotlib as mpl

mpl.use("Agg")

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from picture import theme


def titled(title: str, width: float, height: float) -> Figure:
    """An empty figure of so many inches."""
    mpl.rcParams["font.family"] = ["sans-serif"]
    mpl.rcParams["font.sans-serif"] = ["Inter", "Roboto", "Liberation Sans", "DejaVu Sans"]
    figure = Figure(figsize=(width, height), dpi=100, facecolor=theme.PAGE, layout="constrained")
    figure.suptitle(title, color=theme.TEXT, fontsize=theme.TITLE + 2, x=0.01, ha="left")
    return figure


def dress(*panels: Axes) -> None:
    for axes in panels:
        axes.set_facecolor(theme.PANEL)
        axes.tick_params(colors=theme.FAINT, labelsize=theme.TICK)
        axes.grid(color=theme.GRID, linewidth=0.6)
        axes.xaxis.label.set_color(theme.FAINT)
        axes.yaxis.label.set_color(theme.FAINT)
        for spine in axes.spines.values():
            spine.set_color(theme.BORDER)


def legend(axes: Axes, place: Literal["upper right", "lower right", "lower left"]) -> None:
    axes.legend(facecolor=theme.PANEL, edgecolor=theme.BORDER, labelcolor=theme.TEXT, loc=place)


def mark(axes: Axes, points: Sequence[tuple[int, float | None]], label: str, color: str, marker: str) -> None:
    """At the bottom, where a point has no height of its own."""
    for number, (step, value) in enumerate(points):
        form = axes.get_xaxis_transform() if value is None else axes.transData
        axes.plot(
            [step], [0.03 if value is None else value], marker=marker, markersize=11, markeredgewidth=2.5,
            color=theme.color(color), linestyle="", transform=form, label=None if number else label, zorder=5,
        )  # fmt: skip
