"""A batch of documents in Arrow's own layout: kernels see raw UTF-8, and never Python strings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow
from numpy.typing import NDArray


@dataclass(frozen=True)
class Texts:
    """Document i is data[offsets[i] : offsets[i + 1]].

    Both arrays are read-only views: where every batch has the same types, a kernel is compiled once.
    """

    data: NDArray[np.uint8]  # UTF-8 of all documents, one after the other
    offsets: NDArray[np.int64]  # [n + 1], from 0 to len(data)

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", _read_only(self.data, np.uint8))
        object.__setattr__(self, "offsets", _read_only(self.offsets, np.int64))
        assert self.offsets[0] == 0
        assert self.offsets[-1] == len(self.data)

    @classmethod
    def of(cls, texts: Sequence[str | bytes]) -> Texts:
        """Raises UnicodeEncodeError for a str with a lone surrogate, which UTF-8 cannot hold; bytes are not checked."""
        encoded = [text.encode() if isinstance(text, str) else text for text in texts]
        offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
        np.cumsum([len(text) for text in encoded], out=offsets[1:])
        return cls(np.frombuffer(b"".join(encoded), dtype=np.uint8), offsets)

    @classmethod
    def from_arrow(cls, column: pyarrow.ChunkedArray | pyarrow.Array) -> Texts:
        """A column of (large) strings without nulls; no text is copied where the column is one chunk."""
        assert column.null_count == 0
        if isinstance(column, pyarrow.ChunkedArray):
            # Chunks of a string column may be larger together than 32-bit offsets reach.
            one = column.num_chunks == 1
            column = (
                column.chunk(0)
                if one
                else pyarrow.concat_arrays(
                    column.cast(pyarrow.large_string()).chunks or [pyarrow.array([], pyarrow.large_string())]
                )
            )
        if len(column) == 0:
            return cls.of(())
        width = np.int64 if pyarrow.types.is_large_string(column.type) else np.int32
        assert width is np.int64 or pyarrow.types.is_string(column.type), column.type
        _, places, content = column.buffers()
        offsets = np.frombuffer(places, dtype=width)[column.offset : column.offset + len(column) + 1].astype(
            np.int64, copy=False
        )
        first, last = int(offsets[0]), int(offsets[-1])
        data = np.frombuffer(content, dtype=np.uint8)[first:last] if last > first else np.zeros(0, np.uint8)
        return cls(data, offsets - first if first else offsets)

    def to_arrow(self) -> pyarrow.LargeStringArray:
        """The same memory as an Arrow array, which can filter and take. The bytes have to be valid UTF-8."""
        buffers = pyarrow.py_buffer(self.offsets), pyarrow.py_buffer(self.data)
        return pyarrow.LargeStringArray.from_buffers(len(self), *buffers)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, number: int) -> str:
        """One document; a byte that is no UTF-8 reads as U+FFFD. Raises IndexError."""
        if not 0 <= number < len(self):
            raise IndexError(number)
        return self.data[self.offsets[number] : self.offsets[number + 1]].tobytes().decode("utf-8", "replace")

    def to_strings(self) -> list[str]:
        return [self[number] for number in range(len(self))]

    @property
    def num_bytes(self) -> int:
        return len(self.data)


def _read_only(array: NDArray[Any], dtype: type) -> NDArray[Any]:
    assert array.ndim == 1
    view: NDArray[Any] = np.require(array, dtype, ["C", "A"]).view()
    view.flags.writeable = False
    return view
