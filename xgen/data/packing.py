"""Best-fit-decreasing packing into a fixed number of equal samples that the pieces fill to the last token.

Ding et al., Fewer Truncations Improve Language Modeling (arXiv 2404.10830), pack documents best-fit and pad what stays
free. Here the pieces hold exactly as many tokens as the samples, so what fits nowhere whole is cut into what is free:
nothing is padded or lost, and the number of samples is known before anything is packed.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Packing:
    """Parts of pieces in samples, sorted by sample. source, offset, length [num_parts]; first [num_samples + 1].

    Sample s holds tokens `offset[i]` to `offset[i] + length[i] - 1` of piece `source[i]` for i from first[s] up to
    first[s + 1].
    """

    source: NDArray[np.int64]
    offset: NDArray[np.int64]
    length: NDArray[np.int64]
    first: NDArray[np.int64]


def pack(lengths: NDArray[np.int64], seq_len: int, num_samples: int) -> Packing:
    """Pack pieces of `lengths` [num_pieces], each at most `seq_len`, together `num_samples * seq_len`.

    Among pieces of one length, and within a sample, the order is that of `lengths`.
    """
    assert int(lengths.sum()) == num_samples * seq_len, "the pieces do not fill the samples"
    assert int(lengths.max()) <= seq_len, "a piece is longer than a sample"
    sample, free = _best_fit(lengths, seq_len, num_samples)
    whole = np.flatnonzero(sample >= 0)
    source, offset, length, places = whole, np.zeros_like(whole), lengths[whole], sample[whole]
    if len(whole) < len(lengths):
        poured = _pour(lengths, np.flatnonzero(sample < 0), free)
        source, offset, length, places = (
            np.concatenate(pair) for pair in zip((source, offset, length, places), poured, strict=True)
        )
    order = np.lexsort((offset, source, places))
    first = np.searchsorted(places[order], np.arange(num_samples + 1))
    return Packing(source[order], offset[order], length[order], first)


def pack_whole(lengths: NDArray[np.int64], seq_len: int) -> tuple[NDArray[np.int64], int]:
    """The sample of each piece, none of which is cut, and how many samples that takes; what stays free is padding."""
    assert int(lengths.max(initial=0)) <= seq_len, "a piece is longer than a sample"
    # Of two samples that best-fit begins, both hold more than one takes: never twice as many as are filled.
    sample, _ = _best_fit(lengths, seq_len, 2 * int(lengths.sum()) // seq_len + 1)
    return sample, int(sample.max(initial=-1)) + 1


def _best_fit(
    lengths: NDArray[np.int64], seq_len: int, num_samples: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The sample of each piece, -1 where it fits in none, and the tokens that stay free in each sample.

    Pieces of one length are placed together: the fullest samples that they fit in take as many as they can hold.
    """
    order = np.argsort(-lengths, kind="stable")
    values, starts = np.unique(-lengths[order], return_index=True)
    ends = np.append(starts[1:], len(order))
    placed = np.full(len(lengths), -1, dtype=np.int64)  # in order of length
    samples_with: dict[int, list[int]] = {seq_len: list(range(num_samples - 1, -1, -1))}
    free = [seq_len]  # sorted keys of `samples_with`
    chosen: list[int] = []  # sample of each placed piece, in the order of `slots`
    slots: list[tuple[int, int]] = []  # (first place, count) in order of length
    for length, begin, end in zip((-values).tolist(), starts.tolist(), ends.tolist(), strict=True):
        start = begin
        while start < end:
            at = bisect_left(free, length)
            if at == len(free):
                break
            room = free[at]
            samples = samples_with[room]
            each = min(room // length, end - start)
            count = min(len(samples), (end - start) // each)
            taken = samples[-count:]
            del samples[-count:]
            if not samples:
                del samples_with[room]
                free.pop(at)
            left = room - each * length
            if left:
                if left in samples_with:
                    samples_with[left] += taken
                else:
                    samples_with[left] = taken
                    insort(free, left)
            chosen += taken * each if each > 1 else taken
            slots.append((start, count * each))
            start += count * each
    if slots:
        first, counts = (np.array(column, dtype=np.int64) for column in zip(*slots, strict=True))
        within = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
        placed[np.repeat(first, counts) + within] = chosen
    sample = np.empty(len(lengths), dtype=np.int64)
    sample[order] = placed
    remaining = np.zeros(num_samples, dtype=np.int64)
    for room, samples in samples_with.items():
        remaining[samples] = room
    return sample, remaining


def _pour(
    lengths: NDArray[np.int64], pieces: NDArray[np.int64], free: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """(source, offset, length, sample) of the pieces that fit nowhere whole, laid end to end over the free places,
    the longest over the largest: that cuts few."""
    pieces = pieces[np.argsort(-lengths[pieces], kind="stable")]
    holes = np.flatnonzero(free)
    holes = holes[np.argsort(-free[holes], kind="stable")]
    piece_ends, hole_ends = np.cumsum(lengths[pieces]), np.cumsum(free[holes])
    ends = np.union1d(piece_ends, hole_ends)
    begins = np.concatenate([[0], ends[:-1]])
    piece = np.searchsorted(piece_ends, begins, side="right")
    hole = np.searchsorted(hole_ends, begins, side="right")
    offset = begins - (piece_ends[piece] - lengths[pieces[piece]])
    return pieces[piece], offset, ends - begins, holes[hole]
