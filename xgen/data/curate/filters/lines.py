"""Lines and repeated things: kernels that several filters share."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from xgen.data.curate.filters.characters import slot_of, step
from xgen.data.curate.filters.words import space_width

NEW_LINE = 10


@njit(cache=True, nogil=True)
def line_end(data: NDArray[np.uint8], place: int, end: int) -> tuple[int, int]:
    """(end of the line, start of the next), as str.splitlines has it."""
    while place < end:
        byte = data[place]
        if byte < 0x20:
            if byte == 13:
                return place, place + (2 if place + 1 < end and data[place + 1] == NEW_LINE else 1)
            if 10 <= byte <= 12 or 28 <= byte <= 30:
                return place, place + 1
        elif byte == 0xC2 and place + 1 < end and data[place + 1] == 0x85:
            return place, place + 2
        elif byte == 0xE2 and place + 2 < end and data[place + 1] == 0x80 and 0xA8 <= data[place + 2] <= 0xA9:
            return place, place + 3
        place += 1
    return end, end


@njit(cache=True, nogil=True)
def strip(data: NDArray[np.uint8], place: int, end: int) -> tuple[int, int]:
    """(start, end) without white space at both ends, as str.strip."""
    while place < end:
        width = space_width(data, place, end)
        if not width:
            break
        place += width
    while place < end:
        start = end - 1
        while start > place and data[start] & 0xC0 == 0x80:
            start -= 1
        if not space_width(data, start, end):
            break
        end = start
    return place, end


@njit(cache=True, nogil=True)
def num_chars(data: NDArray[np.uint8], place: int, end: int) -> int:
    count = 0
    for spot in range(place, end):
        count += data[spot] & 0xC0 != 0x80
    return count


@njit(cache=True, nogil=True)
def code_of(data: NDArray[np.uint8], place: int, end: int) -> np.uint64:
    code = np.uint64(0)
    for spot in range(place, end):
        code = step(code, np.uint64(data[spot]))
    return code


@njit(cache=True, nogil=True)
def seen(keys: NDArray[np.uint64], marks: NDArray[np.int64], mask: int, mark: int, code: np.uint64) -> tuple[int, bool]:
    """(slot, whether it was there) in an open hash table whose slots count only where `marks` has `mark`.

    A new mark empties the table without a write.
    """
    slot = slot_of(code, mask + 1)
    while marks[slot] == mark:
        if keys[slot] == code:
            return slot, True
        slot = (slot + 1) & mask
    marks[slot], keys[slot] = mark, code
    return slot, False


@njit(cache=True, nogil=True)
def mask_for(count: int) -> int:
    """Size of a table, less one, for so many keys: a small document uses the front of it, which stays in the cache."""
    size = 64
    while size < 2 * count:
        size *= 2
    return size - 1
