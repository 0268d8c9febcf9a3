"""What a plan takes, counted by domain, source, band of quality and cluster size: the table of the report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xgen.data.curate.budget import Documents, Drawn

SIZE_BINS = (1, 2, 3, 5, 10, 30, 100, 300, 1000)  # each up to the next
LENGTHS = tuple(float(2**power) for power in range(24))
_KEYS = 4


@dataclass(frozen=True)
class Tally:
    """Sums over documents; of several parts: `merge`."""

    # [rows, 9]: domain, source, band, bin of sizes; documents, tokens; of the plan: documents, copies, tokens.
    rows: NDArray[np.int64]
    copies: NDArray[np.int64]  # [rows, 2]: copies of a document, documents with so many
    lengths: NDArray[np.int64]  # [domains, len(LENGTHS) - 1]: copies by the length of the document

    @classmethod
    def count(cls, documents: Documents, drawn: Drawn, num_domains: int) -> Tally:
        lengths = documents.num_tokens.astype(np.int64)
        planned = lengths * drawn.copies
        for document, tokens in drawn.cuts.items():
            planned[document] -= lengths[document] - tokens
        keys = (documents.domains, documents.sources, documents.bands, size_bins(documents.sizes))
        sums = (np.ones_like(lengths), lengths, drawn.copies > 0, drawn.copies, planned)
        rows = _added([column.astype(np.int64) for column in (*keys, *sums)], _KEYS)
        copies = _added([drawn.copies.astype(np.int64), np.ones_like(lengths)], 1)
        place = documents.domains.astype(np.int64) * (len(LENGTHS) - 1) + length_bins(lengths)
        by_length = np.zeros(num_domains * (len(LENGTHS) - 1), dtype=np.int64)
        np.add.at(by_length, place, drawn.copies.astype(np.int64))
        return cls(rows, copies, by_length.reshape(num_domains, -1))

    @classmethod
    def merge(cls, parts: Iterable[Tally]) -> Tally:
        """In any order."""
        every = list(parts)
        rows = np.concatenate([part.rows for part in every])
        copies = np.concatenate([part.copies for part in every])
        lengths: NDArray[np.int64] = np.sum([part.lengths for part in every], axis=0)
        return cls(_added(list(rows.T), _KEYS), _added(list(copies.T), 1), lengths)


def size_bins(sizes: NDArray[np.integer]) -> NDArray[np.int64]:
    """Of each size of a cluster the bin of `SIZE_BINS`."""
    return np.searchsorted(np.array(SIZE_BINS), sizes, side="right") - 1


def length_bins(num_tokens: NDArray[np.integer]) -> NDArray[np.int64]:
    """Of each length the bin of `LENGTHS`."""
    return np.clip(np.searchsorted(np.array(LENGTHS), num_tokens, side="right") - 1, 0, len(LENGTHS) - 2)


def _added(columns: list[NDArray[np.int64]], num_keys: int) -> NDArray[np.int64]:
    """[rows, columns] sums of the other columns over rows with the same keys, in the order of these."""
    code = np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns[:num_keys]:
        code = code * (int(column.max(initial=0)) + 1) + column
    _, first, row = np.unique(code, return_index=True, return_inverse=True)
    found = np.stack([column[first] for column in columns], axis=1)
    found[:, num_keys:] = 0
    for number, column in enumerate(columns[num_keys:], start=num_keys):
        np.add.at(found[:, number], row, column)
    return found
