"""Addresses of the web within text: spaCy's pattern of a URL (spacy/lang/tokenizer_exceptions.py, MIT) as a kernel."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from xgen.data.curate.filters.characters import DIGIT, LOWER, WORD

_DOT, _COLON, _SLASH, _AT, _HYPHEN, _PLUS, _UNDERSCORE = 46, 58, 47, 64, 45, 43, 95


@njit(cache=True, nogil=True)
def is_address(code: NDArray[np.int64], kind: NDArray[np.uint32], low: int, high: int) -> bool:
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
def _is_host(code: NDArray[np.int64], kind: NDArray[np.uint32], low: int, high: int) -> bool:
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
        while place < high and (_in_host(code[place]) or code[place] == _UNDERSCORE or code[place] == _HYPHEN):
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
def _in_host(code: int) -> bool:
    return 97 <= code <= 122 or 65 <= code <= 90 or 48 <= code <= 57 or 0xA1 <= code <= 0xFFFF


@njit(cache=True, nogil=True)
def _is_tail(code: NDArray[np.int64], kind: NDArray[np.uint32], place: int, high: int) -> bool:
    if place < high and code[place] == _COLON:
        start = place + 1
        place = start
        while place < high and kind[place] & DIGIT:
            place += 1
        if not 2 <= place - start <= 5:
            return False
    return place == high or code[place] in (_SLASH, 63, 35)


@njit(cache=True, nogil=True)
def _is_ipv4(code: NDArray[np.int64], kind: NDArray[np.uint32], low: int, high: int) -> bool:
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
