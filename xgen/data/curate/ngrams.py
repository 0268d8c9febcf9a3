"""Word n-grams as 64-bit hashes, and a table of them that texts are looked up in."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from xgen.data.curate.words import Words, mix

_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, and 1 modulo 4: runs of one word keep all but 3 bits of its hash
_ZERO, _ONE = np.uint64(0), np.uint64(1)
_BITS_A_KEY = 32  # of the filter before the table


class NgramTable:
    """Finds which of `hashes` (distinct) a text has; `lengths` in words are those of the n-grams they are of."""

    def __init__(self, hashes: NDArray[np.uint64], lengths: NDArray[np.int64]) -> None:
        self._hashes, self._lengths = hashes, lengths
        self._slots = np.full(1 << max(6, (2 * len(hashes)).bit_length()), -1, dtype=np.int64)
        fill(hashes, self._slots)
        bits = 1 << max(6, (_BITS_A_KEY * len(hashes)).bit_length())
        self._filter = np.zeros(bits >> 6, dtype=np.uint64)
        mark(hashes, self._filter)

    def find(self, words: Words) -> NDArray[np.int64]:
        """[hits, 3]: document, number of the n-gram in `hashes`, word of the document at which it begins; in order."""
        room, document = 1 << 12, 0
        parts = [np.empty((0, 3), dtype=np.int64)]
        while document < len(words.offsets) - 1:
            hits = np.empty((room, 3), dtype=np.int64)
            before = document
            document, count = scan(
                words.hashes, words.offsets, before, self._lengths, self._hashes, self._slots, self._filter, hits
            )
            parts.append(hits[:count])
            if document == before:
                room *= 4  # one document fills it
        return np.concatenate(parts)


def ngrams_of(
    words: Words, ngram: int, wanted: NDArray[np.bool_]
) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64]]:
    """Hash, length and text of all n-grams of the texts that are `wanted`; a text of fewer words is one n-gram."""
    num_words = np.diff(words.offsets)
    lengths = np.minimum(num_words, ngram)
    counts = np.where((lengths > 0) & wanted, num_words - lengths + 1, 0)
    hashes = np.empty(int(counts.sum()), dtype=np.uint64)
    hash_ngrams(words.hashes, words.offsets, lengths, counts, hashes)
    return hashes, np.repeat(lengths, counts), np.repeat(np.arange(len(counts)), counts)


@njit(cache=True, nogil=True)
def power(exponent: int) -> np.uint64:
    power = _ONE
    for _ in range(exponent):
        power *= _BASE
    return power


@njit(cache=True, nogil=True)
def hash_ngrams(
    words: NDArray[np.uint64],
    offsets: NDArray[np.int64],
    lengths: NDArray[np.int64],
    counts: NDArray[np.int64],
    out: NDArray[np.uint64],
) -> None:
    """Polynomials of the words' hashes modulo 2^64, of `counts[i]` runs of `lengths[i]` words of text i."""
    at = 0
    for text in range(len(lengths)):
        for first in range(counts[text]):
            value = _ZERO
            for word in range(lengths[text]):
                value = value * _BASE + words[offsets[text] + first + word]
            out[at] = mix(value)
            at += 1


@njit(cache=True, nogil=True)
def fill(hashes: NDArray[np.uint64], slots: NDArray[np.int64]) -> None:
    """Open addressing, at most half full: a slot has the number of a hash, or -1."""
    mask = np.uint64(len(slots) - 1)
    for number in range(len(hashes)):
        slot = hashes[number] & mask
        while slots[slot] >= 0:
            slot = (slot + _ONE) & mask
        slots[slot] = number


@njit(cache=True, nogil=True)
def mark(hashes: NDArray[np.uint64], filter_: NDArray[np.uint64]) -> None:
    mask = np.uint64(len(filter_) * 64 - 1)
    for value in hashes:
        bit = (value >> np.uint64(20)) & mask
        filter_[bit >> np.uint64(6)] |= _ONE << (bit & np.uint64(63))


@njit(cache=True, nogil=True)
def scan(
    words: NDArray[np.uint64],
    offsets: NDArray[np.int64],
    document: int,
    lengths: NDArray[np.int64],
    hashes: NDArray[np.uint64],
    slots: NDArray[np.int64],
    filter_: NDArray[np.uint64],
    hits: NDArray[np.int64],
) -> tuple[int, int]:
    """Write (document, n-gram, word) of all hits from `document` on, until a document's do not fit; returns that
    document, or their number, and the hits of those before it."""
    slot_mask, bit_mask = np.uint64(len(slots) - 1), np.uint64(len(filter_) * 64 - 1)
    powers = np.empty(len(lengths), dtype=np.uint64)
    for i in range(len(lengths)):
        powers[i] = power(lengths[i])
    longest = 0
    for number in range(document, len(offsets) - 1):
        longest = max(longest, offsets[number + 1] - offsets[number])
    # The polynomial of all words up to here: a difference of two, one shifted, is that of the words between.
    prefix = np.zeros(longest + 1, dtype=np.uint64)
    count = 0
    for number in range(document, len(offsets) - 1):
        begin, num_words = offsets[number], offsets[number + 1] - offsets[number]
        before = count
        for word in range(num_words):
            end = word + 1
            prefix[end] = prefix[word] * _BASE + words[begin + word]
            for i in range(len(lengths)):
                first = end - lengths[i]
                if first < 0:
                    continue
                value = mix(prefix[end] - prefix[first] * powers[i])
                bit = (value >> np.uint64(20)) & bit_mask
                if not (filter_[bit >> np.uint64(6)] >> (bit & np.uint64(63))) & _ONE:
                    continue
                slot = value & slot_mask
                while slots[slot] >= 0:
                    if hashes[slots[slot]] == value:
                        if count == len(hits):
                            return number, before
                        hits[count, 0], hits[count, 1], hits[count, 2] = number, slots[slot], first
                        count += 1
                        break
                    slot = (slot + _ONE) & slot_mask
    return len(offsets) - 1, count
