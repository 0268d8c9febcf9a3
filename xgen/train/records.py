"""Files of one JSON object a line: whole lines or nothing, whatever happens to the disk or to the attempt before."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

_BLOCK = 4096
_ENCODER = json.JSONEncoder(default=vars)  # of a dataclass its fields, without asdict's deep copy


class RecordFile:
    """Appends dataclasses. A full disk costs records, not the training."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o664)
        self._failing = False
        self._cut_torn_line()

    def append(self, record: object) -> None:
        line = (_ENCODER.encode(record) + "\n").encode()
        size = os.fstat(self._fd).st_size
        try:
            if os.write(self._fd, line) < len(line):
                os.ftruncate(self._fd, size)
                raise OSError("no room for a whole line")
            self._failing = False
        except OSError as error:
            if not self._failing:
                print(f"{self._path}: cannot record, the training goes on: {error}", file=sys.stderr, flush=True)
            self._failing = True

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
