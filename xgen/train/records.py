"""What a training records, one JSON object a line."""

from __future__ import annotations

import json
import sys
from collections import deque
from contextlib import suppress
from pathlib import Path

from xgen.runs.lines import LineFile

_MOST_WAITING = 32 << 20  # characters that wait for room
_ENCODER = json.JSONEncoder(default=vars)  # of a dataclass its fields, without asdict's deep copy


class RecordFile:
    """Appends dataclasses. A full disk holds up records, not the training: they are written once there is room, the
    oldest given up where that takes too long."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines = LineFile(path)
        self._waiting: deque[str] = deque()
        self._size = self._num_lost = 0

    def append(self, record: object) -> None:
        self._waiting.append(_ENCODER.encode(record))
        self._size += len(self._waiting[-1])
        is_first = len(self._waiting) == 1
        try:
            self._write()
        except OSError as error:
            if is_first:
                print(f"{self._path}: cannot record yet, the training goes on: {error}", file=sys.stderr, flush=True)
            while self._size > _MOST_WAITING and len(self._waiting) > 1:
                self._size -= len(self._waiting.popleft())
                self._num_lost += 1

    def _write(self) -> None:
        while self._waiting:
            self._lines.append(self._waiting[0])
            self._size -= len(self._waiting.popleft())

    def close(self) -> None:
        with suppress(OSError):
            self._write()
        if lost := self._num_lost + len(self._waiting):
            print(f"{self._path}: {lost:,} records were lost, there was no room", file=sys.stderr, flush=True)
        self._lines.close()
