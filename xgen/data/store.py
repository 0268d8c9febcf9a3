"""The token store: a folder of memory-mapped arrays with their checksums. Format: docs/data.md."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from xgen.data.errors import StoreError
from xgen.data.tokenizer import Tokenizer

VERSION = 1
META_FILE = "meta.json"
TOKENIZER_FILE = "tokenizer.json"
TOKENS_FILE, OFFSETS_FILE, DOMAINS_FILE, SOURCES_FILE = "tokens.bin", "offsets.bin", "domains.bin", "sources.bin"
_READ_BYTES = 1 << 20


class _Meta(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class FileMeta(_Meta):
    bytes: int
    sha256: str


class DomainMeta(_Meta):
    name: str
    num_documents: int
    num_tokens: int  # with the end of text of each document
    num_bytes: int  # of text, UTF-8


class SourceMeta(_Meta):
    name: str
    licence: str


class StoreMeta(_Meta):
    """meta.json. `recipe` names what the store was built from, so that a second build can tell it is up to date."""

    version: int
    recipe: str
    vocab_size: int
    token_type: Literal["uint16", "uint32"]
    end_of_text: int
    num_tokens: int
    num_documents: int
    domains: tuple[DomainMeta, ...]
    sources: tuple[SourceMeta, ...]
    files: dict[str, FileMeta]  # by path relative to the store

    @property
    def fingerprint(self) -> str:
        """Short name of the exact content; a run that finds another one after a restart has lost its data."""
        lines = sorted(f"{name} {file.sha256}" for name, file in self.files.items())
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def token_type(vocab_size: int) -> Literal["uint16", "uint32"]:
    """The narrowest type that holds every token id."""
    return "uint16" if vocab_size <= 1 << 16 else "uint32"


def file_meta(path: Path) -> FileMeta:
    """Size and checksum of a file; reads all of it."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
        return FileMeta(bytes=file.tell(), sha256=digest.hexdigest())


def read_meta(path: Path) -> StoreMeta:
    """meta.json of the store in `path`. Raises StoreError when there is none, or of another version."""
    file = path / META_FILE
    if not file.is_file():
        raise _fault(path, "", f"is no token store: it has no {META_FILE}")
    try:
        meta = StoreMeta.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise _fault(path, META_FILE, f"{key}: {first['msg']}" if key else first["msg"]) from None
    if meta.version != VERSION:
        raise _fault(path, META_FILE, f"version {meta.version} is not {VERSION}, the one that this xgen reads")
    return meta


@dataclass(frozen=True)
class TokenStore:
    """Documents as token ids, one after the other, each ended by `meta.end_of_text`.

    tokens [num_tokens], offsets [num_documents + 1] into tokens, domains and sources [num_documents] into the lists of
    the same name in `meta`. All are read-only views of the files: opening costs the same at any size.
    """

    path: Path
    meta: StoreMeta
    tokens: NDArray[np.uint16] | NDArray[np.uint32]
    offsets: NDArray[np.uint64]
    domains: NDArray[np.uint16]
    sources: NDArray[np.uint16]

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Map the store in `path`. Checks version and sizes, not checksums: `verify` does.

        Raises StoreError that names the file, what is wrong, and what to do.
        """
        path = Path(path)
        meta = read_meta(path)
        for name in (TOKENS_FILE, OFFSETS_FILE, DOMAINS_FILE, SOURCES_FILE, TOKENIZER_FILE):
            if name not in meta.files:
                raise _fault(path, META_FILE, f"files: {name} is missing")
        for name, expected in meta.files.items():
            _check_size(path, name, expected.bytes)
        return cls(
            path=path,
            meta=meta,
            tokens=_map(path, TOKENS_FILE, meta.token_type, meta.num_tokens),
            offsets=_map(path, OFFSETS_FILE, "u8", meta.num_documents + 1),
            domains=_map(path, DOMAINS_FILE, "u2", meta.num_documents),
            sources=_map(path, SOURCES_FILE, "u2", meta.num_documents),
        )

    def document(self, number: int) -> NDArray[np.uint16] | NDArray[np.uint32]:
        """Token ids of one document, its end of text included."""
        return self.tokens[int(self.offsets[number]) : int(self.offsets[number + 1])]

    def tokenizer(self) -> Tokenizer:
        return Tokenizer.load(self.path / TOKENIZER_FILE)

    def verify(self) -> None:
        """Read every file: checksums, then what the checksums cannot know. Raises StoreError at the first fault."""
        for name, expected in self.meta.files.items():
            if file_meta(self.path / name).sha256 != expected.sha256:
                raise _fault(self.path, name, f"has another checksum than {META_FILE} says")
        if int(self.offsets[0]) != 0 or int(self.offsets[-1]) != self.meta.num_tokens:
            raise _fault(self.path, OFFSETS_FILE, "does not span the tokens")
        if np.any(self.offsets[1:] <= self.offsets[:-1]):
            raise _fault(self.path, OFFSETS_FILE, "does not ascend")
        for name, values, limit in (
            (TOKENS_FILE, self.tokens, self.meta.vocab_size),
            (DOMAINS_FILE, self.domains, len(self.meta.domains)),
            (SOURCES_FILE, self.sources, len(self.meta.sources)),
        ):
            if int(values.max()) >= limit:
                raise _fault(self.path, name, f"holds {int(values.max())}, and there are {limit}")


def _fault(store: Path, name: str, what: str) -> StoreError:
    """A fault in file `name` of a store, or in the store itself where `name` is empty."""
    return StoreError(store / name, what, f"build the store again: python -m xgen.data build --out {store}")


def _check_size(store: Path, name: str, expected: int) -> None:
    try:
        size = (store / name).stat().st_size
    except OSError as error:
        raise _fault(store, name, error.strerror or str(error)) from None
    if size != expected:
        raise _fault(store, name, f"has {size} bytes, and {META_FILE} says {expected}")


def _map(store: Path, name: str, dtype: DTypeLike, count: int) -> NDArray[Any]:
    """A read-only plain array over the file: slicing np.memmap itself costs more than the slice."""
    kind = np.dtype(dtype).newbyteorder("<")
    size = (store / name).stat().st_size
    if size != count * kind.itemsize:
        raise _fault(store, name, f"has {size} bytes, and {count} entries of {kind.itemsize} do not fill it")
    return np.asarray(np.memmap(store / name, dtype=kind, mode="r", shape=(count,)))
