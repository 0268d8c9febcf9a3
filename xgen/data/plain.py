"""Plain windows over all text of a store, without packing and masks: the fastest order, as a function of (seed, i)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xgen.data.errors import StoreError
from xgen.data.permutation import permute, permute_many
from xgen.data.samples import Batch, order_fingerprint
from xgen.data.store import META_FILE, TokenStore

_CHUNK = 1024  # samples whose places are found at once: NumPy takes as long for eight
_KEPT_CHUNKS = 8


class PlainSamples:
    """Windows of `seq_len + 1` tokens, `seq_len` apart, in an order that `seed` fixes; endless.

    Every epoch of `num_windows` samples holds each window once, in another order. Nothing is stored: sample 10^12
    costs what sample 0 costs, and ranks, workers or batch size do not enter. The tokens after the last whole window
    (fewer than `seq_len` of them) are in no sample, and windows do not heed where documents begin.
    """

    def __init__(self, store: TokenStore, seq_len: int, seed: int) -> None:
        """Raises StoreError when the store is shorter than one window."""
        if seq_len < 1:
            raise ValueError(f"seq_len {seq_len} is not positive")
        num_windows = (store.meta.num_tokens - 1) // seq_len
        if num_windows < 1:
            what = f"has {store.meta.num_tokens} tokens, and one sample needs {seq_len + 1}"
            raise StoreError(store.path / META_FILE, what, "write a smaller seq_len or build a larger store")
        self._parts, self._origin = store.parts, store.meta.fingerprint
        sizes = [part.meta.num_tokens for part in store.parts]
        self._starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        self.seq_len, self.seed, self.num_windows = seq_len, seed, num_windows
        self._chunks: dict[int, list[tuple[int, int]]] = {}

    @property
    def fingerprint(self) -> str:
        return order_fingerprint(["plain-1", f"seq_len={self.seq_len}", f"seed={self.seed}", self._origin])

    def window(self, index: int) -> int:
        """Number of the window that sample `index` holds."""
        epoch, position = divmod(index, self.num_windows)
        if epoch < 0:
            raise IndexError(f"sample {index} is before the first")
        return permute(position, self.num_windows, self.seed, epoch)

    def batch(self, start: int, count: int) -> Batch:
        """Samples `start` to `start + count - 1`; positions run on over documents."""
        if start < 0:
            raise IndexError(f"sample {start} is before the first")
        size = self.seq_len + 1
        tokens = np.empty((count, size), dtype=np.int32)
        row = 0
        while row < count:
            chunk, first = divmod(start + row, _CHUNK)
            places = self._places(chunk)[first : first + count - row]
            for number, at in places:
                source = self._parts[number].tokens
                if at + size <= len(source):
                    tokens[row] = source[at : at + size]
                else:
                    self._join(tokens[row], number, at)
                row += 1
        positions = np.broadcast_to(np.arange(self.seq_len, dtype=np.int32), (count, self.seq_len))
        return Batch(tokens[:, :-1], tokens[:, 1:], positions)

    def taken(self, samples: int) -> dict[str, int]:
        """It has no components."""
        del samples
        return {}

    def windows(self, start: int, count: int) -> NDArray[np.uint64]:
        """Window numbers [count] of samples `start` to `start + count - 1`; they may span epochs."""
        parts: list[NDArray[np.uint64]] = [np.empty(0, dtype=np.uint64)]
        while count > 0:
            epoch, position = divmod(start, self.num_windows)
            if epoch < 0:
                raise IndexError(f"sample {start} is before the first")
            size = min(count, self.num_windows - position)
            positions = np.arange(position, position + size, dtype=np.uint64)
            parts.append(permute_many(positions, self.num_windows, self.seed, epoch))
            start, count = start + size, count - size
        return np.concatenate(parts)

    def _places(self, chunk: int) -> list[tuple[int, int]]:
        """(part, offset in it) of the samples of a chunk; the last few chunks are kept."""
        if chunk in self._chunks:
            return self._chunks[chunk]
        begins = self.windows(chunk * _CHUNK, _CHUNK).astype(np.int64) * self.seq_len
        parts = np.searchsorted(self._starts, begins, side="right") - 1
        places = list(zip(parts.tolist(), (begins - self._starts[parts]).tolist(), strict=True))
        # A new dictionary: other threads may be reading the old one.
        self._chunks = dict([*self._chunks.items(), (chunk, places)][-_KEPT_CHUNKS:])
        return places

    def _join(self, row: NDArray[np.int32], number: int, at: int) -> None:
        """A window that spans parts."""
        done = 0
        while done < len(row):
            piece = self._parts[number].tokens[at : at + len(row) - done]
            row[done : done + len(piece)] = piece
            done, number, at = done + len(piece), number + 1, 0
