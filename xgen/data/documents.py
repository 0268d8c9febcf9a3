"""Documents as zstd-compressed JSON lines: `id, text, domain, source, licence`. Nothing is skipped silently."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from xgen.data.errors import StoreError

_READ_BYTES = 1 << 20


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
    for number, line in _lines(path):
        if not line.strip():
            continue
        try:
            yield Document.model_validate_json(line)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(map(str, first["loc"]))
            what = f"{key}: {first['msg']}" if key else first["msg"]
            raise StoreError(f"{path}: line {number}", what, "mend or remove this line") from None


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Numbered lines of a compressed file."""
    import zstandard

    number, rest = 0, b""
    try:
        for block in _blocks(path):
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                number += 1
                yield number, line
    except zstandard.ZstdError as error:
        raise StoreError(path, f"is damaged after line {number}: {error}", "fetch or write the file again") from None
    except OSError as error:
        raise StoreError(path, error.strerror or str(error), "name a readable .jsonl.zst file") from None
    if rest:
        yield number + 1, rest


def _blocks(path: Path) -> Iterator[bytes]:
    """Decompressed blocks of all frames.

    Raises ZstdError also for a truncated frame and reads every frame: `stream_reader` of zstandard takes the end of a
    truncated file for its end.
    """
    import zstandard

    with path.open("rb") as file:
        decompressor = zstandard.ZstdDecompressor()
        frame, inside = decompressor.decompressobj(), False
        while data := file.read(_READ_BYTES):
            while data:
                yield frame.decompress(data)
                inside, data = not frame.eof, frame.unused_data
                if frame.eof:
                    frame = decompressor.decompressobj()
        if inside:
            raise zstandard.ZstdError("the file ends inside a frame")
