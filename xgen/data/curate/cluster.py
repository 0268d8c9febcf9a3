"""Clusters of duplicates from edges: the same whatever the order of the edges and however they were split.

The label of a cluster is its lowest document; its size is how often the text occurs, which is kept as its frequency.
There is one process for all documents, so what counts is bytes a document.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

KEPT, SAME_ID, EXACT = 1, 2, 4  # marks of a document
_CHOSEN = 8  # of the lowest document of a cluster: one of it is chosen
_WIDE = 1 << 32  # documents: more have numbers of 8 bytes


def components(num_documents: int, edges: Iterable[NDArray[np.uint64]]) -> NDArray[Any]:
    """label [num_documents] of each document's cluster, from any number of arrays [m, 2].

    Takes 8 bytes a document (4 where there are fewer than 2^32), which are the result.
    """
    parent = _singles(num_documents)
    for some in edges:
        assert some.max(initial=0) < max(num_documents, 1)  # compiled code would write beyond its arrays
        _unite(parent, some)
    _flatten(parent)
    return parent


class Clusters:
    """Clusters of `num_earlier` documents and `num_documents` after them; of each one of the latter is chosen: the
    first that is KEPT, not SAME_ID, and in no cluster with an earlier one. Those with SAME_ID count in no size.

    Takes 13 bytes a document, 9 where there are fewer than 2^32: `label` becomes, of the lowest document of a cluster,
    the one chosen, which is no lower, and of the others stays the lowest.
    """

    def __init__(self, num_earlier: int, num_documents: int, edges: Iterable[NDArray[np.uint64]]) -> None:
        self._num_earlier = num_earlier
        self._label = components(num_earlier + num_documents, edges)
        self._marks = np.zeros(num_documents, dtype=np.uint8)
        self._size = np.zeros(0, dtype=np.uint32)

    @property
    def marks(self) -> NDArray[np.uint8]:
        """[num_documents], to be set before `choose`."""
        return self._marks

    def mark(self, numbers: NDArray[np.uint64], what: int) -> None:
        """Of documents numbered with the earlier ones, which have no marks."""
        own = numbers[numbers >= self._num_earlier].astype(np.int64) - self._num_earlier
        self._marks[own] |= np.uint8(what)

    def choose(self) -> None:
        self._size = np.zeros(len(self._label), dtype=np.uint32)
        _choose(self._label, self._marks, self._size)

    def rows(self, begin: int, end: int) -> tuple[NDArray[np.int64], NDArray[np.uint32], NDArray[np.bool_]]:
        """Of the documents from `begin` to before `end`: the one chosen of its cluster (-1: none), how many there are,
        and whether an earlier one is in it."""
        chosen = np.empty(end - begin, dtype=np.int64)
        size = np.empty(end - begin, dtype=np.uint32)
        known = np.empty(end - begin, dtype=np.bool_)
        _rows(self._label, self._marks, self._size, begin, chosen, size, known)
        return chosen, size, known

    def lowest(self, begin: int, end: int) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
        """Of the clusters without an earlier document whose lowest is among these: the size, and whether none is
        chosen."""
        first = self._num_earlier + begin
        size = self._size[first : self._num_earlier + end]
        own = (self._label[first : self._num_earlier + end] >= np.arange(first, first + len(size))) & (size > 0)
        return size[own], self._marks[begin:end][own] & _CHOSEN == 0


def reduce_edges(edges: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The fewest edges with the same components: (label, document) of all but the labels, sorted by document.

    Of any split of all edges the parts can be reduced first, in parallel, and again together. Takes 8 bytes (4 below
    2^32) up to the highest document, or a multiple of the edges where they are few.
    """
    if len(edges) == 0:
        return np.empty((0, 2), dtype=np.uint64)
    num_documents = int(edges.max()) + 1
    if num_documents <= 16 * len(edges):
        parent = _singles(num_documents)
        _unite(parent, edges)
        stars = np.empty((_flatten(parent), 2), dtype=np.uint64)
        _collect(parent, stars)
        return stars
    # Few of many documents: numbered among themselves, in the same order.
    documents, numbers = np.unique(edges, return_inverse=True)
    return documents[reduce_edges(numbers.reshape(-1, 2).astype(np.uint64))]


def _singles(num_documents: int) -> NDArray[Any]:
    return np.arange(num_documents, dtype=np.uint32 if num_documents < _WIDE else np.int64)


@njit(cache=True, nogil=True)
def _unite(parent: NDArray[Any], edges: NDArray[np.uint64]) -> None:
    """The higher root hangs under the lower one, so that the root is the lowest; paths are halved on the way."""
    for number in range(len(edges)):
        one, other = np.int64(edges[number, 0]), np.int64(edges[number, 1])
        while parent[one] != one:
            parent[one] = parent[parent[one]]
            one = np.int64(parent[one])
        while parent[other] != other:
            parent[other] = parent[parent[other]]
            other = np.int64(parent[other])
        if one < other:
            parent[other] = one
        elif other < one:
            parent[one] = other


@njit(cache=True, nogil=True)
def _flatten(parent: NDArray[Any]) -> int:
    """Every parent becomes the root; how many documents are no root."""
    num_others = 0
    for number in range(len(parent)):  # a parent is lower than its child, and so has its root already
        parent[number] = parent[parent[number]]
        num_others += np.int64(parent[number]) != number
    return num_others


@njit(cache=True, nogil=True)
def _collect(parent: NDArray[Any], stars: NDArray[np.uint64]) -> None:
    filled = 0
    for number in range(len(parent)):
        if np.int64(parent[number]) != number:
            stars[filled, 0], stars[filled, 1] = parent[number], number
            filled += 1


@njit(cache=True, nogil=True)
def _choose(label: NDArray[Any], marks: NDArray[np.uint8], size: NDArray[np.uint32]) -> None:
    num_earlier = len(label) - len(marks)
    for own in range(len(marks)):
        if marks[own] & SAME_ID:
            continue
        number = num_earlier + own
        lowest = int(min(np.int64(label[number]), np.int64(number)))
        size[lowest] += 1
        if lowest >= num_earlier and marks[own] & KEPT and not marks[lowest - num_earlier] & _CHOSEN:
            marks[lowest - num_earlier] |= _CHOSEN
            label[lowest] = number


@njit(cache=True, nogil=True)
def _rows(
    label: NDArray[Any],
    marks: NDArray[np.uint8],
    size: NDArray[np.uint32],
    begin: int,
    chosen: NDArray[np.int64],
    sizes: NDArray[np.uint32],
    known: NDArray[np.bool_],
) -> None:
    num_earlier = len(label) - len(marks)
    for place in range(len(chosen)):
        number = num_earlier + begin + place
        lowest = int(min(np.int64(label[number]), np.int64(number)))
        sizes[place] = size[lowest]
        known[place] = lowest < num_earlier
        chosen[place] = -1
        if lowest >= num_earlier and marks[lowest - num_earlier] & _CHOSEN:
            chosen[place] = np.int64(label[lowest]) - num_earlier
