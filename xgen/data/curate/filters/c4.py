"""C4's rules (JMLR 21, 2020, 2.2), as datatrove reads them: lines that are no sentences go, then documents without any.

Changes the text: `Trace.changed` has the lines that are left, without white space at their ends and without citations.
Against datatrove, what differs: capital letters beyond ASCII whose small ones are ASCII (the Kelvin sign) are not
folded; white space that a citation leaves at the very end of a text is cut before sentences are counted, not after.
C4's list of bad words is not shipped: see rules.py for lists of one's own.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numba import njit
from numpy.typing import NDArray

from xgen.data.curate.filters.characters import DIGIT, tables
from xgen.data.curate.filters.lines import NEW_LINE, line_end, num_chars, strip
from xgen.data.curate.filters.thresholds import C4
from xgen.data.curate.filters.trace import Batch, Rule, Trace, at_least
from xgen.data.curate.filters.words import ENDS_SENTENCE, IS_PUNCTUATION, decode, space_width
from xgen.data.curate.texts import Texts

_MEASURES = (
    "lines", "cut_long_word", "cut_no_terminal_punctuation", "cut_few_words", "lorem_ipsum", "cut_javascript",
    "curly_brackets", "cut_policy", "sentences",
)  # fmt: skip
_LORE, _SCRIPT = b"lorem ipsum", b"javascript"
_POLICIES = (
    b"terms of use", b"privacy policy", b"cookie policy", b"uses cookies", b"use of cookies", b"use cookies",
)  # fmt: skip
_OFF = np.iinfo(np.int64).max
_SPACE, _OPEN, _CLOSE, _CURLY = 32, 91, 93, 123


@dataclass(frozen=True)
class C4Filter:
    thresholds: C4 = field(default_factory=C4)
    name: str = "c4"

    def check(self, batch: Batch) -> Trace:
        limit = self.thresholds
        data, offsets, values = _keep_lines(
            batch.texts.data,
            batch.texts.offsets,
            tables().classes,
            _PATTERNS,
            _STARTS,
            limit.terminal_punctuation,
            limit.min_words_per_line or 0,
            _OFF if limit.max_word_chars is None else limit.max_word_chars,
            limit.citations,
            (limit.lorem_ipsum, limit.javascript, limit.curly_brackets, limit.policies),
        )
        changed = Batch(Texts(data, offsets), batch.urls)
        words = changed.words
        values[:, 8] = _sentences(data, offsets, words.offsets, words.start, words.num_bytes, words.flags)
        measures = {name: values[:, column] for column, name in enumerate(_MEASURES)}
        rules = [
            Rule("lorem_ipsum", "lorem_ipsum", most=0),
            Rule("curly_brackets", "curly_brackets", most=0),
            *at_least("min_sentences", "sentences", limit.min_sentences),
        ]
        return Trace.of(self.name, measures, rules, changed)


def _patterns() -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    texts = (_LORE, _SCRIPT, *_POLICIES)
    table = np.zeros((len(texts), 16), dtype=np.uint8)
    for row, text in enumerate(texts):
        table[row, : len(text)] = np.frombuffer(text, dtype=np.uint8)
    return table


_PATTERNS = _patterns()
_STARTS = np.zeros((256, 256), dtype=np.bool_)  # by first and second byte
_STARTS[_PATTERNS[:, 0], _PATTERNS[:, 1]] = True


@njit(cache=True, nogil=True)
def _keep_lines(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    classes: NDArray[np.uint32],
    patterns: NDArray[np.uint8],
    starts: NDArray[np.bool_],
    terminal: bool,
    min_words: int,
    max_chars: int,
    citations: bool,
    switches: tuple[bool, bool, bool, bool],
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.float64]]:
    """(data, offsets, [documents, 9]: _MEASURES but the last)."""
    lorem, javascript, curly, policies = switches
    kept = np.empty(len(data) + 1, np.uint8)
    bounds = np.zeros(len(offsets), np.int64)
    values = np.zeros((len(offsets) - 1, 9), np.float64)
    out = 0
    for number in range(len(values)):
        place, end = offsets[number], offsets[number + 1]
        begin = out
        while place < end:
            last, following = line_end(data, place, end)
            low, high = strip(data, place, last)
            place = following
            values[number, 0] += 1
            words, longest = _count_words(data, low, high)
            if longest > max_chars:
                values[number, 1] += 1
                continue
            start = out + (1 if out > begin else 0)  # a line break before it
            stop = _copy_line(data, low, high, kept, start, classes, citations)
            if terminal and not _is_ended(kept, start, stop):
                values[number, 2] += 1
            elif words < min_words:
                values[number, 3] += 1
            else:
                has_lorem, has_script, has_curly, has_policy = _find(kept, start, stop, patterns, starts)
                values[number, 4] += has_lorem and lorem
                if has_script and javascript:
                    values[number, 5] += 1
                    continue
                values[number, 6] += has_curly and curly
                if has_policy and policies:
                    values[number, 7] += 1
                    continue
                if start > out:
                    kept[out] = NEW_LINE
                out = stop
        low, high = strip(kept, begin, out)
        if low > begin:
            for shift in range(high - low):
                kept[begin + shift] = kept[low + shift]
        out = begin + high - low
        bounds[number + 1] = out
    return kept[:out], bounds, values


@njit(cache=True, nogil=True)
def _count_words(data: NDArray[np.uint8], place: int, end: int) -> tuple[int, int]:
    """(words between white space, characters of the longest)."""
    words, longest, start = 0, 0, place
    while place <= end:
        width = space_width(data, place, end) if place < end else 1
        if width:
            if place > start:
                words += 1
                if place - start > longest:
                    longest = max(longest, num_chars(data, start, place))
            start = place + width
        place += max(width, 1)
    return words, longest


@njit(cache=True, nogil=True)
def _copy_line(
    data: NDArray[np.uint8],
    place: int,
    end: int,
    kept: NDArray[np.uint8],
    out: int,
    classes: NDArray[np.uint32],
    citations: bool,
) -> int:
    """Copies without "[12]", "[]", "[edit]", "[citation needed]"; returns the end of the copy."""
    while place < end:
        if data[place] == _OPEN and citations:
            spot = place + 1
            while spot < end:
                point, width = decode(data, spot, end)
                if not classes[point] & DIGIT:
                    break
                spot += width
            if spot < end and data[spot] == _CLOSE:
                place = spot + 1
                continue
            if _is_at(data, place, end, _EDIT):
                place += len(_EDIT)
                continue
            if _is_at(data, place, end, _NEEDED):
                place += len(_NEEDED)
                continue
        kept[out] = data[place]
        out += 1
        place += 1
    return out


_EDIT = np.frombuffer(b"[edit]", dtype=np.uint8)
_NEEDED = np.frombuffer(b"[citation needed]", dtype=np.uint8)


@njit(cache=True, nogil=True)
def _is_at(data: NDArray[np.uint8], place: int, end: int, text: NDArray[np.uint8]) -> bool:
    same = 0
    while same < len(text) and place + same < end and data[place + same] == text[same]:
        same += 1
    return same == len(text)


@njit(cache=True, nogil=True)
def _is_ended(data: NDArray[np.uint8], start: int, stop: int) -> bool:
    """One of . ? ! " ' is the last character, and no ellipsis."""
    if stop == start:
        return False
    last = data[stop - 1]
    if last == 46:
        return not (stop - start > 2 and data[stop - 2] == 46 and data[stop - 3] == 46)
    return last in (63, 33, 34, 39)


@njit(cache=True, nogil=True)
def _find(
    data: NDArray[np.uint8], start: int, stop: int, patterns: NDArray[np.uint8], starts: NDArray[np.bool_]
) -> tuple[bool, bool, bool, bool]:
    """(lorem ipsum, javascript, curly bracket, a policy), each whether the line has it."""
    lorem, script, curly, policy = False, False, False, False
    for place in range(start, stop):
        byte = data[place]
        if byte == _CURLY:
            curly = True
        if place + 1 < stop and starts[byte | 32, data[place + 1] | 32]:
            for row in range(len(patterns)):
                if _is_like(data, place, stop, patterns[row]):
                    lorem = lorem or row == 0
                    script = script or row == 1
                    policy = policy or row > 1
    return lorem, script, curly, policy


@njit(cache=True, nogil=True)
def _is_like(data: NDArray[np.uint8], place: int, stop: int, pattern: NDArray[np.uint8]) -> bool:
    """Whether a pattern of small letters and spaces, padded with 0, is here in letters of any size."""
    for spot in range(len(pattern)):
        if pattern[spot] == 0:
            return True
        if place + spot >= stop:
            return False
        byte = data[place + spot]
        if 65 <= byte <= 90:
            byte |= 32
        if byte != pattern[spot]:
            return False
    return True


@njit(cache=True, nogil=True)
def _sentences(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    bounds: NDArray[np.int64],
    starts: NDArray[np.int64],
    num_bytes: NDArray[np.int32],
    flags: NDArray[np.uint8],
) -> NDArray[np.float64]:
    """[documents]: as spaCy's sentencizer counts them, line by line: after punctuation that ends a sentence, the next
    word that is no punctuation starts another; white space that is more than one space counts as a word there."""
    counts = np.zeros(len(offsets) - 1, np.float64)
    for number in range(len(counts)):
        place, fresh, ended, count = offsets[number], True, False, 0
        for word in range(bounds[number], bounds[number + 1]):
            gap = starts[word] - place
            if gap:
                spot = place
                while spot < starts[word] and data[spot] != NEW_LINE:
                    spot += 1
                if ended and not fresh and spot > place and not (spot - place == 1 and data[place] == _SPACE):
                    count, ended = count + 1, False
                if spot < starts[word]:
                    fresh = True
            if fresh:
                count, fresh, ended = count + 1, False, flags[word] & ENDS_SENTENCE != 0
            elif ended and not flags[word] & (IS_PUNCTUATION | ENDS_SENTENCE):
                count, ended = count + 1, False
            elif flags[word] & ENDS_SENTENCE:
                ended = True
            place = starts[word] + num_bytes[word]
        counts[number] = count
    return counts
