"""Scores against each other and beside published ones, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import get_args

from xgen.drawing.tables import Cell, Row, Table
from xgen.drawing.wording import many
from xgen.evals.compare.beside import PublishedDifference
from xgen.evals.compare.comparison import Pair, Scored
from xgen.evals.compare.scores import ScoreDifference, Test, Verdict
from xgen.evals.protocol import SuiteName
from xgen.evals.report.words import NOTHING, interval, length, number, unit

_SUITES: tuple[SuiteName, ...] = get_args(SuiteName)


def scores_said(pair: Pair, letter: str, level: float) -> Iterator[str | Table]:
    yield from _by_suite(pair.scores, letter)
    if pair.scores:
        yield from _explained(pair.scores, level)
    if pair.tasks:
        real = [one for one in pair.tasks if one.verdict in ("better", "worse")]
        tested = [one for one in pair.tasks if one.test]
        said = f"Of {many(len(tested), 'score')} of single tasks {len(real) or 'none'} differ{'s' * (len(real) == 1)}"
        yield f"{said} by more than noise{':' if real else '.'}"
        if real:
            yield from _by_suite(real, letter)
    if pair.only_one:
        shown = ", ".join(pair.only_one[:6])
        yield f"Only one of them has {shown}{', …' if len(pair.only_one) > 6 else ''}."


def _by_suite(scores: Sequence[ScoreDifference], letter: str) -> Iterator[Table]:
    for suite in _SUITES:
        if of := [one for one in scores if one.suite == suite]:
            yield Table((suite, "A", letter, f"{letter} - A", "|"), tuple(_score(one) for one in of))


def _score(one: ScoreDifference) -> Row:
    name = f"{one.task} {length(one.length)}".strip()
    means = [number(mean.mean, one.suite, one.task) for mean in (one.first, one.other)]
    if one.test is None:
        return name, *means, Cell(NOTHING), one.verdict
    test = one.test
    ends = interval(test.low, test.high, one.suite, one.task, signed=True)
    difference = Cell(number(test.mean, one.suite, one.task, signed=True), ends)
    mark = "" if one.paired else "*"
    return name, *means, difference, word(one.verdict, test) + mark


def _named(one: ScoreDifference | Scored) -> str:
    name = one.task if one.suite == one.task else f"{one.suite} {one.task}"
    return f"{name} {length(one.length)}".strip()


def word(verdict: Verdict, test: Test) -> str:
    if verdict not in ("better", "worse"):
        return verdict
    return f"{verdict} (p {_p(test.adjusted)})"


def _p(p: float) -> str:
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}" if p < 0.001 else f"{p:.3f}"


def _explained(scores: Sequence[ScoreDifference], level: float) -> Iterator[str]:
    tested = [one for one in scores if one.test]
    units = " and ".join(dict.fromkeys(unit(one.suite, one.task) for one in scores))
    yield f"In {units}; {100 * level:g}% intervals."
    if tested:
        tests = many(len(tested), "test")
        yield f"The word is by p, adjusted by Holm for {tests}: of so many intervals one may leave out 0 by chance."
    paired = [one for one in tested if one.paired]
    if paired:
        counts = sorted({one.paired for one in paired})
        said = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
        yield f"Paired: each on {said} samples that both have read."
    reasons: dict[str, list[str]] = {}
    for one in scores:
        if one.why:
            reasons.setdefault(one.why, []).append(_named(one))
    unpaired = [one for one in tested if not one.paired]
    if unpaired:
        yield "* not paired: no sample is the same in both."
    for why, names in reasons.items():
        yield f"{', '.join(names[:3])}{', …' if len(names) > 3 else ''}: {why}."


def alone(scores: Sequence[Scored]) -> Table:
    rows: list[Row] = []
    for one in scores:
        said = Cell(number(one.mean, one.suite, one.task), interval(one.low, one.high, one.suite, one.task))
        rows.append((_named(one), said, f"{one.count:,}"))
    return Table(("score", "A", "samples"), tuple(rows))


def published_said(of: Sequence[PublishedDifference]) -> Iterator[str | Table]:
    yield (
        "Points above or below what is printed of other models. * where samples alone do not explain it; other texts, "
        "prompts and harnesses may."
    )
    for suite in _SUITES:
        if not (own := [one for one in of if one.key.startswith(f"{suite}/")]):
            continue
        keys = sorted({one.key for one in own}, key=lambda key: (int(key.rpartition("/")[2]), key))
        by = {(one.model, one.key): one for one in own}
        ours = {one.key: one.ours for one in own}
        rows: list[Row] = [("ours", *(number(ours[key]) for key in keys), "")]
        quality = {one.model: one.quality for one in own}
        for model in dict.fromkeys(one.model for one in own):
            rows.append((model, *(_beside(by.get((model, key))) for key in keys), quality[model]))
        yield Table((f"ours minus, {suite}", *map(_short_key, keys), "source|"), tuple(rows))


def _short_key(key: str) -> str:
    _, task, at = key.split("/")
    return length(int(at)) or task


def _beside(one: PublishedDifference | None) -> str:
    if one is None:
        return NOTHING
    return f"{number(one.test.mean, signed=True)}{'' if one.verdict == 'no real difference' else '*'}"
