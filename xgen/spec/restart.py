"""When a run is tried again, by which means, how soon, and when no more."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from xgen.spec.base import Count, Number, Strict
from xgen.spec.units import Duration, format_duration

RestartBy = Literal["requeue", "successor"]


class Backoff(Strict):
    """How long a failed run waits. The first failure in a row is tried again at once: its cause may be gone."""

    first: Duration = Field(default=30, description="before the attempt after the second failure in a row; then double")
    most: Duration = Field(default=600, description="however many there were")

    @model_validator(mode="after")
    def _grows(self) -> Self:
        if self.first > self.most:
            first, most = format_duration(self.first), format_duration(self.most)
            raise ValueError(f"first: {first} is longer than most: {most}; write most: {first} or more")
        return self


class Restart(Strict):
    """When a run is tried again after a failure. Preemption and time limits are no failures."""

    max_failures: Count = Field(
        default=3, ge=1, description="stop after this many failures in a row without a new durable checkpoint"
    )
    by: RestartBy | None = Field(
        default=None,
        description="requeue: the same job, with its age in the queue; successor: a new one, which starts sooner where "
        "the cluster is free; default: the profile's restart_by",
    )
    backoff: Backoff = Field(default_factory=Backoff)
    max_gpu_hours: Number | None = Field(
        default=None, gt=0, description="of all attempts; no attempt begins once they are used up; default: no limit"
    )
    guard: bool = Field(
        default=False,
        description="a small job that waits for the end of the run's, and settles one that ended without a decision",
    )
