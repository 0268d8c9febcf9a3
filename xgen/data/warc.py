"""Archives of the web: WARC 0.17 to 1.1, plain, a gzip member a record, or zstd. WET files are such archives, too.

https://iipc.github.io/warc-specifications. After a record that is broken reading goes on at the next one that is found.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from typing import Any

from xgen.data.inflate import BrokenFrameError, Frames
from xgen.data.pages import MAX_PAGE, UnusableError, text_of

_MAX_HEAD, _MAX_RECORD = 1 << 16, MAX_PAGE  # bytes
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_LENGTH = re.compile(rb"^content-length:[ \t]*(\d{1,15})[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_NEXT = re.compile(rb"(?<=\n)WARC/\d")
_CHARSET = re.compile(r"""charset\s*=\s*["']?([\w.:-]+)""", re.IGNORECASE)
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r?\n")
_HTML = ("text/html", "application/xhtml+xml")
_NOTES = ("warcinfo", "request", "metadata")  # of the crawl about itself


def read_warc(path: str) -> Iterator[tuple[int, dict[str, str] | str]]:
    """Numbered documents (`id`, `url`, `text`), or what is wrong with what stands in their place.

    Documents are HTML of responses of success and of `resource` records, and plain text of `conversion` records. What
    the crawl notes about itself (warcinfo, request, metadata) has a number and gives nothing.
    Raises OSError, StoreError.
    """
    for number, record in enumerate(_records(path), start=1):
        if isinstance(record, str):
            yield number, record
            continue
        try:
            if document := _document(record):
                yield number, document
        except UnusableError as error:
            yield number, str(error)


def _records(path: str) -> Iterator[bytes | str]:
    """Each record whole, or what is wrong with what stands in its place."""
    frames = Frames(path)
    start: int | None = 0
    while start is not None:
        rest = _Rest(frames.blocks(start))
        yield from _framed(rest)
        if not rest.error:
            return
        start = frames.next_frame(b"WARC/")
        yield f"is damaged: {rest.error}" + ("" if start is not None else ", and no record is found after it")


class _Rest:
    """Decompressed bytes that are not read yet; they end where a frame is broken, which `error` says."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks, self.data, self.error = blocks, bytearray(), ""

    def more(self) -> bool:
        try:
            block = next(self._blocks, None)
        except BrokenFrameError as error:
            self.error, block = str(error), None
        self.data += block or b""
        return block is not None

    def fill(self, size: int) -> bool:
        """Whether there are `size` bytes."""
        while len(self.data) < size:
            if not self.more():
                return False
        return True

    def skip(self, size: int) -> None:
        while size > len(self.data):
            size -= len(self.data)
            self.data.clear()
            if not self.more():
                return
        del self.data[:size]

    def skip_newlines(self) -> bool:
        """Whether anything is left after them."""
        while self.fill(1):
            blank = len(self.data) - len(self.data.lstrip(b"\r\n"))
            if not blank:
                return True
            del self.data[:blank]
        return False

    def head(self) -> int:
        """How long the header is that begins here; 0: it does not end."""
        searched = 0
        while not (found := _HEAD_END.search(self.data, searched, _MAX_HEAD)):
            searched = max(len(self.data) - 3, 0)
            if searched >= _MAX_HEAD or not self.more():
                return 0
        return found.end()

    def skip_to_record(self, after: int) -> None:
        """To the next line that begins as a record does."""
        while not (found := _NEXT.search(self.data, after)):
            kept = max(len(self.data) - 8, 0)
            del self.data[:kept]
            after = max(after - kept, 0)
            if not self.more():
                self.data.clear()
                return
        del self.data[: found.start()]


def _framed(rest: _Rest) -> Iterator[bytes | str]:
    while rest.skip_newlines():
        head = rest.head()
        declared = _LENGTH.search(rest.data, 0, head)
        if rest.error and not head:
            return
        if not rest.data.startswith(b"WARC/"):
            yield f"is no WARC record: it begins with {bytes(rest.data[:20])!r}"
            rest.skip_to_record(1)
            continue
        if not declared:
            yield "is a WARC record without a length: its header has no Content-Length, or does not end"
            rest.skip_to_record(1)
            continue
        end = head + int(declared[1])
        if end > head + _MAX_RECORD:
            yield f"is longer than {_MAX_RECORD:,} bytes"
            rest.skip(end)
            continue
        if not rest.fill(end + 4) and len(rest.data) < end:
            if rest.error:
                return
            yield "is a WARC record that the file ends inside of"
            rest.skip_to_record(head)
            continue
        after = bytes(rest.data[end : end + 4]).lstrip(b"\r\n")
        if not b"WARC/".startswith(after):
            yield f"is a WARC record of another length than it says: {int(declared[1]):,} bytes"
            rest.skip_to_record(head)
            continue
        yield bytes(rest.data[:end])
        del rest.data[:end]


def _document(record: bytes) -> dict[str, str] | None:
    _, headers, body = _parsed(record)
    kind = headers.get("warc-type", "unknown").lower()
    if kind in _NOTES:
        return None
    mime = headers.get("content-type", "")
    if kind == "response":
        mime, body = _response(body)
    elif kind not in ("resource", "conversion"):
        raise UnusableError(f"is a {kind:.20} record, which holds no page")
    charset = _CHARSET.search(mime)
    if kind == "response":  # what the crawler found it to be goes before what the server said
        mime = headers.get("warc-identified-payload-type") or mime
    mime = mime.partition(";")[0].strip().lower()
    if kind == "conversion" and mime == "text/plain":
        text = body.decode("utf-8", errors="replace")
    elif mime in _HTML:
        text = text_of(body, charset and charset[1])
    else:
        raise UnusableError(f"is not HTML: {mime or 'of no named type'}")
    return {
        "id": headers.get("warc-record-id", "").strip("<>"),
        "url": headers.get("warc-target-uri", "").strip("<>"),
        "text": text,
    }


def _response(message: bytes) -> tuple[str, bytes]:
    """Content type and body of an HTTP response. Raises UnusableError for one that is no success or does not decode."""
    first, headers, body = _parsed(message)
    version, _, status = first.partition(" ")
    if not version.startswith("HTTP/"):
        raise UnusableError(f"is no HTTP response: it begins with {first[:20]!r}")
    if not status.startswith("2"):
        raise UnusableError(f"is not an HTTP response of success: {status[:3]}")
    if "chunked" in headers.get("transfer-encoding", "").lower():
        body = _joined(body)
    for coding in reversed(headers.get("content-encoding", "").lower().replace(",", " ").split()):
        body = _decoded(body, coding)
    return headers.get("content-type", ""), body


def _parsed(message: bytes) -> tuple[str, dict[str, str], bytes]:
    """The first line, the headers by their names in lower case, and the body."""
    found = _HEAD_END.search(message)
    head, body = (message[: found.start()], message[found.end() :]) if found else (message, b"")
    lines = re.sub(rb"\r?\n[ \t]+", b" ", head).decode("utf-8", errors="replace").splitlines()
    pairs = (line.partition(":") for line in lines[1:])
    return lines[0] if lines else "", {name.strip().lower(): value.strip() for name, _, value in pairs}, body


def _joined(body: bytes) -> bytes:
    """A chunked body in one; crawlers that have joined it themselves leave the header as it was."""
    parts, place = list[bytes](), 0
    while found := _CHUNK.match(body, place):
        size = int(found[1], 16)
        if not size:
            return b"".join(parts)
        parts.append(body[found.end() : found.end() + size])
        place = found.end() + size
        place += len(body[place : place + 2]) - len(body[place : place + 2].lstrip(b"\r\n"))
    if not parts:
        return body
    raise UnusableError("has a body that ends inside its chunks")


def _decoded(body: bytes, coding: str) -> bytes:
    """A compressed body; crawlers that have decompressed it themselves leave the header as it was."""
    try:
        unpacked, whole = _unpacked(body, coding)
    except Exception as error:  # noqa: BLE001 - of zlib, brotli or zstandard
        if body.lstrip().startswith(b"<"):
            return body
        raise UnusableError(f"has a body that does not decompress: {coding}, {error}") from None
    if len(unpacked) > MAX_PAGE:
        raise UnusableError(f"is longer than {MAX_PAGE:,} bytes")
    if not whole:
        raise UnusableError(f"has a body that ends inside its compression: {coding}")
    return unpacked


def _unpacked(body: bytes, coding: str) -> tuple[bytes, bool]:
    """Little more than a page may have, and whether that is all."""
    limit = MAX_PAGE + 1
    inflate: Any
    if coding in ("gzip", "x-gzip", "deflate"):
        raw = coding == "deflate" and body[:1] != b"\x78"  # some servers send it without the header of zlib
        inflate = zlib.decompressobj(-15 if raw else 47)
        return inflate.decompress(body, limit), inflate.eof
    if coding == "br":
        import brotli

        inflate = brotli.Decompressor()
        return inflate.process(body, output_buffer_limit=limit), inflate.is_finished()
    if coding == "zstd":
        import zstandard

        inflate, unpacked = zstandard.ZstdDecompressor().decompressobj(), bytearray()
        for place in range(0, len(body), 1024):  # which may become 33 MB at most
            if len(unpacked) < limit and not inflate.eof:
                unpacked += inflate.decompress(body[place : place + 1024])
        return bytes(unpacked), inflate.eof
    if coding == "identity":
        return body, True
    raise ValueError("which is of no known kind")
