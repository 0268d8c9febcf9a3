"""The points of a sweep: what is drawn, and the spec of each."""

from __future__ import annotations

import copy
import itertools
import json
import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from xgen.spec.errors import Problem, SpecError
from xgen.spec.job import Job
from xgen.spec.kinds import KINDS, Work
from xgen.spec.layers import Key, origin_of, parse_key, set_key
from xgen.spec.load import LoadedJob, validate
from xgen.spec.posttrain import Tuned
from xgen.spec.sweep import Axis, Sweep
from xgen.spec.trained import Trained

Assignment = Mapping[str, Any]  # the value of each key that differs, by the key as it is written
_TRIES = 100  # draws of a point that is not there yet


def assignments(sweep: Sweep) -> list[Assignment]:
    """What differs in each point, by its number. Raises SpecError where there are fewer points than are wanted."""
    if sweep.points.listed is not None:
        return _without_twins(list(sweep.points.listed))
    if sweep.points.random is None:
        values = (axis.choice or [] for axis in sweep.over.values())
        return _without_twins([dict(zip(sweep.over, one, strict=True)) for one in itertools.product(*values)])
    return _drawn(sweep, sweep.points.random)


def _drawn(sweep: Sweep, number: int) -> list[Assignment]:
    """One stream of random numbers a point, so that more points keep the first ones."""
    found: dict[str, Assignment] = {}
    for point in range(number):
        chance = random.Random(f"{sweep.points.seed}/{point}")
        for _ in range(_TRIES):
            one = {key: _draw(axis, chance) for key, axis in sweep.over.items()}
            if found.setdefault(_identity(one), one) is one:
                break
        else:
            said = f"random: {number} different points are not to be had of these values, about {len(found)} are"
            raise SpecError(Problem("", "points", f"{said}; write points: grid, or less"))
    return list(found.values())


def _draw(axis: Axis, chance: random.Random) -> Any:
    if axis.choice is not None:
        return chance.choice(axis.choice)
    assert axis.bounds is not None
    low, high = axis.bounds
    drawn = math.exp(chance.uniform(math.log(low), math.log(high))) if axis.log_uniform else chance.uniform(low, high)
    return min(high, max(low, float(f"{drawn:.4g}")))  # a number that people can copy


def _without_twins(points: list[Assignment]) -> list[Assignment]:
    numbers: dict[str, int] = {}
    for number, one in enumerate(points):
        if (twin := numbers.setdefault(_identity(one), number)) != number:
            said = f"point {number} ({show_point(one)}) is the same as point {twin}; remove one"
            raise SpecError(Problem("", "points", said))
    return points


def _identity(point: Assignment) -> str:
    return json.dumps(point, sort_keys=True, default=str)


def show_point(point: Assignment) -> str:
    """`stages.0.lr.peak=0.001, seed=2`."""
    return ", ".join(settings(point))


def settings(point: Assignment) -> list[str]:
    """Each as `--set` takes it."""
    return [
        f"{key}={value if isinstance(value, str) else json.dumps(value, default=str)}" for key, value in point.items()
    ]


def metric_of(sweep: Sweep, own: str | None = None) -> str | None:
    """By what points are compared: the `own` metric of what compares them, the sweep's, or the loss of a training."""
    trains = issubclass(KINDS[sweep.spec["kind"]], Trained)
    return own or sweep.metric or ("loss" if trains else None)


def jobs_of(sweep: Sweep) -> list[Work]:
    """The spec of each point of a sweep that makes sense. Raises SpecError."""
    found = []
    for one in _built(LoadedJob(sweep, "", Path(), {}), any_file=True):
        if isinstance(one, SpecError):
            raise one
        found.append(one.job.model_copy(update={"cluster": sweep.cluster}))
    return found


def points(loaded: LoadedJob) -> tuple[LoadedJob | SpecError, ...]:
    """The spec of each point, in turn, as if it were submitted alone; or what is wrong with it. Raises SpecError for
    keys that no point can have of its own."""
    return _built(loaded, any_file=False)


_Points = tuple[LoadedJob | SpecError, ...]
_BUILT: dict[str, tuple[LoadedJob, _Points]] = {}  # a submission asks for the same hundreds half a dozen times


def _built(loaded: LoadedJob, *, any_file: bool) -> _Points:
    """`any_file`: it does not matter of which file a problem would be said."""
    assert isinstance(loaded.job, Sweep)
    text = loaded.job.model_dump_json(exclude_unset=True, exclude={"cluster"})
    if (known := _BUILT.get(text)) and (any_file or known[0] is loaded):
        return known[1]
    found = tuple(_build(loaded, loaded.job))
    _BUILT.clear()
    _BUILT[text] = loaded, found
    return found


def _build(loaded: LoadedJob, sweep: Sweep) -> Iterator[LoadedJob | SpecError]:
    chosen = assignments(sweep)
    _check_keys(loaded, sweep, chosen)
    common = sweep.model_dump(mode="json", include=set(Job.model_fields), exclude_unset=True)
    origins = {key: file for key, file in loaded.origins.items() if key[0] in Job.model_fields}
    origins |= {key[1:]: file for key, file in loaded.origins.items() if key[0] == "spec"}
    for number, one in enumerate(chosen):
        try:
            yield _point(loaded, sweep, one, copy.deepcopy(sweep.spec) | common, dict(origins))
        except SpecError as error:
            yield SpecError(*(of_point(problem, number, one) for problem in error.problems))


def _point(loaded: LoadedJob, sweep: Sweep, one: Assignment, raw: dict[str, Any], origins: dict[Key, str]) -> LoadedJob:
    for text, value in one.items():
        where = next(
            (loaded.origins[key] for key in (("over", text), ("points",)) if key in loaded.origins), loaded.file
        )
        set_key(raw, origins, text, value, where)
    job = validate(KINDS[raw["kind"]], raw, loaded.file, origins)
    assert isinstance(job, Work)
    point = replace(loaded, job=job, origins=origins)
    *before, (_, resources) = job.jobs
    if any(job.array_of(stage) for stage in range(len(job.jobs))):
        raise SpecError(point.problem("kind", f"{raw['kind']} is job arrays itself; a point is one job"))
    if before and not (isinstance(job, Tuned) and [name for name, _ in before] == ["prepare"]):
        names = ", ".join(name for name, _ in job.jobs)
        raise SpecError(
            point.problem("stages", f"it is {len(job.jobs)} jobs ({names}); a point is one: leave one stage")
        )
    if resources != sweep.resources:
        said = "has resources of its own, and all points of a job array have the same; write them in the sweep"
        raise SpecError(point.problem("stages[0].resources", said))
    return point


def _check_keys(loaded: LoadedJob, sweep: Sweep, chosen: list[Assignment]) -> None:
    keys = dict.fromkeys(key for one in chosen for key in one)
    wrong = {text: parse_key(text)[:1] for text in keys}
    problems = []
    for text, first in wrong.items():
        place = "over" if sweep.over else "points"
        if not first or first[0] in ("kind", "extends"):
            said = f"{text!r} is no key that can differ; write a key of the spec, e.g. seed"
        elif first[0] in Job.model_fields:
            said = f"{first[0]} is that of the whole job array; write it once in the sweep, or submit two sweeps"
            if first[0] == "env":
                said += f"; of a command vary a word: {place}.command.N"
        else:
            continue
        where = origin_of(loaded.origins, (place, text), loaded.file)
        problems.append(Problem(where, f"{place}.{text}", said))
    if problems:
        raise SpecError(*problems)


def of_point(problem: Problem, number: int, one: Assignment) -> Problem:
    """The same, said of a point of a sweep."""
    return replace(problem, key=f"point {number} ({show_point(one)}): {problem.key}")
