"""GPU-hours that a submission asks for: by its plan where work has one, else by its time limits."""

from __future__ import annotations

from dataclasses import dataclass

from xgen.plan.numbers import plan
from xgen.spec import Profile, Work


@dataclass(frozen=True)
class Asked:
    gpu_hours: float
    by_limit: float  # of them: of jobs that no plan speaks of, once to the end of their time limit


def asked(job: Work, profile: Profile) -> Asked:
    """Of all its jobs. What is restarted, or slower than its plan, takes more."""
    planned = by_limit = 0.0
    for stage, (_, resources) in enumerate(job.jobs):
        if not (gpus := resources.nodes * resources.gpus_per_node):
            continue
        numbers = plan(job, profile, stage)
        if hours := numbers.gpu_hours * numbers.num_runs:
            planned += hours
            continue
        array = job.array_of(stage)
        by_limit += gpus * resources.time / 3600 * (array.shards if array else 1)
    return Asked(planned + by_limit, by_limit)
