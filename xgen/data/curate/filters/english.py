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

from xgen.data.curate.filters.characters import (
    ALPHA,
    BEFORE_FULL_STOP,
    BOUNDARY,
    CURRENCY,
    DIGIT,
    INFIX,
    LOWER,
    MAX_EXCEPTION,
    MAX_PIECES,
    PREFIX,
    QUOTE,
    SUFFIX,
    UPPER,
    WORD,
    find,
    step,
)

_DOT, _COLON, _SLASH, _AT, _HYPHEN, _PLUS, _DOLLAR = 46, 58, 47, 64, 45, 43, 36
_DEGREE, _EN_DASH, _EM_DASH, _ELLIPSIS, _APOSTROPHE, _RIGHT_QUOTE = 0xB0, 0x2013, 0x2014, 0x2026, 39, 0x2019
_MAX_UNIT = 5  # characters
_MAX_PATTERN = 12  # words


@njit(cache=True, nogil=True)
def cut_chunk(  # type: ignore[no-untyped-def]
    data, at, code, kind, length, exceptions, pieces, patterns, pattern_pieces, starts, units, cut, claim
):
    """Sets `cut[: length + 1]`. `at[length + 1]`: place in `data` of each character and of the end. Returns nothing."""
    for place in range(length + 1):
        cut[place] = 0
    cut[0] = cut[length] = 1
    low, high = np.int64(0), length
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
    elif low < high and not _is_address(code, kind, low, high):
        num_affixes += _cut_infixes(code, kind, low, high, cut)
    if num_affixes:
        _join(data, at, code, length, patterns, pattern_pieces, starts, cut, claim)


@njit(cache=True, nogil=True)
def _exception(data, at, low, high, exceptions):  # type: ignore[no-untyped-def]
    if at[high] - at[low] > MAX_EXCEPTION:
        return -1
    value = np.uint64(0)
    for place in range(at[low], at[high]):
        value = step(value, np.uint64(data[place]))
    return find(exceptions, value)


@njit(cache=True, nogil=True)
def _cut_pieces(at, low, sizes, cut):  # type: ignore[no-untyped-def]
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
def _prefix(code, kind, low, high):  # type: ignore[no-untyped-def]
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
def _suffix(data, at, code, kind, low, high, units):  # type: ignore[no-untyped-def]
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
def _cut_infixes(code, kind, low, high, cut):  # type: ignore[no-untyped-def]
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
def _infix(code, kind, low, place, high):  # type: ignore[no-untyped-def]
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
def _is_address(code, kind, low, high):  # type: ignore[no-untyped-def]
    """Whether spaCy's pattern of a URL matches: [scheme://][user@]host[:port][/path]."""
    dots = False
    for place in range(low, high):
        dots = dots or code[place] == _DOT
    if not dots:
        return False
    place = low
    while place < high and (kind[place] & WORD or code[place] in (_PLUS, _HYPHEN, _DOT)):
        place += 1
    found = _is_host(code, kind, low, high)
    if place - low >= 2 and place + 2 < high and code[place] == _COLON:
        slashes = code[place + 1] == _SLASH and code[place + 2] == _SLASH
        found = found or (slashes and _is_host(code, kind, place + 3, high))
    for place in range(low + 1, high):
        found = found or (code[place] == _AT and _is_host(code, kind, place + 1, high))
    return found


@njit(cache=True, nogil=True)
def _is_host(code, kind, low, high):  # type: ignore[no-untyped-def]
    """Labels and full stops, then a top-level domain of lower-case letters; or an IPv4 address."""
    place, labels = low, 0
    while True:
        if labels:
            end = place
            while end < high and kind[end] & LOWER:
                end += 1
            if 2 <= end - place <= 63 and _is_tail(code, kind, end, high):
                return True
        start = place
        while place < high and (_in_host(code[place]) or code[place] == 95 or code[place] == _HYPHEN):
            place += 1
        size = place - start
        if place >= high or code[place] != _DOT or not 1 <= size <= 64:
            break
        if not (_in_host(code[start]) and _in_host(code[place - 1])):
            break
        place += 1
        labels += 1
    return _is_ipv4(code, kind, low, high)


@njit(cache=True, nogil=True)
def _in_host(code):  # type: ignore[no-untyped-def]
    return 97 <= code <= 122 or 65 <= code <= 90 or 48 <= code <= 57 or 0xA1 <= code <= 0xFFFF


@njit(cache=True, nogil=True)
def _is_tail(code, kind, place, high):  # type: ignore[no-untyped-def]
    if place < high and code[place] == _COLON:
        start = place + 1
        place = start
        while place < high and kind[place] & DIGIT:
            place += 1
        if not 2 <= place - start <= 5:
            return False
    return place == high or code[place] in (_SLASH, 63, 35)


@njit(cache=True, nogil=True)
def _is_ipv4(code, kind, low, high):  # type: ignore[no-untyped-def]
    """A public address: four numbers, not of the private networks, not of the first or last host."""
    place, first, second = low, 0, 0
    for number in range(4):
        start, value = place, 0
        while place < high and 48 <= code[place] <= 57 and place - start < 3:
            value = value * 10 + code[place] - 48
            place += 1
        outer = number in (0, 3)
        if place == start or value > 255 or (outer and (code[start] == 48 or value == 0)):
            return False
        if number == 0:
            first = value
        elif number == 1:
            second = value
        elif number == 3:
            if value > 254 or first > 223 or first in (10, 127):
                return False
            if (first, second) in ((169, 254), (192, 168)) or (first == 172 and 16 <= second <= 31):
                return False
            return _is_tail(code, kind, place, high)
        if place >= high or code[place] != _DOT:
            return False
        place += 1
    return False


@njit(cache=True, nogil=True)
def _join(data, at, code, length, patterns, pattern_pieces, starts, cut, claim):  # type: ignore[no-untyped-def]
    """Words side by side that make an exception: those of most words first, and of these the first in the text.

    As in spaCy, a candidate claims its words also where it loses: of ":):)" only the first pair is joined, for ")" and
    ":" between them are an exception too. `code` is used for what was found.
    """
    most = 0
    for low in range(length):
        if cut[low] and _may_start(data, at, low, length, cut, starts):
            most = max(most, _pattern(data, at, low, length, patterns, cut, most + 1, np.int64(_MAX_PATTERN))[1])
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
def _may_start(data, at, low, length, cut, starts):  # type: ignore[no-untyped-def]
    """False where no pattern has words with the first bytes of this word and the next: nearly everywhere."""
    end = low + 1
    while not cut[end]:
        end += 1
    return end < length and starts[data[at[low]], data[at[end]]]


@njit(cache=True, nogil=True)
def _pattern(data, at, low, length, patterns, cut, least, most):  # type: ignore[no-untyped-def]
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
