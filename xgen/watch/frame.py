"""A frame of `xgen watch`: lines of at most the width of the terminal, as many as fit, the worst runs first."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from xgen.cluster.status import State
from xgen.drawing.wording import duration, one_line, short
from xgen.watch.findings import Finding, Level
from xgen.watch.view import View

_BARS, _PLAIN_BARS = "▁▂▃▄▅▆▇█", "_.-~=+*#"
# What a sign at the start of a line says without colour, and its style with it.
_SIGNS = {Level.WRONG: ("!", "bold red"), Level.ODD: ("?", "yellow"), Level.WAITS: (" ", "dim"), Level.FINE: (" ", "")}
_ORDER: tuple[State, ...] = (
    "failed", "lost", "unreadable", "unknown", "running", "blocked", "pending", "cancelled", "finished",
)  # fmt: skip
_MOST = 28  # characters of a run's name
_OTHERS = 60  # of all columns but the name
_CURVE = 8


@dataclass(frozen=True)
class Row:
    view: View
    finding: Finding


@dataclass(frozen=True)
class About:
    """What stands above and below the runs."""

    cluster: str
    now: float
    asked: float  # when the queue was; 0: never
    error: str = ""  # of a scheduler that did not answer
    leaves: bool = False  # Ctrl-C is worth naming


def ordered(rows: Sequence[Row]) -> list[Row]:
    """The worst first."""
    return sorted(rows, key=lambda row: (-row.finding.level, _ORDER.index(row.view.state), row.view.name))


def height_of(row: Row, width: int) -> int:
    """Lines that it takes."""
    return 1 + bool(row.finding.text and not _beside(width))


def fitting(rows: Sequence[Row], width: int, height: int) -> list[Row]:
    """Those of `ordered` rows that fit between head and foot."""
    shown: list[Row] = []
    room = height - 3
    for row in rows:
        room -= height_of(row, width)
        if room < 0 and shown:
            break
        shown.append(row)
    return shown


def frame(rows: Sequence[Row], about: About, width: int, height: int, *, unicode: bool = True) -> Text:
    """`rows` in order; lines end where the terminal does."""
    shown = fitting(rows, width, height)
    name_width = _name_width(shown, width)
    lines = [_head(rows, about), _columns(name_width, width)]
    for row in shown:
        lines += _lines(row, about.now, name_width, width, unicode)
    if foot := _foot(rows[len(shown) :], about):
        lines.append(foot)
    text = Text("\n", no_wrap=True, overflow="crop").join(_cut(line, width) for line in lines)
    text.no_wrap, text.overflow = True, "crop"
    return text


def _head(rows: Sequence[Row], about: About) -> Text:
    states = Counter(row.view.state for row in rows)
    said = ", ".join(f"{states[state]} {state}" for state in _ORDER if states[state]) or "no runs"
    clock = time.strftime("%H:%M:%S", time.localtime(about.now))
    head = Text(f"{about.cluster}  {clock}  ", "bold").append(said, "not bold")
    if about.error:
        head.append(f"  the scheduler: {one_line(about.error)}", "red")
    elif about.asked:
        head.append(f"  queue of {duration(max(1.0, about.now - about.asked))} ago", "dim")
    return head


def _columns(name_width: int, width: int) -> Text:
    head = f"  {'run':<{name_width}} {'phase':<10} {'step':>7} {'done':>4} {'loss':<{_CURVE + 6}} {'tok/s':>6}"
    head += f" {'plan':>4} {'saved':>6}"
    if _beside(width):
        head += "  what is wrong"
    return Text(head, "dim")


def _lines(row: Row, now: float, name_width: int, width: int, unicode: bool) -> list[Text]:
    view, finding = row.view, row.finding
    sign, style = _SIGNS[finding.level]
    line = Text(f"{sign} ", style)
    line.append(f"{_middle(view.name, name_width):<{name_width}} ", "bold")
    line.append(f"{_phase(view):<10} ")
    line.append(f"{_step(view.step) if view.trains and view.step else '-':>7} ")
    line.append(f"{_share(view.step, view.planned_steps):>4} ")
    line.append(f"{curve(view.losses, _CURVE, unicode):<{_CURVE}} ", "cyan")
    line.append(f"{_loss(view):<5} ")
    line.append(f"{short(view.rate) if view.rate else '-':>6} ")
    line.append(f"{_share(view.rate, view.planned_rate):>4} ")
    line.append(f"{duration(max(1.0, now - view.durable_time)) if view.durable_time else '-':>6}")
    if not (text := one_line(finding.text)):
        return [line]
    if _beside(width):
        return [line.append(f"  {text}", style)]
    return [line, Text(f"    {text}", style)]


def _foot(left: Sequence[Row], about: About) -> Text | None:
    if left:
        levels = Counter(row.finding.level for row in left)
        bad = levels[Level.WRONG] + levels[Level.ODD]
        wrong = f"{bad} with something wrong" if bad else "nothing wrong with them"
        return Text(f"and {len(left):,} more, {wrong}: a higher window, or xgen watch RUN", "dim")
    return Text("Ctrl-C leaves; the runs go on", "dim") if about.leaves else None


def curve(values: Sequence[float], width: int, unicode: bool) -> str:
    """Bars of the means of as many groups, between the least and the greatest."""
    if not values:
        return ""
    groups = [values[at * len(values) // width : (at + 1) * len(values) // width] for at in range(width)]
    means = [sum(group) / len(group) for group in groups if group]
    least, most = min(means), max(means)
    bars = _BARS if unicode else _PLAIN_BARS
    spread = most - least or 1.0
    return "".join(bars[round((mean - least) / spread * (len(bars) - 1))] for mean in means)


def _phase(view: View) -> str:
    match view.state:
        case "pending":
            return "queued"
        case "running":
            if view.phase is None:
                return "stopping"
            if view.phase == "queued":  # a pipeline, or a job whose script has not begun
                return "running"
            return "work" if view.phase == "start" and not view.trains else view.phase
        case _:
            return view.state


def _step(number: int) -> str:
    return f"{number:,}" if number < 100_000 else short(number)


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.0%}" if part and whole else "-"


def _loss(view: View) -> str:
    if view.is_nan:
        return "NaN"
    return f"{view.loss:.4g}"[:5] if view.loss is not None else "-"


def _name_width(rows: Sequence[Row], width: int) -> int:
    longest = max((len(row.view.name) for row in rows), default=0)
    return max(3, min(longest, _MOST, width - _OTHERS))


def _beside(width: int) -> bool:
    """Whether what is wrong has room behind the rest of the line."""
    return width >= 120


def _middle(text: str, width: int) -> str:
    """A long name keeps its end, which makes it unique."""
    if len(text) <= width:
        return text
    keep = 8
    return f"{text[: width - keep - 1]}…{text[-keep:]}"


def _cut(line: Text, width: int) -> Text:
    line.truncate(width, overflow="ellipsis")
    line.rstrip()
    return line
