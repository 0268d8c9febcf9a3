"""Scores as words: percent, nats, lengths, with their intervals."""

from __future__ import annotations

from xgen.drawing.tables import Cell
from xgen.evals.measures import AVERAGE, FALLING, RISING
from xgen.evals.protocol import SuiteName
from xgen.evals.summary import EFFECTIVE
from xgen.spec.units import format_length

NOTHING = "-"
QUALITIES = "P is primary text, S a person who cites it, W news or a digest. None of these scores is ours."
AVERAGES = (AVERAGE, RISING, FALLING, EFFECTIVE)  # of RULER's tasks, in the place of a task


def number(value: float, suite: SuiteName = "ruler", task: str = "", signed: bool = False) -> str:
    """A score of a suite, or with its sign a difference of two."""
    sign = "+" if signed else ""
    if task == EFFECTIVE:
        return f"{'-' if value < 0 else sign}{format_length(round(abs(value)))}" if value else "none"
    return f"{value:{sign}.4f}" if suite == "perplexity" else f"{100 * value:{sign}.1f}"


def interval(
    low: float | None, high: float | None, suite: SuiteName = "ruler", task: str = "", signed: bool = False
) -> str:
    """In brackets; nothing where it is not known."""
    if low is None or high is None:
        return ""
    return f"[{number(low, suite, task, signed)}, {number(high, suite, task, signed)}]"


def cell(
    mean: float | None, low: float | None = None, high: float | None = None, suite: SuiteName = "ruler", task: str = ""
) -> Cell:
    """Of a table; None is nothing there."""
    return Cell(NOTHING) if mean is None else Cell(number(mean, suite, task), interval(low, high, suite, task))


def unit(suite: SuiteName, task: str = "") -> str:
    return "tokens" if task == EFFECTIVE else "nats a token" if suite == "perplexity" else "%"


def length(tokens: int) -> str:
    """4k; of what has no length, nothing."""
    return format_length(tokens) if tokens else ""
