"""One chunk of text between spaces into words, as spaCy's English tokenizer cuts it: kernels.

The order of things is spaCy's (spacy/tokenizer.pyx, MIT): exceptions first ("don't"), then prefixes and suffixes from
both ends until nothing more comes off, then exceptions again, addresses of the web, infixes; last, words that lie side
by side and are an exception together (":" and ")"). Left out: such a pair across spaces, which spaCy finds and leaves
as it is, but which may there hide an overlapping one.

A chunk is given as the classes and code points of its characters; the result is `cut`, one flag a character: a word
starts here.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from xgen.data.curate.filters.addresses import is_address
from xgen.data.curate.filters.characters import (
    ALPHA,
    BEFORE_FULL_STOP,
    BOUNDARY,
    CURRENCY,
    INFIX,
    LOWER,
    MAX_EXCEPTION,
    MAX_PIECES,
    PREFIX,
    QUOTE,
    SUFFIX,
    UPPER,
    find,
    step,
)

_DOT, _COLON, _SLASH, _HYPHEN, _PLUS, _DOLLAR = 46, 58, 47, 45, 43, 36
_DEGREE, _EN_DASH, _EM_DASH, _ELLIPSIS, _APOSTROPHE, _RIGHT_QUOTE = 0xB0, 0x2013, 0x2014, 0x2026, 39, 0x2019
_MAX_UNIT = 5  # characters
_MAX_PATTERN = 12  # words


@njit(cache=True, nogil=True)
def cut_chunk(
    data: NDArray[np.uint8],
    at: NDArray[np.int64],
    code: NDArray[np.int64],
    kind: NDArray[np.uint32],
    length: int,
    exceptions: NDArray[np.uint64],
    pieces: NDArray[np.uint8],
    patterns: NDArray[np.uint64],
    pattern_pieces: NDArray[np.uint8],
    starts: NDArray[np.bool_],
    units: NDArray[np.uint64],
    cut: NDArray[np.uint8],
    claim: NDArray[np.uint8],
) -> None:
    """Sets `cut[: length + 1]`. `at[length + 1]`: place in `data` of each character and of the end. Returns nothing."""
    for place in range(length + 1):
        cut[place] = 0
    cut[0] = cut[length] = 1
    low, high = int(np.int64(0)), length
    found = -1
    num_affixes = 0
    while low < high:
        found = _exception(data, at, low, high, exceptions)
        if found >= 0:
            break
        prefix = _prefix(code, kind, low, high)
        if prefix and low + prefix < high:
            found = _exception(data, at, low + prefix, high, exceptions)
            if found >= 0:
                low += prefix
                cut[low] = 1
                num_affixes += 1
                break
        suffix = _suffix(data, at, code, kind, low + prefix, high, units)
        if suffix and high - suffix > low:
            found = _exception(data, at, low, high - suffix, exceptions)
            if found >= 0:
                high -= suffix
                cut[high] = 1
                num_affixes += 1
                break
        if not prefix and not suffix:
            break
        low += prefix
        high -= suffix
        num_affixes += 1
        cut[low] = cut[high] = 1
    if found >= 0:
        _cut_pieces(at, low, pieces[found], cut)
    elif low < high and not is_address(code, kind, low, high):
        num_affixes += _cut_infixes(code, kind, low, high, cut)
    if num_affixes:
        _join(data, at, code, length, patterns, pattern_pieces, starts, cut, claim)


@njit(cache=True, nogil=True)
def _exception(
    data: NDArray[np.uint8], at: NDArray[np.int64], low: int, high: int, exceptions: NDArray[np.uint64]
) -> int:
    if at[high] - at[low] > MAX_EXCEPTION:
        return -1
    value = np.uint64(0)
    for place in range(at[low], at[high]):
        value = step(value, np.uint64(data[place]))
    return find(exceptions, value)


@njit(cache=True, nogil=True)
def _cut_pieces(at: NDArray[np.int64], low: int, sizes: NDArray[np.uint8], cut: NDArray[np.uint8]) -> None:
    """Cut where the words of an exception end; their sizes are in bytes."""
    place, end = low, at[low]
    for number in range(MAX_PIECES):
        if sizes[number] == 0:
            break
        end += sizes[number]
        while at[place] < end:
            place += 1
        cut[place] = 1


@njit(cache=True, nogil=True)
def _prefix(code: NDArray[np.int64], kind: NDArray[np.uint32], low: int, high: int) -> int:
    """Number of characters that come off the front."""
    first = code[low]
    if first == _DOT:
        end = low
        while end < high and code[end] == _DOT:
            end += 1
        return end - low if end - low > 1 else 0
    if kind[low] & PREFIX:
        return 1
    if first == _PLUS:
        return 0 if low + 1 < high and 48 <= code[low + 1] <= 57 else 1
    if high - low >= 2 and code[low + 1] == _DOLLAR and first in (65, 67):
        return 2  # C$, A$
    if high - low >= 3 and first == 85 and code[low + 1] == 83 and code[low + 2] == _DOLLAR:
        return 3  # US$
    return 0


@njit(cache=True, nogil=True)
def _suffix(
    data: NDArray[np.uint8],
    at: NDArray[np.int64],
    code: NDArray[np.int64],
    kind: NDArray[np.uint32],
    low: int,
    high: int,
    units: NDArray[np.uint64],
) -> int:
    """Number of characters that come off the end: the longest that any pattern takes."""
    if low >= high:
        return 0
    last, length = code[high - 1], high - low
    best = 1 if kind[high - 1] & SUFFIX else 0
    if last == _DOT:
        end = high
        while end > low and code[end - 1] == _DOT:
            end -= 1
        if high - end > 1:
            return high - end
        if length >= 2 and kind[high - 2] & BEFORE_FULL_STOP:
            return 1
        if length >= 3 and kind[high - 2] & UPPER and kind[high - 3] & UPPER:
            return 1
        if length >= 3 and code[high - 3] == _DEGREE and code[high - 2] in (70, 102, 67, 99, 75, 107):
            return 1
        return best
    if length >= 2:
        before = code[high - 2]
        if last in (115, 83) and before in (_APOSTROPHE, _RIGHT_QUOTE):
            return 2
        if last == _ELLIPSIS and before == _ELLIPSIS:
            return 2
    for size in range(min(_MAX_UNIT, length - 1), 0, -1):  # a unit or a currency after a digit
        start = high - size
        if 48 <= code[start - 1] <= 57:
            value = np.uint64(0)
            for place in range(at[start], at[high]):
                value = step(value, np.uint64(data[place]))
            if find(units, value) >= 0:
                return size
            if last == _DOLLAR and size > 1 and size == _prefix(code, kind, start, high):
                return size
            if size == 1 and (last == _PLUS or kind[high - 1] & CURRENCY):
                return 1
    return best


@njit(cache=True, nogil=True)
def _cut_infixes(code: NDArray[np.int64], kind: NDArray[np.uint32], low: int, high: int, cut: NDArray[np.uint8]) -> int:
    """Cuts around what stands within a word: hyphens between letters, `a.B`, `a,b`, `x=y`. Returns how many."""
    place, count = low, 0
    while place < high:
        size = _infix(code, kind, low, place, high)
        if size and place > low:
            cut[place] = cut[place + size] = 1
            count += 1
        place += max(size, 1)
    return count


@njit(cache=True, nogil=True)
def _infix(code: NDArray[np.int64], kind: NDArray[np.uint32], low: int, place: int, high: int) -> int:
    this = code[place]
    if 97 <= this <= 122 or 65 <= this <= 90:
        return 0
    if this == _DOT and place + 1 < high and code[place + 1] == _DOT:
        end = place
        while end < high and code[end] == _DOT:
            end += 1
        return end - place
    if kind[place] & INFIX:
        return 1
    if place == low or place + 1 >= high:
        return 0
    before, after = kind[place - 1], kind[place + 1]
    digit = 48 <= code[place - 1] <= 57
    if digit and this in (_PLUS, _HYPHEN, 42, 94) and (48 <= code[place + 1] <= 57 or code[place + 1] == _HYPHEN):
        return 1
    if this == _DOT:
        return 1 if before & (LOWER | QUOTE) and after & (UPPER | QUOTE) else 0
    if not (before & ALPHA or digit):
        return 0
    if this == 44:
        return 1 if before & ALPHA and after & ALPHA else 0
    if this in (_COLON, _SLASH, 60, 61, 62):
        return 1 if after & ALPHA else 0
    if this == _HYPHEN:
        for size in range(1, 4):
            if place + size < high and kind[place + size] & ALPHA:
                return size
            if place + size >= high or code[place + size] != _HYPHEN:
                return 0
        return 0
    if this == _EM_DASH and code[place + 1] == _EM_DASH:
        return 2 if place + 2 < high and kind[place + 2] & ALPHA else 0
    if this in (_EM_DASH, _EN_DASH, 126):
        return 1 if after & ALPHA else 0
    return 0


@njit(cache=True, nogil=True)
def _join(
    data: NDArray[np.uint8],
    at: NDArray[np.int64],
    code: NDArray[np.int64],
    length: int,
    patterns: NDArray[np.uint64],
    pattern_pieces: NDArray[np.uint8],
    starts: NDArray[np.bool_],
    cut: NDArray[np.uint8],
    claim: NDArray[np.uint8],
) -> None:
    """Words side by side that make an exception: those of most words first, and of these the first in the text.

    As in spaCy, a candidate claims its words also where it loses: of ":):)" only the first pair is joined, for ")" and
    ":" between them are an exception too. `code` is used for what was found.
    """
    most = 0
    for low in range(length):
        if cut[low] and _may_start(data, at, low, length, cut, starts):
            most = max(most, _pattern(data, at, low, length, patterns, cut, most + 1, int(np.int64(_MAX_PATTERN)))[1])
    if not most:
        return
    for low in range(length):
        claim[low], code[low] = 0, -1
    for words in range(most, 0, -1):
        for low in range(length):
            if cut[low] and _may_start(data, at, low, length, cut, starts):
                slot, _, end = _pattern(data, at, low, length, patterns, cut, words, words)
                if slot >= 0:
                    if not claim[low] and not claim[end - 1]:
                        code[low] = slot
                    for place in range(low, end):
                        claim[place] = 1
    for low in range(length):
        if code[low] >= 0:
            sizes = pattern_pieces[code[low]]
            end, place = at[low] + sizes[0] + sizes[1] + sizes[2], low + 1
            while at[place] < end:
                cut[place] = 0
                place += 1
            _cut_pieces(at, low, sizes, cut)


@njit(cache=True, nogil=True)
def _may_start(
    data: NDArray[np.uint8],
    at: NDArray[np.int64],
    low: int,
    length: int,
    cut: NDArray[np.uint8],
    starts: NDArray[np.bool_],
) -> bool:
    """False where no pattern has words with the first bytes of this word and the next: nearly everywhere."""
    end = low + 1
    while not cut[end]:
        end += 1
    return end < length and starts[data[at[low]], data[at[end]]]


@njit(cache=True, nogil=True)
def _pattern(
    data: NDArray[np.uint8],
    at: NDArray[np.int64],
    low: int,
    length: int,
    patterns: NDArray[np.uint64],
    cut: NDArray[np.uint8],
    least: int,
    most: int,
) -> tuple[int, int, int]:
    """(slot, words, end) of the longest pattern that starts at `low` and has `least` to `most` words, or (-1, 0, 0)."""
    value, words, end = np.uint64(0), 0, low
    slot, found, found_end = -1, 0, 0
    while end < length and words < most:
        if words:
            value = step(value, BOUNDARY - np.uint64(1))
        start = end
        end += 1
        while not cut[end]:
            end += 1
        if at[end] - at[low] > MAX_EXCEPTION:
            break
        for place in range(at[start], at[end]):
            value = step(value, np.uint64(data[place]))
        words += 1
        if words >= least:
            here = find(patterns, value)
            if here >= 0:
                slot, found, found_end = here, words, end
    return slot, found, found_end
