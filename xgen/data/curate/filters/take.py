"""Some of the documents of a batch, and of their words: copies in one pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from xgen.data.curate.filters.words import Words
from xgen.data.curate.texts import Texts


def take_texts(texts: Texts, numbers: NDArray[np.int64]) -> Texts:
    """The documents of these numbers, in their order."""
    return Texts(*_ranges(texts.data, texts.offsets, numbers))


def replace_texts(texts: Texts, changed: Mapping[int, bytes]) -> Texts:
    """The same documents, some of them with another text. `changed` is in the order of numbers."""
    sizes = np.diff(texts.offsets)
    pieces, end = [], 0
    for number, text in changed.items():
        pieces += [texts.data[end : texts.offsets[number]], np.frombuffer(text, dtype=np.uint8)]
        end = int(texts.offsets[number + 1])
        sizes[number] = len(text)
    pieces.append(texts.data[end:])
    return Texts(np.concatenate(pieces), np.concatenate([[0], np.cumsum(sizes)]))


def take_words(words: Words, numbers: NDArray[np.int64], texts: Texts, taken: Texts) -> Words:
    """Their words; `taken` is what `take_texts` gave."""
    start, offsets = _ranges(words.start, words.offsets, numbers)
    start += np.repeat(taken.offsets[:-1] - texts.offsets[numbers], np.diff(offsets))
    rest = (words.num_bytes, words.num_chars, words.code, words.flags)
    num_bytes, num_chars, code, flags = (_ranges(array, words.offsets, numbers)[0] for array in rest)
    return Words(offsets, start, num_bytes, num_chars, code, flags)


@njit(cache=True, nogil=True)
def _ranges(
    array: NDArray[Any], offsets: NDArray[np.int64], numbers: NDArray[np.int64]
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    bounds = np.zeros(len(numbers) + 1, np.int64)
    for row in range(len(numbers)):
        bounds[row + 1] = bounds[row] + offsets[numbers[row] + 1] - offsets[numbers[row]]
    taken = np.empty(bounds[-1], array.dtype)
    for row in range(len(numbers)):
        taken[bounds[row] : bounds[row + 1]] = array[offsets[numbers[row]] : offsets[numbers[row] + 1]]
    return taken, bounds
