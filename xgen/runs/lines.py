"""Files of lines that are whole or not there, whatever happens to the disk or to the attempt before."""

from __future__ import annotations

import errno
import os
from pathlib import Path

_BLOCK = 4096


class LineFile:
    """Appends lines, for one writer at a time."""

    def __init__(self, path: Path) -> None:
        """Raises OSError."""
        self._path = path
        self._fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o664)
        self._cut_torn_line()

    def append(self, line: str) -> None:
        """Raises OSError when the disk is full: then no part of the line is there, and all before it is."""
        content = (line + "\n").encode()
        size = os.fstat(self._fd).st_size
        if os.write(self._fd, content) < len(content):
            os.ftruncate(self._fd, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))

    def sync(self) -> None:
        """Until the disk has all lines. Raises OSError."""
        os.fsync(self._fd)

    def close(self) -> None:
        os.close(self._fd)

    def _cut_torn_line(self) -> None:
        """What an attempt wrote last when its node died may be a part of a line; readers want whole ones."""
        end = size = os.fstat(self._fd).st_size
        while end > 0:
            block = os.pread(self._fd, min(end, _BLOCK), end - min(end, _BLOCK))
            newline = block.rfind(b"\n")
            if newline >= 0:
                end += newline + 1 - len(block)
                break
            end -= len(block)
        if end < size:
            os.ftruncate(self._fd, end)
