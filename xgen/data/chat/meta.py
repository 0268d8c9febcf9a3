"""What a chat store says of itself: meta.json. No NumPy: the command line reads it too."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from xgen.data.errors import StoreError
from xgen.data.meta import META_FILE, FileMeta

VERSION = 1
TOKENS_FILE, LEARN_FILE, OFFSETS_FILE = "tokens.bin", "learn.bin", "offsets.bin"
TRAIN, HELD_OUT = "train", "held-out"
QUARANTINE_FILE = "quarantine.jsonl"  # what of the sources is not in the store, and why
Kind = Literal["conversations", "pairs"]
Split = Literal["train", "held-out"]


class _Meta(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Counts(_Meta):
    """Of one source, or a part of it. A record is a conversation or a pair; tokens of a pair are those of both answers,
    each with its prompt."""

    records: int = 0
    tokens: int = 0
    learnt: int = 0  # tokens that the model learns to write
    longest: int = 0  # record in tokens
    truncated: int = 0  # records that were cut at their end
    quoting: int = 0  # records that quote special tokens, which are text in them
    dropped: dict[str, int] = {}  # records by reason: those that are too long, and those that are bad

    @property
    def num_dropped(self) -> int:
        return sum(self.dropped.values())

    def __add__(self, other: Counts) -> Counts:
        reasons = {**self.dropped}
        for reason, count in other.dropped.items():
            reasons[reason] = reasons.get(reason, 0) + count
        return Counts(
            records=self.records + other.records,
            tokens=self.tokens + other.tokens,
            learnt=self.learnt + other.learnt,
            longest=max(self.longest, other.longest),
            truncated=self.truncated + other.truncated,
            quoting=self.quoting + other.quoting,
            dropped=reasons,
        )


class SourceMeta(_Meta):
    """A source and its place in the store: SPLIT/NAME."""

    split: Split
    name: str
    counts: Counts

    @property
    def folder(self) -> str:
        return f"{self.split}/{self.name}"


class ChatMeta(_Meta):
    """meta.json. `facts`: what the content follows from, each as a short hash; `seen`: the same of the sources' files
    as they were found, by which a second call knows them without reading."""

    version: int
    kind: Kind
    facts: dict[str, str]
    seen: str
    vocab_size: int
    token_type: Literal["uint16", "uint32"]
    seq_len: int
    engine: str
    sources: tuple[SourceMeta, ...]
    files: dict[str, FileMeta]  # by path relative to the store

    @property
    def fingerprint(self) -> str:
        """Short name of the exact content."""
        lines = sorted(f"{name} {file.sha256}" for name, file in self.files.items())
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]

    def split(self, split: Split) -> list[SourceMeta]:
        return [source for source in self.sources if source.split == split]


def read_chat_meta(path: Path) -> ChatMeta:
    """meta.json of the chat store in `path`. Raises StoreError when there is none, or of another version."""
    file = path / META_FILE
    try:
        meta = ChatMeta.model_validate_json(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise fault_in(path, f"is no chat store: it has no {META_FILE}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise fault_in(file, f"{key}: {first['msg']}" if key else first["msg"]) from None
    if meta.version != VERSION:
        raise fault_in(file, f"version {meta.version} is not {VERSION}, the one that this xgen reads")
    return meta


def fault_in(place: Path, what: str) -> StoreError:
    return StoreError(place, what, "remove the store and prepare it again: xgen data chat SPEC, or the job's own step")
