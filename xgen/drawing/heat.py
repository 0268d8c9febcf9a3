"""A heat map with the number in every cell, as an SVG file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from xgen.drawing.markup import Html, el
from xgen.drawing.standalone import room_above, svg_file, width_of

# Cividis (10.1371/journal.pone.0199239): the same order of brightness for every kind of colour vision.
_CIVIDIS = (
    (0, 32, 77), (0, 52, 110), (57, 72, 107), (87, 92, 109), (112, 113, 115),
    (138, 134, 120), (166, 157, 117), (196, 182, 108), (228, 207, 91), (255, 233, 69),
)  # fmt: skip
_LEFT, _CELL_HEIGHT, _BOTTOM = 74, 24, 48
_ROWS_LEAST = 132  # pixels, for the name beside them
_WIDE, _NARROW, _LEAST = 64, 30, 420


def heat_map(
    title: str, x_name: str, columns: Sequence[str], y_name: str, rows: Sequence[str],
    cells: Mapping[tuple[int, int], float], lead: str = "",
) -> str:  # fmt: skip
    """`cells`: shares, 0 to 1, by row and column; a missing one is empty. The last row is the mean of each column."""
    wide = max(_NARROW, min(_WIDE, 840 // max(1, len(columns))))
    width = max(_LEAST, _LEFT + wide * len(columns) + 96, round(width_of(lead)) + 24, round(width_of(title, 16)) + 24)
    top = room_above(lead) + 6
    high = max(_CELL_HEIGHT, _ROWS_LEAST // max(1, len(rows)))
    bottom = top + high * len(rows)
    parts: list[Html] = []
    for row, name in enumerate(rows):
        middle = top + high * (row + 0.5)
        parts.append(el("text", name, x=_LEFT - 6, y=middle + 4, class_="end"))
        for column in range(len(columns)):
            parts += _cell(_LEFT + wide * column, top + high * row, wide, high, cells.get((row, column)))
    parts.append(el("text", "mean", x=_LEFT - 6, y=bottom + 8 + _CELL_HEIGHT / 2 + 4, class_="end strong"))
    for column in range(len(columns)):
        own = [value for (_, at), value in cells.items() if at == column]
        parts += _cell(_LEFT + wide * column, bottom + 8, wide, _CELL_HEIGHT, sum(own) / len(own) if own else None)
    parts += _columns(columns, bottom + 8 + _CELL_HEIGHT + 16, wide)
    height = bottom + 8 + _CELL_HEIGHT + _BOTTOM + (14 if _turned(columns, wide) else 0)
    middle_x, middle_y = _LEFT + wide * len(columns) / 2, (top + bottom) / 2
    parts += [
        el("text", x_name, x=max(middle_x, width_of(x_name) / 2 + 14), y=height - 10, class_="middle"),
        el("text", y_name, class_="middle", transform=f"translate(20 {middle_y:g}) rotate(-90)"),
        *_key(_LEFT + wide * len(columns) + 18, top, bottom - top),
    ]
    return svg_file(width, height, title, parts, lead=lead)


def colour(share: float) -> tuple[int, int, int]:
    """Red, green, blue."""
    along = min(1.0, max(0.0, share)) * (len(_CIVIDIS) - 1)
    low = min(int(along), len(_CIVIDIS) - 2)
    red, green, blue = (
        round(a + (b - a) * (along - low)) for a, b in zip(_CIVIDIS[low], _CIVIDIS[low + 1], strict=True)
    )
    return red, green, blue


def _cell(x: float, y: float, wide: float, high: float, share: float | None) -> list[Html]:
    size = {"x": x + 0.5, "y": y + 0.5, "width": wide - 1.0, "height": high - 1.0}
    if share is None:
        return [el("rect", **size, class_="empty")]
    red, green, blue = colour(share)
    dark = 0.299 * red + 0.587 * green + 0.114 * blue < 128
    said = el(
        "text", _percent(share), x=x + wide / 2, y=y + high / 2 + 4,
        class_=f"middle {'on-dark' if dark else 'on-light'}{' small' if wide < 40 else ''}",
    )  # fmt: skip
    return [el("rect", **size, fill=f"#{red:02x}{green:02x}{blue:02x}"), said]


def _percent(share: float) -> str:
    """A whole number, which is 100 of all only, and 0 of none only."""
    return f"{min(99, max(1, round(100 * share))) if 0 < share < 1 else round(100 * share)}"


def _turned(columns: Sequence[str], wide: float) -> bool:
    return any(width_of(name, 10.5) > wide for name in columns)


def _columns(names: Sequence[str], y: float, wide: float) -> list[Html]:
    """All of one kind: as other text, small, or small and turned."""
    places = [_LEFT + wide * (number + 0.5) for number in range(len(names))]
    if _turned(names, wide):
        turned = [f"translate({x + 4:g} {y - 6:g}) rotate(-45)" for x in places]
        return [el("text", name, class_="end small", transform=t) for name, t in zip(names, turned, strict=True)]
    small = " small" if any(width_of(name) > wide for name in names) else ""
    return [el("text", name, x=x, y=y, class_=f"middle{small}") for name, x in zip(names, places, strict=True)]


def _key(x: float, y: float, height: float) -> list[Html]:
    steps = 40
    parts = [
        el("rect", x=x, y=y + height * n / steps, width=12, height=height / steps + 0.6,
           fill="#{:02x}{:02x}{:02x}".format(*colour(1 - n / (steps - 1))))
        for n in range(steps)
    ]  # fmt: skip
    said = [(0.0, "100%"), (0.5, "50%"), (1.0, "0%")]
    return [*parts, *(el("text", text, x=x + 17, y=y + 4 + height * at, class_="small") for at, text in said)]
