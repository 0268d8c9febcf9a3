"""The parts of a report: what was scored, how far it is, and a part for each suite."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from xgen.drawing.tables import Row, Table
from xgen.drawing.wording import many
from xgen.evals.protocol import SuiteName
from xgen.evals.report.results import Evaluated, Results
from xgen.evals.report.suites import harness, needles, perplexity, published_of, recall, ruler
from xgen.evals.report.words import AVERAGES, QUALITIES, cell, length
from xgen.evals.summary import Score


@dataclass(frozen=True)
class Section:
    """`pictures`: names of files beside the report."""

    title: str
    said: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    pictures: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """What a person reads of one checkpoint, and of the others in short."""

    title: str
    said: tuple[str, ...]
    sections: tuple[Section, ...]


_SUITES: tuple[tuple[SuiteName, str, Callable[[Results, Evaluated], Iterator[Table | str]]], ...] = (
    ("ruler", "RULER", ruler),
    ("needles", "Needles", needles),
    ("recall", "In-context recall", recall),
    ("perplexity", "Perplexity by position", perplexity),
    ("harness", "Tasks of lm-evaluation-harness", harness),
)


def report_of(results: Results, chosen: Evaluated, pictures: dict[SuiteName | str, tuple[str, ...]]) -> Report:
    """`pictures`: those that are drawn, by suite; `steps` are of all checkpoints."""
    sections = [
        _section(title, list(parts(results, chosen)), pictures.get(suite, ()))
        for suite, title, parts in _SUITES
        if any(score.suite == suite for score in chosen.summary.scores)
    ]
    if len(results.checkpoints) > 1:
        sections.append(Section("By checkpoint", (), (_steps(results),), pictures.get("steps", ())))
    sources = list(dict.fromkeys((row.source.quality, row.source.text) for row in published_of(results, chosen)))
    if sources:
        said = (QUALITIES, *(f"{quality}: {text}" for quality, text in sources))
        sections.append(Section("Sources of the published scores", said))
    name = results.name_of(chosen.step)
    return Report(f"{name}, evaluated by {results.run}", tuple(_progress(results, chosen)), tuple(sections))


def _section(title: str, parts: list[Table | str], pictures: tuple[str, ...]) -> Section:
    said = tuple(part for part in parts if isinstance(part, str))
    return Section(title, said, tuple(part for part in parts if isinstance(part, Table)), pictures)


def _progress(results: Results, chosen: Evaluated) -> Iterator[str]:
    if not chosen.complete:
        yield f"Not complete: {so_far(results, chosen)}. Averages are of what there is."
    others = [one for one in results.checkpoints if one.step != chosen.step]
    for one in others:
        if not one.complete:
            yield f"Of step {one.step}: {so_far(results, one)}."
    if results.waiting:
        yield f"Not begun: step {', '.join(map(str, results.waiting))}."
    for step, why in results.gone.items():
        yield f"Step {step} was not scored: {why}"


def so_far(results: Results, one: Evaluated) -> str:
    """`ruler 120 of 500 samples, needles 0 of 110 samples`; every suite that is asked for."""
    if one.complete:
        return many(sum(one.done.values()), "sample")
    names = list(dict.fromkeys([*results.wanted, *one.done]))
    return (
        ", ".join(
            f"{name} {one.done.get(name, 0):,}" + (f" of {results.wanted[name]:,}" if name in results.wanted else "")
            for name in names
        )
        + " samples"
    )


def _steps(results: Results) -> Table:
    """Scores in short: RULER's averages, and what else there is, step by step."""
    keys: dict[str, Score] = {}
    for one in results.checkpoints:
        keys |= {score.key: score for score in one.summary.scores if in_short(score)}
    order = {suite: place for place, (suite, _, _) in enumerate(_SUITES)}
    shown = sorted(keys.values(), key=lambda score: (order[score.suite], score.length == 0, score.task, score.length))
    rows: list[Row] = []
    for score in shown:
        found = [one.summary.find(score.key) for one in results.checkpoints]
        cells = [cell(s.mean, s.low, s.high, s.suite, s.task) if s else cell(None) for s in found]
        rows.append((f"{name_in_short(score)} {length(score.length)}".strip(), *cells))
    return Table(("step", *(f"{one.step}" for one in results.checkpoints)), tuple(rows))


def in_short(score: Score) -> bool:
    """Whether it stands for its suite where there is little room."""
    return score.suite != "ruler" or score.task in AVERAGES


def name_in_short(score: Score) -> str:
    return score.suite if score.suite == score.task else f"{score.suite} {score.task}"
