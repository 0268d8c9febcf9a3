"""Charts as SVG: scales, axes, bars and lines. Colours are classes of the style sheet, so that paper has its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from xgen.drawing.markup import Child, Html, el
from xgen.drawing.wording import short

_LEFT, _BOTTOM = 62, 42


@dataclass(frozen=True)
class Scale:
    """Values from `low` to `high` to places from `begin` to `end`; what lies beyond is put on the border."""

    low: float
    high: float
    begin: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = (_log(each) if self.log else each for each in (self.low, self.high, value))
        along = (value - low) / (high - low) if high > low else 0.0
        return self.begin + min(1.0, max(0.0, along)) * (self.end - self.begin)

    @property
    def ticks(self) -> tuple[float, ...]:
        return log_ticks(self.low, self.high) if self.log else linear_ticks(self.low, self.high)


def linear_ticks(low: float, high: float, about: int = 5) -> tuple[float, ...]:
    """Round numbers from low to high."""
    if not high > low:
        return (low,)
    step = 10 ** math.floor(math.log10((high - low) / about))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= about + 0.5)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    values = (number * step for number in range(first, last + 1))
    nearly = 1e-7 * (high - low)
    # Of numbers that differ in their last bit only, a round one between them may come out beside them.
    return tuple(value for value in values if low - nearly <= value <= high + nearly) or (low,)


def log_ticks(low: float, high: float, most: int = 7) -> tuple[float, ...]:
    """Powers of ten from low to high, or every second one, …; with few of them also 2 and 5 times those."""
    first, last = math.floor(_log(low)), math.ceil(_log(high))
    step = max(1, math.ceil((last - first + 1) / most))
    factors = (1, 2, 5) if last - first <= 2 else (1,)
    values = (10.0**power * factor for power in range(first, last + 1, step) for factor in factors)
    return tuple(value for value in values if low * 0.999 <= value <= high * 1.001)


@dataclass(frozen=True)
class Axis:
    """`name` says what is measured, with its unit."""

    name: str
    low: float
    high: float
    log: bool = False
    ticks: tuple[float, ...] | None = None
    label: Callable[[float], str] = short


@dataclass(frozen=True)
class Frame:
    """A chart's axes, ready for marks between them."""

    title: str
    x_axis: Axis
    y_axis: Axis
    width: int = 460
    height: int = 230
    top: int = 12  # room above and beside the chart
    right: int = 14

    @property
    def x(self) -> Scale:
        return Scale(self.x_axis.low, self.x_axis.high, _LEFT, self.width - self.right, self.x_axis.log)

    @property
    def y(self) -> Scale:
        return Scale(self.y_axis.low, self.y_axis.high, self.height - _BOTTOM, self.top, self.y_axis.log)

    def draw(self, *marks: Child, legend: Child = "") -> Html:
        """A figure with its title, a legend below it, and the chart."""
        drawn = picture(self.width, self.height, self.title, self.axes(), *marks)
        return el("figure", el("figcaption", self.title), legend, drawn)

    def axes(self) -> list[Html]:
        """The lines and the words that marks lie on."""
        bottom, left, end = self.height - _BOTTOM, _LEFT, self.width - self.right
        parts: list[Html] = []
        for at in self.y.ticks if self.y_axis.ticks is None else self.y_axis.ticks:
            place = self.y(at)
            parts.append(el("line", x1=left, x2=end, y1=place, y2=place, class_="grid"))
            parts.append(el("text", self.y_axis.label(at), x=left - 6, y=place + 4, class_="tick end"))
        for at in self.x.ticks if self.x_axis.ticks is None else self.x_axis.ticks:
            place = self.x(at)
            parts.append(el("line", x1=place, x2=place, y1=bottom, y2=bottom + 4, class_="axis"))
            parts.append(el("text", self.x_axis.label(at), x=place, y=bottom + 17, class_="tick middle"))
        middle = (self.top + bottom) / 2
        around = f"translate(13 {middle:.2f}) rotate(-90)"
        return [
            *parts,
            el("line", x1=left, x2=end, y1=bottom, y2=bottom, class_="axis"),
            el("text", self.x_axis.name, x=(left + end) / 2, y=self.height - 6, class_="name middle"),
            el("text", self.y_axis.name, class_="name middle", transform=around),
        ]

    def bar(self, low: float, high: float, number: float, class_: str, said: str) -> Html:
        """From low to high on the x-axis, with a gap beside it."""
        left, right, top = self.x(low), self.x(high), self.y(number)
        bottom = self.y.begin
        if number > 0:
            top = min(top, bottom - 1.5)  # one of a million is seen
        gap = 1.0 if right - left > 4 else 0.0
        return el(
            "rect", el("title", said), x=left + gap / 2, y=top, width=max(0.5, right - left - gap),
            height=max(0.0, bottom - top), class_=class_,
        )  # fmt: skip

    def line(self, points: Sequence[tuple[float, float]], class_: str) -> Html:
        places = " ".join(f"{self.x(x):.2f},{self.y(y):.2f}" for x, y in points)
        return el("polyline", points=places, class_=f"line {class_}")

    def steps(self, edges: Sequence[float], heights: Sequence[float], class_: str, said: str) -> Html:
        """The outline of a histogram: over its bars another one stays visible."""
        points = [(edges[0], 0.0)]
        for low, high, height in zip(edges, edges[1:], heights, strict=False):
            points += [(low, height), (high, height)]
        places = " ".join(f"{self.x(x):.2f},{self.y(y):.2f}" for x, y in [*points, (edges[-1], 0.0)])
        return el("polyline", el("title", said), points=places, class_=f"line {class_}")

    def upright(self, at: float, class_: str, said: str = "") -> Html:
        place = self.x(at)
        title = el("title", said) if said else ""
        return el("line", title, x1=place, x2=place, y1=self.y.begin, y2=self.y.end, class_=class_)


def picture(width: int, height: int, title: str, *marks: Child, stretch: bool = False) -> Html:
    """`stretch`: as wide as the place that it is in, without regard to proportions."""
    return el(
        "svg", el("title", title), *marks, viewBox=f"0 0 {width} {height}", role="img",
        preserveAspectRatio="none" if stretch else None,
    )  # fmt: skip


def meter(part: float, whole: float, class_: str) -> Html:
    """A bar in a cell of a table."""
    percent = 100 * min(1.0, max(0.0, part / whole)) if whole else 0.0
    width = max(percent, 0.8) if part > 0 else 0.0
    return el("div", el("i", class_=class_, style=f"width:{width:.2f}%"), class_="meter")


def legend(*entries: tuple[str, str]) -> Html:
    """Class and name of each."""
    return el("div", [el("span", el("i", class_=class_), name) for class_, name in entries], class_="legend")


def _log(value: float) -> float:
    return math.log10(max(value, 1e-300))
