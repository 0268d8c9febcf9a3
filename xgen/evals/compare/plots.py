"""The pictures of a comparison, each as the text of an SVG file by its name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from xgen.drawing.lines import Line, line_chart
from xgen.drawing.svg import Axis
from xgen.drawing.wording import tokens
from xgen.evals.compare.curves import Curve, read_curve
from xgen.evals.compare.found import Side
from xgen.evals.compare.losses import smoothed, window_of
from xgen.evals.measures import AVERAGE
from xgen.evals.records import step_folder, steps_of
from xgen.evals.report.plots import INTERVALS, by_length, by_position, by_step, of_lengths
from xgen.evals.report.results import read_summary
from xgen.evals.report.words import length
from xgen.evals.summary import Summary, summarize

_TITLES = {"ruler": "RULER", "needles": "Needles", "recall": "In-context recall"}
_POINTS = 400
_SMOOTH = 100  # windows of the whole


def pictures(sides: Sequence[Side]) -> Iterator[tuple[str, str]]:
    """Those that there is something to draw for."""
    curves = [(side, read_curve(side.training).until(side.until)) for side in sides if side.training]
    if drawn := [line for side, curve in _once(curves) if (line := _loss(side, curve))]:
        yield "loss.svg", _losses(drawn)
    of = [(side.name, summarize(side.records)) for side in sides if side.records]
    yield from _by_length(of)
    positions = [(name, summary) for name, summary in of if summary.positions]
    if positions:
        yield "perplexity.svg", by_position(positions)
    yield from _over_steps(sides)


def _once(curves: Sequence[tuple[Side, Curve]]) -> Iterator[tuple[Side, Curve]]:
    """Of several checkpoints of a training the longest curve."""
    longest: dict[str, tuple[Side, Curve]] = {}
    for side, curve in curves:
        assert side.training
        path = str(side.training.path)
        if path not in longest or len(curve) > len(longest[path][1]):
            longest[path] = side, curve
    yield from longest.values()


def _loss(side: Side, curve: Curve) -> Line | None:
    """Smoothed over a hundredth of it, in as many points as one can see."""
    assert side.training
    smooth = smoothed(curve, max(1, min(window_of(len(curve)), len(curve) // _SMOOTH)))
    known = np.flatnonzero(np.isfinite(smooth))
    if not len(known):
        return None
    shown = np.unique(known[np.linspace(0, len(known) - 1, min(_POINTS, len(known))).round().astype(int)])
    points = [(float(curve.tokens[at]), float(smooth[at])) for at in shown.tolist()]
    return Line(side.training.name, points, dots=False)


def _losses(lines: Sequence[Line]) -> str:
    ends = [y for line in lines for _, y in line.points]
    # The first steps fall far: what is to be seen is the rest.
    high = max(max(y for _, y in line.points[len(line.points) // 50 :]) for line in lines)
    edge = 0.05 * (high - min(ends)) or 0.5
    inside = [replace(line, points=[(x, y) for x, y in line.points if y <= high + edge]) for line in lines]
    axis = Axis("tokens trained on", 0, max(line.points[-1][0] for line in lines), label=_tokens)
    losses = Axis("loss (nats a token)", min(ends) - edge, high + edge, label="{:.3g}".format)
    return line_chart("Loss over tokens", axis, losses, inside, "mean of each step and those shortly before it")


def _tokens(tick: float) -> str:
    """1.5M"""
    return re.sub(r"(\.\d*?)0+(?=\D)", r"\1", tokens(tick))


def _by_length(of: Sequence[tuple[str, Summary]]) -> Iterator[tuple[str, str]]:
    for suite, title in _TITLES.items():
        scores = {name: [score for score in summary.scores if score.suite == suite] for name, summary in of}
        tasks = [AVERAGE] if suite == "ruler" else sorted({score.task for each in scores.values() for score in each})
        for task in tasks:
            lines = [line for name, each in scores.items() if (line := of_lengths(name, each, task))]
            if lines:
                file = f"{suite}.svg" if len(tasks) == 1 else f"{suite}-{task}.svg"
                yield file, by_length(f"{title} by length" + f": {task}" * (len(tasks) > 1), lines, INTERVALS)


def _over_steps(sides: Sequence[Side]) -> Iterator[tuple[str, str]]:
    """Of those with several checkpoints that are scored whole: a picture for each suite, at its longest length."""
    known = {name: of for name, of in _known(sides) if len(of) > 1}
    for suite, title in (*_TITLES.items(), ("harness", "Tasks")):
        points = {
            name: [at for step, summary in of for at in _point(step, summary, suite)] for name, of in known.items()
        }
        lines = [Line(name, [(step, mean) for step, _, mean in at]) for name, at in points.items() if len(at) > 1]
        said = {what for at in points.values() for _, what, _ in at}
        if lines and len(said) == 1:
            yield f"steps-{suite}.svg", by_step(lines, f"{title} by checkpoint", said.pop())


def _known(sides: Sequence[Side]) -> Iterator[tuple[str, list[tuple[int, Summary]]]]:
    for side in sides:
        for one in side.all_evaluations:
            summaries = [(step, read_summary(step_folder(one.run, step))) for step in steps_of(one.run)]
            yield f"{side.name.partition('@')[0]}", [(step, summary) for step, summary in summaries if summary]


def _point(step: int, summary: Summary, suite: str) -> Iterator[tuple[float, str, float]]:
    """Step, what is measured, percent."""
    of = [score for score in summary.scores if score.suite == suite]
    if suite == "harness" and of:
        tasks = ", ".join(score.task for score in of)
        yield float(step), f"mean of {tasks}", 100 * sum(score.mean for score in of) / len(of)
    elif shown := [score for score in of if score.length and (suite != "ruler" or score.task == AVERAGE)]:
        last = max(shown, key=lambda score: (score.length, score.task))
        yield float(step), f"{last.task} {length(last.length)}", 100 * last.mean
