"""Quality bands: equal shares of a corpus by its score, lowest first.

Scores of any part of a corpus are counted in fixed bins, and counts are added: the bands do not depend on how the
corpus was cut. What is counted may be documents, bytes or tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_STEP, _LIMIT = 1 / 64, 32.0  # of log-odds
NUM_BINS = int(2 * _LIMIT / _STEP)


def count_scores(log_odds: NDArray[np.floating], weights: NDArray[np.integer] | None = None) -> NDArray[np.int64]:
    """[NUM_BINS] what has a score in each bin: documents, or their `weights`. Of several parts: add them."""
    out = np.zeros(NUM_BINS, np.int64)
    np.add.at(out, _bin(log_odds), 1 if weights is None else weights.astype(np.int64))
    return out


@dataclass(frozen=True)
class Bands:
    """Band i holds what is at or above edges[i - 1] and below edges[i]; there are len(edges) + 1."""

    edges: tuple[float, ...]

    @classmethod
    def fit(cls, counts: NDArray[np.int64], num_bands: int = 10) -> Bands:
        """Edges at bins' bounds. Where many documents score alike a band may be empty, and another too large."""
        assert counts.shape == (NUM_BINS,) and counts.sum() > 0
        reached = np.cumsum(counts)
        wanted = np.arange(1, num_bands) * int(reached[-1])
        places = np.searchsorted(reached * num_bands, wanted, side="left") + 1
        return cls(tuple(float(place * _STEP - _LIMIT) for place in places))

    def __call__(self, log_odds: NDArray[np.floating]) -> NDArray[np.uint8]:
        return np.searchsorted(np.array(self.edges), log_odds, side="right").astype(np.uint8)


def _bin(log_odds: NDArray[np.floating]) -> NDArray[np.int64]:
    places = np.floor((log_odds.astype(np.float64) + _LIMIT) / _STEP)
    return np.clip(places, 0, NUM_BINS - 1).astype(np.int64)
