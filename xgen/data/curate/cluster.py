"""Clusters of duplicates from edges: the same whatever the order of the edges and however they were split.

The label of a cluster is its lowest document; its size is how often the text occurs, which is kept as its frequency.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray


def components(
    num_documents: int, edges: Iterable[NDArray[np.uint64]]
) -> tuple[NDArray[np.uint64], NDArray[np.uint32]]:
    """label [num_documents] and size [num_documents] of each document's cluster, from any number of arrays [m, 2].

    Takes 8 bytes a document (4 where there are fewer than 2^32) beside the result's 12.
    """
    parent = _singles(num_documents)
    for some in edges:
        assert some.max(initial=0) < max(num_documents, 1)  # compiled code would write beyond its arrays
        _unite(parent, some)
    _flatten(parent)
    size = np.zeros(num_documents, dtype=np.uint32)
    _count(parent, size)
    return parent.astype(np.uint64), size


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
    return np.arange(num_documents, dtype=np.uint32 if num_documents < 1 << 32 else np.int64)


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
def _count(parent: NDArray[Any], size: NDArray[np.uint32]) -> None:
    for number in range(len(parent)):
        size[parent[number]] += 1
    for number in range(len(parent)):
        size[number] = size[parent[number]]
