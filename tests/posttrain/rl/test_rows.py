"""Answers in rows: nothing lost, nothing beside its own prompt, never more rows than there is room for."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from xgen.data.samples import IGNORE
from xgen.posttrain.rl.rows import Piece, best_fit, in_updates, make_rows, micro_batches

SEQ_LEN = 32


def piece(prompt: int, answer: int, number: int = 0) -> Piece:
    first = 1000 * number
    tokens = np.arange(first, first + prompt + answer, dtype=np.int32)
    return Piece(tokens[:prompt], tokens[prompt:], -np.arange(1, answer + 1, dtype=np.float32), float(number))


PIECES = st.lists(st.tuples(st.integers(1, 8), st.integers(1, 24)), max_size=40).map(
    lambda sizes: [piece(prompt, answer, number) for number, (prompt, answer) in enumerate(sizes)]
)


@given(st.lists(st.integers(1, SEQ_LEN), max_size=60))
def test_every_piece_is_in_one_row_and_no_row_is_too_full(lengths: list[int]) -> None:
    rows = best_fit(lengths, SEQ_LEN)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in row) <= SEQ_LEN for row in rows)
    # Of two rows that are at most half full, one would not have been opened.
    assert sum(sum(lengths[i] for i in row) <= SEQ_LEN // 2 for row in rows) <= 1


@given(PIECES, st.integers(1, 4), st.integers(1, 6))
def test_updates_share_the_pieces_and_none_has_more_rows_than_there_is_room_for(
    pieces: list[Piece], updates: int, most: int
) -> None:
    parts = in_updates(pieces, SEQ_LEN, updates, most)
    assert sorted(p.advantage for part in parts for row in part.rows for p in row) == [p.advantage for p in pieces]
    assert all(len(part.rows) <= most for part in parts)
    assert len(parts) >= min(updates, max(1, len(pieces)))
    if pieces:
        assert all(part.rows for part in parts)
    assert sum(part.num_tokens for part in parts) == sum(len(p.tokens) for p in pieces)
    some = in_updates(pieces, SEQ_LEN, updates, most, every=False)
    assert all(p.advantage for part in some for row in part.rows for p in row)
    for name in ("num_tokens", "num_answers"):
        assert sum(getattr(part, name) for part in some) == sum(getattr(part, name) for part in parts)


@given(PIECES, st.integers(1, 4), st.integers(1, 3))
def test_every_rank_has_as_many_micro_batches_and_all_rows_are_somebodys(
    pieces: list[Piece], ranks: int, size: int
) -> None:
    [part] = in_updates(pieces, SEQ_LEN, 1, 1000)
    dealt = [micro_batches(part.rows, ranks, rank, size) for rank in range(ranks)]
    assert len({len(own) for own in dealt}) == 1
    assert all(len(batch) == size for own in dealt for batch in own)
    assert len(dealt[0]) >= 1
    assert [row for own in dealt for batch in own for row in batch if row] == part.rows
    assert sum(len(own) * size for own in dealt) < len(part.rows) + ranks * size or not part.rows


@given(PIECES)
def test_rows_say_of_every_answer_its_tokens_after_its_own_prompt(pieces: list[Piece]) -> None:
    [part] = in_updates(pieces, SEQ_LEN, 1, 1000)
    rows = make_rows([*part.rows, []], SEQ_LEN)
    assert ((rows.answers >= 0) == (rows.labels != IGNORE)).all()
    found = {}
    for row in range(len(rows.tokens)):
        for number in range(rows.lengths.shape[1]):
            at = np.flatnonzero(rows.answers[row] == number)
            assert len(at) == rows.lengths[row, number]
            if not len(at):
                assert np.isnan(rows.advantages[row, number])
                continue
            first = at[0] - int(rows.positions[row, at[0]])
            assert (np.diff(at) == 1).all()
            assert (rows.positions[row, first : at[-1] + 2] == np.arange(at[-1] + 2 - first)).all()
            assert (rows.labels[row, at] == rows.tokens[row, at + 1]).all()
            found[float(rows.advantages[row, number])] = (
                rows.tokens[row, first : at[0] + 1].tolist(),
                rows.labels[row, at].tolist(),
                rows.sampler[row, at].tolist(),
            )
    assert found == {p.advantage: (p.prompt.tolist(), p.tokens.tolist(), p.logprobs.tolist()) for p in pieces}


def test_a_free_end_is_a_document_of_its_own() -> None:
    [part] = in_updates([piece(2, 3)], SEQ_LEN, 1, 1)
    rows = make_rows(part.rows, SEQ_LEN)
    assert np.flatnonzero(rows.positions[0] == 0).tolist() == [0, 5]


def test_a_step_in_which_nothing_is_learnt_still_has_a_row_for_every_rank() -> None:
    [part] = in_updates([], SEQ_LEN, 2, 8)
    for rank in range(2):
        [batch] = micro_batches(part.rows, 2, rank, 3)
        rows = make_rows(batch, SEQ_LEN)
        assert rows.tokens.shape == (3, SEQ_LEN)
        assert (rows.labels == IGNORE).all()
