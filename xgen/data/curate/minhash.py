"""MinHash signatures of documents, from bytes; and the keys under which documents that are alike meet.

A document is the set of its n-grams of words. Hash j of its signature is the least of (a_j * x + b_j) mod 2^32 over the
mixed 32-bit hashes x of that set, with a_j odd: two documents agree in a place with the probability of their Jaccard
similarity J (Broder 1997). They meet where all rows of a band agree: 1 - (1 - J^rows)^bands.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from xgen.data.curate.texts import Texts
from xgen.data.curate.words import fold_table, hash_bytes, mix, next_words

SKETCH_WORDS = 3  # of 64 bits, for two bits of 32 hashes each
_BLOCK = 1024  # n-grams at a time
_GRAM_PRIME = np.uint64(0x9E3779B97F4A7C15)
_EMPTY = np.uint32(0xFFFFFFFF)
_SKETCH_PRIME = np.uint32(0x9E3779B1)
_S30, _S32 = np.uint32(30), np.uint64(32)


@dataclass(frozen=True)
class Geometry:
    """What a signature is made of.

    20 bands of 6 rows find 0.998 of the pairs at J = 0.8, 0.98 at 0.75 and 0.62 at 0.6 (datatrove's 14 of 8: 0.92,
    0.77 and 0.21), and some that are less alike; those are told apart by their sketches (`match`).
    """

    ngram: int = 5
    bands: int = 20
    rows: int = 6
    similarity: float = 0.55  # by their sketches, below which documents that meet are no duplicates
    seed: int = 1

    @property
    def num_hashes(self) -> int:
        return self.bands * self.rows

    @property
    def max_differing(self) -> int:
        """Places in which the sketches of duplicates may differ: of the hashes that differ, a quarter agrees there."""
        return int(min(self.num_hashes, 32 * SKETCH_WORDS) * (1 - self.similarity) * 3 / 4)

    def probability(self, similarity: float) -> float:
        """Of two documents of this Jaccard similarity to meet in some band."""
        return float(1 - (1 - similarity**self.rows) ** self.bands)

    def permutations(self) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
        """a (odd) and b of each hash."""
        values = _splitmix(self.seed, 2 * self.num_hashes)
        return (values[::2] >> _S32).astype(np.uint32) | np.uint32(1), (values[1::2] >> _S32).astype(np.uint32)


def signatures(texts: Texts, geometry: Geometry) -> NDArray[np.uint32]:
    """[n, num_hashes]. A document shorter than an n-gram is one n-gram; one without words is its bytes."""
    a, b = geometry.permutations()
    result = np.empty((len(texts), geometry.num_hashes), dtype=np.uint32)
    _sign(texts.data, texts.offsets, fold_table(), geometry.ngram, np.uint64(geometry.seed), a, b, result)
    return result


def band_keys(signed: NDArray[np.uint32], geometry: Geometry) -> NDArray[np.uint64]:
    """[n, bands]: equal where all rows of the same band are, up to chance of 2^-64; even over all 64 bits."""
    keys = np.empty((len(signed), geometry.bands), dtype=np.uint64)
    _key(signed, geometry.rows, keys)
    return keys


def sketches(signed: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """[n, 3]: two bits of each of the first 96 hashes (b-bit minwise hashing, Li and König 2010), for `match`."""
    result = np.zeros((len(signed), SKETCH_WORDS), dtype=np.uint64)
    _sketch(signed, result)
    return result


def _splitmix(seed: int, count: int) -> NDArray[np.uint64]:
    """The first values of SplitMix64; NumPy's generators may change from version to version."""
    value = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * _GRAM_PRIME
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@njit(cache=True, nogil=True)
def _sign(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    table: NDArray[np.uint32],
    ngram: int,
    seed: np.uint64,
    a: NDArray[np.uint32],
    b: NDArray[np.uint32],
    result: NDArray[np.uint32],
) -> None:
    words = np.empty(_BLOCK + ngram - 1, dtype=np.uint64)
    grams = np.empty(_BLOCK, dtype=np.uint32)
    for number in range(len(offsets) - 1):
        least = result[number]
        least[:] = _EMPTY
        at, end = offsets[number], offsets[number + 1]
        num_words, signed = 0, False
        while True:
            at, num_words = next_words(data, at, end, table, seed, words, num_words)
            if num_words < ngram:
                break
            num_grams = num_words - ngram + 1
            for first in range(num_grams):
                grams[first] = _gram(words, first, ngram)
            _lower(least, grams, num_grams, a, b)
            signed = True
            for place in range(ngram - 1):  # the next block's first n-gram ends with its first word
                words[place] = words[num_grams + place]
            num_words = ngram - 1
            if at >= end:
                break
        if not signed:
            if num_words == 0:
                grams[0] = np.uint32(hash_bytes(data, offsets[number], end, seed) >> _S32)
            else:
                grams[0] = _gram(words, 0, num_words)
            _lower(least, grams, 1, a, b)


@njit(inline="always")
def _gram(words: NDArray[np.uint64], first: int, size: int) -> np.uint32:
    state = np.uint64(size)
    for place in range(first, first + size):
        state = (state + words[place]) * _GRAM_PRIME
    return np.uint32(mix(state) >> _S32)


@njit(cache=True, nogil=True)
def _lower(
    least: NDArray[np.uint32],
    grams: NDArray[np.uint32],
    num_grams: int,
    a: NDArray[np.uint32],
    b: NDArray[np.uint32],
) -> None:
    """least[j] = the least of a[j] * x + b[j], for all x; four at a time, so that less goes to and from memory."""
    for first in range(0, num_grams, 4):
        x0 = grams[first]  # the last of them again where there are no four
        x1 = grams[min(first + 1, num_grams - 1)]
        x2 = grams[min(first + 2, num_grams - 1)]
        x3 = grams[min(first + 3, num_grams - 1)]
        for j in range(len(least)):
            low = min(least[j], np.uint32(a[j] * x0 + b[j]))
            low = min(low, np.uint32(a[j] * x1 + b[j]))
            low = min(low, np.uint32(a[j] * x2 + b[j]))
            least[j] = min(low, np.uint32(a[j] * x3 + b[j]))


@njit(cache=True, nogil=True)
def _key(signed: NDArray[np.uint32], rows: int, keys: NDArray[np.uint64]) -> None:
    for number in range(keys.shape[0]):
        for band in range(keys.shape[1]):
            state = np.uint64(band + 1)
            for row in range(rows):
                state = mix((state ^ np.uint64(signed[number, band * rows + row])) * _GRAM_PRIME)
            keys[number, band] = state


@njit(cache=True, nogil=True)
def _sketch(signed: NDArray[np.uint32], result: NDArray[np.uint64]) -> None:
    for number in range(signed.shape[0]):
        for j in range(min(signed.shape[1], 32 * result.shape[1])):
            # Of a product the top bits depend on all: the lowest of a hash is the same for an n-gram in all hashes.
            bits = np.uint64(np.uint32(signed[number, j] * _SKETCH_PRIME) >> _S30)
            result[number, j // 32] |= bits << np.uint64(2 * (j & 31))
