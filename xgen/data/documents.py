"""Documents as zstd-compressed JSON lines: `id, text, domain, source, licence`. Nothing is skipped silently."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from xgen.data.errors import StoreError

_READ_BYTES = 1 << 20
_MAX_WINDOW = 1 << 31  # bytes: of zstd --long=31, as archives of the web have it


class DamagedError(StoreError):
    """A file that is truncated, or that does not decompress."""


class Document(BaseModel):
    """One text with where it comes from. Other keys of a record are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    text: str
    domain: str = Field(min_length=1)
    source: str = Field(min_length=1)
    licence: str = Field(min_length=1)


def write_documents(path: Path, documents: Iterable[Document]) -> None:
    """Write `documents` in order; the frame carries a checksum, so that reading finds a flipped bit."""
    import zstandard

    compressor = zstandard.ZstdCompressor(level=3, write_checksum=True)
    with path.open("xb") as file, compressor.stream_writer(file) as out:
        for document in documents:
            out.write(document.model_dump_json().encode() + b"\n")


def read_documents(path: Path) -> Iterator[Document]:
    """Documents of a `.jsonl.zst` file, in order.

    Raises StoreError that names the file and the line for a broken line, and the last whole line for a file that is
    truncated or damaged.
    """
    for number, line in lines_of(path):
        if not line.strip():
            continue
        try:
            yield Document.model_validate_json(line)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(map(str, first["loc"]))
            what = f"{key}: {first['msg']}" if key else first["msg"]
            raise StoreError(f"{path}: line {number}", what, "mend or remove this line") from None


def lines_of(path: Path, longest: int = 0) -> Iterator[tuple[int, bytes]]:
    """Numbered lines of a text file, compressed as its name says (.zst, .gz), of any length; of one of more than
    `longest` bytes (unless 0) only the first `longest` + 1, so that memory is bounded.

    Raises DamagedError with the last whole line for a compressed file that is truncated or damaged, and StoreError for
    one that is not there.
    """
    import zlib

    import zstandard

    if path.suffix == ".zst":
        blocks = _blocks(path, zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW).decompressobj)
    else:
        blocks = _blocks(path, lambda: zlib.decompressobj(31)) if path.suffix == ".gz" else _plain_blocks(path)
    number, begun, size = 0, list[bytes](), 0
    most = longest + 1 if longest else None
    try:
        for block in blocks:
            first, *rest = block.split(b"\n")
            if most is None or size < most:
                begun.append(first)
                size += len(first)
            if not rest:
                continue
            *whole, last = rest
            for line in (b"".join(begun), *whole):
                number += 1
                yield number, line[:most]
            begun, size = [last], len(last)
    except (zstandard.ZstdError, zlib.error, EOFError) as error:
        raise DamagedError(path, f"is damaged: after line {number}: {error}", "fetch or write the file again") from None
    except FileNotFoundError as error:
        raise StoreError(path, error.strerror or str(error), "name a file that exists") from None
    if rest_of := b"".join(begun)[:most]:
        yield number + 1, rest_of


def _plain_blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            yield block


def _blocks(path: Path, compressed: Callable[[], Any]) -> Iterator[bytes]:
    """Decompressed blocks of all frames; `compressed` makes the decompressor of a frame.

    Raises what that raises, and EOFError for a file that ends in a frame: `stream_reader` of zstandard takes the end of
    a truncated file for its end, and gzip gives nothing of a block that it cannot fill.
    """
    with path.open("rb") as file:
        frame, inside = compressed(), False
        while data := file.read(_READ_BYTES):
            while data:
                yield frame.decompress(data)
                inside, data = not frame.eof, frame.unused_data
                if frame.eof:
                    frame = compressed()
        if inside:
            raise EOFError("the file ends inside a frame")
