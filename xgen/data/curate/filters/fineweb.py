"""FineWeb's own rules (arXiv 2406.17557, 3.6), as datatrove reads them: lines of prose, no lists, no repeated lines.

Lines are parted by "\\n" alone, and blank ones do not count. A line ends as it is written: with a space or "\\r" after
the full stop it has no punctuation at its end.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numba import njit
from numpy.typing import NDArray

from xgen.data.curate.filters.characters import TERMINAL, tables
from xgen.data.curate.filters.lines import NEW_LINE, code_of, mask_for, num_chars, seen, strip
from xgen.data.curate.filters.thresholds import FineWeb
from xgen.data.curate.filters.trace import Batch, Rule, Trace, at_least, at_most
from xgen.data.curate.filters.words import decode

_MEASURES = ("lines", "terminal_lines", "short_lines", "duplicate_line_chars", "new_lines_per_word")


@dataclass(frozen=True)
class FineWebFilter:
    thresholds: FineWeb = field(default_factory=FineWeb)
    name: str = "fineweb"

    def check(self, batch: Batch) -> Trace:
        limit, texts = self.thresholds, batch.texts
        values = _lines(texts.data, texts.offsets, batch.words.offsets, tables().classes, limit.short_line_chars)
        measures = {name: values[:, column] for column, name in enumerate(_MEASURES)}
        rules = [
            Rule("empty", "lines", least=1),
            *at_least("min_terminal_lines", "terminal_lines", limit.min_terminal_lines),
            *at_most("max_short_lines", "short_lines", limit.max_short_lines),
            *at_most("max_duplicate_line_chars", "duplicate_line_chars", limit.max_duplicate_line_chars),
            *at_most("max_new_lines_per_word", "new_lines_per_word", limit.max_new_lines_per_word),
        ]
        return Trace.of(self.name, measures, rules)


@njit(cache=True, nogil=True)
def _lines(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    bounds: NDArray[np.int64],
    classes: NDArray[np.uint32],
    short_chars: int,
) -> NDArray[np.float64]:
    """[documents, 5]: _MEASURES."""
    values = np.full((len(offsets) - 1, 5), np.nan, np.float64)
    breaks = np.zeros(len(values), np.int64)
    for number in range(len(values)):
        for place in range(offsets[number], offsets[number + 1]):
            breaks[number] += data[place] == NEW_LINE
    size = mask_for(breaks.max() + 1) + 1 if len(breaks) else 64
    keys, marks = np.empty(size, np.uint64), np.zeros(size, np.int64)
    for number in range(len(values)):
        place, end = offsets[number], offsets[number + 1]
        length = num_chars(data, place, end) - breaks[number]
        mask = mask_for(breaks[number] + 1)
        lines, terminal, short, repeated = 0, 0, 0, 0
        while place < end:
            last = place
            while last < end and data[last] != NEW_LINE:
                last += 1
            low, high = strip(data, place, last)
            if high > low:
                lines += 1
                start = last - 1
                while start > place and data[start] & 0xC0 == 0x80:
                    start -= 1
                terminal += classes[decode(data, start, last)[0]] & TERMINAL != 0
                chars = num_chars(data, place, last)
                short += chars <= short_chars
                if seen(keys, marks, mask, number + 1, code_of(data, place, last))[1]:
                    repeated += chars
            place = last + 1
        words = bounds[number + 1] - bounds[number]
        values[number, 0] = lines
        if lines:
            values[number, 1], values[number, 2], values[number, 3] = terminal / lines, short / lines, repeated / length
        if words:
            values[number, 4] = breaks[number] / words
    return values
