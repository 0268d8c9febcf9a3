"""Intervals of means and of their differences, and how likely a difference is by chance.

Scores from 0 to 1 get Gaffke's bound: random weights on all samples, and one such weight on the best (for the lower
end: the worst) score that there is. Of right and wrong answers that is the interval of Clopper and Pearson, and for
their paired difference the exact test of McNemar; it also holds for shares, near 0 and 1, and for few samples (Gaffke
2005; Learned-Miller and Thomas, arXiv 1905.06208). For an average of tasks, and a difference on other samples, the
samples of each are taken about their own mean, so that what tasks differ by does not count as noise; that step is ours
and holds in simulation (tests). Losses, which have no bound, get Student's t. A p-value is one minus the level at which
the interval ends at no difference, so that the two never contradict each other. Nothing is drawn at random.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from xgen.evals.bounds import Floats, chance, t_quantile, t_tail, upper_bound

LEVEL = 0.95
_COSINES = 8  # more would narrow the interval by 15% at most


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and where the true one lies; infinite ends: one loss tells nothing of others."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """The first mean minus the second, and the probability of so much or more where there is none."""

    mean: float
    low: float
    high: float
    p: float


def mean_interval(scores: ArrayLike, level: float = LEVEL, *, bounded: bool = True) -> Interval:
    """Of the mean of `scores` [n], which are from 0 to 1 unless `bounded` is false.

    Raises ValueError when there are none, or one is out of bounds.
    """
    if bounded:
        return _Total.of([_part(scores)]).interval(level)
    return _Student.of(_flat(scores)).interval(level)


def average_interval(
    strata: Sequence[ArrayLike], weights: Sequence[float] | None = None, level: float = LEVEL
) -> Interval:
    """Of the weighted average of the means of `strata`, each of which has samples of its own, such as RULER's tasks.

    The strata are those that are meant: it is the error of other samples, not that of other tasks.
    """
    return _Total.of(_weighted([[_part(scores)] for scores in strata], weights)).interval(level)


def paired_difference(a: ArrayLike, b: ArrayLike, level: float = LEVEL, *, bounded: bool = True) -> Difference:
    """Of the means of two on the same samples: `a[i]` and `b[i]` are of one."""
    if bounded:
        return _Total.of([_pairs(a, b)]).difference(level)
    return _Student.of(_flat(a) - _flat(b)).difference(level)


def unpaired_difference(a: ArrayLike, b: ArrayLike, level: float = LEVEL, *, bounded: bool = True) -> Difference:
    """Of the means of two on other samples; of losses Welch's."""
    if bounded:
        return _Total.of([_part(a), _part(b).minus]).difference(level)
    return _Student.welch(_Student.of(_flat(a)), _Student.of(_flat(b))).difference(level)


def average_difference(
    strata: Sequence[tuple[ArrayLike, ArrayLike, bool]],
    weights: Sequence[float] | None = None,
    level: float = LEVEL,
) -> Difference:
    """Of the weighted averages over strata, each given as the scores of both and whether they are paired."""
    parts = [[_pairs(a, b)] if paired else [_part(a), _part(b).minus] for a, b, paired in strata]
    return _Total.of(_weighted(parts, weights)).difference(level)


def published_difference(
    strata: Sequence[ArrayLike], published: float, weights: Sequence[float] | None = None, level: float = LEVEL
) -> Difference:
    """Of the weighted average over strata from a score, 0 to 1, of which nothing but the number is known.

    Its error is taken as that of right and wrong answers to as many samples as ours are: no scores between 0 and 1 with
    that mean vary more. Another harness, prompt or choice of samples may differ by more than that; no number says.
    """
    number = sum(np.size(scores) for scores in strata)
    theirs = _Part(np.array([0.0, 1.0]), number * np.array([1 - published, published]), 0.0, 1.0)
    return _Total.of([*_weighted([[_part(scores)] for scores in strata], weights), theirs.minus]).difference(level)


def series_difference(a: ArrayLike, b: ArrayLike, level: float = LEVEL) -> Difference:
    """Of the means of two series at the same steps, as of training losses, whose neighbours are alike.

    The variance of the mean is that of the eight slowest cosines in a - b, with as many degrees of freedom (equal-
    weighted cosines: Lazarus et al. 2018, "HAR Inference"); fewer where neighbours are so alike that the eighth is not
    slow against them. It holds for series of 20 correlation lengths or more. A trend makes it wide.
    Raises ValueError for fewer than 8 steps.
    """
    series = _flat(a) - _flat(b)
    if (length := len(series)) < 8:
        raise ValueError(f"{length} steps are too few to tell noise from a difference; give 8 or more")
    centred = series - series.mean()
    spread = float(centred @ centred)
    alike = max(0.0, float(centred[1:] @ centred[:-1]) / spread) if spread else 0.0
    number = max(2, int(min(_COSINES, length * (1 - alike) / (4 * math.pi))))
    angles = np.pi * np.outer(np.arange(1, number + 1), np.arange(length) + 0.5) / length
    variance = 2 / length * float(np.mean((np.cos(angles) @ centred) ** 2))
    return _Student(float(series.mean()), math.sqrt(variance / length), number).difference(level)


def holm(ps: Sequence[float]) -> list[float]:
    """p-values of tests of one family, adjusted so that any false finding among them has the level (Holm 1979)."""
    order = np.argsort(ps, kind="stable")
    adjusted = np.empty(len(ps))
    steps = np.asarray(ps, dtype=np.float64)[order] * np.arange(len(ps), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return [float(p) for p in adjusted]


@dataclass(frozen=True)
class _Part:
    """Scores by value [K], how often each was seen [K], between which two they all are, what their mean counts."""

    values: Floats
    counts: Floats
    lowest: float
    highest: float
    weight: float = 1.0

    @property
    def mean(self) -> float:
        return float(self.values @ self.counts / self.counts.sum())

    @property
    def minus(self) -> _Part:
        return replace(self, values=-self.values, lowest=-self.highest, highest=-self.lowest)


@dataclass(frozen=True)
class _Total:
    """A weighted sum of means: how far each sample pulls it [K], how often, and one of the worst or the best would.

    `lowest` and `highest`: what it can be.
    """

    mean: float
    pulls: Floats
    counts: Floats
    down: float
    up: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, parts: Sequence[_Part]) -> _Total:
        number = sum(float(part.counts.sum()) for part in parts)
        pulls, counts, down, up = [], [], 0.0, 0.0
        for part in parts:
            count = float(part.counts.sum())
            own = part.mean
            # Deviations from a mean of their own are too small; the one sample of the bound makes up for one such mean.
            scale = number * part.weight / count / math.sqrt(1 - (1 - 1 / len(parts)) / count)
            down, up = max(down, scale * (own - part.lowest)), max(up, scale * (part.highest - own))
            if count <= 1 < len(parts):  # one sample deviates from itself by nothing: as much as there can be
                reach = number * part.weight * (part.highest - part.lowest) / 2
                pulls.append(np.array([-reach, reach]))
                counts.append(np.array([0.5, 0.5]))
                down, up = max(down, reach), max(up, reach)
            else:
                pulls.append(scale * (part.values - own))
                counts.append(part.counts)
        mean = math.fsum(part.weight * part.mean for part in parts)
        lowest = math.fsum(part.weight * part.lowest for part in parts)
        highest = math.fsum(part.weight * part.highest for part in parts)
        return cls(mean, np.concatenate(pulls), np.concatenate(counts), down, up, lowest, highest)

    def interval(self, level: float) -> Interval:
        tail = np.array((1 - level) / 2)
        below = self.down * float(upper_bound(-self.pulls / self.down, self.counts, tail)) if self.down else 0.0
        above = self.up * float(upper_bound(self.pulls / self.up, self.counts, tail)) if self.up else 0.0
        return Interval(self.mean, max(self.lowest, self.mean - below), min(self.highest, self.mean + above))

    def difference(self, level: float) -> Difference:
        interval = self.interval(level)
        reach, pulls = (self.down, -self.pulls) if self.mean > 0 else (self.up, self.pulls)
        p = min(1.0, 2 * chance(pulls / reach, self.counts, abs(self.mean) / reach)) if self.mean else 1.0
        return Difference(self.mean, interval.low, interval.high, p)


@dataclass(frozen=True)
class _Student:
    """A mean of values without bounds, its standard error and the degrees of freedom of that."""

    mean: float
    error: float
    freedom: float

    @classmethod
    def of(cls, values: Floats) -> _Student:
        if len(values) == 1:
            return cls(float(values[0]), math.inf, 1)
        return cls(float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values)), len(values) - 1)

    @classmethod
    def welch(cls, a: _Student, b: _Student) -> _Student:
        error = math.hypot(a.error, b.error)
        shares = [(one.error / error) ** 4 / one.freedom for one in (a, b)] if 0 < error < math.inf else [1.0]
        return cls(a.mean - b.mean, error, 1 / sum(shares))

    def interval(self, level: float) -> Interval:
        reach = self.error * t_quantile((1 - level) / 2, self.freedom)
        return Interval(self.mean, self.mean - reach, self.mean + reach)

    def difference(self, level: float) -> Difference:
        interval = self.interval(level)
        angle = math.atan2(abs(self.mean), self.error * math.sqrt(self.freedom)) if self.mean else 0.0
        return Difference(self.mean, interval.low, interval.high, min(1.0, 2 * t_tail(angle, self.freedom)))


def _flat(values: ArrayLike) -> Floats:
    flat = np.asarray(values, dtype=np.float64)
    if not flat.size:
        raise ValueError("no scores; a mean needs one")
    return flat


def _part(scores: ArrayLike) -> _Part:
    flat = _flat(scores)
    if flat.min() < 0 or flat.max() > 1:
        raise ValueError(f"scores from {flat.min():g} to {flat.max():g}; write shares from 0 to 1, or bounded=False")
    values, counts = np.unique(flat, return_counts=True)
    return _Part(values, counts.astype(np.float64), 0.0, 1.0)


def _pairs(a: ArrayLike, b: ArrayLike) -> _Part:
    _part(a), _part(b)
    values, counts = np.unique((_flat(a) - _flat(b)).round(12), return_counts=True)
    return _Part(values, counts.astype(np.float64), -1.0, 1.0)


def _weighted(strata: Sequence[Sequence[_Part]], weights: Sequence[float] | None) -> list[_Part]:
    shares = [1.0] * len(strata) if weights is None else weights
    return [
        replace(part, weight=share / sum(shares)) for parts, share in zip(strata, shares, strict=True) for part in parts
    ]
