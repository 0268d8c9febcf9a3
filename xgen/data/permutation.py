"""Permutations that need no table: a function of (seed, epoch) alone, at the same cost for any place and any size."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

_NUM_ROUNDS = 6
_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_Number = TypeVar("_Number", int, NDArray[np.uint64])


def permute(position: int, size: int, *key: int | str) -> int:
    """The place of `position` in the permutation of [0, size) that `key` names: a Feistel network over the next power
    of four, walked until it falls below `size` (Black and Rogaway, Ciphers with Arbitrary Finite Domains, 2002)."""
    keys, half = _round_keys(*key), _half_bits(size)
    place = _feistel(position, keys, half)
    while place >= size:
        place = _feistel(place, keys, half)
    return place


def permute_many(positions: NDArray[np.uint64], size: int, *key: int | str) -> NDArray[np.uint64]:
    """`permute` for an array."""
    keys, half = _round_keys(*key), _half_bits(size)
    places = _feistel(positions, keys, half)
    while (outside := np.flatnonzero(places >= size)).size:
        places[outside] = _feistel(places[outside], keys, half)
    return places


def shuffle_keys(count: int, *key: int | str) -> NDArray[np.uint64]:
    """64 random bits for each of [0, count); sorting by them shuffles.

    splitmix64, not numpy.random: NumPy may change what its generators give, and the order of the data must outlive it.
    """
    start = _round_keys(*key)[0]
    state: NDArray[np.uint64] = (np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GOLDEN)) + np.uint64(start)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def _half_bits(size: int) -> int:
    return max(1, ((size - 1).bit_length() + 1) // 2)


@lru_cache(maxsize=256)
def _round_keys(*key: int | str) -> tuple[int, ...]:
    digest = hashlib.blake2b(" ".join(map(str, key)).encode(), digest_size=8 * _NUM_ROUNDS).digest()
    return tuple(int.from_bytes(digest[i : i + 8], "little") for i in range(0, len(digest), 8))


def _feistel(value: _Number, keys: tuple[int, ...], half: int) -> _Number:
    """A permutation of [0, 4^half): any round function makes one. Same result for Python and NumPy numbers."""
    mask, shift = (1 << half) - 1, 64 - half
    left: Any = value >> half  # Any: NumPy's types forget that uint64 stays uint64
    right: Any = value & mask
    for key in keys:
        mixed = ((right ^ key) * 0xBF58476D1CE4E5B9) & _MASK  # the mixing steps of splitmix64
        mixed = ((mixed ^ (mixed >> 29)) * 0x94D049BB133111EB) & _MASK
        left, right = right, left ^ (mixed >> shift)
    place: _Number = (left << half) | right
    return place
