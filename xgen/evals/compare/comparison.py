"""Runs against the first of them, and against published scores: all that `xgen compare` says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from pydantic import BaseModel, ConfigDict

from xgen.evals.compare.beside import PublishedDifference, published_differences
from xgen.evals.compare.curves import Curve, read_curve
from xgen.evals.compare.facts import Facts, KeyDifference, facts_of, spec_differences, suite_differences
from xgen.evals.compare.found import Side
from xgen.evals.compare.scores import Mean, ScoreDifference, in_short, score_differences
from xgen.evals.compare.trained import TrainingDifference, training_difference
from xgen.evals.measures import Measure, measures
from xgen.evals.protocol import SuiteName
from xgen.evals.published import Row
from xgen.evals.stats import LEVEL
from xgen.runs import Refused


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)


class Scored(Mean):
    """A score of one of the runs."""

    suite: SuiteName
    task: str
    length: int


class Pair(_Frozen):
    """One of the others against the first. `scores` stand for their suites; `tasks`, RULER's single ones, are a family
    of tests of their own."""

    other: str
    training: TrainingDifference | None
    scores: tuple[ScoreDifference, ...]
    tasks: tuple[ScoreDifference, ...]
    only_one: tuple[str, ...]  # keys that only one of them has


_NONE_PUBLISHED = (
    "Nothing stands beside published scores: those are of all 13 tasks of RULER at one length, and of the harness."
)


class Comparison(_Frozen):
    """`scores`: of each run those that stand for their suites, or that were asked for."""

    level: float
    runs: tuple[Facts, ...]
    spec: tuple[KeyDifference, ...]
    scores: tuple[tuple[Scored, ...], ...]
    pairs: tuple[Pair, ...]
    published: tuple[PublishedDifference, ...]
    notes: tuple[str, ...]


def compare(
    sides: Sequence[Side],
    level: float = LEVEL,
    metrics: Sequence[str] = (),
    published: Sequence[Row] = (),
    unreadable: int = 0,
) -> Comparison:
    """`metrics`: patterns of what is compared: loss, validation/DOMAIN, keys of scores; default: what stands for each
    suite. Raises Refused where there is nothing to compare, OSError."""
    curves = [_curve(side) for side in sides]
    found = [measures(side.records) for side in sides]
    _check(sides, curves, found, metrics)
    pairs = [_pair(sides, number, curves, found, level, metrics) for number in range(1, len(sides))]
    if pairs and not any(pair.training or pair.scores or pair.tasks for pair in pairs):
        raise Refused(_nothing(sides, metrics))
    jobs = [side.job for side in sides if side.job]
    beside = tuple(_published(sides, found, published, level))
    return Comparison(
        level=level,
        runs=tuple(facts_of(side, curve) for side, curve in zip(sides, curves, strict=True)),
        spec=tuple(spec_differences(jobs)) if _comparable_specs(sides) else (),
        scores=tuple(tuple(_scored(one, level) for one in of.values() if _wanted(one, metrics)) for of in found),
        pairs=tuple(pairs),
        published=beside,
        notes=(*_notes(sides, unreadable), *((_NONE_PUBLISHED,) if published and not beside else ())),
    )


def _scored(measure: Measure, level: float) -> Scored:
    mean = Mean.of(measure.interval(level), measure.count)
    return Scored(suite=measure.suite, task=measure.task, length=measure.length, **mean.model_dump())


def _curve(side: Side) -> Curve | None:
    curve = read_curve(side.training).until(side.until) if side.training else None
    return curve if curve else None


def _check(
    sides: Sequence[Side],
    curves: Sequence[Curve | None],
    found: Sequence[Mapping[str, Measure]],
    metrics: Sequence[str],
) -> None:
    for side, curve in zip(sides, curves, strict=True):
        if not (side.records or curve):
            raise Refused(f"{side.name} has neither a step that was trained nor a score; there is nothing to compare")
        if not side.records and curve and side.until is not None and side.until not in curve.steps:
            last = int(curve.steps[-1])
            raise Refused(f"{side.name} is no step that was trained, the last being {last}, nor one that was evaluated")
    keys = {"loss", *(key for of in found for key in of)}
    for metric in metrics:
        if not metric.startswith("validation/") and not any(fnmatchcase(key, metric) for key in keys):
            known = ", ".join(sorted(keys)[:12])
            raise Refused(f"--metric {metric}: none of them has it; write loss, validation/DOMAIN or one of {known}, …")


def _pair(
    sides: Sequence[Side],
    number: int,
    curves: Sequence[Curve | None],
    found: Sequence[Mapping[str, Measure]],
    level: float,
    metrics: Sequence[str],
) -> Pair:
    first, other = sides[0], sides[number]
    ours, theirs = found[0], found[number]

    def why(suite: SuiteName) -> str:
        return suite_differences(first.evaluations[suite].job, other.evaluations[suite].job, suite)

    keys = list(dict.fromkeys([*ours, *theirs]))
    both = [key for key in keys if key in ours and key in theirs]
    shown = [key for key in both if _wanted(ours[key], metrics)]
    tasks = [key for key in both if not metrics and key not in shown]
    return Pair(
        other=other.name,
        training=training_difference(first, other, curves[0], curves[number], level, metrics),
        scores=tuple(score_differences(ours, theirs, shown, level, why)),
        tasks=tuple(score_differences(ours, theirs, tasks, level, why)),
        only_one=tuple(key for key in keys if key not in both and _wanted(ours.get(key) or theirs[key], metrics)),
    )


def _wanted(measure: Measure, metrics: Sequence[str]) -> bool:
    return any(fnmatchcase(measure.key, each) for each in metrics) if metrics else in_short(measure)


def _comparable_specs(sides: Sequence[Side]) -> bool:
    """Of trainings of one kind: keys of other kinds have nothing to do with each other."""
    kinds = {type(side.job) for side in sides}
    return len(sides) > 1 and len(kinds) == 1 and all(side.job for side in sides)


def _published(
    sides: Sequence[Side], found: Sequence[Mapping[str, Measure]], rows: Sequence[Row], level: float
) -> Iterable[PublishedDifference]:
    for side, of in zip(sides, found, strict=True):
        yield from published_differences(side.name, of, rows, level)


def _notes(sides: Sequence[Side], unreadable: int) -> Iterable[str]:
    for side in sides:
        if side.evaluations and side.num_running:
            yield f"An evaluation of {side.name} is not complete: its scores are of the samples that are there."
    if unreadable:
        yield f"{unreadable} runs beside them cannot be read: an evaluation among these is not seen."


def _nothing(sides: Sequence[Side], metrics: Sequence[str]) -> str:
    names = " and ".join(side.name for side in sides)
    asked = f" of {', '.join(metrics)}" if metrics else ""
    without = [side.name for side in sides if not side.records]
    hint = f"; evaluate {', '.join(without)} first" if without else ""
    return f"{names} have nothing{asked} in common{hint}"
