"""Statistics of how a text is built, whatever it speaks of: they tell garble, lists and menus from prose and code.

Two passes over a piece: one over its bytes (letters, marks, lines, brackets), one over its words (how they recur, how
sentences begin, what follows an article). Shares are of what the name says; every statistic is a float32.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from xgen.data.curate.classify.features import CLASS, LETTER, MARK, SPACE, next_word

STATISTICS = (
    "letters", "upper", "digits", "spaces", "marks", "not_ascii", "not_ascii_runs", "byte_entropy",
    "double_spaces", "letter_digit", "lower_upper", "mark_in_word", "brackets", "brackets_matched", "quotes",
    "lines_per_byte", "line_length", "line_length_change", "short_lines", "empty_lines", "same_indent", "indented",
    "lines_ended", "lines_upper", "lines_marked", "lines_again",
    "words_per_byte", "word_length", "word_length_spread", "longest_word", "one_letter", "stop_words", "stop_pairs",
    "stop_after_article", "capital_begins", "capital_inside", "word_twice", "top_word", "distinct",
    "again_16", "again_64", "again_256", "again_far", "pairs_again", "triples_again", "marks_per_word", "words_per_end",
)  # fmt: skip
NUM_STATISTICS = len(STATISTICS)

# What every English text has much of; the first three are articles.
_STOP = """
the a an of and to in is that it for as was with be by on not he his but at are this have had from or which one you were
all her she there would their we him been has when who will no more if out so up said what its about than into them can
only other do some could these may then
""".split()  # noqa: SIM905 - to be read
_SLOTS = 1 << 15
_PRIME, _CHAIN = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(64 - 15)
_STOP_SHIFT = np.uint64(64 - 12)


def _stop_table() -> NDArray[np.uint64]:
    table = np.zeros(1 << 12, np.uint64)
    for word in _STOP:
        data = np.frombuffer(word.encode(), np.uint8)
        value = next_word.py_func(data, 0, len(data))[1]
        table[int(value) * int(_PRIME) % (1 << 64) >> int(_STOP_SHIFT)] = value
    return table


with np.errstate(over="ignore"):
    _STOP_HASHES = _stop_table()
    _ARTICLES = np.array([next_word.py_func(np.frombuffer(w.encode(), np.uint8), 0, len(w))[1] for w in _STOP[:3]])


@njit(cache=True, nogil=True, inline="always")
def _slot(value: np.uint64) -> np.uint64:
    return (value * _PRIME) >> _SHIFT


@njit(cache=True, nogil=True, inline="always")
def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0


@njit(cache=True, nogil=True)
def statistics(data: NDArray[np.uint8], begin: int, end: int, out: NDArray[np.float32]) -> None:
    """STATISTICS of data[begin:end], written to `out`."""
    out[:] = 0.0
    if end > begin:
        _of_bytes(data, begin, end, out)
        _of_words(data, begin, end, out)


@njit(cache=True, nogil=True)
def _of_bytes(  # noqa: PLR0915 - one pass
    data: NDArray[np.uint8], begin: int, end: int, out: NDArray[np.float32]
) -> None:
    counts = np.zeros(256, np.int64)
    stack = np.zeros(64, np.uint8)
    keys = np.zeros(1 << 11, np.uint64)  # of lines
    depth = brackets = matched = 0
    doubles = letter_digit = lower_upper = mark_in_word = runs = 0
    lines = short = empty = same_indent = indented = ended = upper_lines = marked = again = 0
    changes = 0.0
    line_begin, last_length, last_indent, first_mark = begin, -1, -1, np.uint8(32)
    line_hash, last_mark, before, inside = np.uint64(1469598103934665603), np.uint8(32), np.uint8(32), np.uint8(32)
    indent = 0
    for at in range(begin, end + 1):
        byte = data[at] if at < end else np.uint8(10)
        if at < end:
            counts[byte] += 1
        kind, kind_before = CLASS[byte], CLASS[before]
        if byte == 10:
            length = at - line_begin
            lines += 1
            if first_mark == 32:
                empty += 1
            else:
                short += int(length < 30)
                ended += int(last_mark in (46, 33, 63))
                upper_lines += int(65 <= first_mark <= 90)
                marked += int(CLASS[first_mark] == MARK)
                indented += indent > 0
                if last_length >= 0:
                    changes += abs(length - last_length) / (length + last_length + 1)
                    same_indent += indent == last_indent
                slot = (line_hash * _PRIME) >> np.uint64(64 - 11)
                again += int(keys[slot] == line_hash)
                keys[slot] = line_hash
                last_length, last_indent = length, indent
            line_begin, indent, first_mark, line_hash = at + 1, 0, np.uint8(32), np.uint64(1469598103934665603)
        elif kind == SPACE:
            if first_mark == 32:
                indent += 1
            elif kind_before == SPACE:
                doubles += 1
        else:
            if first_mark == 32:
                first_mark = byte
            last_mark = byte
            line_hash = (line_hash ^ np.uint64(byte)) * np.uint64(0x100000001B3)
            digit, digit_before = 48 <= byte <= 57, 48 <= before <= 57
            if kind == LETTER and kind_before == LETTER:
                letter_digit += int(digit != digit_before)
                lower_upper += int(97 <= before <= 122 and 65 <= byte <= 90)
            elif kind == LETTER and kind_before == MARK and before not in (45, 39, 95):
                mark_in_word += int(CLASS[inside] == LETTER)
            runs += int(byte >= 128 and before < 128)
            if byte in (40, 91, 123):
                if depth < 64:
                    stack[depth] = byte
                depth += 1
                brackets += 1
            elif byte in (41, 93, 125):
                brackets += 1
                if depth > 0:
                    depth -= 1
                    matched += 2 if depth < 64 and byte - stack[depth] <= 2 else 0
        inside, before = before, byte
    size = float(end - begin)
    letters = upper = digits = spaces = marks = 0
    entropy = 0.0
    for byte in range(256):
        count = counts[byte]
        if count:
            entropy -= count / size * math.log(count / size)
        letters += count if CLASS[byte] == LETTER and byte < 128 and not 48 <= byte <= 57 else 0
        upper += count if 65 <= byte <= 90 else 0
        digits += count if 48 <= byte <= 57 else 0
        spaces += count if CLASS[byte] == SPACE else 0
        marks += count if CLASS[byte] == MARK else 0
    filled = float(lines - empty)
    out[0], out[1], out[2] = letters / size, _share(upper, letters), digits / size
    out[3], out[4], out[5] = spaces / size, marks / size, counts[128:].sum() / size
    out[6], out[7], out[8] = runs / size, entropy, _share(doubles, spaces)
    out[9], out[10], out[11] = letter_digit / size, lower_upper / size, mark_in_word / size
    out[12], out[13], out[14] = brackets / size, _share(matched, brackets), (counts[34] + counts[39]) / size
    out[15], out[16], out[17] = lines / size, math.log(size / lines), _share(changes, filled - 1)
    out[18], out[19], out[20] = _share(short, filled), empty / lines, _share(same_indent, filled - 1)
    out[21], out[22], out[23] = _share(indented, filled), _share(ended, filled), _share(upper_lines, filled)
    out[24], out[25] = _share(marked, filled), _share(again, filled)


@njit(cache=True, nogil=True)
def _of_words(  # noqa: PLR0915 - one pass
    data: NDArray[np.uint8], begin: int, end: int, out: NDArray[np.float32]
) -> None:
    keys, places = np.zeros(_SLOTS, np.uint64), np.zeros(_SLOTS, np.int32)
    counts = np.zeros(_SLOTS, np.int32)
    grams = np.zeros(_SLOTS, np.uint64)
    words = stops = stop_pairs = articles = stop_after_article = letters_1 = content = top = distinct = twice = 0
    near = np.zeros(4, np.int64)
    pairs_again = triples_again = ends = capital_begins = capital_inside = begins = longest = tokens = 0
    total = squares = 0.0
    one, two = np.uint64(0), np.uint64(0)
    was_stop = was_article = ended = False
    at = begin
    while True:
        after, value = next_word(data, at, end)
        if value == 0:
            break
        while CLASS[data[at]] == SPACE and at < after:
            at += 1
        byte, length = data[at], after - at
        at = after
        if length == 0:
            continue
        tokens += 1
        if CLASS[byte] == MARK:
            ended = byte in (46, 33, 63)
            ends += ended
            continue
        words += 1
        total += length
        squares += length * length
        longest = max(longest, length)
        letters_1 += length == 1
        capital = 65 <= byte <= 90
        if ended:
            begins += 1
            capital_begins += capital
        else:
            capital_inside += capital
        ended = False
        is_stop = _STOP_HASHES[(value * _PRIME) >> _STOP_SHIFT] == value
        stops += is_stop
        stop_pairs += is_stop and was_stop
        if was_article:
            articles += 1
            stop_after_article += is_stop
        was_stop, was_article = is_stop, value == _ARTICLES[0] or value == _ARTICLES[1] or value == _ARTICLES[2]
        twice += value == one
        slot = _slot(value)
        seen = keys[slot] == value
        if not is_stop and length > 3:
            content += 1
            if seen:
                gap = words - places[slot]
                near[0 if gap <= 16 else 1 if gap <= 64 else 2 if gap <= 256 else 3] += 1
        if not seen:
            distinct += 1
            counts[slot] = 0
        keys[slot], places[slot] = value, words
        counts[slot] += 1
        top = max(top, counts[slot])
        pair = value * _CHAIN ^ one
        slot = _slot(pair)
        pairs_again += grams[slot] == pair
        grams[slot] = pair
        triple = pair * _CHAIN ^ two
        slot = _slot(triple)
        triples_again += grams[slot] == triple
        grams[slot] = triple
        one, two = value, one
    if not words:
        return
    mean = total / words
    out[26], out[27] = words / (end - begin), mean
    out[28], out[29], out[30] = math.sqrt(max(0.0, squares / words - mean * mean)), math.log(longest), letters_1 / words
    out[31], out[32] = stops / words, _share(stop_pairs, stops)
    out[33], out[34] = _share(stop_after_article, articles), _share(capital_begins, begins)
    out[35], out[36] = _share(capital_inside, words - begins), twice / words
    out[37], out[38] = top / words, distinct / words
    for scale in range(4):
        out[39 + scale] = _share(near[scale], content)
    out[43], out[44] = pairs_again / words, triples_again / words
    out[45], out[46] = tokens / words - 1.0, math.log(words / (ends + 1.0))
