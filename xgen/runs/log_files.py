"""The two logs of an attempt, `out.log` and `err.log`: lines read forward and backward, however long the file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Stream = Literal["out", "err"]
STREAMS: tuple[Stream, ...] = ("out", "err")
LONGEST = 1 << 16  # bytes of a line; a longer one is shown in pieces: a program may write anything, and no newline
_BLOCK = 1 << 18


@dataclass(frozen=True)
class Mark:
    """How long both logs were at a time (seconds since the epoch)."""

    time: float
    out: int
    err: int

    def size(self, stream: Stream) -> int:
        return self.out if stream == "out" else self.err


def log_file(attempt: Path, stream: Stream) -> Path:
    return attempt / f"{stream}.log"


def size_of(file: Path) -> int:
    """0 for a file that is not there."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def sizes(attempt: Path, time: float) -> Mark:
    """The logs as they are now. The error log first: what it says of a line of the other one comes after that."""
    err = size_of(log_file(attempt, "err"))
    return Mark(time, size_of(log_file(attempt, "out")), err)


def read_marks(attempt: Path) -> list[Mark]:
    """What the batch script noted while the attempt ran (host/times.sh); torn lines are left out."""
    try:
        lines = (attempt / "log.times").read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    words = (line.split() for line in lines)
    return [Mark(float(w[0]), int(w[1]), int(w[2])) for w in words if len(w) == 3 and all(x.isdecimal() for x in w)]


def lines_between(file: Path, start: int, end: int, *, last: bool = False) -> Iterator[tuple[bytes, int]]:
    """The lines that end in (start, end], each with the place behind it; `last`: nothing more follows, so what stands
    behind the last newline is a line too."""
    if start >= end:
        return
    with file.open("rb") as opened:
        opened.seek(start)
        place, rest = start, b""
        while place + len(rest) < end:
            block = opened.read(min(_BLOCK, end - place - len(rest)))
            if not block:
                break
            *whole, rest = (rest + block).split(b"\n")
            for line in whole:
                for piece in _pieces(line + b"\n"):
                    place += len(piece)
                    yield piece, place
            while len(rest) > LONGEST:
                place += LONGEST
                yield rest[:LONGEST], place
                rest = rest[LONGEST:]
        if rest and last:
            yield rest, place + len(rest)


def _pieces(line: bytes) -> Iterator[bytes]:
    for begin in range(0, len(line), LONGEST):
        yield line[begin : begin + LONGEST]


def start_of_line(file: Path, place: int) -> int:
    """Where the line begins that has the byte before `place` in it, or `place` itself where that is a newline."""
    if place <= 0:
        return 0
    with file.open("rb") as opened:
        begin = max(0, place - LONGEST)
        newline = os.pread(opened.fileno(), place - begin, begin).rfind(b"\n")
    return begin + newline + 1 if newline >= 0 else begin


def seek_back(file: Path, start: int, end: int, number: int, counts: Callable[[bytes], bool]) -> tuple[int, int]:
    """Of the lines in (start, end] that count, from the last one back: how many there are, `number` at most, and where
    the first of these begins. Reads no more of the file than that."""
    if start >= end or number <= 0:
        return 0, end
    found, place, rest = 0, end, b""
    first = end
    with file.open("rb") as opened:
        while place > start:
            begin = max(start, place - _BLOCK)
            block = os.pread(opened.fileno(), place - begin, begin) + rest
            place = begin
            lines = _split(block)
            rest = b""
            if place > start and lines and len(lines[0]) <= LONGEST:
                rest = lines.pop(0)  # of which there may be more before
            behind = place + len(block)
            for line in reversed(lines):
                behind -= len(line)
                if counts(line):
                    found, first = found + 1, behind
                    if found == number:
                        return found, first
    return found, first


def _split(block: bytes) -> list[bytes]:
    """At newlines alone."""
    *whole, rest = block.split(b"\n")
    return [line + b"\n" for line in whole] + ([rest] if rest else [])
