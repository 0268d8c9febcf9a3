"""Boosted trees over the statistics of structure.py.

A tree asks the same question of all nodes of a level (as CatBoost's do), so that it is a table: the answers are the
bits of the leaf's number. A leaf has a value for every label. Nothing is random but the rows of a round, where there
are many.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from xgen.data.curate.classify.features import PIECE
from xgen.data.curate.classify.linear import shuffled
from xgen.data.curate.classify.structure import NUM_STATISTICS, statistics
from xgen.data.curate.texts import Texts

_BINS = 64
_REGULAR = 1.0  # added to the curvature of a leaf
_ROWS = 20_000  # of a round


@dataclass(frozen=True)
class Trees:
    """`columns` and `bounds` [trees, depth]: is statistic > bound? `values` [trees, 2**depth, labels]."""

    columns: NDArray[np.uint8]
    bounds: NDArray[np.float32]
    values: NDArray[np.float32]

    def logits(self, texts: Texts) -> NDArray[np.float64]:
        """[documents, labels]; of a text of several pieces their mean by bytes."""
        out = np.zeros((len(texts), self.values.shape[2]))
        _score(texts.data, texts.offsets, self.columns, self.bounds, self.values, out)
        return out


def train_trees(
    texts: Texts, labels: NDArray[np.int64], num_labels: int, rounds: int, depth: int, rate: float, seed: int
) -> Trees:
    """Learns from the first piece of each text."""
    table = statistics_of(texts)
    edges = np.zeros((NUM_STATISTICS, _BINS - 1), np.float32)
    codes = np.zeros((NUM_STATISTICS, len(texts)), np.uint8)
    for column in range(NUM_STATISTICS):
        ordered = np.sort(table[:, column])
        edges[column] = ordered[np.arange(1, _BINS) * len(ordered) // _BINS]
        codes[column] = np.searchsorted(edges[column], table[:, column], side="left")
    columns = np.zeros((rounds, depth), np.uint8)
    bounds = np.zeros((rounds, depth), np.float32)
    values = np.zeros((rounds, 1 << depth, num_labels), np.float32)
    scores = np.zeros((len(texts), num_labels))
    for number in range(rounds):
        rows = np.sort(shuffled(len(texts), seed + number)[:_ROWS])
        cuts = _grow(codes, labels, rows, scores, depth, rate, columns[number], values[number])
        bounds[number] = edges[columns[number], cuts]
    return Trees(columns, bounds, values)


def statistics_of(texts: Texts) -> NDArray[np.float32]:
    """STATISTICS of the first piece of each text [documents, statistics]."""
    out = np.zeros((len(texts), NUM_STATISTICS), np.float32)
    _fill(texts.data, texts.offsets, out)
    return out


@njit(cache=True, nogil=True)
def _fill(data: NDArray[np.uint8], offsets: NDArray[np.int64], out: NDArray[np.float32]) -> None:
    for document in range(len(offsets) - 1):
        begin = offsets[document]
        statistics(data, begin, min(begin + PIECE, offsets[document + 1]), out[document])


@njit(cache=True, nogil=True)
def _score(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    columns: NDArray[np.uint8],
    bounds: NDArray[np.float32],
    values: NDArray[np.float32],
    out: NDArray[np.float64],
) -> None:
    num_trees, depth = columns.shape
    measured = np.zeros(NUM_STATISTICS, np.float32)
    for document in range(len(offsets) - 1):
        begin, last = offsets[document], offsets[document + 1]
        size = max(last - begin, 1)
        while True:
            end = min(begin + PIECE, last)
            statistics(data, begin, end, measured)
            share = (end - begin) / size if last > offsets[document] else 1.0
            for tree in range(num_trees):
                leaf = 0
                for level in range(depth):
                    leaf |= (measured[columns[tree, level]] > bounds[tree, level]) << level
                for label in range(values.shape[2]):
                    out[document, label] += values[tree, leaf, label] * share
            begin = end
            if begin >= last:
                break


@njit(cache=True, nogil=True)
def _grow(
    codes: NDArray[np.uint8],
    labels: NDArray[np.int64],
    rows: NDArray[np.int64],
    scores: NDArray[np.float64],
    depth: int,
    rate: float,
    columns: NDArray[np.uint8],
    values: NDArray[np.float32],
) -> NDArray[np.int64]:
    """One tree: its columns and values are written, the scores of all rows moved; returns the edge of each level."""
    num_columns, num_labels = codes.shape[0], scores.shape[1]
    slopes, curves = np.empty((len(rows), num_labels)), np.empty((len(rows), num_labels))
    for at in range(len(rows)):
        row = rows[at]
        top, total = scores[row].max(), 0.0
        for label in range(num_labels):
            slopes[at, label] = math.exp(scores[row, label] - top)
            total += slopes[at, label]
        for label in range(num_labels):
            share = slopes[at, label] / total
            slopes[at, label] = share - (1.0 if label == labels[row] else 0.0)
            curves[at, label] = max(share * (1.0 - share), 1e-6)
    leaves = np.zeros(len(rows), np.int64)
    cuts = np.zeros(depth, np.int64)
    for level in range(depth):
        nodes = 1 << level
        best = -1.0
        for column in range(num_columns):
            sums = np.zeros((nodes, _BINS, num_labels, 2))
            code = codes[column]
            for at in range(len(rows)):
                place = sums[leaves[at], code[rows[at]]]
                for label in range(num_labels):
                    place[label, 0] += slopes[at, label]
                    place[label, 1] += curves[at, label]
            gains = np.zeros(_BINS - 1)
            for node in range(nodes):
                for label in range(num_labels):
                    all_slope, all_curve = sums[node, :, label, 0].sum(), sums[node, :, label, 1].sum()
                    slope = curve = 0.0
                    for cut in range(_BINS - 1):
                        slope += sums[node, cut, label, 0]
                        curve += sums[node, cut, label, 1]
                        gains[cut] += slope * slope / (curve + _REGULAR)
                        gains[cut] += (all_slope - slope) ** 2 / (all_curve - curve + _REGULAR)
            cut = int(np.argmax(gains))
            if gains[cut] > best:
                best, columns[level], cuts[level] = gains[cut], column, cut
        for at in range(len(rows)):
            leaves[at] |= int(codes[columns[level], rows[at]] > cuts[level]) << level
    totals = np.zeros((1 << depth, num_labels, 2))
    for at in range(len(rows)):
        for label in range(num_labels):
            totals[leaves[at], label, 0] += slopes[at, label]
            totals[leaves[at], label, 1] += curves[at, label]
    for leaf in range(1 << depth):
        for label in range(num_labels):
            values[leaf, label] = -rate * totals[leaf, label, 0] / (totals[leaf, label, 1] + _REGULAR)
    for row in range(codes.shape[1]):
        leaf = 0
        for level in range(depth):
            leaf |= int(codes[columns[level], row] > cuts[level]) << level
        for label in range(num_labels):
            scores[row, label] += values[leaf, label]
    return cuts
