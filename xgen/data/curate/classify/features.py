"""Features of a text, straight from its bytes: hashed word or character n-grams, as buckets of a weight table.

Words are runs of letters and digits, in lower case (ASCII), every digit as 0. A run of one punctuation mark is a word,
so is the end of a line with the indentation that follows it: code, tables and menus show themselves by these. In
scripts that put no space between words every character is one.

A long text is cut into pieces of `PIECE` bytes that are scored on their own, so that a book is not a thousand times as
sure as a page.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

PIECE = 1 << 14  # bytes
_MAX_ORDER = 8
Kind = Literal["words", "chars"]


@dataclass(frozen=True)
class NGrams:
    """n-grams of `low` to `high` words or characters in 2**bits buckets."""

    kind: Kind
    low: int
    high: int
    bits: int

    def __post_init__(self) -> None:
        assert 1 <= self.low <= self.high <= _MAX_ORDER and 8 <= self.bits <= 30

    @property
    def num_buckets(self) -> int:
        return 1 << self.bits


SPACE, LETTER, MARK, ALONE = 0, 1, 2, 3


def _classes() -> NDArray[np.uint8]:
    """What a byte begins. ALONE: a character of a script without spaces, or a symbol, which is a word by itself."""
    table = np.full(256, MARK, np.uint8)
    table[: ord(" ") + 1] = SPACE
    table[127] = SPACE
    for first, last in (("0", "9"), ("A", "Z"), ("a", "z")):
        table[ord(first) : ord(last) + 1] = LETTER
    table[0x80:] = LETTER
    table[0xE2:0xEA] = ALONE  # U+2000 to U+9FFF: punctuation, kana, Chinese
    table[0xF0:] = ALONE  # from U+10000
    return table


def _folded() -> NDArray[np.uint8]:
    """A in lower case, every digit as 0, every white space as a space."""
    table = np.arange(256, dtype=np.uint8)
    table[ord("A") : ord("Z") + 1] += 32
    table[ord("0") : ord("9") + 1] = ord("0")
    table[: ord(" ") + 1] = ord(" ")
    return table


CLASS, FOLD = _classes(), _folded()
_BASIS, _PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)  # FNV-1a
_MIX, _CHAIN = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)


@njit(cache=True, nogil=True, inline="always")
def bucket(value: np.uint64, shift: np.uint64) -> np.uint32:
    return np.uint32(((value ^ (value >> _HALF)) * _MIX) >> shift)


@njit(cache=True, nogil=True)
def next_word(data: NDArray[np.uint8], at: int, end: int) -> tuple[int, np.uint64]:
    """Where the word that begins at or after `at` ends, and its hash; (end, 0) when there is none."""
    lines = indent = 0
    while at < end and CLASS[data[at]] == SPACE:
        if data[at] == 10:
            lines, indent = lines + 1, 0
        else:
            indent += 1
        at += 1
    if lines and at < end:
        return at, (_BASIS ^ np.uint64(min(lines, 2) * 16 + min(indent, 8))) * _CHAIN
    if at == end:
        return end, np.uint64(0)
    byte = data[at]
    kind = CLASS[byte]
    value = (_BASIS ^ np.uint64(FOLD[byte])) * _PRIME
    at += 1
    if kind == LETTER:
        while at < end and CLASS[data[at]] == LETTER:
            value = (value ^ np.uint64(FOLD[data[at]])) * _PRIME
            at += 1
    elif kind == MARK:
        first = at
        while at < end and data[at] == byte:
            if at < first + 3:
                value = (value ^ np.uint64(byte)) * _PRIME
            at += 1
    else:
        while at < end and 0x80 <= data[at] < 0xC0:
            value = (value ^ np.uint64(data[at])) * _PRIME
            at += 1
    return at, value


@njit(cache=True, nogil=True)
def word_ngrams(
    data: NDArray[np.uint8], begin: int, end: int, low: int, high: int, bits: int, out: NDArray[np.uint32]
) -> int:
    """Buckets of the n-grams of words in data[begin:end], written to `out`; how many."""
    shift = np.uint64(64 - bits)
    recent = np.zeros(_MAX_ORDER, np.uint64)
    count, number, at = 0, 0, begin
    while True:
        at, value = next_word(data, at, end)
        if value == 0:
            return count
        gram = value
        if low == 1:
            out[count] = bucket(gram, shift)
            count += 1
        for back in range(1, min(high, number + 1)):
            gram = (gram * _CHAIN) ^ recent[(number - back) % _MAX_ORDER]
            if back + 1 >= low:
                out[count] = bucket(gram, shift)
                count += 1
        recent[number % _MAX_ORDER] = value
        number += 1


@njit(cache=True, nogil=True)
def char_ngrams(
    data: NDArray[np.uint8], begin: int, end: int, low: int, high: int, bits: int, out: NDArray[np.uint32]
) -> int:
    """The same of bytes, where a run of white space is one space."""
    shift = np.uint64(64 - bits)
    text = np.empty(end - begin, np.uint8)
    size = 0
    for at in range(begin, end):
        byte = FOLD[data[at]]
        if byte != 32 or size == 0 or text[size - 1] != 32:
            text[size] = byte
            size += 1
    count = 0
    for first in range(size - low + 1):
        gram = _BASIS
        for order in range(1, min(high, size - first) + 1):
            gram = (gram ^ np.uint64(text[first + order - 1])) * _PRIME
            if order >= low:
                out[count] = bucket(gram, shift)
                count += 1
    return count


@njit(cache=True, nogil=True)
def ngrams(
    data: NDArray[np.uint8], begin: int, end: int, chars: bool, low: int, high: int, bits: int, out: NDArray[np.uint32]
) -> int:
    if chars:
        return char_ngrams(data, begin, end, low, high, bits, out)
    return word_ngrams(data, begin, end, low, high, bits, out)
