"""Answers with their prompts, packed into rows for the trainer. Pure.

An answer is a document of its own: its prompt comes with it, and the document mask keeps it from the others in its row.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from xgen.data.samples import IGNORE, Batch


@dataclass(frozen=True, eq=False)
class Piece:
    """One answer to be learnt from."""

    prompt: NDArray[np.int32]
    tokens: NDArray[np.int32]
    logprobs: NDArray[np.float32]
    advantage: float

    def __len__(self) -> int:
        return len(self.prompt) + len(self.tokens)


@dataclass(frozen=True, eq=False)
class Rows(Batch):
    """[num_rows, seq_len] but for the last two, which are [num_rows, most]: of each answer of a row.

    labels: the token after each where that is one of an answer, else -100. answers: the number of that answer within
    its row, else -1. sampler: log-probabilities that the sampler had of the labels. A row's free end is a document of
    its own.
    """

    answers: NDArray[np.int32]
    sampler: NDArray[np.float32]
    advantages: NDArray[np.float32]
    lengths: NDArray[np.int32]


def best_fit(lengths: Sequence[int], seq_len: int) -> list[list[int]]:
    """Pieces by row: the longest first, each into the fullest row that still has room for it."""
    rows: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # (tokens that are free, row), sorted
    for piece in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        at = bisect_left(rooms, (lengths[piece], 0))
        if at < len(rooms):
            room, row = rooms.pop(at)
        else:
            room, row = seq_len, len(rows)
            rows.append([])
        rows[row].append(piece)
        insort(rooms, (room - lengths[piece], row))
    return rows


@dataclass(frozen=True, eq=False)
class Part:
    """Of the answers of a step those of one optimizer step: what is computed, in rows, and how much counts."""

    rows: list[list[Piece]]
    num_tokens: int
    num_answers: int

    @property
    def num_computed(self) -> int:
        """Of the tokens."""
        return sum(len(piece.tokens) for row in self.rows for piece in row)


def in_updates(pieces: Sequence[Piece], seq_len: int, updates: int, most_rows: int, every: bool = True) -> list[Part]:
    """`updates` parts with about as many pieces each, or as many parts more as it takes for none to have above
    `most_rows` rows. Unless `every` piece is to be computed, those whose advantage is 0 count and have no row: they
    would add zeros to the gradient."""
    parts = max(1, min(updates, len(pieces)))
    while True:
        cuts = [len(pieces) * part // parts for part in range(parts + 1)]
        found = [_part(pieces[low:high], seq_len, every) for low, high in pairwise(cuts)]
        if all(len(part.rows) <= most_rows for part in found):
            return found
        parts += 1


def _part(pieces: Sequence[Piece], seq_len: int, every: bool) -> Part:
    computed = [piece for piece in pieces if every or piece.advantage]
    return Part(_pack(computed, seq_len), sum(len(piece.tokens) for piece in pieces), len(pieces))


def _pack(pieces: Sequence[Piece], seq_len: int) -> list[list[Piece]]:
    return [[pieces[i] for i in row] for row in best_fit([len(piece) for piece in pieces], seq_len)]


def micro_batches(rows: list[list[Piece]], ranks: int, rank: int, size: int) -> list[list[list[Piece]]]:
    """Of n rows those of a rank, r*n/W to (r+1)*n/W, `size` at a time. Empty rows make it as many for every rank, and
    one micro-batch at the least."""
    each = max(1, -(-len(rows) // (ranks * size))) * size
    own: list[list[Piece]] = rows[rank * each : (rank + 1) * each]
    own = own + [[] for _ in range(each - len(own))]
    return [own[start : start + size] for start in range(0, each, size)]


def make_rows(packed: Sequence[Sequence[Piece]], seq_len: int) -> Rows:
    """As arrays."""
    most = max(1, *(len(row) for row in packed))
    shape = (len(packed), seq_len)
    rows = Rows(
        tokens=np.zeros(shape, np.int32),
        labels=np.full(shape, IGNORE, np.int32),
        positions=np.tile(np.arange(seq_len, dtype=np.int32), (len(packed), 1)),
        answers=np.full(shape, -1, np.int32),
        sampler=np.zeros(shape, np.float32),
        advantages=np.full((len(packed), most), np.nan, np.float32),
        lengths=np.zeros((len(packed), most), np.int32),
    )
    for row, pieces in enumerate(packed):
        at = 0
        for number, piece in enumerate(pieces):
            _place(rows, row, number, piece, at)
            at += len(piece)
        rows.positions[row, at:] = np.arange(seq_len - at)
    return rows


def _place(rows: Rows, row: int, number: int, piece: Piece, at: int) -> None:
    first = at + len(piece.prompt)
    end = first + len(piece.tokens)
    rows.tokens[row, at:first], rows.tokens[row, first:end] = piece.prompt, piece.tokens
    rows.positions[row, at:end] = np.arange(len(piece))
    learnt = slice(first - 1, end - 1)
    rows.labels[row, learnt], rows.answers[row, learnt] = piece.tokens, number
    rows.sampler[row, learnt] = piece.logprobs
    rows.advantages[row, number], rows.lengths[row, number] = piece.advantage, len(piece.tokens)
