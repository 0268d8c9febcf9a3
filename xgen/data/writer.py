"""Records become parts of a token store: in units, each written on its own, in any order.

A unit is a folder of parts and its `unit.json`, which comes last. `assemble` makes a store of units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from xgen.data import store
from xgen.data.encode import Encoder
from xgen.data.errors import StoreError
from xgen.data.readers import Bad, Record
from xgen.data.store import FileMeta, SourceMeta

UNIT_FILE = "unit.json"
UNIT_SOURCES_FILE = "sources.unit"  # numbers in the unit's list of sources
MAX_NAMES = 1 << 16  # sources are numbered in 16 bits
_BATCH_BYTES = 1 << 17  # of text encoded at once
_PART_TOKENS = 1 << 30  # a part is full then
_MAX_DOMAINS = 256  # of a unit: each has three open files


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class UnitPart(_Frozen):
    """A part as its unit wrote it."""

    folder: str
    domain: str
    num_documents: int
    num_tokens: int
    num_bytes: int  # of text
    files: dict[str, FileMeta]


class BadRecord(_Frozen):
    """Something of the input that is not in the store; `line` counts lines or rows from 1, 0: the rest of the file."""

    file: str
    line: int
    reason: str


class UnitMeta(_Frozen):
    """unit.json."""

    parts: tuple[UnitPart, ...]
    sources: tuple[SourceMeta, ...]
    bad: tuple[BadRecord, ...]
    checked: int  # texts that both engines gave the same tokens for


class _PartWriter:
    """The files of one part, open."""

    def __init__(self, unit: Path, name: str, domain: str) -> None:
        self.domain, self.num_documents, self.num_tokens, self.num_bytes = domain, 0, 0, 0
        self._name, self._folder = name, unit / name
        self._folder.mkdir(parents=True)
        self.stack = ExitStack()
        self._tokens, self._offsets, self._sources = (
            self.stack.enter_context((self._folder / file).open("xb"))
            for file in (store.TOKENS_FILE, store.OFFSETS_FILE, UNIT_SOURCES_FILE)
        )
        self._offsets.write(bytes(8))

    def add(self, tokens: bytes, count: int, source: int, num_bytes: int) -> None:
        self._tokens.write(tokens)
        self.num_documents += 1
        self.num_tokens += count
        self.num_bytes += num_bytes
        self._offsets.write(self.num_tokens.to_bytes(8, "little"))
        self._sources.write(source.to_bytes(2, "little"))

    def close(self) -> UnitPart:
        self.stack.close()
        return UnitPart(
            folder=self._name,
            domain=self.domain,
            num_documents=self.num_documents,
            num_tokens=self.num_tokens,
            num_bytes=self.num_bytes,
            files={
                name: store.file_meta(self._folder / name)
                for name in (store.TOKENS_FILE, store.OFFSETS_FILE, UNIT_SOURCES_FILE)
            },
        )


class UnitWriter:
    """The parts of one unit in `folder`, which must be empty: of each domain one that is being filled, and those that
    are full. `close` comes last; `stack` closes the files whatever happens."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder, self._stack = folder, stack
        self._full: list[UnitPart] = []
        self._open: dict[str, _PartWriter] = {}
        self._num_parts = 0
        self._sources: dict[tuple[str, str], int] = {}

    def add(self, domain: str, origin: tuple[str, str], tokens: bytes, count: int, num_bytes: int) -> None:
        """Add a document: `origin` is its source and licence, `tokens` its `count` tokens, `num_bytes` its text's.

        Raises StoreError for too many sources or domains.
        """
        source = self._sources.setdefault(origin, len(self._sources))
        if source >= MAX_NAMES:
            what = f"is source number {MAX_NAMES + 1:,}"
            raise StoreError(f"source {origin[0]}", what, "name collections, not single documents")
        part = self._open.get(domain)
        if part is None or part.num_tokens >= _PART_TOKENS:
            if part is not None:
                self._full.append(part.close())
            elif len(self._open) == _MAX_DOMAINS:
                fix = "a domain is a kind of text that gets a weight in training; name fewer"
                raise StoreError(f"domain {domain}", f"is domain number {_MAX_DOMAINS + 1} of one unit", fix)
            part = self._open[domain] = _PartWriter(self._folder, f"{self._num_parts:05}", domain)
            self._stack.callback(part.stack.close)
            self._num_parts += 1
        part.add(tokens, count, source, num_bytes)

    def close(self, bad: Sequence[BadRecord] = (), checked: int = 0) -> UnitMeta:
        """Write unit.json."""
        meta = UnitMeta(
            parts=tuple(
                sorted([*self._full, *(part.close() for part in self._open.values())], key=lambda part: part.folder)
            ),
            sources=tuple(SourceMeta(name=name, licence=licence) for name, licence in self._sources),
            bad=tuple(bad),
            checked=checked,
        )
        (self._folder / UNIT_FILE).write_text(meta.model_dump_json(indent=1) + "\n", encoding="utf-8")
        return meta


def write_unit(
    folder: Path,
    records: Iterable[Record | Bad],
    encoder: Encoder,
    token_type: Literal["uint16", "uint32"],
    end_of_text: int,
    tick: Callable[[int], None] = lambda _: None,
    stop_at_bad: bool = True,
) -> UnitMeta:
    """Encode `records` in order into `folder`, which must be empty; `tick` is told the bytes of text that are done.

    Documents of a domain go to the part of that domain until it is full. Raises StoreError at a bad record, unless
    those are to be listed, and OSError.
    """
    kind = np.dtype(token_type).newbyteorder("<")
    end = np.array([end_of_text], dtype=kind).tobytes()
    bad: list[BadRecord] = []
    checked = encoder.checked
    with ExitStack() as stack:
        unit = UnitWriter(folder, stack)
        for batch, tokens in _encoded(_batches(_good(records, bad, stop_at_bad)), encoder):
            for record, own in zip(batch, tokens, strict=True):
                content = own.astype(kind, copy=False).tobytes() + end
                unit.add(record.domain, (record.source, record.licence), content, len(own) + 1, record.num_bytes)
            tick(sum(record.num_bytes for record in batch))
        return unit.close(bad, encoder.checked - checked)


def _encoded(
    batches: Iterable[list[Record]], encoder: Encoder
) -> Iterator[tuple[list[Record], list[NDArray[np.uint32]]]]:
    for number, batch in enumerate(batches):
        yield batch, encoder.encode([record.text for record in batch], first=number == 0)


def _good(records: Iterable[Record | Bad], bad: list[BadRecord], stop: bool) -> Iterator[Record]:
    for record in records:
        if isinstance(record, Record):
            yield record
        elif stop:
            fix = "mend or remove it, or write --on-bad-record quarantine"
            raise StoreError(record.place, record.reason, fix)
        else:
            bad.append(BadRecord(file=record.file, line=record.line, reason=record.reason))


def _batches(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Records in runs of about `_BATCH_BYTES` of text."""
    batch: list[Record] = []
    size = 0
    for record in records:
        batch.append(record)
        size += record.num_bytes
        if size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
