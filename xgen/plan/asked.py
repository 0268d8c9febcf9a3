"""GPU-hours that a submission asks for: by its plan where work has one, else by its time limits."""

from __future__ import annotations

from dataclasses import dataclass

from xgen.plan.numbers import plan
from xgen.spec import Profile, Trained, Work


@dataclass(frozen=True)
class Asked:
    gpu_hours: float
    by_limit: float  # of them: of jobs that no plan speaks of, once to the end of their time limit


def asked(job: Work, profile: Profile, after: int = 0) -> Asked:
    """Of all its jobs; of a training what is left `after` a step. What is restarted, or slower than its plan, takes
    more."""
    planned = by_limit = 0.0
    for stage, (_, resources) in enumerate(job.jobs):
        if not (gpus := resources.nodes * resources.gpus_per_node):
            continue
        numbers = plan(job, profile, stage)
        if hours := numbers.gpu_hours * numbers.num_runs:
            planned += hours * _left(job, stage, after)
            continue
        array = job.array_of(stage)
        by_limit += gpus * resources.time / 3600 * (array.shards if array else 1)
    return Asked(planned + by_limit, by_limit)


def _left(job: Work, stage: int, after: int) -> float:
    """The part of a stage's steps that come after a step."""
    if not after or not isinstance(job, Trained) or not job.trains(stage):
        return 1.0
    place = job.place_of(stage)
    return min(1.0, max(0.0, (place.last_step - after) / place.stage.num_steps))
