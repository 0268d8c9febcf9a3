"""Words as 64-bit hashes, from bytes in one pass: what exact and fuzzy matching see of a text.

A word is a run of letters, digits and combining marks; everything else (punctuation, symbols, space) only separates,
so "don't" is two words. Letters are compared without case, width and accents: "É", "é" and "e" + U+0301 are "e"; Arabic
and Hebrew without points; digits stay. Scripts written without spaces (Han, kana, Thai, Lao, Khmer, Burmese, Tibetan)
give a word for each character. Bytes that are no UTF-8 separate.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import cache

import numpy as np
from numba import njit
from numpy.typing import NDArray

from xgen.data.curate.texts import Texts

NUM_FOLDED = 0x20000  # code points with an entry in the table; those above are ideographs, and the rare rest
SKIP = np.uint32(1)  # belongs to a word without changing it
ALONE = np.uint32(1 << 31)  # this character is a word by itself
_CODE = np.uint32((1 << 31) - 1)
_SPACELESS = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x0F00, 0x0FFF),  # Tibetan
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # kana
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x1B000, 0x1B16F),
)
_POINTS = ((0x0300, 0x036F), (0x0591, 0x05C7), (0x0610, 0x061A), (0x064B, 0x0652), (0x0670, 0x0670), (0x200B, 0x200D))

# FNV-1a's constants; and the finalizer of MurmurHash3, since FNV's high bits depend little on the last bytes.
_FNV_PRIME, _FNV_START = np.uint64(0x100000001B3), np.uint64(0xCBF29CE484222325)
_MIX_1, _MIX_2 = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)
_S33 = np.uint64(33)
_TEXT_PRIME = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Words:
    """Hashes of the words of document i, in order: hashes[offsets[i] : offsets[i + 1]]."""

    hashes: NDArray[np.uint64]
    offsets: NDArray[np.int64]


def hash_words(texts: Texts, seed: int = 0) -> Words:
    """Every word of every document: 8 bytes a word, some 1.5 times the text."""
    offsets = np.zeros(len(texts) + 1, dtype=np.int64)
    hashes = np.empty(texts.num_bytes // 2 + len(texts) + 1, dtype=np.uint64)
    num_words = _hash_all(texts.data, texts.offsets, fold_table(), np.uint64(seed), hashes, offsets)
    return Words(hashes[:num_words].copy(), offsets)


@cache
def fold_table() -> NDArray[np.uint32]:
    """What a code point counts as: 0 separates; SKIP; or the folded code point, with ALONE where it is a word."""
    table = np.zeros(NUM_FOLDED, dtype=np.uint32)
    for code, char in enumerate(map(chr, range(NUM_FOLDED))):
        if unicodedata.category(char)[0] in "LNM":
            table[code] = ord(_fold(char))
    for first, last in _SPACELESS:
        table[first : last + 1] |= np.where(table[first : last + 1], ALONE, np.uint32(0))
    for first, last in _POINTS:
        table[first : last + 1] = SKIP
    table.flags.writeable = False
    return table


def _fold(char: str) -> str:
    """The letter without case, and without accents and width where one character is left."""
    lower = char.lower()
    if len(lower) == 1 and not unicodedata.decomposition(lower):
        return lower
    folded = [c for c in unicodedata.normalize("NFKD", lower) if not _is_point(ord(c))]
    return folded[0].lower() if len(folded) == 1 else lower[0]


def _is_point(code: int) -> bool:
    return any(first <= code <= last for first, last in _POINTS)


@njit(inline="always")
def mix(value: np.uint64) -> np.uint64:
    """A bijection under which every bit depends on every bit."""
    value = (value ^ (value >> _S33)) * _MIX_1
    value = (value ^ (value >> _S33)) * _MIX_2
    return value ^ (value >> _S33)


@njit(inline="always")
def decode(data: NDArray[np.uint8], at: int, end: int) -> tuple[np.uint32, int]:
    """The code point of more than one byte at `at`, and its bytes; (0, 1) where there is none."""
    lead = data[at]
    if lead >= 0xF0:
        size, code = 4, np.uint32(lead & 0x07)
    elif lead >= 0xE0:
        size, code = 3, np.uint32(lead & 0x0F)
    else:
        size, code = 2, np.uint32(lead & 0x1F)
    if lead < 0xC2 or lead > 0xF4 or at + size > end:
        return np.uint32(0), 1
    for place in range(at + 1, at + size):
        if data[place] & 0xC0 != 0x80:
            return np.uint32(0), 1
        code = np.uint32((code << np.uint32(6)) | np.uint32(data[place] & 0x3F))
    return code, size


@njit(cache=True, nogil=True)
def next_words(
    data: NDArray[np.uint8],
    at: int,
    end: int,
    table: NDArray[np.uint32],
    seed: np.uint64,
    out: NDArray[np.uint64],
    num_out: int,
) -> tuple[int, int]:
    """Append hashes of words to `out` from `num_out` on, until it is full or the text ends; where each then stands."""
    start = _FNV_START ^ mix(seed)
    state, inside = start, False
    while at < end:
        byte = data[at]
        if byte < 0x80:
            folded, size = table[byte], 1
        else:
            code, size = decode(data, at, end)
            # Beyond the table lie Han's extensions (planes 2 and 3); what follows them has no letters.
            folded = table[code] if code < NUM_FOLDED else (code | ALONE if code < 0x40000 else np.uint32(0))
        if folded > SKIP and folded < ALONE:
            state, inside = (state ^ np.uint64(folded)) * _FNV_PRIME, True
        elif folded != SKIP:
            if inside:
                out[num_out] = mix(state)
                num_out += 1
                state, inside = start, False
                if num_out == len(out):
                    return at, num_out
            if folded >= ALONE:
                out[num_out] = mix((start ^ np.uint64(folded & _CODE)) * _FNV_PRIME)
                num_out += 1
                if num_out == len(out):
                    return at + size, num_out
        at += size
    if inside:
        out[num_out] = mix(state)
        num_out += 1
    return at, num_out


@njit(cache=True, nogil=True)
def hash_text(
    data: NDArray[np.uint8],
    at: int,
    end: int,
    table: NDArray[np.uint32],
    seed: np.uint64,
    buffer: NDArray[np.uint64],
) -> tuple[np.uint64, int]:
    """The hash of all words in order, and their number; `buffer` is for words, of any length."""
    state, num_words = seed, 0
    while at < end:
        at, num_new = next_words(data, at, end, table, seed, buffer, 0)
        for place in range(num_new):
            state = mix((state ^ buffer[place]) * _TEXT_PRIME)
        num_words += num_new
    return state, num_words


@njit(cache=True, nogil=True)
def hash_bytes(data: NDArray[np.uint8], at: int, end: int, seed: np.uint64) -> np.uint64:
    """For what has no words: only the same bytes match."""
    state = ~(_FNV_START ^ mix(seed))
    for place in range(at, end):
        state = (state ^ np.uint64(data[place])) * _FNV_PRIME
    return mix(state)


@njit(cache=True, nogil=True)
def _hash_all(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    table: NDArray[np.uint32],
    seed: np.uint64,
    hashes: NDArray[np.uint64],
    word_offsets: NDArray[np.int64],
) -> int:
    num_words = 0
    for number in range(len(offsets) - 1):
        _, num_words = next_words(data, offsets[number], offsets[number + 1], table, seed, hashes, num_words)
        word_offsets[number + 1] = num_words
    return num_words
