"""Colours and sizes of Grafana's dark theme."""

from __future__ import annotations

PAGE = "#111217"
PANEL = "#181b1f"
BORDER = "#2a2d33"
GRID = "#2b2e34"
TEXT = "#d5d6e0"
FAINT = "#9a9ca8"
TRACK = "#24272c"

_NAMED = {
    "green": "#73BF69",
    "yellow": "#FADE2A",
    "orange": "#FF9830",
    "red": "#F2495C",
    "blue": "#5794F2",
    "purple": "#B877D9",
    "light-blue": "#8AB8FF",
    "text": TEXT,
}
PALETTE = (
    *(_NAMED[name] for name in ("green", "yellow", "blue", "orange", "red", "purple", "light-blue")),
    *("#2f9e8f", "#CA95E5", "#FFB357", "#96D98D", "#C15C17", "#8F3BB8", "#37872D"),
)

TITLE = 11.5  # points, at 100 dots an inch
LABEL = 9.5
TICK = 9.0


def color(name: str) -> str:
    """The hexadecimal colour of Grafana's name for it."""
    return name if name.startswith("#") else _NAMED[name]


def on(background: str) -> str:
    """Black or white, whichever is read on this background."""
    red, green, blue = (int(background[i : i + 2], 16) for i in (1, 3, 5))
    return "#111217" if 0.3 * red + 0.59 * green + 0.11 * blue > 130 else "#ffffff"
