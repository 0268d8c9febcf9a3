"""Words of English text, the same that spaCy's tokenizer gives datatrove: `split(texts) -> Words`.

Text in another language, or code, is cut by the same rules; datatrove has a tokenizer for each language. Words of
white space alone are left out, as datatrove does. Held against spaCy 3.8: 1,588 documents of benchmarks.curation, all
alike; of 1,500 strings made of nothing but its special cases 1.8% differ, by what english.py leaves out.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from xgen.data.curate.filters.characters import (
    LETTER,
    LOWER,
    MAX_PIECES,
    PREFIX,
    PUNCTUATION,
    SENTENCE_END,
    SUFFIX,
    SYMBOL,
    UPPER,
    find,
    step,
    tables,
)
from xgen.data.curate.filters.english import cut_chunk
from xgen.data.curate.texts import Texts

HAS_LETTER, IS_WORD, IS_PUNCTUATION, ENDS_SENTENCE = 1, 2, 4, 8  # bits of `flags`
_DOT, _UNDERSCORE = 46, 95
_MAX_PLAIN = 255


@dataclass(frozen=True)
class Words:
    """Of a batch of documents, one after the other; some 25 bytes a word, four times the text."""

    offsets: NDArray[np.int64]  # [documents + 1], into the arrays below
    start: NDArray[np.int64]  # byte in `Texts.data`
    num_bytes: NDArray[np.int32]
    num_chars: NDArray[np.int32]  # code points
    code: NDArray[np.uint64]  # polynomial hash of its bytes (characters.step)
    flags: NDArray[np.uint8]  # HAS_LETTER; IS_WORD: not of symbols alone; IS_PUNCTUATION; ENDS_SENTENCE


def split(texts: Texts) -> Words:
    table = tables()
    arrays = tuple(getattr(table, field.name) for field in fields(table))
    return Words(*_split(texts.data, texts.offsets, arrays))


@njit(cache=True, nogil=True)
def space_width(data: NDArray[np.uint8], place: int, end: int) -> int:
    """Bytes of the white space (str.isspace) that starts here, or 0."""
    byte = data[place]
    if byte < 0x80:
        return 1 if byte == 32 or 9 <= byte <= 13 or 28 <= byte <= 31 else 0
    if byte < 0xC2 or byte > 0xE3 or place + 1 >= end:
        return 0
    second = data[place + 1]
    if byte == 0xC2:
        return 2 if second in (0x85, 0xA0) else 0
    if byte < 0xE1 or place + 2 >= end:
        return 0
    third = data[place + 2]
    if byte == 0xE1:
        return 3 if second == 0x9A and third == 0x80 else 0
    if byte == 0xE2:
        if second == 0x80:
            return 3 if third <= 0x8A or third in (0xA8, 0xA9, 0xAF) else 0
        return 3 if second == 0x81 and third == 0x9F else 0
    return 3 if second == 0x80 and third == 0x80 else 0


@njit(cache=True, nogil=True)
def decode(data: NDArray[np.uint8], place: int, end: int) -> tuple[int, int]:
    """(code point, bytes) of the character that starts here."""
    byte = np.int64(data[place])
    if byte < 0x80:
        return int(byte), 1
    if byte < 0xE0 or place + 2 >= end:
        return int((byte & 0x1F) << 6 | np.int64(data[min(place + 1, end - 1)]) & 0x3F), 2
    code = (byte & 0x0F) << 12 | (np.int64(data[place + 1]) & 0x3F) << 6 | np.int64(data[place + 2]) & 0x3F
    if byte < 0xF0 or place + 3 >= end:
        return int(code), 3
    code = (byte & 7) << 18 | (code & 0xFFF) << 6 | np.int64(data[place + 3]) & 0x3F
    return min(int(code), 0x10FFFF), 4


@njit(cache=True, nogil=True)
def _split(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], tables: tuple[NDArray[Any], ...]
) -> tuple[NDArray[Any], ...]:
    capacity, room = len(data) // 5 + 1024, 1024
    start = np.empty(capacity, np.int64)
    num_bytes, num_chars = np.empty(capacity, np.int32), np.empty(capacity, np.int32)
    codes, flags = np.empty(capacity, np.uint64), np.empty(capacity, np.uint8)
    at, code = np.empty(room, np.int64), np.empty(room, np.int64)
    kind, cut, claim = np.empty(room, np.uint32), np.empty(room, np.uint8), np.empty(room, np.uint8)
    bounds = np.zeros(len(offsets), np.int64)
    count = int(np.int64(0))  # a plain 0 has a type of its own, and all below would be compiled a second time
    for number in range(len(offsets) - 1):
        place, end = offsets[number], offsets[number + 1]
        while place < end:
            # Arrays that a loop replaces cost an atomic operation each in every round: the loop over words has none.
            words, scratch = (start, num_bytes, num_chars, codes, flags), (at, code, kind, cut, claim)
            place, count, needed = _split_on(data, place, end, count, tables, words, scratch)
            if count + needed > capacity:
                capacity = 2 * capacity + needed
                start = _grow(start, count, capacity)
                num_bytes, num_chars = _grow(num_bytes, count, capacity), _grow(num_chars, count, capacity)
                codes, flags = _grow(codes, count, capacity), _grow(flags, count, capacity)
            if needed > room:
                room = 2 * needed
                at, code = np.empty(room, np.int64), np.empty(room, np.int64)
                kind, cut, claim = np.empty(room, np.uint32), np.empty(room, np.uint8), np.empty(room, np.uint8)
        bounds[number + 1] = count
    return bounds, start[:count], num_bytes[:count], num_chars[:count], codes[:count], flags[:count]


@njit(cache=True, nogil=True)
def _split_on(
    data: NDArray[np.uint8],
    place: int,
    end: int,
    count: int,
    tables: tuple[NDArray[Any], ...],
    words: tuple[NDArray[Any], ...],
    scratch: tuple[NDArray[Any], ...],
) -> tuple[int, int, int]:
    """Words from `place` on; returns (place, words so far, room that the next chunk needs)."""
    classes, exceptions, pieces, patterns, pattern_pieces, starts, units = tables
    start, num_bytes, num_chars, codes, flags = words
    at, code, kind, cut, claim = scratch
    while place < end:
        width = space_width(data, place, end)
        if width:
            place += width
            continue
        first = place
        place, length = _cut_plain(data, first, end, classes, exceptions, pieces, cut)
        plain = length > 0
        if not plain:
            while place < end and not space_width(data, place, end):
                place += 1
            length = place - first
        if length + 1 > len(at) or count + length + 1 > len(start):
            return first, count, length + 1
        if not plain:
            length = _decode(data, first, place, classes, at, code, kind)
            cut_chunk(
                data, at, code, kind, length, exceptions, pieces, patterns, pattern_pieces, starts, units, cut, claim
            )
        low = int(np.int64(0))
        while low < length:
            high = low + 1
            while not cut[high]:
                high += 1
            left, right = (first + low, first + high) if plain else (at[low], at[high])
            value = np.uint64(0)
            for spot in range(left, right):
                value = step(value, np.uint64(data[spot]))
            start[count], num_bytes[count], num_chars[count] = left, right - left, high - low
            codes[count] = value
            if not plain:
                flags[count] = _flags(kind, low, high)
            elif classes[data[left]] & LETTER:
                flags[count] = HAS_LETTER | IS_WORD
            else:
                for spot in range(length):
                    kind[spot] = classes[data[first + spot]]
                flags[count] = _flags(kind, low, high)
            count += 1
            low = high
    return place, count, 0


@njit(cache=True, nogil=True)
def _cut_plain(
    data: NDArray[np.uint8],
    first: int,
    end: int,
    classes: NDArray[np.uint32],
    exceptions: NDArray[np.uint64],
    pieces: NDArray[np.uint8],
    cut: NDArray[np.uint8],
) -> tuple[int, int]:
    """Most chunks, without the work that the others are: letters or digits, one sign before and one after at most.

    Returns where the chunk ends and its length, having set `cut`; or how far it looked, and 0 for all other chunks.
    The words are the same that `cut_chunk` gives; where a part of the chunk is an exception, it is left to that one.
    """
    place, lead = first, int(np.int64(0))
    head = data[place]
    if head < 0x80 and classes[head] & PREFIX:
        lead, place = int(np.int64(1)), place + 1
    core = place
    value = np.uint64(0)
    if place < end and 48 <= data[place] <= 57:
        while place < end and 48 <= data[place] <= 57:
            value = step(value, np.uint64(data[place]))
            place += 1
    else:
        while place < end and (97 <= data[place] <= 122 or 65 <= data[place] <= 90 or data[place] == _UNDERSCORE):
            value = step(value, np.uint64(data[place]))
            place += 1
    after = place
    if after - core > _MAX_PLAIN or (after > core and (data[core] == _UNDERSCORE or data[after - 1] == _UNDERSCORE)):
        return place, 0
    tail = 0
    if place < end and not space_width(data, place, end):
        last = data[place]
        if last >= 0x80 or after == core or (place + 1 < end and not space_width(data, place + 1, end)):
            return place, 0
        if last == _DOT:
            upper = classes[data[after - 1]] & LOWER == 0 and data[after - 1] > 57
            if upper and not (after - core > 1 and classes[data[after - 2]] & UPPER):
                return place, 0
        elif not classes[last] & SUFFIX:
            return place, 0
        tail, place = 1, place + 1
    length = place - first
    for spot in range(length + 1):
        cut[spot] = 0
    cut[0] = cut[length] = 1
    if length == 1:
        return place, length
    whole = value
    if lead:
        whole = np.uint64(0)
        for spot in range(first, after):
            whole = step(whole, np.uint64(data[spot]))
        if tail and (find(exceptions, whole) >= 0 or find(exceptions, step(value, np.uint64(data[after]))) >= 0):
            return place, 0
    if tail:
        whole = step(whole, np.uint64(data[after]))
    slot = find(exceptions, whole)
    if slot >= 0:
        low = 0
        for number in range(MAX_PIECES):
            low += pieces[slot, number]
            cut[low] = 1
    elif lead or tail:
        if find(exceptions, value) >= 0:
            return place, 0
        cut[lead] = cut[length - tail] = 1
    return place, length


@njit(cache=True, nogil=True)
def _decode(
    data: NDArray[np.uint8],
    first: int,
    end: int,
    classes: NDArray[np.uint32],
    at: NDArray[np.int64],
    code: NDArray[np.int64],
    kind: NDArray[np.uint32],
) -> int:
    """Fills `at`, `code` and `kind` and returns the number of characters."""
    chars, place = 0, first
    while place < end:
        point, width = decode(data, place, end)
        at[chars], code[chars], kind[chars] = place, point, classes[point]
        chars += 1
        place += width
    at[chars] = end
    return chars


@njit(cache=True, nogil=True)
def _flags(kind: NDArray[np.uint32], low: int, high: int) -> int:
    letter, word, punctuation = 0, 0, IS_PUNCTUATION
    for place in range(low, high):
        letter |= HAS_LETTER if kind[place] & LETTER else 0
        word |= 0 if kind[place] & SYMBOL else IS_WORD
        if not kind[place] & PUNCTUATION:
            punctuation = 0
    ends = ENDS_SENTENCE if high - low == 1 and kind[low] & SENTENCE_END else 0
    return letter | word | punctuation | ends


@njit(cache=True, nogil=True)
def _grow(array: NDArray[Any], count: int, capacity: int) -> NDArray[Any]:
    grown = np.empty(capacity, array.dtype)
    grown[:count] = array[:count]
    return grown
