"""Samples of preference pairs: both answers of a pair in one row, each with the prompt before it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xgen.data.chat.samples import ChatSamples
from xgen.data.samples import IGNORE, Batch


@dataclass(frozen=True)
class PairBatch(Batch):
    """answers int32 [num_samples, seq_len]: -1 where nothing is learnt, else 2k for the better and 2k + 1 for the
    worse answer of the row's k-th pair, aligned with `labels`. pairs int64 [num_samples, most]: the number in the store
    of the row's k-th pair, -1 where the row has fewer."""

    answers: NDArray[np.int32]
    pairs: NDArray[np.int64]


class PairSamples(ChatSamples):
    """As ChatSamples, of a store of pairs."""

    def batch(self, start: int, count: int) -> PairBatch:
        batch = super().batch(start, count)
        rows = [self._records(start + row) for row in range(count)]
        answers = np.full_like(batch.labels, -1)
        pairs = np.full((count, max(map(len, rows))), -1, dtype=np.int64)
        for row, records in enumerate(rows):
            pairs[row, : len(records)] = [self.parts[source].source.first + record for source, record in records]
            # A row's documents are its answers in order, and the padding, of which nothing is learnt.
            number = np.cumsum(batch.positions[row] == 0) - 1
            answers[row] = np.where(batch.labels[row] == IGNORE, -1, number)
        return PairBatch(batch.tokens, batch.labels, batch.positions, answers, pairs)
