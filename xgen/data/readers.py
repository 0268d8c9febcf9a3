"""Records from what people have: jsonl (zstd, gzip, plain), parquet, arrow, WARC, HTML, `datasets`.

Nothing is skipped silently: what cannot be read comes as `Bad`, with its place and the reason. A disk or a network that
fails is no such thing: its error is raised, for the next try may succeed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from xgen.data.documents import DamagedError, lines_of
from xgen.data.inflate import BrokenFrameError, Frames
from xgen.data.pages import MAX_PAGE, UnusableError, text_of
from xgen.data.places import arrow_input, is_remote
from xgen.data.units import Piece, Unit, hub_error, open_stream
from xgen.data.warc import read_warc

if TYPE_CHECKING:
    import pyarrow

_BATCH_ROWS = 256
_EMPTY = "holds no record"
_MAX_NAME = 1000  # characters of a domain, source or licence: they are held for every document


@dataclass(frozen=True)
class Keys:
    """Where a record has what."""

    text: str = "text"
    domain: str | None = None
    source: str | None = None
    licence: str | None = None
    id: str | None = None
    url: str | None = None

    @property
    def of_pages(self) -> Keys:
        """What WARC and HTML give has these names."""
        return replace(self, text="text", id="id", url="url")

    @property
    def named(self) -> list[str]:
        return [key for key in (self.text, self.domain, self.source, self.licence, self.id, self.url) if key]


@dataclass(frozen=True)
class Defaults:
    """What a record is that does not say it."""

    domain: str
    source: str
    licence: str = "unknown"


@dataclass(frozen=True)
class Record:
    text: str
    domain: str
    source: str
    licence: str
    num_bytes: int
    id: str = ""
    url: str = ""
    file: str = ""
    line: int = 0  # or row, from 1; 0: a page, which is the file


@dataclass(frozen=True)
class Bad:
    """What could not be read: one record, by its line (jsonl) or row, from 1; 0 for the file, or the rest of it.

    What of the reason differs from record to record comes after a colon or semicolon.
    """

    file: str
    line: int
    reason: str

    @property
    def place(self) -> str:
        return place_of(self.file, self.line)

    @property
    def kind(self) -> str:
        return kind_of(self.reason)


def kind_of(reason: str) -> str:
    """What is the same for all records that are bad in this way."""
    return reason.partition(":")[0].partition(";")[0]


def place_of(file: str, line: int) -> str:
    """For a person; a page has a file of its own, and no line."""
    return f"{file}: line {line}" if line else file


_Row = tuple[int, Any]  # its line or row, and the record as it was read, or Bad


def read_unit(unit: Unit, keys: Keys, defaults: Defaults, max_bytes: int = 0) -> Iterator[Record | Bad]:
    """Every record of a unit, in order; one of more than `max_bytes` (0: of any length) is `Bad`.

    Raises OSError, and StoreError for a data set that cannot be reached.
    """
    for piece in unit.pieces:
        empty = True
        own = keys.of_pages if piece.has_pages else keys
        for line, row in _rows(piece, own.named, max_bytes):
            empty = False
            record = row if isinstance(row, Bad) else _record(piece.path, line, row, own, defaults)
            if isinstance(record, Record) and 0 < max_bytes < record.num_bytes:
                record = Bad(piece.path, line, _too_long(max_bytes))
            yield record
        if empty and piece.kind != "hub":
            yield Bad(piece.path, 0, _EMPTY)


def read_rows(unit: Unit, max_bytes: int = 0) -> Iterator[tuple[str, int, Any]]:
    """Every record of a unit as it was read, all its keys, or `Bad`: its file, its line or row, and itself.

    Raises OSError, and StoreError for a data set that cannot be reached.
    """
    for piece in unit.pieces:
        empty = True
        for line, row in _rows(piece, None, max_bytes):
            empty = False
            yield piece.path, line, row
        if empty and piece.kind != "hub":
            yield piece.path, 0, Bad(piece.path, 0, _EMPTY)


def _record(file: str, line: int, row: Any, keys: Keys, defaults: Defaults) -> Record | Bad:
    if not isinstance(row, dict):
        return Bad(file, line, f"is no object but {type(row).__name__}")
    fields = list[str]()
    for key, default in (
        (keys.text, ""),
        (keys.domain, defaults.domain),
        (keys.source, defaults.source),
        (keys.licence, defaults.licence),
    ):
        if key is None:
            fields.append(default)
            continue
        value = row.get(key)
        if key not in row:
            known = ", ".join(map(str, list(row)[:8])) or "none"
            return Bad(file, line, f"has no {key!r}; its keys are {known}")
        if not isinstance(value, str) or (key != keys.text and not value):
            return Bad(file, line, f"has {key!r} that is not text: {value!r:.60}")
        if key != keys.text and len(value) > _MAX_NAME:
            return Bad(file, line, f"has {key!r} of more than {_MAX_NAME:,} characters: {value!r:.60}")
        fields.append(value)
        if key == keys.text and (not value or value.isspace()):
            return Bad(file, line, "has no text")
    text, domain, source, licence = fields
    name = row.get(keys.id) if keys.id else ""
    if not isinstance(name, str | int) or (keys.id and name == ""):
        return Bad(file, line, f"has {keys.id!r} that is no id: {name!r:.60}")
    url = row.get(keys.url) if keys.url else ""
    try:
        size = len(text.encode())
        address = url if isinstance(url, str) else ""
        return Record(text, domain, source, licence, size, str(name), address, file, line)
    except UnicodeEncodeError as error:
        return Bad(file, line, f"has half of a surrogate pair: {keys.text!r}, character {error.start}")


def _too_long(max_bytes: int) -> str:
    return f"is longer than {max_bytes:,} bytes"


def _rows(piece: Piece, wanted: Sequence[str] | None, max_bytes: int) -> Iterator[_Row]:
    if piece.kind == "lines":
        yield from _json_rows(piece.path, max_bytes)
    elif piece.kind == "warc":
        for number, found in read_warc(piece.path):
            yield number, Bad(piece.path, number, found) if isinstance(found, str) else found
    elif piece.kind == "html":
        yield 0, _page(piece.path)
    elif piece.kind == "hub":
        yield from _hub_rows(piece)
    else:
        import pyarrow

        try:
            yield from (_parquet_rows if piece.kind == "parquet" else _arrow_rows)(piece, wanted)
        except (pyarrow.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            yield 0, Bad(piece.path, 0, f"is damaged: {' '.join(str(error).split())[:200]}")


def _json_rows(path: str, max_bytes: int) -> Iterator[_Row]:
    from pydantic_core import from_json

    # A text in JSON may take six bytes for one.
    longest = 6 * max_bytes + 65536 if max_bytes else 0
    try:
        for number, line in lines_of(path, longest):
            if not line or line.isspace():
                continue
            if 0 < longest < len(line):
                yield number, Bad(path, number, _too_long(max_bytes))
                continue
            try:
                # Not the json module: this is a third faster, and refuses half of a surrogate pair.
                yield number, from_json(line)
            except ValueError as error:
                yield number, Bad(path, number, f"is no JSON: {error}")
    except DamagedError as error:
        yield 0, Bad(path, 0, error.what)


def _page(path: str) -> dict[str, str] | Bad:
    """An HTML file, whose id is its path."""
    page = bytearray()
    try:
        for block in Frames(path).blocks():
            page += block
            if len(page) > MAX_PAGE:
                break
        return {"id": path, "url": path if is_remote(path) else "", "text": text_of(bytes(page))}
    except BrokenFrameError as error:
        return Bad(path, 0, f"is damaged: {error}")
    except UnusableError as error:
        return Bad(path, 0, str(error))


def _parquet_rows(piece: Piece, wanted: Sequence[str] | None) -> Iterator[_Row]:
    from pyarrow import parquet

    with arrow_input(piece.path) as source, parquet.ParquetFile(source) as file:
        last = piece.last or file.metadata.num_row_groups
        row = sum(file.metadata.row_group(number).num_rows for number in range(piece.first))
        columns = _columns(piece, file.schema_arrow.names, wanted)
        if isinstance(columns, Bad):
            yield 0, columns
            return
        groups = range(piece.first, last)
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, row_groups=groups, columns=columns):
            yield from _records(piece, batch, row)
            row += batch.num_rows


def _arrow_rows(piece: Piece, wanted: Sequence[str] | None) -> Iterator[_Row]:
    """An arrow stream, as `datasets.save_to_disk` writes it."""
    import pyarrow

    row = 0
    with arrow_input(piece.path, mapped=True) as file, pyarrow.ipc.open_stream(file) as batches:
        columns = _columns(piece, batches.schema.names, wanted)
        if isinstance(columns, Bad):
            yield 0, columns
            return
        for batch in batches:
            yield from _records(piece, batch.select(columns), row)
            row += batch.num_rows


def _records(piece: Piece, batch: pyarrow.RecordBatch, before: int) -> Iterator[_Row]:
    """The rows of a batch, numbered after the `before` rows before it. What is no UTF-8 is found by rows."""
    try:
        yield from enumerate(batch.to_pylist(), start=before + 1)
    except UnicodeDecodeError:
        for number in range(batch.num_rows):
            try:
                [record] = batch.slice(number, 1).to_pylist()
            except UnicodeDecodeError as error:
                record = Bad(piece.path, before + number + 1, f"is not UTF-8: {error.reason} at byte {error.start}")
            yield before + number + 1, record


def _columns(piece: Piece, known: Sequence[str], wanted: Sequence[str] | None) -> list[str] | Bad:
    """Those that are `wanted`, or all."""
    if wanted is None:
        return list(known)
    for name in wanted:
        if name not in known:
            return Bad(piece.path, 0, f"has no column {name!r}; it has {', '.join(known[:20])}")
    return list(wanted)


def _hub_rows(piece: Piece) -> Iterator[_Row]:
    stream = open_stream(piece.path)
    try:
        shard = stream.shard(num_shards=stream.num_shards, index=piece.first)
        yield from enumerate(shard, start=1)
    except Exception as error:  # noqa: BLE001 - datasets raises what its readers raise
        raise hub_error(piece.path, error) from None
