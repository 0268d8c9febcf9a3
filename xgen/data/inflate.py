"""Bytes of a file, decompressed as its name says (.zst, .gz): all frames, and no silence where one is broken."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from xgen.data.places import open_input

READ_BYTES = 1 << 20
_MAX_WINDOW = 1 << 31  # bytes: of zstd --long=31, as archives of the web have it
_GZIP, _ZSTD, _DICTIONARY = b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"\x5d\x2a\x4d\x18"
# Compressed bytes that are decompressed at once: they become 17 MB (gzip) or 128 MB (zstd) at most. What of them stands
# before damage is lost with them.
_SLICE = {_GZIP: 16384, _ZSTD: 4096}


class BrokenFrameError(Exception):
    """A frame does not decompress, or the file ends inside it."""


class Frames:
    """Decompressed blocks of a file, frame by frame; what is not compressed is one frame."""

    def __init__(self, path: Path | str) -> None:
        self._path = path
        suffix = str(path).rpartition(".")[2]
        self._magic = {"gz": _GZIP, "zst": _ZSTD}.get(suffix, b"")
        self._begin = 0  # of the frame that is read
        self._new: Callable[[], Any] = lambda: zlib.decompressobj(31)

    def blocks(self, start: int = 0) -> Iterator[bytes]:
        """From the frame that begins at `start` on.

        Raises BrokenFrameError, also for a file that ends in a frame: `stream_reader` of zstandard takes the end of a
        truncated file for its end, and gzip gives nothing of a block that it cannot fill. Raises OSError, StoreError.
        """
        with open_input(self._path) as file:
            if self._magic == _ZSTD:
                self._new = _zstd(file)
            file.seek(start)
            if not self._magic:
                while block := file.read(READ_BYTES):
                    yield block
                return
            self._begin, frame, inside, size = start, self._new(), False, _SLICE[self._magic]
            while data := file.read(READ_BYTES):
                begin, at = file.tell() - len(data), 0
                while at < len(data):
                    yield from _cut(_decompress(frame, data[at : at + size]))
                    at = min(at + size, len(data)) - len(frame.unused_data)
                    inside = not frame.eof
                    if frame.eof:
                        self._begin, frame = begin + at, self._new()
            if inside:
                raise BrokenFrameError("the file ends inside a frame")

    def next_frame(self, content: bytes) -> int | None:
        """Where, after a frame that is broken, the next one begins whose text begins with `content`."""
        if not self._magic:
            return None
        at, overlap = self._begin + 1, len(self._magic) - 1
        with open_input(self._path) as file:
            file.seek(at)
            block = b""
            while data := file.read(READ_BYTES):
                block += data
                found = block.find(self._magic)
                while found >= 0:
                    if self._begins_with(file, at + found, content):
                        return at + found
                    found = block.find(self._magic, found + 1)
                at, block = at + len(block) - overlap, block[-overlap:]
                file.seek(at + overlap)
        return None

    def _begins_with(self, file: BinaryIO, place: int, content: bytes) -> bool:
        file.seek(place)
        frame, text = self._new(), b""
        try:
            while len(text) < len(content) and (data := file.read(_SLICE[self._magic])) and not frame.eof:
                text += _decompress(frame, data)
        except BrokenFrameError:
            return False
        return text.startswith(content)


def _cut(block: bytes) -> Iterator[bytes]:
    return (block[at : at + READ_BYTES] for at in range(0, len(block), READ_BYTES))


def _decompress(frame: Any, data: bytes) -> bytes:
    import zstandard

    try:
        decompressed: bytes = frame.decompress(data)
    except (zlib.error, zstandard.ZstdError) as error:
        raise BrokenFrameError(str(error)) from None
    return decompressed


def _zstd(file: BinaryIO) -> Callable[[], Any]:
    """A decompressor; with the dictionary that .warc.zst has in a skippable frame of its own before all others."""
    import zstandard

    dictionary = None
    if file.read(4) == _DICTIONARY:
        dictionary = file.read(int.from_bytes(file.read(4), "little"))
        if dictionary.startswith(_ZSTD):
            dictionary = _decompress(zstandard.ZstdDecompressor().decompressobj(), dictionary)
    made = zstandard.ZstdCompressionDict(dictionary) if dictionary else None
    return zstandard.ZstdDecompressor(dict_data=made, max_window_size=_MAX_WINDOW).decompressobj
