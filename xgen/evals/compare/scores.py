"""Scores of two against each other: paired where both have read the same samples, with a word about each."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from xgen.evals.measures import AVERAGE, FALLING, RISING, Measure, Samples, Stratum
from xgen.evals.protocol import SuiteName
from xgen.evals.stats import LEVEL, Difference, Interval, average_difference, holm, paired_difference
from xgen.spec.units import format_length

Verdict = Literal["better", "worse", "no real difference", "not compared"]


_DIGEST = re.compile(r"^.* (?=\([0-9a-f]+\)$)")  # what stands before it, the name of the text


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)


class Mean(_Frozen):
    """A mean and its interval; None where one loss tells nothing of others."""

    mean: float
    low: float | None
    high: float | None
    count: int

    @classmethod
    def of(cls, interval: Interval, count: int) -> Mean:
        known = abs(interval.low) != float("inf")
        low, high = (interval.low, interval.high) if known else (None, None)
        return cls(mean=interval.mean, low=low, high=high, count=count)


class Test(_Frozen):
    """The other's minus the first's. `adjusted`: by Holm over the family of `family` tests."""

    mean: float
    low: float
    high: float
    p: float
    adjusted: float
    family: int


class ScoreDifference(_Frozen):
    """`paired`: samples that both have read; 0 where the difference is one of other samples. `why` not, or not
    compared."""

    suite: SuiteName
    task: str
    length: int
    first: Mean
    other: Mean
    paired: int
    test: Test | None
    verdict: Verdict
    why: str = ""

    @property
    def key(self) -> str:
        return f"{self.suite}/{self.task}/{self.length}"


@dataclass(frozen=True)
class _Pair:
    first: Measure
    other: Measure
    paired: int
    difference: Difference | None
    why: str


def score_differences(
    first: Mapping[str, Measure],
    other: Mapping[str, Measure],
    keys: Sequence[str],
    level: float = LEVEL,
    why_other: Callable[[SuiteName], str] = lambda _: "their samples differ",
) -> list[ScoreDifference]:
    """Of those keys that both have, one family of tests. `why_other` tells of a suite why its samples are others."""
    pairs = [_compare(first[key], other[key], level, why_other) for key in keys if key in first and key in other]
    adjusted = iter(holm([pair.difference.p for pair in pairs if pair.difference]))
    family = sum(pair.difference is not None for pair in pairs)
    return [_told(pair, next(adjusted) if pair.difference else 1.0, family, level) for pair in pairs]


def in_short(measure: Measure) -> bool:
    """Whether it stands for its suite; the other ones, RULER's single tasks, are a family of their own."""
    return measure.suite != "ruler" or measure.task in (AVERAGE, RISING, FALLING)


def verdict_of(mean: float, adjusted: float, level: float, less_is_better: bool = False) -> Verdict:
    """A difference is real where noise alone would rarely make it in any of the family's tests."""
    if adjusted > 1 - level or not mean:
        return "no real difference"
    return "better" if (mean > 0) is not less_is_better else "worse"


def _compare(first: Measure, other: Measure, level: float, why_other: Callable[[SuiteName], str]) -> _Pair:
    if first.over != other.over:
        lengths = (", ".join(map(format_length, measure.over)) for measure in (first, other))
        return _Pair(first, other, 0, None, f"they are over other lengths: {', and '.join(lengths)}")
    names = [{stratum.name: stratum for stratum in measure.strata} for measure in (first, other)]
    if names[0].keys() != names[1].keys():
        differ = sorted(names[0].keys() ^ names[1].keys())
        return _Pair(first, other, 0, None, f"only one of them has {', '.join(differ)}")
    both = [(names[0][name], names[1][name]) for name in names[0]]
    same = [_same(ours.samples, theirs.samples) for ours, theirs in both]
    unpaired = (pair for pair, keys in zip(both, same, strict=True) if not keys)
    if texts := next((said for ours, theirs in unpaired if (said := _other_texts(ours, theirs))), ""):
        return _Pair(first, other, 0, None, texts)
    number = sum(map(len, same))
    left_out = sum(len(o.samples.keys() & t.samples.keys()) for o, t in both) - number
    why = f"{left_out} samples differ: {why_other(first.suite)}" if left_out else ""
    if not first.bounded:
        if len(same[0]) < 2:
            return _Pair(first, other, 0, None, why or "fewer than two documents are the same")
        a, b = _scores(both[0], same[0])
        return _Pair(first, other, number, paired_difference(b, a, level, bounded=False), why)
    strata = [(*_scores(pair, keys)[::-1], bool(keys)) for pair, keys in zip(both, same, strict=True)]
    difference = average_difference(strata, [ours.weight for ours, _ in both], level)
    return _Pair(first, other, number, difference, why)


def _same(ours: Samples, theirs: Samples) -> list[tuple[int, float | None]]:
    return [key for key, sample in ours.items() if key in theirs and theirs[key].digest == sample.digest]


def _scores(pair: tuple[Stratum, Stratum], keys: Sequence[tuple[int, float | None]]) -> tuple[list[float], list[float]]:
    """Of the same samples, or where there are none of all."""
    ours, theirs = (stratum.samples for stratum in pair)
    if keys:
        return [ours[key].score for key in keys], [theirs[key].score for key in keys]
    return [sample.score for sample in ours.values()], [sample.score for sample in theirs.values()]


def _other_texts(first: Stratum, other: Stratum) -> str:
    """Scores on another text are of another task. The same text may lie in two places: its digest counts."""
    ours, theirs = ({sample.source for sample in stratum.samples.values()} for stratum in (first, other))
    if {_DIGEST.sub("", source) for source in ours} == {_DIGEST.sub("", source) for source in theirs}:
        return ""
    said = (" and ".join(sorted(names - {""})) or "none" for names in (ours, theirs))
    return "their texts differ: " + ", and ".join(said)


def _told(pair: _Pair, adjusted: float, family: int, level: float) -> ScoreDifference:
    found = pair.difference
    test = None
    verdict: Verdict = "not compared"
    if found:
        test = Test(mean=found.mean, low=found.low, high=found.high, p=found.p, adjusted=adjusted, family=family)
        verdict = verdict_of(found.mean, adjusted, level, less_is_better=not pair.first.bounded)
    return ScoreDifference(
        suite=pair.first.suite, task=pair.first.task, length=pair.first.length,
        first=Mean.of(pair.first.interval(level), pair.first.count),
        other=Mean.of(pair.other.interval(level), pair.other.count),
        paired=pair.paired, test=test, verdict=verdict, why=pair.why,
    )  # fmt: skip
