"""Gopher's rules (arXiv 2112.11446, A.1.1), as datatrove reads them: quality here, repetition in repetition.py.

Words are those of words.py. Stop words count as they are written: "The" is none, as in datatrove.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numba import njit
from numpy.typing import NDArray

from xgen.data.curate.filters.characters import hash_bytes
from xgen.data.curate.filters.lines import line_end, strip
from xgen.data.curate.filters.thresholds import GopherQuality
from xgen.data.curate.filters.trace import Batch, Rule, Trace, at_least, at_most
from xgen.data.curate.filters.words import HAS_LETTER, IS_WORD

_MEASURES = (
    "words", "mean_word_length", "hashes_per_word", "ellipses_per_word", "bullet_lines", "ellipsis_lines",
    "letter_words", "stop_words",
)  # fmt: skip


@dataclass(frozen=True)
class GopherQualityFilter:
    thresholds: GopherQuality = field(default_factory=GopherQuality)
    name: str = "gopher_quality"

    def check(self, batch: Batch) -> Trace:
        words, limit = batch.words, self.thresholds
        stop_words = np.array([hash_bytes(word.encode()) for word in limit.stop_words], dtype=np.uint64)
        values = _quality(
            batch.texts.data, batch.texts.offsets, words.offsets, words.num_chars, words.code, words.flags, stop_words
        )
        measures = {name: values[:, column] for column, name in enumerate(_MEASURES)}
        rules: list[Rule] = [
            *at_least("min_words", "words", limit.min_words),
            *at_most("max_words", "words", limit.max_words),
            *at_least("min_mean_word_length", "mean_word_length", limit.min_mean_word_length),
            *at_most("max_mean_word_length", "mean_word_length", limit.max_mean_word_length),
            *at_most("max_hashes_per_word", "hashes_per_word", limit.max_hashes_per_word),
            *at_most("max_ellipses_per_word", "ellipses_per_word", limit.max_ellipses_per_word),
            *at_most("max_bullet_lines", "bullet_lines", limit.max_bullet_lines),
            *at_most("max_ellipsis_lines", "ellipsis_lines", limit.max_ellipsis_lines),
            *at_least("min_letter_words", "letter_words", limit.min_letter_words),
            *at_least("min_stop_words", "stop_words", limit.min_stop_words),
        ]
        return Trace.of(self.name, measures, rules)


@njit(cache=True, nogil=True)
def _quality(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    bounds: NDArray[np.int64],
    num_chars: NDArray[np.int32],
    codes: NDArray[np.uint64],
    flags: NDArray[np.uint8],
    stop_words: NDArray[np.uint64],
) -> NDArray[np.float64]:
    """[documents, 8]: _MEASURES. Shares of nothing are not numbers."""
    values = np.empty((len(offsets) - 1, 8), np.float64)
    found = np.zeros(len(stop_words), np.bool_)
    few = np.zeros(256, np.bool_)  # the last byte of a code: says of most words at once that they are no stop words
    for code in stop_words:
        few[code & np.uint64(255)] = True
    for number in range(len(values)):
        found[:] = False
        words, chars, with_letter = 0, 0, 0
        for word in range(bounds[number], bounds[number + 1]):
            if flags[word] & IS_WORD:
                words += 1
                chars += num_chars[word]
            with_letter += flags[word] & HAS_LETTER != 0
            if few[codes[word] & np.uint64(255)]:
                for stop in range(len(stop_words)):
                    if codes[word] == stop_words[stop]:
                        found[stop] = True
        hashes, ellipses, lines, bullets, dotted = _signs(data, offsets[number], offsets[number + 1])
        total = bounds[number + 1] - bounds[number]
        values[number] = np.nan
        values[number, 0] = words
        if words:
            values[number, 1] = chars / words
        if total:
            values[number, 2], values[number, 3] = hashes / total, ellipses / total
            values[number, 6] = with_letter / total
        if lines:
            values[number, 4], values[number, 5] = bullets / lines, dotted / lines
        values[number, 7] = found.sum()
    return values


@njit(cache=True, nogil=True)
def _signs(data: NDArray[np.uint8], place: int, end: int) -> tuple[int, int, int, int, int]:
    """(#, ellipses, lines, lines that start with a bullet, lines that end with an ellipsis)."""
    hashes, ellipses, lines, bullets, dotted, run = 0, 0, 0, 0, 0, 0
    for spot in range(place, end):
        byte = data[spot]
        if byte == 46:
            run += 1
            if run == 3:
                ellipses += 1
                run = 0
            continue
        run = 0
        hashes += byte == 35
        ellipses += byte == 0xE2 and spot + 2 < end and data[spot + 1] == 0x80 and data[spot + 2] == 0xA6
    while place < end:
        last, following = line_end(data, place, end)
        low, high = strip(data, place, last)
        lines += 1
        if high > low:
            bullets += data[low] == 45 or (
                high - low > 2 and data[low] == 0xE2 and data[low + 1] == 0x80 and data[low + 2] == 0xA2
            )
        if high - low > 2:
            a, b, c = data[high - 3], data[high - 2], data[high - 1]
            dotted += (a == 46 and b == 46 and c == 46) or (a == 0xE2 and b == 0x80 and c == 0xA6)
        place = following
    return hashes, ellipses, lines, bullets, dotted
