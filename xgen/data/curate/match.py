"""Documents that meet under a key, judged by their sketches: the edges between duplicates.

A record is five words of 64 bits: key, document, and a sketch that tells apart what meets by chance or by boilerplate.
Whoever makes records splits them into buckets of keys (`by_bucket`); a bucket is then matched without the others, its
records taken from all makers in the order of their documents.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from xgen.data.curate.minhash import SKETCH_WORDS, Geometry, band_keys, sketches

RECORD_WORDS = 2 + SKETCH_WORDS
# Documents of one key that are no duplicates of each other, kept to compare with: bounds the work under a key that
# boilerplate gives to many.
_MAX_LEADERS = 1024
_S32 = np.uint64(32)


@dataclass(frozen=True)
class Matches:
    """`edges` [m, 2], the lower document first; `num_unplaced` found no like among the first 1,024 of their key."""

    edges: NDArray[np.uint64]
    num_unplaced: int


def band_records(signed: NDArray[np.uint32], documents: NDArray[np.uint64], geometry: Geometry) -> NDArray[np.uint64]:
    """[n * bands, 5]: what `match` takes, of documents with these signatures and numbers."""
    records = np.empty((len(signed), geometry.bands, RECORD_WORDS), dtype=np.uint64)
    records[:, :, 0] = band_keys(signed, geometry)
    records[:, :, 1] = documents[:, None]
    records[:, :, 2:] = sketches(signed)[:, None, :]
    return records.reshape(-1, RECORD_WORDS)


def exact_records(hashes: NDArray[np.uint64], documents: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """[n, 5]: the same of `exact_hash`, for `match` with max_differing = 0."""
    return np.stack([hashes[:, 0], documents, *[hashes[:, 1]] * SKETCH_WORDS], axis=1)


def by_bucket(records: NDArray[np.uint64], num_buckets: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The records by bucket (an equal range of keys each), else in their order; where each begins [num_buckets + 1]."""
    assert 0 < num_buckets <= 1 << 20
    offsets = np.zeros(num_buckets + 1, dtype=np.int64)
    result = np.empty_like(records)
    _scatter(records, result, offsets)
    return result, offsets


def match(records: NDArray[np.uint64], max_differing: int) -> Matches:
    """Link each document to the first before it under the same key whose sketch differs in at most so many places
    (`Geometry.max_differing`).

    `records` [n, 5] hold every record of their keys, documents ascending: what comes out then depends on nothing else.
    """
    assert (records[1:, 1] >= records[:-1, 1]).all()
    order = np.argsort(records[:, 0])
    edges = np.empty((len(records), 2), dtype=np.uint64)
    num_edges, num_unplaced = _link(records, order, max_differing, edges)
    return Matches(edges[:num_edges].copy(), num_unplaced)


@njit(cache=True, nogil=True)
def _scatter(records: NDArray[np.uint64], result: NDArray[np.uint64], offsets: NDArray[np.int64]) -> None:
    """Reads in order and writes to as many places as there are buckets; gathering by a sorted index takes longer."""
    num_buckets = np.uint64(len(offsets) - 1)
    for number in range(len(records)):
        offsets[np.int64((records[number, 0] >> _S32) * num_buckets >> _S32) + 1] += 1
    for place in range(1, len(offsets)):
        offsets[place] += offsets[place - 1]
    filled = offsets.copy()
    for number in range(len(records)):
        bucket = np.int64((records[number, 0] >> _S32) * num_buckets >> _S32)
        for word in range(records.shape[1]):
            result[filled[bucket], word] = records[number, word]
        filled[bucket] += 1


@njit(cache=True, nogil=True)
def _link(
    records: NDArray[np.uint64], order: NDArray[np.int64], max_differing: int, edges: NDArray[np.uint64]
) -> tuple[int, int]:
    leaders = np.empty(_MAX_LEADERS, dtype=np.int64)
    num_edges = num_unplaced = 0
    start = 0
    while start < len(order):
        key, stop = records[order[start], 0], start + 1
        while stop < len(order) and records[order[stop], 0] == key:
            stop += 1
        if stop - start > 1:
            order[start:stop].sort()  # argsort leaves equal keys in any order
        leaders[0], num_leaders = order[start], 1
        for place in range(start + 1, stop):
            number = order[place]
            found = False
            for leader in leaders[:num_leaders]:
                if _differing(records[number], records[leader]) <= max_differing:
                    found = True
                    if records[leader, 1] != records[number, 1]:
                        edges[num_edges, 0], edges[num_edges, 1] = records[leader, 1], records[number, 1]
                        num_edges += 1
                    break
            if not found:
                if num_leaders < _MAX_LEADERS:
                    leaders[num_leaders] = number
                    num_leaders += 1
                else:
                    num_unplaced += 1
        start = stop
    return num_edges, num_unplaced


@njit(inline="always")
def _differing(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> int:
    """Pairs of bits that are not the same."""
    count = 0
    for place in range(2, RECORD_WORDS):
        value = one[place] ^ other[place]
        value = (value | (value >> np.uint64(1))) & np.uint64(0x5555555555555555)
        value = (value & np.uint64(0x3333333333333333)) + ((value >> np.uint64(2)) & np.uint64(0x3333333333333333))
        value = (value + (value >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
        count += int((value * np.uint64(0x0101010101010101)) >> np.uint64(56))
    return count
