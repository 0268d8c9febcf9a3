"""Which tokens sample number i holds: a function of (seed, i) alone, at the same cost for any i."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from xgen.data.errors import StoreError
from xgen.data.store import TOKENS_FILE, TokenStore

_NUM_ROUNDS = 6
_MASK = (1 << 64) - 1
_Number = TypeVar("_Number", int, NDArray[np.uint64])


class SampleIndex:
    """Windows of `seq_len + 1` tokens, `seq_len` apart, in an order that `seed` fixes; endless.

    Every epoch of `num_windows` samples holds each window once, in another order. Nothing is stored: sample 10^12
    costs what sample 0 costs, and ranks, workers or batch size do not enter. The tokens after the last whole window
    (fewer than `seq_len` of them) are in no sample.
    """

    def __init__(self, store: TokenStore, seq_len: int, seed: int) -> None:
        """Raises StoreError when the store is shorter than one window."""
        if seq_len < 1:
            raise ValueError(f"seq_len {seq_len} is not positive")
        num_windows = (store.meta.num_tokens - 1) // seq_len
        if num_windows < 1:
            what = f"has {store.meta.num_tokens} tokens, and one sample needs {seq_len + 1}"
            raise StoreError(store.path / TOKENS_FILE, what, "write a smaller seq_len or build a larger store")
        self._tokens = store.tokens
        self.seq_len, self.seed, self.num_windows = seq_len, seed, num_windows

    def window(self, index: int) -> int:
        """Number of the window that sample `index` holds."""
        epoch, position = divmod(index, self.num_windows)
        if epoch < 0:
            raise IndexError(f"sample {index} is before the first")
        return _permute(position, self.num_windows, self.seed, epoch)

    def sample(self, index: int) -> NDArray[np.int32]:
        """Tokens [seq_len + 1] of sample `index`: inputs are all but the last, labels all but the first."""
        start = self.window(index) * self.seq_len
        return self._tokens[start : start + self.seq_len + 1].astype(np.int32)

    def batch(self, start: int, count: int) -> NDArray[np.int32]:
        """Tokens [count, seq_len + 1] of samples `start` to `start + count - 1`."""
        tokens = np.empty((count, self.seq_len + 1), dtype=np.int32)
        for row, window in zip(tokens, self.windows(start, count).tolist(), strict=True):
            row[:] = self._tokens[window * self.seq_len : (window + 1) * self.seq_len + 1]
        return tokens

    def windows(self, start: int, count: int) -> NDArray[np.uint64]:
        """Window numbers [count] of samples `start` to `start + count - 1`; they may span epochs."""
        parts: list[NDArray[np.uint64]] = [np.empty(0, dtype=np.uint64)]
        while count > 0:
            epoch, position = divmod(start, self.num_windows)
            if epoch < 0:
                raise IndexError(f"sample {start} is before the first")
            size = min(count, self.num_windows - position)
            positions = np.arange(position, position + size, dtype=np.uint64)
            parts.append(_permute_many(positions, self.num_windows, self.seed, epoch))
            start, count = start + size, count - size
        return np.concatenate(parts)


def _permute(position: int, size: int, seed: int, epoch: int) -> int:
    """The place of `position` in the epoch's permutation of [0, size): a Feistel network over the next power of four,
    walked until it falls below `size` (Black and Rogaway, Ciphers with Arbitrary Finite Domains, 2002)."""
    keys, half = _round_keys(seed, epoch), _half_bits(size)
    place = _feistel(position, keys, half)
    while place >= size:
        place = _feistel(place, keys, half)
    return place


def _permute_many(positions: NDArray[np.uint64], size: int, seed: int, epoch: int) -> NDArray[np.uint64]:
    """`_permute` for an array."""
    keys, half = _round_keys(seed, epoch), _half_bits(size)
    places = _feistel(positions, keys, half)
    while (outside := np.flatnonzero(places >= size)).size:
        places[outside] = _feistel(places[outside], keys, half)
    return places


def _half_bits(size: int) -> int:
    return max(1, ((size - 1).bit_length() + 1) // 2)


@lru_cache(maxsize=64)
def _round_keys(seed: int, epoch: int) -> tuple[int, ...]:
    digest = hashlib.blake2b(f"{seed} {epoch}".encode(), digest_size=8 * _NUM_ROUNDS).digest()
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
