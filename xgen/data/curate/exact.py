"""Exact duplicates: texts of the same words in the same order, whatever their case, punctuation and space."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from xgen.data.curate.texts import Texts
from xgen.data.curate.words import fold_table, hash_bytes, hash_text

_BLOCK = 1024  # words at a time


def exact_hash(texts: Texts) -> NDArray[np.uint64]:
    """[n, 2]: 128 bits of the words in order (of the bytes, for a text without words); two passes, two hashes."""
    result = np.empty((len(texts), 2), dtype=np.uint64)
    for lane in range(2):
        _hash(texts.data, texts.offsets, fold_table(), np.uint64(lane + 1), result[:, lane])
    return result


def first_equal(hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """[n]: for each document of `exact_hash` the first that equals it, which may be itself."""
    order = np.lexsort((hashes[:, 1], hashes[:, 0]))  # stable: equal ones stay in their order
    ordered = hashes[order]
    begins = np.ones(len(hashes), dtype=bool)
    begins[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    result = np.empty(len(hashes), dtype=np.int64)
    result[order] = order[begins][np.cumsum(begins) - 1]
    return result


@njit(cache=True, nogil=True)
def _hash(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    table: NDArray[np.uint32],
    seed: np.uint64,
    result: NDArray[np.uint64],
) -> None:
    words = np.empty(_BLOCK, dtype=np.uint64)
    for number in range(len(offsets) - 1):
        at, end = offsets[number], offsets[number + 1]
        state, num_words = hash_text(data, at, end, table, seed, words)
        result[number] = state if num_words else hash_bytes(data, at, end, seed)
