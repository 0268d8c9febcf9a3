"""The rehydration rule of FineWeb2: text whose clusters the filters remove least is the best, and gets more copies.

Documents without any duplicate and those with very many tend to be bad, those in the middle good. Per cluster size s,
r(s) is the share of documents that later filters removed, r that of all documents; the copies rise linearly from 1
where r(s) = r to `max_copies` where r(s) is lowest (huggingface/fineweb-2, misc/rehydration).

`published_rule` does what FineWeb2 did: a moving average over 5 sizes, rounded. Where few documents have a size its
rate is noise, and its lowest rate is the luckiest size's; so tables flip back and forth (2, 3, 2). `estimate` joins
sizes until a bin has `min_count` documents, takes the nearest rates that fall and then rise (unimodal isotonic
regression), and gives more than one copy only where the rate is below r beyond doubt.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from xgen.data.curate.frequency import CopyTable

_Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Removals:
    """By cluster size: documents that were there before the filters and how many of them were removed.

    One document a cluster is counted: copies of one text share its fate, and would pass for evidence that they are not.
    """

    sizes: NDArray[np.int64]  # ascending
    counts: NDArray[np.int64]
    removed: NDArray[np.int64]

    @classmethod
    def count(cls, sizes: NDArray[np.integer], removed: NDArray[np.bool_]) -> Removals:
        """From the cluster size of each document, and whether it was removed."""
        found, index = np.unique(sizes, return_inverse=True)
        counts = np.bincount(index, minlength=len(found))
        gone = np.bincount(index[removed], minlength=len(found))
        return cls(found.astype(np.int64), counts.astype(np.int64), gone.astype(np.int64))

    @classmethod
    def merge(cls, parts: Iterable[Removals]) -> Removals:
        """All that the shards have counted, in any order."""
        every = list(parts)
        sizes = np.concatenate([part.sizes for part in every] or [np.empty(0, np.int64)])
        found, index = np.unique(sizes, return_inverse=True)
        counts, removed = np.zeros(len(found), np.int64), np.zeros(len(found), np.int64)
        np.add.at(counts, index, np.concatenate([part.counts for part in every] or [counts]))
        np.add.at(removed, index, np.concatenate([part.removed for part in every] or [removed]))
        return cls(found, counts, removed)

    @property
    def rate(self) -> float:
        """Of all documents."""
        return int(self.removed.sum()) / max(1, int(self.counts.sum()))


@dataclass(frozen=True)
class Bin:
    """Cluster sizes from `start` up to the next bin's; what is said of their rate, and the copies that follow."""

    start: int
    count: int
    removed: int
    rate: float  # of the unimodal fit
    low: float  # confidence interval of that
    high: float
    copies: int
    least: int  # copies at `high`
    most: int  # copies at `low`


@dataclass(frozen=True)
class Rehydration:
    """A table, and what it rests on."""

    table: CopyTable
    rate: float
    bins: tuple[Bin, ...]
    note: str  # why the table is flat, if it is; else ""

    def num_documents(self, removals: Removals) -> int:
        """Documents after the filters and with copies."""
        kept = removals.counts - removals.removed
        return int((self.table(removals.sizes).astype(np.int64) * kept).sum())


def published_rule(removals: Removals, max_copies: int = 10, window: int = 5) -> CopyTable:
    """FineWeb2's table, as its own code computes it; the last size stands for all that are larger."""
    rates = removals.removed / removals.counts
    copies = _copies(rates, removals.rate, float(rates.min()), max_copies)
    smooth = np.convolve(copies, np.full(window, 1 / window), mode="same")
    edge = window // 2
    smooth[:edge], smooth[len(rates) - edge :] = copies[:edge], copies[len(rates) - edge :]
    return CopyTable.of_runs(removals.sizes.tolist(), np.round(smooth).astype(int).tolist())


def estimate(removals: Removals, max_copies: int = 10, min_count: int = 1000, confidence: float = 0.95) -> Rehydration:
    """The table of a corpus by its own removal rates: it rises with the size, then falls, and never turns again.

    A bin has at least `min_count` documents. The intervals (Wilson's) of all bins hold together with `confidence`
    (Bonferroni): where rates differ by chance alone, everything gets one copy, in 97 of 100 made corpora and more.
    """
    starts, counts, removed = _bins(removals, min_count)
    overall = removals.rate
    if len(starts) < 2:
        what = f"fewer than 2 x {min_count:,} documents were counted"
        return Rehydration(CopyTable((1,), (1,)), overall, (), what)
    rates, low, high = _unimodal(removed, counts, confidence)
    best = float(rates.min())
    copies = np.round(_copies(rates, overall, best, max_copies)).astype(int)
    copies[high >= overall] = 1
    least, most = (np.round(_copies(bound, overall, best, max_copies)).astype(int) for bound in (high, low))
    bins = tuple(
        Bin(int(s), int(n), int(r), float(p), float(lo), float(hi), int(c), int(few), int(many))
        for s, n, r, p, lo, hi, c, few, many in zip(
            starts, counts, removed, rates, low, high, copies, least, most, strict=True
        )
    )
    note = "" if copies.max() > 1 else "no cluster size has a removal rate that is lower than the others' beyond doubt"
    return Rehydration(CopyTable.of_runs([1, *starts.tolist()[1:]], copies.tolist()), overall, bins, note)


def _copies(rates: _Numbers, overall: float, best: float, max_copies: int) -> _Numbers:
    if best >= overall:
        return np.ones_like(rates)
    return np.clip(1 + (max_copies - 1) * (rates - overall) / (best - overall), 1, max_copies)


def _bins(removals: Removals, min_count: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Start, documents and removed documents of runs of sizes with at least `min_count` documents; the last run takes
    what is left."""
    firsts, waiting = [], min_count
    for i, count in enumerate(removals.counts.tolist()):
        if waiting >= min_count:
            firsts.append(i)
            waiting = 0
        waiting += count
    if waiting < min_count and len(firsts) > 1:
        firsts.pop()
    if not firsts:
        return removals.sizes, removals.counts, removals.removed
    return removals.sizes[firsts], np.add.reduceat(removals.counts, firsts), np.add.reduceat(removals.removed, firsts)


def _unimodal(
    removed: NDArray[np.int64], counts: NDArray[np.int64], confidence: float
) -> tuple[_Numbers, _Numbers, _Numbers]:
    """The rates nearest to the observed ones, by squares weighted with counts, that fall and then rise; and the bounds
    of their intervals.

    Where the fit is the same over several bins they are one sample. The shape narrows the bounds too: where rates fall,
    no upper bound can be above that of a smaller size.
    """
    n = len(counts)
    rates = removed / counts
    falling, rising = _isotonic(-rates, counts)[1], _isotonic(-rates[::-1], counts[::-1])[1]
    # The first `split` bins fall, the others rise.
    split = int(np.argmin([falling[i] + rising[n - i] for i in range(n + 1)]))
    fall, rise = _isotonic(-rates[:split], counts[:split])[0], _isotonic(rates[split:], counts[split:])[0]
    fitted = np.concatenate([-fall, rise])
    edges = np.flatnonzero(np.diff(fitted, prepend=np.nan))
    sizes = np.diff(np.append(edges, n))
    sample = np.repeat(np.add.reduceat(counts, edges), sizes)
    z = NormalDist().inv_cdf(1 - (1 - confidence) / (2 * n))
    middle = (fitted + z * z / (2 * sample)) / (1 + z * z / sample)
    half = z * np.sqrt(fitted * (1 - fitted) / sample + (z / (2 * sample)) ** 2) / (1 + z * z / sample)
    low, high = np.maximum(middle - half, 0.0), np.minimum(middle + half, 1.0)
    for piece in (slice(0, split), slice(n - 1, split - 1 if split else None, -1)):  # both fall in this order
        high[piece] = np.minimum.accumulate(high[piece])
        low[piece] = np.maximum.accumulate(low[piece][::-1])[::-1]
    return fitted, low, high


def _isotonic(values: _Numbers, weights: NDArray[np.int64]) -> tuple[_Numbers, list[float]]:
    """The non-decreasing least-squares fit (pool adjacent violators), and the squared errors of the fits of all
    prefixes, from the empty one on (Stout, Unimodal regression via prefix isotonic regression, 2008)."""
    errors = [0.0]
    blocks: list[tuple[float, float, int, float]] = []  # mean, weight, number of values, squared error up to its end
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        mean, total, size, error = value, float(weight), 1, 0.0
        while blocks and blocks[-1][0] >= mean:
            other, other_total, other_size, other_error = blocks.pop()
            error += other_error - (blocks[-1][3] if blocks else 0.0)
            error += (mean - other) ** 2 * total * other_total / (total + other_total)
            mean = (mean * total + other * other_total) / (total + other_total)
            total, size = total + other_total, size + other_size
        blocks.append((mean, total, size, error + (blocks[-1][3] if blocks else 0.0)))
        errors.append(blocks[-1][3])
    means, sizes = [block[0] for block in blocks], [block[2] for block in blocks]
    return np.repeat(np.array(means, dtype=np.float64), np.array(sizes, dtype=np.int64)), errors
