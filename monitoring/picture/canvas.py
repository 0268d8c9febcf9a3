"""What all painters draw on: boxes, text and frames on one figure, and time axes with their marks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from picture import theme
from picture.dashboard import Panel
from picture.prometheus import Mark, Window

_TICKS = (1, 2, 5, 10, 20, 30, 40, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800)
# Height and alignment of the names of each annotation, in the order of the dashboard's list.
_NAME_PLACES = ((1.015, "bottom"), (0.975, "top"), (0.025, "bottom"), (0.12, "bottom"))


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

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float,
        color: str = theme.TEXT,
        weight: str = "normal",
        ha: str = "left",
        va: str = "baseline",
    ) -> float:
        """Write at this pixel; returns the pixel where the text ends."""
        width, height = self.figure.bbox.width, self.figure.bbox.height
        written = self.figure.text(x / width, y / height, text, size=size, color=color, weight=weight, ha=ha, va=va)
        return float(written.get_window_extent().x1)

    def rectangle(self, box: Box, face: str, edge: str, rounding: float = 4, z: float = -1) -> None:
        shape = f"round,pad=0,rounding_size={rounding}"
        patch = FancyBboxPatch((box.x, box.y), box.w, box.h, boxstyle=shape, fc=face, ec=edge, lw=0.8, transform=None)
        patch.set_zorder(z)  # below the axes
        self.figure.add_artist(patch)


def frame(canvas: Canvas, panel: Panel, box: Box) -> None:
    canvas.rectangle(box, theme.PANEL, theme.BORDER, z=-2)
    canvas.text(box.x + 12, box.y + box.h - 11, panel.title, size=theme.TITLE, va="top")


def no_data(canvas: Canvas, panel: Panel, box: Box, text: str) -> None:
    """Red where emptiness is a fault, grey where it is an answer."""
    frame(canvas, panel, box)
    middle = (box.x + box.w / 2, box.y + box.h / 2 - 8)
    color = theme.FAINT if text.startswith("none") else theme.color("red")
    canvas.text(*middle, text, size=theme.TITLE, ha="center", va="center", color=color)


def date(time: float) -> float:
    """matplotlib's time: days since the epoch."""
    return time / 86400


def time_form(length: float) -> str:
    """How the time axes of a window of this many seconds count from its start."""
    return "min:s" if length < 3600 else "h:min" if length < 2 * 86400 else "days"


def _since(seconds: float, form: str) -> str:
    if form == "days":
        return f"{seconds / 86400:g}"
    major, minor = divmod(round(seconds / (60 if form == "h:min" else 1)), 60)
    return f"{major}:{minor:02}"


def style_time(canvas: Canvas, ax: Axes) -> None:
    window = canvas.window
    ax.set_xlim(date(window.start), date(window.end))
    length = window.end - window.start
    pixel = length / ax.bbox.width
    every = next((tick for tick in _TICKS if tick >= 64 * pixel), _TICKS[-1])
    ticks = np.arange(0, length - 14 * pixel, every)
    ax.set_xticks([date(window.start + t) for t in ticks], [_since(t, time_form(length)) for t in ticks])
    ax.grid(axis="x", color=theme.GRID, lw=0.8)
    bare(ax)


def bare(ax: Axes) -> None:
    """Faint labels, no ticks, no border."""
    ax.tick_params(colors=theme.FAINT, labelsize=theme.TICK, length=0, pad=5)
    ax.set_axisbelow(True)
    for spine in ax.spines.values():
        spine.set_visible(False)


def paint_marks(canvas: Canvas, ax: Axes, labelled: bool) -> None:
    """A line at each mark; its name too, where there is room for it."""
    written: dict[int, float] = {}  # pixel up to which the names of a row are written
    for mark in canvas.marks:
        color, when = theme.color(mark.color), date(mark.time)
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
            written[mark.row] = pixel + max(70, 8 * len(mark.text))
