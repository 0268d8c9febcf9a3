"""Gopher's rules against repetition (arXiv 2112.11446, table A1), as datatrove reads them.

All shares are of the characters of the document, of lines and paragraphs also of their number. Things are compared by
64-bit hashes: at a hundred thousand n-grams in a document one in 10^9 documents has two that are taken for the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numba import njit
from numpy.typing import NDArray

from xgen.data.curate.filters.characters import BASE
from xgen.data.curate.filters.lines import NEW_LINE, code_of, mask_for, num_chars, seen, strip
from xgen.data.curate.filters.thresholds import GopherRepetition
from xgen.data.curate.filters.trace import Batch, Rule, Trace, at_most

_MEASURES = (
    "chars", "duplicate_paragraphs", "duplicate_paragraph_chars", "duplicate_lines", "duplicate_line_chars",
    "top_2_gram", "top_3_gram", "top_4_gram", "duplicate_5_grams", "duplicate_6_grams", "duplicate_7_grams",
    "duplicate_8_grams", "duplicate_9_grams", "duplicate_10_grams",
)  # fmt: skip
_MIX = np.uint64(0x94D049BB133111EB)
_NUM_POWERS = 4096


@dataclass(frozen=True)
class GopherRepetitionFilter:
    thresholds: GopherRepetition = field(default_factory=GopherRepetition)
    name: str = "gopher_repetition"

    def check(self, batch: Batch) -> Trace:
        words = batch.words
        values = _repetition(
            batch.texts.data, batch.texts.offsets, words.offsets, words.num_bytes, words.num_chars, words.code
        )
        measures = {name: values[:, column] for column, name in enumerate(_MEASURES)}
        rules = [Rule("empty", "chars", least=1)]
        for name in _MEASURES[1:]:
            rules += at_most(f"max_{name}", name, getattr(self.thresholds, f"max_{name}"))
        return Trace.of(self.name, measures, rules)


@njit(cache=True, nogil=True)
def _repetition(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    bounds: NDArray[np.int64],
    num_bytes: NDArray[np.int32],
    chars: NDArray[np.int32],
    codes: NDArray[np.uint64],
) -> NDArray[np.float64]:
    """[documents, 14]: _MEASURES."""
    values = np.zeros((len(offsets) - 1, 14), np.float64)
    most = 0
    for number in range(len(values)):
        most = max(most, bounds[number + 1] - bounds[number], _count_lines(data, offsets[number], offsets[number + 1]))
    size = mask_for(most) + 1
    keys, marks = np.empty(size, np.uint64), np.zeros(size, np.int64)
    counts, firsts = np.empty(size, np.int32), np.empty(size, np.int32)
    powers = np.empty(_NUM_POWERS, np.uint64)
    powers[0] = 1
    for number in range(1, _NUM_POWERS):
        powers[number] = powers[number - 1] * BASE
    for number in range(len(values)):
        mark = 16 * number + 1  # of each pass over a document; the table is empty for the next
        low, high = offsets[number], offsets[number + 1]
        length = num_chars(data, low, high)
        values[number, 0] = length
        if length == 0:
            continue
        mask = mask_for(_count_lines(data, low, high))
        start, end = strip(data, low, high)
        repeated, repeated_chars, total = _repeated(data, start, end, 2, keys, marks, mask, mark)
        values[number, 1], values[number, 2] = repeated / total, repeated_chars / length
        repeated, repeated_chars, total = _repeated(data, low, high, 1, keys, marks, mask, mark + 1)
        values[number, 3], values[number, 4] = repeated / total, repeated_chars / length
        low, high = bounds[number], bounds[number + 1]
        mask = mask_for(high - low)
        for n in range(2, 5):
            top = _top(chars, codes, low, high, n, keys, marks, counts, firsts, mask, mark + n)
            values[number, 3 + n] = top / length
        for n in range(5, 11):
            again = _again(num_bytes, chars, codes, low, high, n, powers, keys, marks, mask, mark + n)
            values[number, 3 + n] = again / length
    return values


@njit(cache=True, nogil=True)
def _count_lines(data: NDArray[np.uint8], low: int, high: int) -> int:
    count = 1
    for place in range(low, high):
        count += data[place] == NEW_LINE
    return count


@njit(cache=True, nogil=True)
def _repeated(
    data: NDArray[np.uint8],
    place: int,
    end: int,
    breaks: int,
    keys: NDArray[np.uint64],
    marks: NDArray[np.int64],
    mask: int,
    mark: int,
) -> tuple[int, int, int]:
    """(repeated, their characters, all) of the parts of a text between `breaks` or more line breaks."""
    repeated, repeated_chars, total, start = 0, 0, 0, place
    while place <= end:
        after = place
        while after < end and data[after] == NEW_LINE:
            after += 1
        if place == end or after - place >= breaks:
            total += 1
            if seen(keys, marks, mask, mark, code_of(data, start, place))[1]:
                repeated += 1
                repeated_chars += num_chars(data, start, place)
            if place == end:
                break
            start = after
        place = max(after, place + 1)
    return repeated, repeated_chars, total


@njit(cache=True, nogil=True)
def _top(
    chars: NDArray[np.int32],
    codes: NDArray[np.uint64],
    low: int,
    high: int,
    n: int,
    keys: NDArray[np.uint64],
    marks: NDArray[np.int64],
    counts: NDArray[np.int32],
    firsts: NDArray[np.int32],
    mask: int,
    mark: int,
) -> int:
    """Characters, spaces included, of the most frequent n-gram, times its count; of several, the first in the text."""
    best, best_first = 0, 0
    for word in range(low, high - n + 1):
        code = codes[word]
        for following in range(word + 1, word + n):
            code = (code ^ (code >> np.uint64(29))) * _MIX + codes[following]
        slot, again = seen(keys, marks, mask, mark, code)
        if again:
            counts[slot] += 1
        else:
            counts[slot], firsts[slot] = 1, word - low
        if counts[slot] > best or (counts[slot] == best and firsts[slot] < best_first):
            best, best_first = counts[slot], firsts[slot]
    length = n - 1
    for word in range(low + best_first, low + best_first + n):
        length += chars[word] if best else 0
    return length * best


@njit(cache=True, nogil=True)
def _again(
    num_bytes: NDArray[np.int32],
    chars: NDArray[np.int32],
    codes: NDArray[np.uint64],
    low: int,
    high: int,
    n: int,
    powers: NDArray[np.uint64],
    keys: NDArray[np.uint64],
    marks: NDArray[np.int64],
    mask: int,
    mark: int,
) -> int:
    """Characters of n-grams that came before, the words written without spaces; none overlaps the one before it."""
    word, repeated = low, 0
    while word <= high - n:
        code = np.uint64(0)
        for following in range(word, word + n):
            size = num_bytes[following]
            code = code * (powers[size] if size < _NUM_POWERS else _power(size)) + codes[following]
        if seen(keys, marks, mask, mark, code)[1]:
            for following in range(word, word + n):
                repeated += chars[following]
            word += n
        else:
            word += 1
    return repeated


@njit(cache=True, nogil=True)
def _power(size: int) -> np.uint64:
    power, square = np.uint64(1), BASE
    while size:
        if size & 1:
            power *= square
        square *= square
        size >>= 1
    return power
