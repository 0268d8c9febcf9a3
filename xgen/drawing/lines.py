"""Lines over an axis, each with its name at its end, as an SVG file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xgen.drawing.markup import Html, el
from xgen.drawing.standalone import NUM_COLOURS, room_above, spread, svg_file, width_of
from xgen.drawing.svg import Axis, Frame

_WIDTH, _HEIGHT, _LINE = 860, 430, 15


@dataclass(frozen=True)
class Line:
    """Points (x, y) from left to right. `band`: (low, high) of each. A reference is thin and grey."""

    name: str
    points: Sequence[tuple[float, float]]
    band: Sequence[tuple[float, float]] = ()
    reference: bool = False
    dots: bool = True


def line_chart(
    title: str,
    x_axis: Axis,
    y_axis: Axis,
    lines: Sequence[Line],
    lead: str = "",
    threshold: tuple[float, str] | None = None,
) -> str:
    """`threshold`: a height, and what it is. Lines without a point are left out."""
    lines = [line for line in lines if line.points]
    labels = [width_of(line.name, 11 if line.reference else 12.5) for line in lines]
    right = round(max([40.0, *labels])) + 34
    top, height = room_above(lead), max(_HEIGHT, _LINE * len(lines) + 110)
    frame = Frame(title, x_axis, y_axis, _WIDTH + right - 200, height, top, right)
    classes = _classes(lines)
    back = [_draw(frame, line, class_) for line, class_ in zip(lines, classes, strict=True) if line.reference]
    front = [_draw(frame, line, class_) for line, class_ in zip(lines, classes, strict=True) if not line.reference]
    marks = [*frame.axes(), *back, *front, *_threshold(frame, threshold), *_names(frame, lines, classes)]
    return svg_file(frame.width, height, title, marks, lead=lead)


def _classes(lines: Sequence[Line]) -> list[str]:
    """After the last colour the first comes again, dashed."""
    own = iter(range(len(lines)))
    return ["reference" if line.reference else _own(next(own)) for line in lines]


def _own(number: int) -> str:
    return f"s{number % NUM_COLOURS}{' dashed' if number // NUM_COLOURS % 2 else ''}"


def _draw(frame: Frame, line: Line, class_: str) -> Html:
    parts = []
    if line.band and len(line.points) == 1:
        (x, _), (low, high) = line.points[0], line.band[0]
        place = frame.x(x)
        parts.append(el("line", x1=place, x2=place, y1=frame.y(low), y2=frame.y(high), class_=f"whisker {class_}"))
    elif line.band:
        above = [(x, high) for (x, _), (_, high) in zip(line.points, line.band, strict=True)]
        below = [(x, low) for (x, _), (low, _) in zip(line.points, line.band, strict=True)]
        around = " ".join(f"{frame.x(x):.2f},{frame.y(y):.2f}" for x, y in [*above, *reversed(below)])
        parts.append(el("polygon", points=around, class_=f"band {class_}"))
    parts.append(frame.line(line.points, class_))
    if line.dots and (not line.reference or len(line.points) == 1):
        size = 2.2 if line.reference else 3.2
        parts += [el("circle", cx=frame.x(x), cy=frame.y(y), r=size, class_=f"dot {class_}") for x, y in line.points]
    return el("g", el("title", line.name), parts)


def _names(frame: Frame, lines: Sequence[Line], classes: Sequence[str]) -> list[Html]:
    ends = [(frame.x(line.points[-1][0]), frame.y(line.points[-1][1])) for line in lines]
    places = spread([y for _, y in ends], _LINE, frame.y.end, frame.y.begin)
    edge, parts = frame.width - frame.right, []
    for line, class_, (x, y), place in zip(lines, classes, ends, places, strict=True):
        parts.append(el("line", x1=x + 5, y1=y, x2=edge + 14, y2=place, class_="leader"))
        parts.append(el("text", line.name, x=edge + 18, y=place + 4, class_=f"of-{class_}"))
    return parts


def _threshold(frame: Frame, threshold: tuple[float, str] | None) -> list[Html]:
    if threshold is None:
        return []
    at, said = frame.y(threshold[0]), threshold[1]
    left, right = frame.x.begin, frame.x.end
    line = el("line", x1=left, x2=right, y1=at, y2=at, class_="threshold")
    return [line, el("text", said, x=left + 6, y=at - 5, class_="small halo")]
