"""Where the copies of a document go: evenly over the whole store, and never two in a row.

A place is a number of 64 bits; the store is in their order. The copies of a document are exactly the c-th part of the
store from each other, from a beginning that its number fixes, so a step finds the places of its own documents alone and
hands them to the step that writes that stretch. FineWeb2's own snippet writes them one after the other.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray


def document_keys(numbers: NDArray[np.uint64], *key: int | str) -> NDArray[np.uint64]:
    """64 random bits for each document, by its number and `key` alone.

    splitmix64, not numpy.random: NumPy may change what its generators give.
    """
    digest = hashlib.blake2b(" ".join(map(str, key)).encode(), digest_size=8).digest()
    state = numbers * np.uint64(0x9E3779B97F4A7C15)
    state += np.uint64(int.from_bytes(digest, "little"))
    state ^= state >> np.uint64(30)
    state *= np.uint64(0xBF58476D1CE4E5B9)
    state ^= state >> np.uint64(27)
    state *= np.uint64(0x94D049BB133111EB)
    state ^= state >> np.uint64(31)
    return state


def places(
    numbers: NDArray[np.uint64], copies: NDArray[np.integer], seed: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.uint32], NDArray[np.uint64]]:
    """One row a copy: the document's place in `numbers`, the copy (from 0) and where it goes."""
    counts = copies.astype(np.int64)
    document = np.repeat(np.arange(len(numbers)), counts)
    copy = (np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts)).astype(np.uint64)
    of_document = counts[document].astype(np.uint64)
    begin = document_keys(numbers, "spread", seed)[document] // of_document
    # The c-th part of 2^64, rounded down; nothing is added for the first copy, so c = 1 does not matter.
    step = np.uint64(2**64 - 1) // of_document
    return document, copy.astype(np.uint32), begin + copy * step


def stretch_of(place: NDArray[np.uint64], num_stretches: int) -> NDArray[np.uint32]:
    """Which of `num_stretches` equal stretches of the store a place lies in."""
    high: NDArray[np.uint32] = ((place >> np.uint64(32)) * np.uint64(num_stretches) >> np.uint64(32)).astype(np.uint32)
    return high


def apart(documents: NDArray[np.int64]) -> NDArray[np.int64]:
    """An order (indices) of a stretch in which no document follows itself, wherever there is such an order.

    `documents` are in the order of their places. It is kept but for the few that meet a copy of their own: each of
    them goes to the nearest gap that touches none.
    """
    stuck = (np.flatnonzero(documents[1:] == documents[:-1]) + 1).tolist()
    if not stuck:
        return np.arange(len(documents))
    ids = documents.tolist()
    meets = set(stuck)
    order = [i for i in range(len(ids)) if i not in meets]
    for i in stuck:
        gap = next((gap for gap in _outwards(i, len(order)) if _is_free(gap, ids[i], order, ids)), None)
        if gap is None:
            return _interleaved(ids)
        order.insert(gap, i)
    return np.array(order, dtype=np.int64)


def _outwards(start: int, last: int) -> Iterator[int]:
    """0 to `last`, the nearest to `start` first."""
    start = min(start, last)
    for distance in range(max(start, last - start) + 1):
        if start + distance <= last:
            yield start + distance
        if distance and start >= distance:
            yield start - distance


def _is_free(gap: int, document: int, order: list[int], ids: list[int]) -> bool:
    return all(ids[i] != document for i in order[max(0, gap - 1) : gap + 1])


def _interleaved(ids: list[int]) -> NDArray[np.int64]:
    """The most frequent first, into every other place."""
    counts = Counter(ids)
    ranked = sorted(range(len(ids)), key=lambda i: (-counts[ids[i]], ids[i], i))
    order = np.empty(len(ids), dtype=np.int64)
    order[np.r_[0 : len(ids) : 2, 1 : len(ids) : 2]] = ranked
    return order
