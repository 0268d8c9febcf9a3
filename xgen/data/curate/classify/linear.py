"""A linear model over hashed n-grams: the mean of their weights, as fastText has it, without the layer between.

Trained by AdaGrad, one document at a time, in an order that follows from what the documents say: the same documents
give the same bytes, whatever files they came in. n-grams are hashed anew in every epoch; nothing is kept of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from xgen.data.curate.classify.features import PIECE, NGrams, ngrams
from xgen.data.curate.texts import Texts

_BIAS_RATE = 0.1  # of the learning rate: one bias is in every document, a weight in few
_EPSILON = 1e-10


@dataclass(frozen=True)
class Linear:
    """`weights` [buckets, labels] and `bias` [labels]."""

    ngrams: NGrams
    weights: NDArray[np.float32]
    bias: NDArray[np.float32]

    def logits(self, texts: Texts) -> NDArray[np.float64]:
        """[documents, labels]; of a text of several pieces their mean by bytes."""
        grams = self.ngrams
        out = np.zeros((len(texts), len(self.bias)))
        buffer = np.empty(PIECE * (grams.high - grams.low + 1), np.uint32)
        settings = grams.kind == "chars", grams.low, grams.high, grams.bits
        _score(texts.data, texts.offsets, *settings, self.weights, self.bias, buffer, out)
        return out


def train_linear(
    texts: Texts, labels: NDArray[np.int64], num_labels: int, grams: NGrams, epochs: int, rate: float, seed: int
) -> Linear:
    """`labels` [documents] are numbers below `num_labels`. Epoch e reads piece e (modulo their number) of each text."""
    weights = np.zeros((grams.num_buckets, num_labels), np.float32)
    squares = np.zeros_like(weights)
    bias = np.zeros(num_labels, np.float32)
    buffer = np.empty(PIECE * (grams.high - grams.low + 1), np.uint32)
    settings = grams.kind == "chars", grams.low, grams.high, grams.bits
    for epoch in range(epochs):
        order = shuffled(len(texts), seed + epoch)
        now, after = rate * (1 - epoch / epochs), rate * (1 - (epoch + 1) / epochs)
        _epoch(texts.data, texts.offsets, labels, order, epoch, *settings, weights, squares, bias, buffer, now, after)
    return Linear(grams, weights, bias)


def shuffled(count: int, seed: int) -> NDArray[np.int64]:
    """A permutation that no version of NumPy changes: splitmix64 of the positions, sorted."""
    with np.errstate(over="ignore"):
        key = np.arange(1, count + 1, dtype=np.uint64) + np.uint64(seed) * np.uint64(0xD1342543DE82EF95)
        key *= np.uint64(0x9E3779B97F4A7C15)
        key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.argsort(key ^ (key >> np.uint64(31)), kind="stable")


@njit(cache=True, nogil=True)
def _score(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    chars: bool,
    low: int,
    high: int,
    bits: int,
    weights: NDArray[np.float32],
    bias: NDArray[np.float32],
    buffer: NDArray[np.uint32],
    out: NDArray[np.float64],
) -> None:
    num_labels = weights.shape[1]
    sums = np.zeros(num_labels)
    for document in range(len(offsets) - 1):
        begin, last = offsets[document], offsets[document + 1]
        size = last - begin
        while begin < last:
            end = min(begin + PIECE, last)
            count = ngrams(data, begin, end, chars, low, high, bits, buffer)
            if count:
                sums[:] = 0.0
                for number in range(count):
                    row = buffer[number]
                    for label in range(num_labels):
                        sums[label] += weights[row, label]
                for label in range(num_labels):
                    out[document, label] += sums[label] / count * (end - begin) / size
            begin = end
        for label in range(num_labels):
            out[document, label] += bias[label]


@njit(cache=True, nogil=True)
def _epoch(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    labels: NDArray[np.int64],
    order: NDArray[np.int64],
    epoch: int,
    chars: bool,
    low: int,
    high: int,
    bits: int,
    weights: NDArray[np.float32],
    squares: NDArray[np.float32],
    bias: NDArray[np.float32],
    buffer: NDArray[np.uint32],
    first_rate: float,
    last_rate: float,
) -> None:
    num_labels = weights.shape[1]
    scores = np.zeros(num_labels)
    for step in range(len(order)):
        document = order[step]
        size = offsets[document + 1] - offsets[document]
        begin = offsets[document] + epoch % max(1, (size + PIECE - 1) // PIECE) * PIECE
        count = ngrams(data, begin, min(begin + PIECE, offsets[document + 1]), chars, low, high, bits, buffer)
        if not count:
            continue
        rate = first_rate + (last_rate - first_rate) * step / len(order)
        scores[:] = 0.0
        for number in range(count):
            row = buffer[number]
            for label in range(num_labels):
                scores[label] += weights[row, label]
        for label in range(num_labels):
            scores[label] = scores[label] / count + bias[label]
        top, total = scores.max(), 0.0
        for label in range(num_labels):
            scores[label] = math.exp(scores[label] - top)
            total += scores[label]
        for label in range(num_labels):
            slope = scores[label] / total - (1.0 if label == labels[document] else 0.0)
            bias[label] -= rate * _BIAS_RATE * slope
            scores[label] = slope / count
        for number in range(count):
            row = buffer[number]
            for label in range(num_labels):
                slope = scores[label]
                squares[row, label] += slope * slope
                weights[row, label] -= rate * slope / math.sqrt(squares[row, label] + _EPSILON)
