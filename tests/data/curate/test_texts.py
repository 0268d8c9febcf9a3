"""Batches of documents: what goes in comes out, through Arrow too, without a copy where none is needed."""

from __future__ import annotations

import numpy as np
import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xgen.data.curate.texts import Texts

documents = st.lists(st.text(st.characters(exclude_categories=["Cs"])))


@given(documents)
def test_strings_come_back_as_they_were(strings: list[str]) -> None:
    texts = Texts.of(strings)
    assert texts.to_strings() == strings == list(texts)
    assert len(texts) == len(strings)
    assert texts.num_bytes == sum(len(string.encode()) for string in strings)
    assert texts.to_arrow().to_pylist() == strings


@given(st.lists(documents, max_size=4), st.data(), st.sampled_from([pyarrow.string(), pyarrow.large_string()]))
def test_any_slice_of_any_chunks_reads_as_arrow_reads_it(
    chunks: list[list[str]], data: st.DataObject, kind: pyarrow.DataType
) -> None:
    column = pyarrow.chunked_array(chunks, type=kind)
    start = data.draw(st.integers(0, len(column)))
    column = column.slice(start, data.draw(st.integers(0, len(column) - start)))
    assert Texts.from_arrow(column).to_strings() == column.to_pylist()
    for chunk in column.chunks:
        assert Texts.from_arrow(chunk).to_strings() == chunk.to_pylist()


def test_one_chunk_is_not_copied() -> None:
    array = pyarrow.array(["first", "second", "third"], pyarrow.large_string())
    whole, part = Texts.from_arrow(pyarrow.chunked_array([array])), Texts.from_arrow(array.slice(1))
    content = np.frombuffer(array.buffers()[2], dtype=np.uint8)
    assert np.shares_memory(whole.data, content)
    assert np.shares_memory(part.data, content)
    assert part.to_strings() == ["second", "third"]
    assert part.offsets.tolist() == [0, 6, 11]


def test_arrays_cannot_be_written() -> None:
    texts = Texts(np.frombuffer(bytearray(b"ab"), dtype=np.uint8), np.array([0, 1, 2]))
    with pytest.raises(ValueError, match="read-only"):
        texts.data[0] = 0
    with pytest.raises(ValueError, match="read-only"):
        texts.offsets[0] = 1


def test_bytes_that_are_no_utf8_are_taken_and_read_as_replaced() -> None:
    texts = Texts.of([b"a\xffb", "c"])
    assert texts.to_strings() == ["a\ufffdb", "c"]
    with pytest.raises(IndexError):
        texts[2]
