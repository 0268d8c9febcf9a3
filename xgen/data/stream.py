"""One component of a mixture as an endless stream of tokens: blocks of documents in an order that a seed fixes.

A block is a run of consecutive tokens, the same number in each, so that any position of the stream is found by
arithmetic: no table, whatever the number of documents. Each epoch holds every token once, in another order of blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from xgen.data.permutation import permute

if TYPE_CHECKING:
    from xgen.data.store import Part


@dataclass(frozen=True)
class Pieces:
    """Runs of tokens, none longer than a document. All arrays [num_pieces].

    part: number in the list of parts; start: in the part's tokens; length: tokens; ends: whether the document ends.
    """

    part: NDArray[np.int32]
    start: NDArray[np.int64]
    length: NDArray[np.int64]
    ends: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.length)

    def take(self, order: NDArray[np.integer]) -> Pieces:
        return Pieces(self.part[order], self.start[order], self.length[order], self.ends[order])

    def cut(self, limit: int) -> Pieces:
        """The same tokens in pieces of at most `limit`: whole ones of that length, then what is left of each."""
        counts = -(-self.length // limit)
        if int(counts.max(initial=1)) == 1:
            return self
        source = np.repeat(np.arange(len(self)), counts)
        number = np.arange(len(source)) - np.repeat(np.cumsum(counts) - counts, counts)
        length = np.minimum(self.length[source] - number * limit, limit)
        last = number == counts[source] - 1
        return Pieces(self.part[source], self.start[source] + number * limit, length, self.ends[source] & last)

    @staticmethod
    def join(parts: Sequence[Pieces]) -> Pieces:
        return Pieces(
            np.concatenate([p.part for p in parts]),
            np.concatenate([p.start for p in parts]),
            np.concatenate([p.length for p in parts]),
            np.concatenate([p.ends for p in parts]),
        )


class DocumentStream:
    """The documents of `parts`, endlessly. `first_part` is the number of the first of them in the list of all parts.

    What `num_tokens` leaves after whole blocks of `block` tokens is the last block of every epoch.
    """

    def __init__(self, parts: Sequence[Part], block: int, key: tuple[int | str, ...], first_part: int = 0) -> None:
        """Raises ValueError when there is no token."""
        self._parts, self._key, self._first_part = parts, key, first_part
        self._starts = np.concatenate([[0], np.cumsum([part.meta.num_tokens for part in parts], dtype=np.int64)])
        self.num_tokens = int(self._starts[-1])
        if self.num_tokens < 1:
            raise ValueError("the stream has no tokens")
        self._block = min(block, self.num_tokens)
        self._num_blocks = self.num_tokens // self._block

    def pieces(self, start: int, count: int) -> Pieces:
        """Documents, or what lies within of them, of the stream's tokens `start` to `start + count - 1`."""
        return Pieces.join([piece for at, size in self._segments(start, count) for piece in self._documents(at, size)])

    def _segments(self, start: int, count: int) -> Iterator[tuple[int, int]]:
        """(offset into the parts' tokens, size) of each run without a gap."""
        while count > 0:
            epoch, place = divmod(start, self.num_tokens)
            number, within = divmod(place, self._block)
            if number < self._num_blocks:
                block = permute(number, self._num_blocks, *self._key, epoch)
                at, size = block * self._block + within, self._block - within
            else:
                at, size = place, self.num_tokens - place
            size = min(size, count)
            yield at, size
            start, count = start + size, count - size

    def _documents(self, at: int, size: int) -> Iterator[Pieces]:
        """A run of tokens, cut where documents and parts end."""
        while size > 0:
            number = int(np.searchsorted(self._starts, at, side="right")) - 1
            part, begin = self._parts[number], at - int(self._starts[number])
            end = min(begin + size, part.meta.num_tokens)
            # uint64 on both sides: for a Python int NumPy would convert the whole file to float64.
            low = int(np.searchsorted(part.offsets, np.uint64(begin), side="right")) - 1
            high = int(np.searchsorted(part.offsets, np.uint64(end), side="left"))
            edges = part.offsets[low : high + 1].astype(np.int64)
            clipped = np.clip(edges, begin, end)
            yield Pieces(
                np.full(high - low, self._first_part + number, dtype=np.int32),
                clipped[:-1],
                np.diff(clipped),
                edges[1:] <= end,
            )
            at, size = at + end - begin, size - (end - begin)
