"""The pictures of a report, each as the text of an SVG file."""

from __future__ import annotations

from collections.abc import Iterator

from xgen.drawing.heat import heat_map
from xgen.drawing.lines import Line, line_chart
from xgen.drawing.svg import Axis
from xgen.drawing.wording import short
from xgen.evals.measures import AVERAGE
from xgen.evals.report.results import Evaluated, Results
from xgen.evals.report.sections import in_short, name_in_short
from xgen.evals.report.suites import shown_lengths
from xgen.evals.report.words import AVERAGES, length
from xgen.evals.ruler.score import THRESHOLD
from xgen.evals.summary import Position, Score, Summary

INTERVALS = "band: 95% interval of the samples that were drawn"
_THRESHOLD = (THRESHOLD, f"{THRESHOLD}%: the threshold of the effective length")
_NUM_TICKS = 12


def pictures(results: Results, chosen: Evaluated) -> Iterator[tuple[str, str, str]]:
    """Suite (or `steps`), name of the file, and text of each picture that there is something to draw for."""
    name, summary = results.name_of(chosen.step), chosen.summary
    if own := of_lengths(name, [score for score in summary.scores if score.suite == "ruler"], AVERAGE):
        yield "ruler", "ruler.svg", _ruler(results, summary, own)
    for task in dict.fromkeys(cell.task for cell in summary.needles):
        several = len({cell.task for cell in summary.needles}) > 1
        yield "needles", f"needles-{task}.svg" if several else "needles.svg", _needles(name, summary, task)
    recalls = [score for score in summary.scores if score.suite == "recall"]
    tasks = list(dict.fromkeys(score.task for score in recalls))
    if lines := [line for task in tasks if (line := of_lengths(task if len(tasks) > 1 else name, recalls, task))]:
        yield "recall", "recall.svg", by_length("In-context recall", lines, INTERVALS)
    if summary.positions:
        yield "perplexity", "perplexity.svg", by_position([(name, summary)])
    if len(results.checkpoints) > 1:
        of = [(one.step, one.summary) for one in results.checkpoints]
        for harness, file in ((False, "steps.svg"), (True, "steps-tasks.svg")):
            if lines := over_steps(of, harness):
                yield "steps", file, by_step(lines)


def of_lengths(name: str, scores: list[Score], task: str) -> Line | None:
    """Percent by length of one task; None for none."""
    found = sorted((score for score in scores if score.task == task and score.length), key=lambda score: score.length)
    points = [(float(score.length), 100 * score.mean) for score in found]
    band = [(100 * (s.mean if s.low is None else s.low), 100 * (s.mean if s.high is None else s.high)) for s in found]
    return Line(name, points, band) if points else None


def length_axis(lines: list[Line]) -> Axis:
    """Tokens, doubling, with a tick at each length that was measured, or at as many as there is room for."""
    seen = sorted({x for line in lines for x, _ in line.points})
    ticks = seen[:: -(-len(seen) // _NUM_TICKS)]
    low, high = (seen[0], seen[-1]) if len(seen) > 1 else (seen[0] / 2, seen[0] * 2)
    return Axis("length (tokens)", low, high, log=True, ticks=tuple(ticks), label=lambda tick: length(round(tick)))


def percent_axis(lines: list[Line], also: float = 100.0) -> Axis:
    """From zero, or from a round number below all where they are close."""
    least = min(
        [also, *(y for line in lines for _, y in line.points), *(low for line in lines for low, _ in line.band)]
    )
    low = next(each for each in (80.0, 60.0, 40.0, 20.0, 0.0) if least > each or each == 0.0)
    return Axis("score (%)", low, 100, label="{:g}".format)


def by_length(title: str, lines: list[Line], lead: str, threshold: tuple[float, str] | None = None) -> str:
    also = 100.0 if threshold is None else threshold[0]
    return line_chart(title, length_axis(lines), percent_axis(lines, also), lines, lead, threshold)


def _ruler(results: Results, summary: Summary, own: Line) -> str:
    lengths = [round(x) for x, _ in own.points]
    num_tasks = len({score.task for score in summary.scores if score.suite == "ruler" and score.task not in AVERAGES})
    others = [
        Line(row.model, [(float(at), 100 * row.scores[f"ruler/{AVERAGE}/{at}"]) for at in at_lengths], reference=True)
        for row in results.published
        if (at_lengths := shown_lengths(row, lengths))
    ]
    lead = f"mean of {num_tasks} task{'s' * (num_tasks != 1)}; {INTERVALS}"
    if others:
        lead += "; thin: as published, on other texts"
    return by_length("RULER by length", [own, *others], lead, _THRESHOLD)


def _needles(name: str, summary: Summary, task: str) -> str:
    cells = [cell for cell in summary.needles if cell.task == task]
    lengths, depths = sorted({cell.length for cell in cells}), sorted({cell.depth for cell in cells})
    shares = {(depths.index(cell.depth), lengths.index(cell.length)): cell.mean for cell in cells}
    counts = sorted({cell.count for cell in cells})
    each = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return heat_map(
        f"Needles found (%): {name}", "length (tokens)", [length(at) for at in lengths], "depth of the needle",
        [f"{100 * depth:.0f}%" for depth in depths], shares, f"{each} sample{'s' * (each != '1')} a cell",
    )  # fmt: skip


def by_position(of: list[tuple[str, Summary]]) -> str:
    """Loss over what was read before; of several, or of several texts, a line each."""
    lines = []
    several = len({position.task for _, summary in of for position in summary.positions}) > 1
    for name, summary in of:
        for task in dict.fromkeys(position.task for position in summary.positions):
            at = [position for position in summary.positions if position.task == task]
            said = (f"{task}, {name}" if len(of) > 1 else task) if several else name
            known = [(p.mean if p.low is None else p.low, p.mean if p.high is None else p.high) for p in at]
            lines.append(Line(said, [(_middle(p), p.mean) for p in at], known))
    low, high = _span([y for line in lines for pair in line.band for y in pair])
    left, right = (least(x for line in lines for x, _ in line.points) for least in (min, max))
    x_axis = Axis("position (tokens read before)", min(left, right / 2), right, log=True, label=short)
    y_axis = Axis("loss (nats a token)", low, high, label="{:.3g}".format)
    return line_chart("Loss by position", x_axis, y_axis, lines, "band: 95% interval over documents")


def _middle(position: Position) -> float:
    """Of the bin, as far as the documents fill it."""
    return max(1.0, position.first + position.tokens / position.count / 2)


def _span(values: list[float]) -> tuple[float, float]:
    edge = 0.06 * (max(values) - min(values)) or 0.5
    return min(values) - edge, max(values) + edge


def over_steps(of: list[tuple[int, Summary]], harness: bool) -> list[Line]:
    """Percent, step by step: of the harness each task, or of the other suites the shortest and the longest length."""
    points: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for step, summary in of:
        for score in summary.scores:
            of_harness = score.suite == "harness"
            drawn = of_harness if harness else score.suite in ("ruler", "needles", "recall") and score.length > 0
            if drawn and in_short(score):
                at = points.setdefault((name_in_short(score), score.length), [])
                at.append((float(step), 100 * score.mean))
    ends = {name: [at for each, at in points if each == name] for name, _ in points}
    shown = [key for key in points if key[1] in (min(ends[key[0]]), max(ends[key[0]]))]
    return [Line(f"{name} {length(at)}".strip(), points[name, at]) for name, at in shown]


def by_step(lines: list[Line], title: str = "Scores by checkpoint", lead: str = "") -> str:
    steps = sorted({x for line in lines for x, _ in line.points})
    ticks = tuple(steps[:: -(-len(steps) // _NUM_TICKS)])
    axis = Axis("step", steps[0], steps[-1], ticks=ticks, label="{:,.0f}".format)
    return line_chart(title, axis, percent_axis(lines), lines, lead)
