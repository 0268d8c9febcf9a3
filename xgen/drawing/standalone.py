"""Pictures that are files of their own: their style is in them, on white, so that any page and any paper takes them."""

from __future__ import annotations

from xgen.drawing.markup import Child, Html, el

NUM_COLOURS = 7
_SIZE = 12  # of most of the text, in pixels
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#333333")  # after Okabe and Ito
_STYLE = f"""
text {{ font: {_SIZE}px "DejaVu Sans", Verdana, Arial, sans-serif; fill: #444; }}
.title {{ font-size: 15px; font-weight: bold; fill: #111; }} .lead {{ fill: #555; }}
.middle {{ text-anchor: middle; }} .end {{ text-anchor: end; }}
.grid {{ stroke: #e4e4e4; }} .axis {{ stroke: #666; }} .leader {{ stroke: #bbb; stroke-width: .8; }}
.threshold {{ stroke: #888; stroke-dasharray: 5 4; }}
.line {{ fill: none; stroke-width: 2.4; stroke-linejoin: round; }} .band {{ stroke: none; opacity: .18; }}
.whisker {{ stroke-width: 6; opacity: .25; }}
.reference {{ stroke: #9a9a9a; stroke-width: 1; }} .dot.reference {{ fill: #9a9a9a; }}
text.of-reference {{ fill: #777; font-size: 11px; }}
.strong {{ font-weight: bold; }} .on-dark {{ fill: #fff; }} .on-light {{ fill: #111; }} .empty {{ fill: #f2f2f2; }}
.small {{ font-size: 10.5px; }} .halo {{ paint-order: stroke; stroke: #fff; stroke-width: 3px; }}
.dashed.line {{ stroke-dasharray: 7 3; }}
""" + "\n".join(
    f".s{n} {{ stroke: {c}; }} .band.s{n}, .dot.s{n} {{ fill: {c}; }} text.of-s{n} {{ fill: {c}; font-weight: bold; }}"
    for n, c in enumerate(_COLOURS)
)


def svg_file(width: float, height: float, title: str, *marks: Child, lead: str = "") -> str:
    """The text of an SVG file. Marks begin below its title, and its lead where there is one: see `room_above`."""
    said = [el("text", title, x=14, y=24, class_="title")]
    said += [el("text", lead, x=14, y=42, class_="lead")] if lead else []
    ground = el("rect", width=width, height=height, fill="#fff")
    drawn = el(
        "svg", "\n", el("title", title), el("style", Html(_STYLE)), ground, said, "\n", marks, "\n",
        xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {width:g} {height:g}", width=width, height=height, role="img",
    )  # fmt: skip
    return drawn + "\n"


def room_above(lead: str) -> int:
    """Pixels that title and lead take."""
    return 56 if lead else 40


def width_of(text: str, size: float = _SIZE) -> float:
    """Pixels, about: never less than a browser takes for words of a usual mix of letters."""
    return 0.64 * size * len(text)


def spread(wanted: list[float], gap: float, low: float, high: float) -> list[float]:
    """Places for labels, each as near to its own as there is room, in the order of `wanted`: none is closer than `gap`
    to the next. What has no room between low and high lies closer."""
    if not wanted:
        return []
    gap = min(gap, (high - low) / max(1, len(wanted) - 1))
    order = sorted(range(len(wanted)), key=lambda at: (wanted[at], at))
    blocks: list[tuple[list[int], float]] = []  # members in order, and where the first one lies
    for at in order:
        members, first = [at], min(max(wanted[at], low), high)
        while blocks and blocks[-1][1] + gap * len(blocks[-1][0]) > first:
            members = [*blocks.pop()[0], *members]
            mean = sum(wanted[each] - gap * place for place, each in enumerate(members)) / len(members)
            first = min(max(mean, low), high - gap * (len(members) - 1))
        blocks.append((members, first))
    places = dict.fromkeys(order, 0.0)
    for members, first in blocks:
        places |= {each: first + gap * place for place, each in enumerate(members)}
    return [places[at] for at in range(len(wanted))]
