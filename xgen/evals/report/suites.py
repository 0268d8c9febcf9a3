"""What a report says of each suite: sentences and tables."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from xgen.drawing.tables import Cell, Table
from xgen.drawing.tables import Row as TableRow
from xgen.evals.measures import AVERAGE, FALLING, RISING
from xgen.evals.protocol import SuiteName
from xgen.evals.published import Row
from xgen.evals.report.results import Evaluated, Results
from xgen.evals.report.words import AVERAGES, NOTHING, cell, interval, length, number
from xgen.evals.ruler.score import THRESHOLD
from xgen.evals.summary import EFFECTIVE, Position, Score, Summary
from xgen.evals.summary import Cell as CellOfMap

_OTHER_TEXT = "The published rows were measured on other texts: scores on another text are not the published ones."
_INTERVALS = "In brackets the 95% interval, in which the score of many more samples would lie."


def scores_of(summary: Summary, suite: SuiteName) -> list[Score]:
    return [score for score in summary.scores if score.suite == suite]


def ruler(results: Results, one: Evaluated) -> Iterator[Table | str]:
    scores = scores_of(one.summary, "ruler")
    by_task = {(score.task, score.length): score for score in scores}
    lengths = sorted({score.length for score in scores if score.length})
    tasks = [task for task in dict.fromkeys(score.task for score in scores) if task not in AVERAGES]
    measured = [at for at in lengths if (AVERAGE, at) in by_task]
    shown = [row for row in results.published if shown_lengths(row, measured)]
    yield f"Percent of the answers found. {_INTERVALS}"
    yield from _texts(results, "ruler")
    if shown:
        yield _OTHER_TEXT
    if measured:
        yield _beside(results.name_of(one.step), by_task, lengths, shown, len(tasks))
    yield from _sums(one.summary)
    yield _matrix("task", [(task, task) for task in tasks], lengths, by_task)


def shown_lengths(row: Row, lengths: Sequence[int]) -> list[int]:
    """Of those, at which the row has an average."""
    return [at for at in lengths if f"ruler/{AVERAGE}/{at}" in row.scores]


def _beside(
    name: str, by_task: dict[tuple[str, int], Score], lengths: Sequence[int], rows: Sequence[Row], num_tasks: int
) -> Table:
    own = tuple(_cell(by_task.get((AVERAGE, at))) for at in lengths)
    heads = (f"mean of {num_tasks} tasks" if num_tasks > 1 else "its one task", *map(length, lengths), "source|")
    published: tuple[TableRow, ...] = tuple(
        (row.model, *(cell(row.scores.get(f"ruler/{AVERAGE}/{at}")) for at in lengths), row.source.quality)
        for row in rows
    )
    return Table(heads, ((name, *own, "ours"), *published))


def _sums(summary: Summary) -> Iterator[str]:
    for task, said in (
        (AVERAGE, "Average over the lengths"),
        (RISING, "Weighted average, the longest counting most"),
        (FALLING, "Weighted average, the shortest counting most"),
        (EFFECTIVE, f"Effective length, up to which each average is {THRESHOLD} and more"),
    ):
        if score := summary.find(f"ruler/{task}/0"):
            unit = "" if task == EFFECTIVE else "%"
            ends = interval(score.low, score.high, "ruler", task)
            yield f"{said}: {number(score.mean, 'ruler', task)}{unit} {ends}".rstrip()


def needles(results: Results, one: Evaluated) -> Iterator[Table | str]:
    yield "Percent of the needles found, by the depth at which one is hidden and the length of the text."
    yield from _texts(results, "needles")
    for task in dict.fromkeys(each.task for each in one.summary.needles):
        of = {(each.depth, each.length): each for each in one.summary.needles if each.task == task}
        depths, lengths = sorted({depth for depth, _ in of}), sorted({at for _, at in of})
        rows: list[TableRow] = []
        for depth in depths:
            found = [of.get((depth, at)) for at in lengths]
            rows.append((f"{100 * depth:.0f}%", *(_cell(each) for each in found)))
        scores = {(score.task, score.length): score for score in scores_of(one.summary, "needles")}
        rows.append(("all", *(_cell(scores.get((task, at))) for at in lengths)))
        yield Table(("depth", *map(length, lengths)), tuple(rows))


def recall(results: Results, one: Evaluated) -> Iterator[Table | str]:
    del results
    yield "Percent of the keys in a JSON object of random pairs whose value is given back, by the length of the object."
    scores = {(score.task, score.length): score for score in scores_of(one.summary, "recall")}
    lengths = sorted({at for _, at in scores})
    yield _matrix("", [(task, task) for task in dict.fromkeys(task for task, _ in scores)], lengths, scores)


def perplexity(results: Results, one: Evaluated) -> Iterator[Table | str]:
    del results
    yield "Nats a token by how much of the document was read before: less is better, and more context should help."
    for score in scores_of(one.summary, "perplexity"):
        at = [each for each in one.summary.positions if (each.task, each.length) == (score.task, score.length)]
        ends = [*(each.first for each in at[1:]), score.length]
        rows: list[TableRow] = [
            (f"{each.first:,} to {end:,}", _cell(each, "perplexity"), f"{math.exp(each.mean):,.2f}", f"{each.tokens:,}")
            for each, end in zip(at, ends, strict=True)
        ]
        whole = (_cell(score, "perplexity"), f"{math.exp(score.mean):,.2f}", f"{sum(each.tokens for each in at):,}")
        rows.append(("all", *whole))
        yield Table((f"{score.task}, position", "nats a token", "perplexity", "tokens"), tuple(rows))


def harness(results: Results, one: Evaluated) -> Iterator[Table | str]:
    scores = scores_of(one.summary, "harness")
    rows = [row for row in published_of(results, one) if any(score.key in row.scores for score in scores)]
    if rows:
        yield (
            "The published scores state neither their harness nor their shots: they stand beside ours and are not the "
            "same measurement."
        )
    sources = {row.model: row.source.quality for row in rows}
    heads = ("task", results.name_of(one.step), "samples", *(f"{model} ({sources[model]})" for model in sources))
    yield Table(
        heads,
        tuple(
            (score.task, _cell(score), f"{score.count:,}", *(cell(row.scores.get(score.key)) for row in rows))
            for score in scores
        ),
    )


def _texts(results: Results, suite: SuiteName) -> Iterator[str]:
    if names := results.sources.get(suite):
        yield f"Texts around what is asked for, with their digests: {', '.join(names)}."


def published_of(results: Results, one: Evaluated) -> list[Row]:
    """Rows of which something stands beside a score of the checkpoint."""
    keys = {
        score.key
        for score in one.summary.scores
        if score.suite == "harness" or (score.task == AVERAGE and score.length)
    }
    return [row for row in results.published if keys & row.scores.keys()]


def _matrix(
    head: str, rows: Sequence[tuple[str, str]], lengths: Sequence[int], scores: dict[tuple[str, int], Score]
) -> Table:
    cells: tuple[TableRow, ...] = tuple(
        (name, *(_cell(scores.get((task, at))) for at in lengths)) for task, name in rows
    )
    return Table((head, *(length(at) or NOTHING for at in lengths)), cells)


def _cell(found: Score | CellOfMap | Position | None, suite: SuiteName = "ruler") -> Cell:
    return cell(found.mean, found.low, found.high, suite) if found else cell(None)
