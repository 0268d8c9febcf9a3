"""The kind `sweep`: one spec with many values of some of its keys, each point a shard of one job array."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from xgen.spec.base import Count, Number, Strict
from xgen.spec.job import Array, Job
from xgen.spec.units import Steps

MOST_POINTS = 100_000
Best = Literal["lowest", "highest"]
_Metric = Annotated[
    str,
    Field(
        min_length=1,
        description="loss, validation, validation.DOMAIN, any number of metrics/steps.jsonl; SUITE/TASK/LENGTH of an "
        "evaluation; else a number of result.json, e.g. accuracy.top1",
    ),
]
_Best = Annotated[Best | None, Field(description="which is the best; default: the lowest of a loss")]


class Axis(Strict):
    """The values of one key: a list, or a range that random points are drawn from."""

    choice: list[Any] | None = Field(default=None, min_length=1, description="one of these; a list is the same")
    uniform: tuple[Number, Number] | None = Field(default=None, description="[LEAST, GREATEST]")
    log_uniform: tuple[Number, Number] | None = Field(
        default=None, description="[LEAST, GREATEST], both above 0: as many below 1e-3 as above, of 1e-4 to 1e-2"
    )

    @model_validator(mode="after")
    def _is_one_range(self) -> Self:
        given = [name for name in ("choice", "uniform", "log_uniform") if getattr(self, name) is not None]
        if len(given) != 1:
            said = " and ".join(given) or "nothing"
            raise ValueError(f"{said} given; write a list of values, or one of uniform, log_uniform, choice")
        if self.bounds is not None:
            low, high = self.bounds
            if not low < high:
                raise ValueError(f"{given[0]}: {low:g} is not below {high:g}; write [LEAST, GREATEST]")
            if self.log_uniform and low <= 0:
                raise ValueError(f"log_uniform: {low:g} has no logarithm; write a number above 0, or uniform")
        return self

    @property
    def bounds(self) -> tuple[float, float] | None:
        return self.uniform or self.log_uniform


class Points(Strict):
    """Which of the points: the whole grid, some at random, or those that are listed."""

    random: Count | None = Field(default=None, ge=1, le=MOST_POINTS, description="draw so many; more keep the first")
    seed: Count = Field(default=0, ge=0, description="of what is drawn")
    listed: list[dict[str, Any]] | None = Field(
        default=None, min_length=1, max_length=MOST_POINTS, description="[{KEY: VALUE}]; a list in place of `points`"
    )

    @model_validator(mode="after")
    def _is_one_way(self) -> Self:
        if self.random is not None and self.listed is not None:
            raise ValueError("random and listed are two ways; write one")
        if self.seed and self.random is None:
            raise ValueError("seed draws nothing by itself; write random: NUMBER")
        return self


class Stop(Strict):
    """When a point is stopped early: at a step it is not among the best of those that have come so far (asynchronous
    successive halving, arXiv 1810.05934; with keep: 0.5 this is the median rule)."""

    at: list[Steps] = Field(min_length=1, description="steps at which the points are compared")
    keep: Number = Field(default=0.5, gt=0, lt=1, description="part that goes on")
    least: Count = Field(default=3, ge=2, description="points that have come so far before one is stopped")
    metric: _Metric | None = Field(default=None, description="default: that of the sweep")
    best: _Best = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if sorted(set(self.at)) != self.at or self.at[0] < 1:
            raise ValueError(f"at: {self.at} are not steps in rising order; write e.g. [100, 200]")
        return self


class AtOnce(Strict):
    """How many points run at the same time."""

    at_once: Count = Field(default=0, ge=0, description="0: as many as SLURM lets")


def _short_axis(value: Any) -> Any:
    return {"choice": value} if isinstance(value, list) else value


def _short_points(value: Any) -> Any:
    return {} if value == "grid" else {"listed": value} if isinstance(value, list) else value


class Sweep(Job):
    """Many points of one spec as one job array. What every job has (name, resources, container, …) is the sweep's own,
    by default that of the spec; all points run in the same resources."""

    kind: Literal["sweep"]
    spec: Annotated[dict[str, Any], WithJsonSchema({"type": ["string", "object"]})] = Field(
        description="path of a spec, or a spec that stands here: its work is one job"
    )
    over: dict[str, Annotated[Axis, BeforeValidator(_short_axis)]] = Field(
        default_factory=dict, description="{KEY: VALUES}, keys as in --set, e.g. stages.0.lr.peak: [1e-4, 1e-3]"
    )
    points: Annotated[Points, BeforeValidator(_short_points)] = Field(
        default_factory=Points, description="default: grid, every value with every other"
    )
    metric: _Metric | None = Field(default=None, description="what the table is sorted by; default: loss of a training")
    best: _Best = None
    stop: Stop | None = Field(default=None, description="end the worst points early; default: none")
    array: AtOnce = Field(default_factory=AtOnce)

    @model_validator(mode="after")
    def _keys_fit_together(self) -> Self:
        if self.points.listed is not None and self.over:
            raise ValueError("points: a list has all that differs; write `over` or a list of points, not both")
        if self.points.listed is None and not self.over:
            raise ValueError("over is missing: what differs between the points; write over: {KEY: [VALUE, VALUE]}")
        if self.points.random is None and (drawn := next((key for key, one in self.over.items() if one.bounds), None)):
            raise ValueError(
                f"over.{drawn}: a grid has no end of it; write a list of values, or points: {{random: 20}}"
            )
        if self.num_points > MOST_POINTS:
            raise ValueError(f"over: {self.num_points:,} points; write fewer values, or points: {{random: 40}}")
        for of, metric, best in (("", self.metric, self.best), ("stop.", *self._of_stop)):
            if metric and not best and not is_loss(metric):
                raise ValueError(
                    f"{of}best is missing: is {metric} better when it is high? write best: highest, or lowest"
                )
        return self

    @property
    def _of_stop(self) -> tuple[str | None, Best | None]:
        return (self.stop.metric, self.stop.best) if self.stop else (None, None)

    @property
    def num_points(self) -> int:
        if self.points.listed is not None:
            return len(self.points.listed)
        # A range has no number; in a grid it is refused.
        return self.points.random or math.prod(len(axis.choice or [None]) for axis in self.over.values())

    def array_of(self, stage: int) -> Array | None:
        del stage
        return Array(shards=min(self.num_points, MOST_POINTS), at_once=self.array.at_once)


def is_loss(metric: str) -> bool:
    """Whether the lowest is the best by its name."""
    return metric.partition(".")[0] in ("loss", "validation") or "loss" in metric or "perplexity" in metric
