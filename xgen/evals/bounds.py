"""Probabilities behind the statistics: of a mean with random weights on its samples, and of Student's t."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_BISECTIONS = 32
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)


def upper_bound(values: Floats, counts: Floats, tail: Floats) -> Floats:
    """Gaffke's bound on means of scores up to 1: `values` [K] seen `counts` [..., K] times, `tail` [...] below 0.5.

    The bound is the quantile of sum(D x) where D is Dirichlet with the counts, one more of them at 1. The tail is the
    saddlepoint's (Lugannani and Rice 1980): of right and wrong answers between 0.96 of the true one and all of it.
    """
    values, counts = _with_best(values, counts)
    shape = np.broadcast_shapes(counts.shape[:-1], tail.shape)
    low, high = np.full(shape, -20.0), np.full(shape, math.log(60.0))  # logarithm of the tilt
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        beyond = _tail(values, counts, np.exp(middle)) > tail
        low, high = np.where(beyond, middle, low), np.where(beyond, high, middle)
    bound = _tilted(values, counts, np.exp(high))
    return np.where((counts * (values < 1)).sum(-1) > 0, bound, 1.0)


def chance(values: Floats, counts: Floats, at: float) -> float:
    """The tail for which the bound is `at`: below 1, above the mean."""
    values, counts = _with_best(values, counts)
    if at <= float(values @ counts) / float(counts.sum()):
        return 0.5
    low, high = np.array(-20.0), np.array(math.log(60.0))
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if _tilted(values, counts, np.exp(middle)) < at else (low, middle)
    return float(_tail(values, counts, np.exp(high)))


def _with_best(values: Floats, counts: Floats) -> tuple[Floats, Floats]:
    return np.append(values, 1.0), np.concatenate((counts, np.ones((*counts.shape[:-1], 1))), axis=-1)


def _tilted(values: Floats, counts: Floats, tilt: Floats) -> Floats:
    """The mean with weights tilted to large values: 0 is the plain mean, infinity the largest value."""
    weight = counts / ((1 - values) + values * np.exp(-tilt)[..., None])
    return np.asarray((weight * values).sum(-1) / weight.sum(-1))


def _tail(values: Floats, counts: Floats, tilt: Floats) -> Floats:
    """P(sum(D x) > m), m the tilted mean."""
    mean = _tilted(values, counts, tilt)
    shrink = np.exp(-tilt)
    below = (1 - mean) + mean * shrink
    ratio = ((1 - values) + values * shrink[..., None]) / below[..., None]
    root = np.sqrt(np.maximum(2 * (counts * np.log(ratio)).sum(-1), 0.0))
    spread = np.sqrt((counts * ((values - mean[..., None]) / ratio) ** 2).sum(-1))
    with np.errstate(divide="ignore", invalid="ignore"):
        density = np.exp(-(root**2) / 2) / math.sqrt(2 * math.pi)
        tail = _normal_tail(root) + density * (below / ((1 - shrink) * spread) - 1 / root)
    return np.where(root > 1e-4, tail, 0.5)


def _normal_tail(x: Floats) -> Floats:
    return np.array([0.5 * math.erfc(value / math.sqrt(2)) for value in x.ravel().tolist()]).reshape(x.shape)


@lru_cache
def t_quantile(tail: float, freedom: float) -> float:
    """Student's t that is exceeded with the probability `tail`, below 0.5."""
    low, high = 0.0, math.pi / 2  # atan(t / sqrt(freedom))
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if t_tail(middle, freedom) > tail else (low, middle)
    return math.sqrt(freedom) * math.tan(high)


def t_tail(angle: float, freedom: float) -> float:
    """P(T > sqrt(freedom) tan(angle)): the density in that angle is a power of its cosine."""
    width = min(math.pi / 2 - angle, 12 / math.sqrt(freedom))
    at = angle + width * (_NODES + 1) / 2
    scale = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - math.log(math.pi) / 2
    return float(np.exp(scale + (freedom - 1) * np.log(np.cos(at))) @ _WEIGHTS) * width / 2
