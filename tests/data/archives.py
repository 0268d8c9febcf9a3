"""WARC records as crawlers write them, of pages that Python's own documentation gives."""

from __future__ import annotations

import gzip
import importlib
import pydoc
from pathlib import Path

MODULES = ("json", "textwrap", "fractions", "string", "difflib", "bisect", "shelve", "colorsys")


def page(name: str) -> bytes:
    """A page of a module: what `python -m pydoc -w` writes."""
    made = pydoc.HTMLDoc()
    return made.page(name, made.docmodule(importlib.import_module(name))).encode()


def record(name: str, block: bytes, kind: str = "response", mime: str = "application/http; msgtype=response") -> bytes:
    head = (
        f"WARC/1.1\r\nWARC-Type: {kind}\r\nWARC-Record-ID: <urn:uuid:{name}>\r\n"
        f"WARC-Date: 2026-11-26T10:00:00Z\r\nWARC-Target-URI: https://docs.example/{name}\r\n"
        f"Content-Type: {mime}\r\nContent-Length: {len(block)}\r\n\r\n"
    )
    return head.encode() + block + b"\r\n\r\n"


def response(body: bytes, mime: str = "text/html; charset=utf-8", status: str = "200 OK", **headers: str) -> bytes:
    named = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status}\r\nContent-Type: {mime}\r\n{named}\r\n".encode() + body


def pages() -> list[bytes]:
    """A response a module."""
    return [record(name, response(page(name))) for name in MODULES]


def write(path: Path, records: list[bytes]) -> Path:
    """A gzip member or a zstd frame a record where the name asks for it, as crawlers do."""
    import zstandard

    zstd = zstandard.ZstdCompressor(write_checksum=True).compress
    squeeze = {".gz": gzip.compress, ".zst": zstd}.get(path.suffix, bytes)
    path.write_bytes(b"".join(map(squeeze, records)))
    return path
