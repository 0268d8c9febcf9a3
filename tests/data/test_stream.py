"""A component as an endless stream: every token once an epoch, documents whole but for the edges of blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.data.made import MadePart
from xgen.data.stream import DocumentStream, Pieces

documents = st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=12), min_size=1, max_size=5)


def streamed(parts: list[list[int]], block: int, seed: int = 0) -> tuple[DocumentStream, list[Any]]:
    made: list[Any] = []
    for lengths in parts:
        made.append(MadePart(lengths, first=sum(part.meta.num_tokens for part in made)))
    return DocumentStream(made, block, (seed,)), made


def tokens(pieces: Pieces, parts: list[Any]) -> list[int]:
    runs = zip(pieces.part, pieces.start, pieces.length, strict=True)
    return [int(token) for part, start, length in runs for token in parts[part].tokens[start : start + length]]


@given(parts=documents, block=st.integers(1, 100), epoch=st.integers(0, 10**9), seed=st.integers())
def test_an_epoch_holds_every_token_once(parts: list[list[int]], block: int, epoch: int, seed: int) -> None:
    stream, made = streamed(parts, block, seed)
    total = stream.num_tokens
    assert sorted(tokens(stream.pieces(epoch * total, total), made)) == list(range(total))


@given(parts=documents, block=st.integers(1, 100), data=st.data())
def test_what_is_asked_for_in_parts_is_what_is_asked_for_at_once(
    parts: list[list[int]], block: int, data: st.DataObject
) -> None:
    stream, made = streamed(parts, block)
    start, first, second = (data.draw(st.integers(low, 200)) for low in (0, 1, 1))
    together = tokens(stream.pieces(start, first + second), made)
    apart = tokens(stream.pieces(start, first), made) + tokens(stream.pieces(start + first, second), made)
    assert together == apart
    assert len(together) == first + second


@given(parts=documents, block=st.integers(1, 100))
def test_a_piece_lies_within_one_document_and_knows_whether_it_ends_it(parts: list[list[int]], block: int) -> None:
    stream, made = streamed(parts, block)
    pieces = stream.pieces(0, 2 * stream.num_tokens)
    for part, start, length, ends in zip(pieces.part, pieces.start, pieces.length, pieces.ends, strict=True):
        offsets = made[part].offsets.astype(int).tolist()
        document = int(np.searchsorted(offsets, start, side="right")) - 1
        assert start + length <= offsets[document + 1]
        assert ends == (start + length == offsets[document + 1])


@given(parts=documents, limit=st.integers(1, 20))
def test_long_documents_are_cut_into_whole_samples_and_a_rest(parts: list[list[int]], limit: int) -> None:
    stream, made = streamed(parts, 10**6)
    pieces = stream.pieces(0, stream.num_tokens)
    cut = pieces.cut(limit)
    assert tokens(cut, made) == tokens(pieces, made)
    assert cut.length.max() <= limit
    assert cut.ends.sum() == pieces.ends.sum()
    assert (cut.length[~cut.ends] == limit).all()


def test_documents_stay_whole_inside_blocks() -> None:
    stream, _ = streamed([[10] * 1000], block=1000)
    pieces = stream.pieces(0, stream.num_tokens)
    assert (pieces.length == 10).all()


def test_order_of_blocks_differs_from_epoch_to_epoch_and_by_seed() -> None:
    orders = []
    for seed, epoch in ((1, 0), (1, 1), (2, 0)):
        stream, made = streamed([[10] * 1000], block=100, seed=seed)
        orders.append(tokens(stream.pieces(epoch * stream.num_tokens, stream.num_tokens), made))
    assert len({tuple(order) for order in orders}) == 3
