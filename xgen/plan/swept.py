"""The points of a sweep: whether each makes sense, and whether they can be compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from xgen.spec import LoadedJob, Problem, SpecError, Sweep, Trained
from xgen.spec.points import assignments, metric_of, of_point, points

_MOST_SHOWN = 5  # points with problems


def check_points(loaded: LoadedJob, sweep: Sweep, check: Callable[[LoadedJob], list[Problem]]) -> Iterator[Problem]:
    """What is wrong with the keys that differ, or with any of the points: `check` is asked of each."""
    try:
        found = points(loaded)
    except SpecError as error:
        yield from (problem if problem.file else replace(problem, file=loaded.file) for problem in error.problems)
        return
    bad = 0
    for number, (point, one) in enumerate(zip(found, assignments(sweep), strict=True)):
        if isinstance(point, SpecError):
            problems = list(point.problems)
        else:
            problems = [of_point(problem, number, one) for problem in check(point)]
        bad += bool(problems)
        if bad <= _MOST_SHOWN:
            yield from problems
    if bad > _MOST_SHOWN:
        yield loaded.problem(
            "over" if sweep.over else "points", f"{bad - _MOST_SHOWN} more of {len(found)} points are wrong"
        )
    if not bad:
        yield from _check_metric(loaded, sweep, [point for point in found if not isinstance(point, SpecError)])


def _check_metric(loaded: LoadedJob, sweep: Sweep, found: list[LoadedJob]) -> Iterator[Problem]:
    trains = isinstance(found[0].job, Trained)
    if sweep.stop and metric_of(sweep, sweep.stop.metric) is None:
        yield loaded.problem("stop.metric", "is missing: by which number are points compared? write stop.metric: NAME")
    for key, metric in (("metric", sweep.metric), ("stop.metric", sweep.stop.metric if sweep.stop else None)):
        if trains and metric and metric.partition(".")[0] == "validation" and not _validates(found):
            yield loaded.problem(key, f"{metric}: the spec has no `validation`; add it, or write loss")
    if sweep.stop and trains:
        steps = min(place.last_step for point in found if isinstance(point.job, Trained) for place in point.job.places)
        if sweep.stop.at[-1] >= steps:
            said = f"step {sweep.stop.at[-1]} is none before the end of every point, step {steps}; write lower steps"
            yield loaded.problem("stop.at", said)


def _validates(found: list[LoadedJob]) -> bool:
    return all(getattr(point.job, "validation", None) is not None for point in found)
