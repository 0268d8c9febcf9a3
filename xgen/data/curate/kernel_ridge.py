"""Losses from the weights of mixtures: kernel ridge regression on logarithms of shares, and a line on plain ones.

Everything that there is to choose (scale of the logarithm, kind and width of the kernel, penalty) is chosen by the
error of leaving one run out, which costs nothing beside the fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray

_Array = NDArray[np.float64]
_Kind = Literal["smooth", "sharp"]
_SCALES = (1e-4, 1e-3, 1e-2, 1e-1)  # shares below which one more percent counts the same
_WIDTHS = (0.5, 1.0, 2.0, 4.0, 8.0)  # times the median distance
_PENALTIES = np.logspace(-6, 1, 15)
_ROWS = 4096  # predicted at once


@dataclass(frozen=True)
class Linear:
    coefficients: _Array
    intercept: float

    def __call__(self, weights: _Array) -> _Array:
        losses: _Array = weights @ self.coefficients + self.intercept
        return losses


@dataclass(frozen=True)
class Kernel:
    """A mean, and bumps around the runs there were."""

    kind: _Kind
    scale: float
    width: float
    points: _Array  # [runs, domains]: logarithms
    heights: _Array  # [runs]
    mean: float

    def __call__(self, weights: _Array) -> _Array:
        losses = np.empty(len(weights))
        for at in range(0, len(weights), _ROWS):
            distances = _distances(_logarithms(weights[at : at + _ROWS], self.scale), self.points, self.kind)
            losses[at : at + _ROWS] = np.exp(-distances / self.width) @ self.heights + self.mean
        return losses


def fit_linear(weights: _Array, losses: _Array) -> Linear:
    """RegMix's linear regression, with a penalty where that predicts better."""
    columns, mean = weights - weights.mean(axis=0), float(losses.mean())
    left, values, right = np.linalg.svd(columns, full_matrices=False)
    target = left.T @ (losses - mean)
    best, error = np.zeros(weights.shape[1]), np.inf
    for penalty in _PENALTIES:
        shrink = values**2 / (values**2 + penalty)
        leverage = (left**2) @ shrink + 1 / len(losses)
        residuals = (losses - mean - left @ (shrink * target)) / np.maximum(1 - leverage, 1e-9)
        if (found := float((residuals**2).mean())) < error:
            best, error = right.T @ (values / (values**2 + penalty) * target), found
    return Linear(best, mean - float(weights.mean(axis=0) @ best))


def fit_kernel(weights: _Array, losses: _Array) -> Kernel:
    """The kernel, scale, width and penalty of least leave-one-out error."""
    mean = float(losses.mean())
    best: Kernel | None = None
    error = np.inf
    kinds: tuple[_Kind, ...] = ("smooth", "sharp")
    for scale, kind in product(_SCALES, kinds):
        points = _logarithms(weights, scale)
        distances = _distances(points, points, kind)
        median = float(np.median(distances)) or 1.0
        for factor in _WIDTHS:
            values, vectors = np.linalg.eigh(np.exp(-distances / (factor * median)))
            target = vectors.T @ (losses - mean)
            for penalty in _PENALTIES:
                inverse = 1 / (np.maximum(values, 0.0) + penalty)
                heights = vectors @ (inverse * target)
                # Leaving run i out is arithmetic: its height over the i-th of the inverse's diagonal.
                left_out = heights / ((vectors**2) @ inverse)
                if (found := float((left_out**2).mean())) < error:
                    best, error = Kernel(kind, scale, factor * median, points, heights, mean), found
    assert best is not None
    return best


def _logarithms(weights: _Array, scale: float) -> _Array:
    """0 for no share, 1 for all."""
    logarithms: _Array = np.log1p(weights / scale) / np.log1p(1 / scale)
    return logarithms


def _distances(one: _Array, other: _Array, kind: _Kind) -> _Array:
    """[rows of one, rows of other]: squared Euclidean ones, or sums of absolute differences, whose kernel has edges."""
    if kind == "smooth":
        squares = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1) - 2 * one @ other.T
        smooth: _Array = np.maximum(squares, 0.0)
        return smooth
    total = np.zeros((len(one), len(other)))
    for domain in range(one.shape[1]):
        total += np.abs(one[:, domain, None] - other[:, domain])
    return total
