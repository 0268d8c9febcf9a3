"""Lines or paragraphs that many documents share, menus and licences above all: counted across a corpus, then cut.

Two passes: `count_lines` of every batch, merged by ranges of hashes (`merge_counts`) into what is `frequent`; then
`remove_lines`. A line is its words (`words.py`). Code repeats its lines by nature: leave it out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

from xgen.data.curate.texts import Texts
from xgen.data.curate.words import fold_table, hash_text

_SEED = np.uint64(3)
_BLOCK = 1024  # words at a time
_NEWLINE = np.uint8(10)


@dataclass(frozen=True)
class LineRule:
    """What counts as frequent; a paragraph ends at an empty line."""

    unit: Literal["line", "paragraph"] = "line"
    min_words: int = 4  # shorter ones are never removed
    max_documents: int = 10  # a line of more is removed from all


@dataclass(frozen=True)
class LineCounts:
    """`hashes` ascending, each once; documents of this part of the corpus that have the line."""

    hashes: NDArray[np.uint64]
    num_documents: NDArray[np.uint32]

    def within(self, first: int, last: int) -> LineCounts:
        """Those of hashes from `first` to before `last` (up to 2^64): a bucket."""
        low = np.searchsorted(self.hashes, np.uint64(first))
        high = len(self.hashes) if last >= 1 << 64 else np.searchsorted(self.hashes, np.uint64(last))
        return LineCounts(self.hashes[low:high], self.num_documents[low:high])


@dataclass(frozen=True)
class Removal:
    """The texts without frequent lines, and what went of each document: lines, bytes.

    `hashes` are those of the lines cut, in the order of the texts, and `bounds` [lines cut, 2] where they stood.
    """

    texts: Texts
    num_lines: NDArray[np.int64]
    num_bytes: NDArray[np.int64]
    hashes: NDArray[np.uint64]
    bounds: NDArray[np.int64]


def count_lines(texts: Texts, rule: LineRule) -> LineCounts:
    """A line counts once a document, however often it has it."""
    _, hashes, lines_before = _split(texts, rule)
    owner = np.repeat(np.arange(len(texts)), np.diff(lines_before))
    long = hashes != 0
    hashes, owner = hashes[long], owner[long]
    order = np.argsort(hashes, kind="stable")  # the lines of a document then follow each other
    hashes, owner = hashes[order], owner[order]
    first = np.ones(len(hashes), dtype=bool)
    first[1:] = (hashes[1:] != hashes[:-1]) | (owner[1:] != owner[:-1])
    return _sum(hashes[first], np.ones(int(first.sum()), dtype=np.uint32))


def merge_counts(counts: Sequence[LineCounts]) -> LineCounts:
    """Of parts that share no document; in any order, and merged again in any grouping."""
    hashes = np.concatenate([part.hashes for part in counts])
    numbers = np.concatenate([part.num_documents for part in counts])
    order = np.argsort(hashes, kind="stable")
    return _sum(hashes[order], numbers[order])


def frequent(counts: LineCounts, rule: LineRule) -> LineCounts:
    """The lines to remove."""
    often = counts.num_documents > rule.max_documents
    return LineCounts(counts.hashes[often], counts.num_documents[often])


def remove_lines(texts: Texts, lines: LineCounts, rule: LineRule) -> Removal:
    """Cut the `lines` (`frequent`) with their newlines; the rule is that of the counts."""
    ends, hashes, lines_before = _split(texts, rule)
    known = lines.hashes
    places = np.minimum(np.searchsorted(known, hashes), max(len(known) - 1, 0))
    cut = (known[places] == hashes) & (hashes != 0) if len(known) else np.zeros(len(hashes), dtype=bool)
    data = np.empty(texts.num_bytes, dtype=np.uint8)
    offsets = np.zeros(len(texts) + 1, dtype=np.int64)
    num_lines, num_bytes = np.zeros(len(texts), dtype=np.int64), np.zeros(len(texts), dtype=np.int64)
    _copy(texts.data, texts.offsets, ends, cut, lines_before, data, offsets, num_lines, num_bytes)
    bounds = np.stack([np.concatenate([[0], ends[:-1]])[: len(ends)], ends], axis=1)
    return Removal(Texts(data[: offsets[-1]], offsets), num_lines, num_bytes, hashes[cut], bounds[cut])


def _split(texts: Texts, rule: LineRule) -> tuple[NDArray[np.int64], NDArray[np.uint64], NDArray[np.int64]]:
    """Where each line ends, its hash (0 if it is short), and the number of lines before each document."""
    most = int(np.count_nonzero(texts.data == _NEWLINE)) + len(texts)
    ends, hashes = np.empty(most, dtype=np.int64), np.empty(most, dtype=np.uint64)
    before = np.zeros(len(texts) + 1, dtype=np.int64)
    paragraphs = rule.unit == "paragraph"
    _hash_lines(texts.data, texts.offsets, fold_table(), paragraphs, rule.min_words, ends, hashes, before)
    return ends[: before[-1]], hashes[: before[-1]], before


def _sum(hashes: NDArray[np.uint64], numbers: NDArray[np.uint32]) -> LineCounts:
    if len(hashes) == 0:
        return LineCounts(hashes, numbers)
    begins = np.flatnonzero(np.concatenate([[True], hashes[1:] != hashes[:-1]]))
    return LineCounts(hashes[begins], np.add.reduceat(numbers, begins).astype(np.uint32))


@njit(cache=True, nogil=True)
def _hash_lines(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    table: NDArray[np.uint32],
    paragraphs: bool,
    min_words: int,
    ends: NDArray[np.int64],
    hashes: NDArray[np.uint64],
    before: NDArray[np.int64],
) -> None:
    words = np.empty(_BLOCK, dtype=np.uint64)
    num_lines = 0
    for number in range(len(offsets) - 1):
        at, end = offsets[number], offsets[number + 1]
        while at < end:
            stop = _paragraph_end(data, at, end) if paragraphs else _line_end(data, at, end)
            state, num_words = hash_text(data, at, stop, table, _SEED, words)
            ends[num_lines] = stop
            hashes[num_lines] = state if num_words >= max(min_words, 1) else np.uint64(0)
            num_lines += 1
            at = stop
        before[number + 1] = num_lines


@njit(cache=True, nogil=True)
def _line_end(data: NDArray[np.uint8], at: int, end: int) -> int:
    while at < end and data[at] != _NEWLINE:
        at += 1
    return min(at + 1, end)


@njit(cache=True, nogil=True)
def _paragraph_end(data: NDArray[np.uint8], at: int, end: int) -> int:
    """After the empty lines (of space alone) that follow."""
    stop = _line_end(data, at, end)
    empty = False
    while stop < end:
        after = _line_end(data, stop, end)
        is_empty = True
        for place in range(stop, after):
            if data[place] > 32:
                is_empty = False
                break
        if empty and not is_empty:
            return stop
        empty |= is_empty
        stop = after
    return stop


@njit(cache=True, nogil=True)
def _copy(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    ends: NDArray[np.int64],
    cut: NDArray[np.bool_],
    lines_before: NDArray[np.int64],
    out: NDArray[np.uint8],
    out_offsets: NDArray[np.int64],
    num_lines: NDArray[np.int64],
    num_bytes: NDArray[np.int64],
) -> None:
    filled = 0
    for number in range(len(offsets) - 1):
        at = offsets[number]
        for line in range(lines_before[number], lines_before[number + 1]):
            if cut[line]:
                num_lines[number] += 1
                num_bytes[number] += ends[line] - at
            else:
                for place in range(at, ends[line]):
                    out[filled] = data[place]
                    filled += 1
            at = ends[line]
        out_offsets[number + 1] = filled
