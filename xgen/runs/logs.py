"""The logs of a run as one stream of lines: both streams in their order, attempt after attempt, from any place on.

Where a reader is, a `Cursor` says: whoever goes on from it gets no line twice and loses none. The order of the two
streams is that of the marks that the batch script notes while it runs (host/times.sh), and of a reader's own polls.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from xgen.runs.log_files import (
    STREAMS,
    Mark,
    Stream,
    lines_between,
    log_file,
    read_marks,
    seek_back,
    size_of,
    sizes,
    start_of_line,
)
from xgen.runs.rundir import RunDir

_LABEL = re.compile(rb" *(\d+): ?")  # of srun --label
_CURSOR = re.compile(r"(\d+):(\d+):(\d+)")


@dataclass(frozen=True)
class Cursor:
    """A place in the logs of a run: an attempt, and how many bytes of its logs have been read. `3:1024:0` in text."""

    attempt: int
    out: int = 0
    err: int = 0

    def __str__(self) -> str:
        return f"{self.attempt}:{self.out}:{self.err}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError."""
        if (found := _CURSOR.fullmatch(text)) is None:
            raise ValueError(f"{text!r} is no place in a log; write what xgen logs told, like 3:1024:0")
        return cls(*map(int, found.groups()))

    def at(self, stream: Stream) -> int:
        return self.out if stream == "out" else self.err

    def moved(self, stream: Stream, place: int) -> Self:
        return replace(self, out=place) if stream == "out" else replace(self, err=place)


@dataclass(frozen=True)
class LogLine:
    """`rank` is None for what the batch script or srun said. `cursor` is behind the line."""

    stream: Stream
    rank: int | None
    text: bytes  # with its label, without its end
    cursor: Cursor


@dataclass(frozen=True)
class Choice:
    """Which lines are wanted; no ranks are all, and what belongs to none."""

    streams: tuple[Stream, ...] = STREAMS
    ranks: frozenset[int] = frozenset()

    def counts(self, line: bytes) -> bool:
        return not self.ranks or rank_of(line) in self.ranks


def rank_of(line: bytes) -> int | None:
    found = _LABEL.match(line)
    return int(found[1]) if found else None


def read_on(
    attempt: Path, cursor: Cursor, streams: Sequence[Stream], upto: Mark, *, last: bool, marks: Sequence[Mark] = ()
) -> Iterator[LogLine]:
    """The lines of an attempt from `cursor` on until its logs were as long as `upto`, in the order of the `marks`.
    `last`: it has ended."""
    for mark in [*(m for m in marks if m.out > cursor.out or m.err > cursor.err), upto]:
        for stream in streams:
            file, end = log_file(attempt, stream), min(mark.size(stream), upto.size(stream))
            for text, place in lines_between(file, cursor.at(stream), end, last=last and mark is upto):
                cursor = cursor.moved(stream, place)
                yield LogLine(stream, rank_of(text), text.removesuffix(b"\n"), cursor)


def cut(attempt: Path, cursor: Cursor) -> list[Stream]:
    """The logs that are shorter than what was read of them: somebody emptied or replaced them."""
    return [stream for stream in STREAMS if size_of(log_file(attempt, stream)) < cursor.at(stream)]


def tail(run: RunDir, attempts: Sequence[int], choice: Choice, number: int) -> Cursor:
    """From where on there are `number` lines, of those of the attempts given, and no more."""
    found, cursor = 0, Cursor(attempts[-1])
    for attempt in reversed(attempts):
        folder = run.attempt_dir(attempt)
        now = sizes(folder, 0)
        # What stands behind the last newline of an attempt that may go on is no line yet.
        ends = [*read_marks(folder), now]
        cursor = Cursor(attempt, *(_line_start(folder, stream, now.size(stream)) for stream in STREAMS))
        for index in range(len(ends) - 1, -1, -1):
            before = ends[index - 1] if index else Mark(0, 0, 0)
            for stream in reversed(choice.streams):
                start = _line_start(folder, stream, min(before.size(stream), now.size(stream)))
                more, place = seek_back(
                    log_file(folder, stream), start, cursor.at(stream), number - found, choice.counts
                )
                found += more
                cursor = cursor.moved(stream, place if found == number else min(start, cursor.at(stream)))
                if found == number:
                    return cursor
    return Cursor(attempts[0])


def since(run: RunDir, attempts: Collection[int], time: float) -> Cursor | None:
    """From where on the logs were written after `time` (seconds since the epoch), to the mark before it; None where
    nothing was."""
    for attempt in sorted(attempts):
        folder = run.attempt_dir(attempt)
        files = (log_file(folder, stream) for stream in STREAMS)
        if max((f.stat().st_mtime for f in files if f.exists()), default=0.0) < time:
            continue
        earlier = [mark for mark in read_marks(folder) if mark.time < time]
        if not earlier:
            return Cursor(attempt)
        return Cursor(attempt, *(_line_start(folder, stream, earlier[-1].size(stream)) for stream in STREAMS))
    return None


def _line_start(folder: Path, stream: Stream, place: int) -> int:
    file = log_file(folder, stream)
    return start_of_line(file, place) if place and file.exists() else 0
