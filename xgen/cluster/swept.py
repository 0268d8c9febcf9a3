"""The points of a sweep: their specs, where the shards find them (points/N.yaml in the run directory), and results."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from xgen.cluster.status import ShardsStatus
from xgen.runs import RunDir
from xgen.runs.points import read_values, select, why_ended
from xgen.runs.shards import why_given_up
from xgen.spec import Job, Sweep, dump
from xgen.spec.points import Assignment, assignments, jobs_of


def point_files(run: RunDir, job: Job) -> dict[Path, str]:
    """Text by file; none of what is no sweep. Raises SpecError."""
    if not isinstance(job, Sweep):
        return {}
    return {run.point_file(number): dump(one) for number, one in enumerate(jobs_of(job))}


PointState = Literal["waiting", "running", "finished", "stopped", "given up"]


@dataclass(frozen=True)
class Result:
    """A point in the table. `value` is None before there is one, and NaN for what is not finite."""

    point: int
    settings: Assignment
    state: PointState
    step: int
    value: float | None
    why: str
    path: Path


def results(
    run: RunDir, sweep: Sweep, shards: ShardsStatus, metric: str | None, at: str | int, highest: bool
) -> list[Result]:
    """Of every point, the best first; those that were stopped early are behind those that went on, and without a value
    comes last. Raises OSError."""
    running, finished, given_up = set(shards.running), set(shards.finished), set(shards.given_up)
    found = []
    for number, one in enumerate(assignments(sweep)):
        shard = run.shard("", number)
        why = ""
        state: PointState = "waiting"
        if number in given_up:
            state, why = "given up", why_given_up(run, "", number)
        elif number in finished:
            why = why_ended(shard)
            state = "stopped" if why else "finished"
        elif number in running:
            state = "running"
        values = read_values(shard, metric, newest=at == "last") if metric else []
        step, value = select(values, at, highest) or (values[-1][0] if values else 0, None)
        found.append(Result(number, one, state, step, value, why, shard.path))
    return sorted(found, key=lambda one: _order(one, highest))


def _order(one: Result, highest: bool) -> tuple[bool, int, float, int]:
    value = one.value
    worth = math.inf if value is None or not math.isfinite(value) else -value if highest else value
    return value is None, {"stopped": 1, "given up": 2}.get(one.state, 0), worth, one.point
