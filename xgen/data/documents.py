"""Documents as zstd-compressed JSON lines: `id, text, domain, source, licence`. Nothing is skipped silently."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from xgen.data.errors import StoreError
from xgen.data.inflate import BrokenFrameError, Frames


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


def lines_of(path: Path | str, longest: int = 0) -> Iterator[tuple[int, bytes]]:
    """Numbered lines of a text file, compressed as its name says (.zst, .gz), of any length; of one of more than
    `longest` bytes (unless 0) only the first `longest` + 1, so that memory is bounded.

    Raises DamagedError with the last whole line for a compressed file that is truncated or damaged, and StoreError for
    one that is not there.
    """
    number, begun, size = 0, list[bytes](), 0
    most = longest + 1 if longest else None
    try:
        for block in Frames(path).blocks():
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
    except BrokenFrameError as error:
        raise DamagedError(path, f"is damaged: after line {number}: {error}", "fetch or write the file again") from None
    except FileNotFoundError as error:
        raise StoreError(path, error.strerror or str(error), "name a file that exists") from None
    if rest_of := b"".join(begun)[:most]:
        yield number + 1, rest_of
