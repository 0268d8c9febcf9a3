"""Packing fills every sample to the last token, loses none, and cuts hardly a document that would fit whole."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.data.made import web_lengths
from xgen.data.packing import pack


@given(data=st.data(), seq_len=st.integers(1, 60), num_samples=st.integers(1, 12))
def test_every_token_of_every_piece_is_in_one_place(data: st.DataObject, seq_len: int, num_samples: int) -> None:
    lengths, left = [], seq_len * num_samples
    while left:
        lengths.append(data.draw(st.integers(1, min(seq_len, left))))
        left -= lengths[-1]
    packed = pack(np.array(lengths), seq_len, num_samples)
    assert len(packed.first) == num_samples + 1
    for low, high in zip(packed.first, packed.first[1:], strict=False):
        assert packed.length[low:high].sum() == seq_len
    seen = [[] for _ in lengths]  # type: list[list[int]]
    for source, offset, length in zip(packed.source, packed.offset, packed.length, strict=True):
        assert length > 0
        seen[source] += range(offset, offset + length)
    assert [sorted(tokens) for tokens in seen] == [list(range(length)) for length in lengths]


def test_whole_documents_of_the_web_stay_whole() -> None:
    """8k samples: where windows without regard to documents cut one in eight, fewer than one in a hundred is cut."""
    seq_len, num_samples = 8192, 1024
    lengths = np.array([length for length in web_lengths(12_000) if length <= seq_len])
    lengths = lengths[: int(np.searchsorted(np.cumsum(lengths), seq_len * num_samples))]
    lengths = np.append(lengths, seq_len * num_samples - lengths.sum())
    packed = pack(lengths, seq_len, num_samples)
    parts = np.bincount(packed.source)
    assert (parts > 1).mean() < 0.01
    assert lengths[parts > 1].sum() / lengths.sum() < 0.001


def test_equal_lengths_that_divide_a_sample_are_never_cut() -> None:
    packed = pack(np.full(64, 16), 128, 8)
    assert packed.length.tolist() == [16] * 64


def test_pieces_that_fit_nowhere_together_are_cut_as_seldom_as_possible() -> None:
    packed = pack(np.full(4, 6), 8, 3)  # each sample holds one and a third
    assert np.bincount(packed.source).tolist() == [1, 1, 1, 3]
