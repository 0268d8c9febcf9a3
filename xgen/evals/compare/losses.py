"""Two trainings by their losses: at equal steps, at equal tokens, and how soon one is where the other ends."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xgen.evals.compare.curves import Curve, Floats
from xgen.evals.stats import LEVEL, Difference, series_difference

_SHARE, _LEAST, _MOST = 0.1, 32, 4000  # of what both have, in points: the window at the end over which losses are meant
_TOO_FEW = 8


@dataclass(frozen=True)
class LossDifference:
    """Means over the window that ends at `at`, steps or tokens; `difference` is the other's minus the first's."""

    at: int
    window: int
    first: float
    other: float
    difference: Difference


def at_equal_steps(first: Curve, other: Curve, level: float = LEVEL) -> LossDifference | None:
    """None where they have too few steps in common."""
    common, ours, theirs = np.intersect1d(first.steps, other.steps, assume_unique=True, return_indices=True)
    return _at_end(common.astype(np.float64), first.losses[ours], other.losses[theirs], level)


def at_equal_tokens(first: Curve, other: Curve, level: float = LEVEL) -> LossDifference | None:
    """Over equal parts of the tokens, as wide as the larger batch. None where they have too few in common."""
    if not (len(first) and len(other)):
        return None
    end = min(first.tokens[-1], other.tokens[-1])
    width = max(_batch(first, end), _batch(other, end))
    number = int(end / width + 1e-9)
    ours, theirs = _in_parts(first, width, number), _in_parts(other, width, number)
    known = np.isfinite(ours) & np.isfinite(theirs)
    return _at_end(np.asarray(width * (np.flatnonzero(known) + 1), dtype=np.float64), ours[known], theirs[known], level)


def same_batches(first: Curve, other: Curve) -> bool:
    """Whether equal steps are equal tokens."""
    _, ours, theirs = np.intersect1d(first.steps, other.steps, assume_unique=True, return_indices=True)
    return bool(np.array_equal(first.tokens[ours], other.tokens[theirs]))


def tokens_until(curve: Curve, loss: float) -> int | None:
    """Tokens after which the smoothed loss is at that of another's end; None if it never is."""
    smooth = smoothed(curve, window_of(len(curve)))
    reached = np.flatnonzero(smooth <= loss)
    return int(curve.tokens[reached[0]]) if len(reached) else None


def final_loss(curve: Curve) -> float | None:
    """Mean over the window at the end; None where there is no step."""
    return float(curve.losses[-window_of(len(curve)) :].mean()) if len(curve) else None


def window_of(number: int) -> int:
    """Points at the end that are meant; all of a few."""
    return min(number, max(_LEAST, min(_MOST, int(_SHARE * number))))


def smoothed(curve: Curve, window: int) -> Floats:
    """Mean of each step and those before it, `window` of them; nan for those with fewer."""
    if len(curve) < window or not window:
        return np.full(len(curve), np.nan)
    sums = np.cumsum(np.append(0.0, curve.losses))
    return np.append(np.full(window - 1, np.nan), (sums[window:] - sums[:-window]) / window)


def _at_end(places: Floats, ours: Floats, theirs: Floats, level: float) -> LossDifference | None:
    if len(places) < _TOO_FEW:
        return None
    window = window_of(len(places))
    ours, theirs = ours[-window:], theirs[-window:]
    difference = series_difference(theirs, ours, level)
    return LossDifference(round(float(places[-1])), window, float(ours.mean()), float(theirs.mean()), difference)


def _batch(curve: Curve, end: float) -> float:
    """Tokens of the largest step up to there."""
    steps = np.diff(np.append(0.0, curve.tokens[curve.tokens <= end])) / np.diff(
        np.append(0, curve.steps[curve.tokens <= end])
    )
    return float(steps.max()) if len(steps) else float(end)


def _in_parts(curve: Curve, width: float, number: int) -> Floats:
    """Mean loss of the steps that end in each part; nan where none does."""
    part = np.ceil(curve.tokens / width - 1e-9).astype(np.int64) - 1
    inside = (part >= 0) & (part < number)
    sums = np.bincount(part[inside], weights=curve.losses[inside], minlength=number)
    counts = np.bincount(part[inside], minlength=number)
    with np.errstate(invalid="ignore"):
        return np.asarray(sums / counts)
