"""Scores beside published ones, of which nothing but the number is known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from xgen.evals.compare.scores import Test, Verdict, verdict_of
from xgen.evals.measures import Measure
from xgen.evals.published import Row
from xgen.evals.ruler.tasks import TASKS
from xgen.evals.stats import LEVEL, holm, published_difference


class PublishedDifference(BaseModel):
    """Of a run's score minus the published one; its error is that of as many right and wrong answers as are ours."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    run: str
    model: str
    key: str
    ours: float
    published: float
    test: Test
    verdict: Verdict  # of ours: what the numbers of samples say, whatever else was different
    source: str
    quality: str


def published_differences(
    name: str, found: Mapping[str, Measure], rows: Sequence[Row], level: float = LEVEL
) -> Iterator[PublishedDifference]:
    """Of RULER's averages over all its tasks at a length, and of tasks; all of one run are one family of tests."""
    pairs = [
        (row, measure, row.scores[key])
        for row in rows
        for key, measure in found.items()
        if key in row.scores and (measure.suite == "harness" or _is_whole(measure))
    ]
    differences = [
        published_difference(
            [[sample.score for sample in stratum.samples.values()] for stratum in measure.strata],
            published,
            [stratum.weight for stratum in measure.strata],
            level,
        )
        for _, measure, published in pairs
    ]
    adjusted = holm([difference.p for difference in differences])
    for (row, measure, published), found_, p in zip(pairs, differences, adjusted, strict=True):
        test = Test(mean=found_.mean, low=found_.low, high=found_.high, p=found_.p, adjusted=p, family=len(differences))
        yield PublishedDifference(
            run=name, model=row.model, key=measure.key, ours=measure.interval(level).mean, published=published,
            test=test, verdict=verdict_of(found_.mean, p, level), source=row.source.text, quality=row.source.quality,
        )  # fmt: skip


def _is_whole(measure: Measure) -> bool:
    """Whether it is at one length over the 13 tasks that the published ones are over."""
    return bool(measure.length) and {stratum.name for stratum in measure.strata} == TASKS.keys()
