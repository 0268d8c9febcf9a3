"""The token store: a folder of memory-mapped arrays with their checksums. Format: docs/data.md."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from xgen.data.errors import StoreError
from xgen.data.mapping import map_file
from xgen.data.meta import (
    META_FILE,
    OFFSETS_FILE,
    PARTS_DIR,
    QUARANTINE_FILE,
    SOURCES_FILE,
    TOKENIZER_FILE,
    TOKENS_FILE,
    VERSION,
    DomainMeta,
    FileMeta,
    PartMeta,
    SourceMeta,
    StoreMeta,
    fault_in,
    file_meta,
    read_meta,
    token_type,
)
from xgen.data.tokenizer import Tokenizer

__all__ = [
    "META_FILE", "OFFSETS_FILE", "PARTS_DIR", "QUARANTINE_FILE", "SOURCES_FILE", "TOKENIZER_FILE", "TOKENS_FILE",
    "VERSION", "DomainMeta", "FileMeta", "Part", "PartMeta", "SourceMeta", "StoreMeta", "TokenStore", "file_meta",
    "read_meta", "token_type",
]  # fmt: skip
_MAPPED_PARTS = 256  # of more, a part is mapped when it is read: the kernel allows 65,530 maps
_Mark = tuple[int, int]


@dataclass(frozen=True)
class Part:
    """Documents of one domain as token ids, one after the other, each ended by the store's `end_of_text`.

    The arrays are read-only views of the files, mapped when they are first asked for.
    """

    path: Path
    meta: PartMeta
    token_type: Literal["uint16", "uint32"]
    opened: _Mark  # of the store's meta.json when it was opened

    @cached_property
    def tokens(self) -> NDArray[np.uint16] | NDArray[np.uint32]:
        """[num_tokens]"""
        return self._map(TOKENS_FILE, self.token_type, self.meta.num_tokens)

    @cached_property
    def offsets(self) -> NDArray[np.uint64]:
        """[num_documents + 1], into `tokens`; the first is 0, the last the number of tokens."""
        return self._map(OFFSETS_FILE, "u8", self.meta.num_documents + 1)

    @cached_property
    def sources(self) -> NDArray[np.uint16]:
        """[num_documents], numbers in the list of sources of the store."""
        return self._map(SOURCES_FILE, "u2", self.meta.num_documents)

    def document(self, number: int) -> NDArray[np.uint16] | NDArray[np.uint32]:
        """Token ids of one document, its end of text included."""
        return self.tokens[int(self.offsets[number]) : int(self.offsets[number + 1])]

    def _map(self, name: str, dtype: DTypeLike, count: int) -> NDArray[Any]:
        """A read-only array over the file.

        Raises StoreError when another store has taken the place of the one that was opened: its parts may have the
        same names, and a training must not go on with other text.
        """
        store = self.path.parent.parent
        if _mark(store) != self.opened:
            raise StoreError(store, "was replaced while it was in use", "put it back, or start a new run with it")
        kind = np.dtype(dtype).newbyteorder("<")
        return map_file(self.path / name, kind, count)


@dataclass(frozen=True)
class TokenStore:
    """Tokenized documents in parts, each of one domain. A reader keeps what it opened, also when that is replaced;
    of a store with very many parts it keeps those it has touched."""

    path: Path
    meta: StoreMeta
    parts: tuple[Part, ...]

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Open the store in `path`. Checks version and sizes, not checksums: `verify` does.

        Raises StoreError that names the file, what is wrong, and what to do.
        """
        path = Path(path)
        meta = read_meta(path)
        kinds = {TOKENS_FILE: np.dtype(meta.token_type).itemsize, OFFSETS_FILE: 8, SOURCES_FILE: 2}
        expected = {TOKENIZER_FILE: -1}
        for part in meta.parts:
            counts = (part.num_tokens, part.num_documents + 1, part.num_documents)
            for (name, size), count in zip(kinds.items(), counts, strict=True):
                expected[f"{PARTS_DIR}/{part.name}/{name}"] = size * count
        for name, size in expected.items():
            if name not in meta.files:
                raise fault_in(path, META_FILE, f"files: {name} is missing")
            if size not in (-1, meta.files[name].bytes):
                raise fault_in(path, META_FILE, f"{name} has {meta.files[name].bytes} bytes, and its counts say {size}")
        for name, file in meta.files.items():
            _check_size(path, name, file.bytes)
        opened = _mark(path)
        parts = tuple(Part(path / PARTS_DIR / part.name, part, meta.token_type, opened) for part in meta.parts)
        if len(parts) <= _MAPPED_PARTS:
            for opened_part in parts:
                _ = opened_part.tokens, opened_part.offsets
        return cls(path, meta, parts)

    def domain(self, name: str) -> tuple[Part, ...]:
        """The parts of a domain, in order. Raises StoreError that lists the domains there are."""
        found = tuple(part for part in self.parts if part.meta.domain == name)
        if not found:
            known = ", ".join(domain.name for domain in self.meta.domains)
            raise StoreError(self.path, f"has no domain {name!r}", f"write one of {known}")
        return found

    def document_lengths(self) -> dict[str, int]:
        """Percentiles in tokens, over some millions of documents, as many of each part: enough for two digits."""
        most = max(1_000, 5_000_000 // len(self.parts))
        lengths = np.concatenate([np.diff(part.offsets[: most + 1].astype(np.int64)) for part in self.parts])
        names = {"5%": 5, "25%": 25, "median": 50, "75%": 75, "95%": 95, "99%": 99, "longest": 100}
        return {name: int(np.percentile(lengths, at)) for name, at in names.items()}

    def tokenizer(self) -> Tokenizer:
        return Tokenizer.load(self.path / TOKENIZER_FILE)

    def verify(self) -> None:
        """Read every file: checksums, then what the checksums cannot know. Raises StoreError at the first fault."""
        from xgen.data.verify import find_faults

        for fault in find_faults(self.path):
            raise fault

    def verify_content(self) -> None:
        """What checksums cannot know: that the files fit together. Raises StoreError at the first fault."""
        for part in self.parts:
            folder = f"{PARTS_DIR}/{part.meta.name}"
            if int(part.offsets[0]) != 0 or int(part.offsets[-1]) != part.meta.num_tokens:
                raise fault_in(self.path, f"{folder}/{OFFSETS_FILE}", "does not span the tokens")
            if np.any(part.offsets[1:] <= part.offsets[:-1]):
                raise fault_in(self.path, f"{folder}/{OFFSETS_FILE}", "does not ascend")
            for name, values, limit in (
                (TOKENS_FILE, part.tokens, self.meta.vocab_size),
                (SOURCES_FILE, part.sources, len(self.meta.sources)),
            ):
                if int(values.max()) >= limit:
                    raise fault_in(self.path, f"{folder}/{name}", f"holds {int(values.max())}, and there are {limit}")


def _mark(store: Path) -> _Mark:
    stat = (store / META_FILE).stat()
    return stat.st_ino, stat.st_mtime_ns


def _check_size(store: Path, name: str, expected: int) -> None:
    try:
        size = (store / name).stat().st_size
    except OSError as error:
        raise fault_in(store, name, error.strerror or str(error)) from None
    if size != expected:
        raise fault_in(store, name, f"has {size} bytes, and {META_FILE} says {expected}")
