"""The chat store: conversations as token ids, with a mask of what is learnt, memory-mapped.

Of pairs every answer is a conversation of its own: pair k is the conversations 2k (the better) and 2k + 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from xgen.data.chat.meta import (
    LEARN_FILE,
    OFFSETS_FILE,
    TOKENS_FILE,
    ChatMeta,
    SourceMeta,
    Split,
    fault_in,
    read_chat_meta,
)
from xgen.data.errors import StoreError
from xgen.data.mapping import map_file


@dataclass(frozen=True)
class Source:
    """The conversations of one source; read-only views of its files. `first`: number in the store of its first record,
    which is its first pair where it has pairs."""

    path: Path
    meta: SourceMeta
    token_type: Literal["uint16", "uint32"]
    per_record: int  # conversations: 1, or 2 of a pair
    first: int

    @property
    def name(self) -> str:
        return self.meta.name

    @property
    def num_records(self) -> int:
        return self.meta.counts.records

    @cached_property
    def tokens(self) -> NDArray[np.uint16] | NDArray[np.uint32]:
        """[num_tokens]"""
        return self._map(TOKENS_FILE, self.token_type, self.meta.counts.tokens)

    @cached_property
    def learn(self) -> NDArray[np.bool_]:
        """[num_tokens]: whether the model learns to write the token."""
        return self._map(LEARN_FILE, "u1", self.meta.counts.tokens).view(np.bool_)

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """[num_records * per_record + 1], into `tokens`."""
        return self._map(OFFSETS_FILE, "i8", self.num_records * self.per_record + 1)

    def conversation(self, number: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Token ids of one, and which of them are learnt."""
        begin, end = int(self.offsets[number]), int(self.offsets[number + 1])
        return self.tokens[begin:end], self.learn[begin:end]

    def _map(self, name: str, dtype: str, count: int) -> NDArray[Any]:
        return map_file(self.path / name, np.dtype(dtype).newbyteorder("<"), count)


@dataclass(frozen=True)
class ChatStore:
    """The sources of one job, those that are trained on and those that are held out."""

    path: Path
    meta: ChatMeta
    sources: tuple[Source, ...]

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Checks version and sizes, not checksums: `verify` does. Raises StoreError."""
        path = Path(path)
        meta = read_chat_meta(path)
        for name, file in meta.files.items():
            try:
                size = (path / name).stat().st_size
            except OSError as error:
                raise fault_in(path / name, error.strerror or str(error)) from None
            if size != file.bytes:
                raise fault_in(path / name, f"has {size} bytes, and meta.json says {file.bytes}")
        sources, first = list[Source](), 0
        for source in meta.sources:
            per_record = 2 if meta.kind == "pairs" else 1
            sources.append(Source(path / source.folder, source, meta.token_type, per_record, first))
            first += source.counts.records
        opened = cls(path, meta, tuple(sources))
        for one in opened.sources:  # mapped while they are there: a store may be replaced
            _ = one.tokens, one.learn, one.offsets
        return opened

    @property
    def num_records(self) -> int:
        return sum(source.num_records for source in self.sources)

    def split(self, split: Split) -> tuple[Source, ...]:
        return tuple(source for source in self.sources if source.meta.split == split)

    def source(self, split: Split, name: str) -> Source:
        """Raises StoreError that lists those there are."""
        found = next((source for source in self.split(split) if source.name == name), None)
        if found is None:
            known = ", ".join(source.name for source in self.split(split)) or "none"
            raise StoreError(self.path, f"has no {split} source {name!r}", f"it has {known}; prepare it again")
        return found

    def verify(self) -> None:
        """Read every file. Raises StoreError at the first that is not as it was written."""
        from xgen.data.meta import file_meta

        for name, file in self.meta.files.items():
            if file_meta(self.path / name) != file:
                raise fault_in(self.path / name, "is not what was written: its checksum differs")
