"""What a token store says of itself: meta.json. No NumPy: the command line reads it too."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from xgen.data.errors import StoreError

VERSION = 2
META_FILE = "meta.json"
TOKENIZER_FILE = "tokenizer.json"
PARTS_DIR = "parts"
QUARANTINE_FILE = "quarantine.jsonl"  # what of the input is not in the store, and why
TOKENS_FILE, OFFSETS_FILE, SOURCES_FILE = "tokens.bin", "offsets.bin", "sources.bin"
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


class PartMeta(_Meta):
    name: str  # of its folder
    domain: str
    num_documents: int
    num_tokens: int


class StoreMeta(_Meta):
    """meta.json. `recipe` names what the store was built from, so that a second build can tell it is up to date."""

    version: int
    recipe: str
    vocab_size: int
    token_type: Literal["uint16", "uint32"]
    end_of_text: int
    num_tokens: int
    num_documents: int
    num_quarantined: int = 0  # lines of quarantine.jsonl
    domains: tuple[DomainMeta, ...]
    sources: tuple[SourceMeta, ...]
    parts: tuple[PartMeta, ...]
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
        raise fault_in(path, "", f"is no token store: it has no {META_FILE}")
    try:
        meta = StoreMeta.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise fault_in(path, META_FILE, f"{key}: {first['msg']}" if key else first["msg"]) from None
    if meta.version != VERSION:
        raise fault_in(path, META_FILE, f"version {meta.version} is not {VERSION}, the one that this xgen reads")
    return meta


def fault_in(store: Path, name: str, what: str) -> StoreError:
    """A fault in file `name` of a store, or in the store itself where `name` is empty."""
    return StoreError(
        store / name, what, f"build the store again: python -m xgen.data build --out {store} (tiny), or xgen data build"
    )
