"""The events of a run: one JSON object a line, one append-only file per writer, merged on read."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Protocol, Self

from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError

from xgen.runs.rundir import RunDir

EventName = Literal[
    "submitted",
    "queued",
    "started",
    "container_ready",
    "restore_begin",
    "restore_end",
    "first_step",
    "progress",
    "checkpoint_begin",
    "checkpoint_staged",
    "checkpoint_durable",
    "checkpoint_failed",
    "checkpoint_copied",
    "checkpoint_rejected",
    "rolled_back",
    "validation_begin",
    "validation_end",
    "guard",
    "straggler",
    "evaluated",
    "hang",
    "unhealthy",
    "node_excluded",
    "asked",
    "held",
    "released",
    "settled",
    "signal",
    "stopping",
    "exited",
    "requeued",
    "shard_given_up",
    "cancelled",
    "failed",
    "stage_finished",
    "finished",
]

_PROGRESS = b'"event":"progress"'


class Event(BaseModel):
    """One fact about a run. Unknown keys are kept out, so that old readers survive new writers."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    time: FiniteFloat  # seconds since the epoch
    run: str
    attempt: int  # 0 before the first attempt
    job_id: str
    event: EventName
    writer: str
    step: int | None = None
    reason: str | None = None
    signal: str | None = None
    seconds: float | None = None
    tokens: int | None = None
    nodes: str | None = None
    exit_code: int | None = None
    data_wait: float | None = None  # seconds since the attempt's first step
    generate: float | None = None  # the same, of waiting for answers, and
    verify: float | None = None  # for verdicts on them
    checkpoint: str | None = None
    stall: float | None = None  # seconds that the training stood still
    data: str | None = None  # hex: digest of all samples consumed up to `step`
    startup: dict[str, float] | None = None  # seconds by part of the start, from the process's own start
    stage: str | None = None  # name of the stage that the job is for
    allocated: FiniteFloat | None = None  # of `started`: since when SLURM counts it, seconds since the epoch
    action: str | None = None  # what the guard did about the step
    rank: int | None = None  # the slowest, and
    ratio: float | None = None  # how many times as long as the median rank it takes
    scores: dict[str, FiniteFloat] | None = None  # of a checkpoint, by suite/task/length

    def to_line(self) -> str:
        return self.model_dump_json(exclude_none=True) + "\n"

    @classmethod
    def from_line(cls, line: str) -> Self | None:
        """None for what is no event: a line torn by a crash, or an event name of a newer version."""
        try:
            return cls.model_validate_json(line)
        except ValidationError:
            return None


class EventListener(Protocol):
    """Something that is told of every event that a writer writes."""

    def add(self, event: Event) -> None: ...


class EventWriter:
    """Appends events of one writer. A line goes out in one O_APPEND write, so lines never interleave."""

    def __init__(self, run: RunDir, writer: str, attempt: int, job_id: str) -> None:
        self._run, self._writer, self._attempt, self._job_id = run, writer, attempt, job_id
        self._path = run.events_dir / f"{writer}.jsonl"
        self._listeners: list[EventListener] = []
        self._whole = False  # whether the file is known to end in a whole line

    def subscribe(self, listener: EventListener) -> None:
        """Feed every event written from now on to `listener` too (the live exporter's ledger)."""
        self._listeners.append(listener)

    def write(
        self,
        event: EventName,
        *,
        step: int | None = None,
        reason: str | None = None,
        signal: str | None = None,
        seconds: float | None = None,
        tokens: int | None = None,
        nodes: str | None = None,
        exit_code: int | None = None,
        data_wait: float | None = None,
        generate: float | None = None,
        verify: float | None = None,
        checkpoint: str | None = None,
        stall: float | None = None,
        data: str | None = None,
        startup: dict[str, float] | None = None,
        stage: str | None = None,
        action: str | None = None,
        rank: int | None = None,
        ratio: float | None = None,
        scores: dict[str, float] | None = None,
        durable: bool = False,
    ) -> Event:
        """Append one event; `durable` waits until the disk has it.

        Raises OSError when the disk is full: the caller decides whether that ends the work.
        """
        record = Event(
            time=time.time(),
            run=self._run.name,
            attempt=self._attempt,
            job_id=self._job_id,
            event=event,
            writer=self._writer,
            step=step,
            reason=reason,
            signal=signal,
            seconds=seconds,
            tokens=tokens,
            nodes=nodes,
            exit_code=exit_code,
            data_wait=data_wait,
            generate=generate,
            verify=verify,
            checkpoint=checkpoint,
            stall=stall,
            data=data,
            startup=startup,
            stage=stage,
            action=action,
            rank=rank,
            ratio=ratio,
            scores=scores,
        )
        fd = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o664)
        try:
            line = self._after_torn_line(fd) + record.to_line().encode()
            self._whole = False
            if os.write(fd, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
            self._whole = True
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        for listener in self._listeners:
            listener.add(record)
        return record

    def _after_torn_line(self, fd: int) -> bytes:
        """A newline where a writer of this name died within a line, or the disk was full: what follows must not be
        lost with it."""
        if self._whole:
            return b""
        size = os.fstat(fd).st_size
        return b"" if size == 0 or os.pread(fd, 1, size - 1) == b"\n" else b"\n"


class EventReader:
    """Reads what the writers of a run have added since it was last asked.

    `thinned`: of progress after progress only the last, but while steps are done again: a ledger comes to the same
    totals, from a hundredth of the events of a long training.
    """

    def __init__(self, run: RunDir, thinned: bool = False) -> None:
        self._folder, self._thinned = run.events_dir, thinned
        self._offsets: dict[str, int] = {}
        self._highest, self._again = 0, False  # step of what was read, and whether the last one was below it
        self.num_skipped = 0  # whole lines that are no event, or none that this version knows

    def new(self) -> list[Event]:
        """In order of attempts, and of time within each; writers' clocks are trusted as SLURM itself trusts them.

        Not of time alone: a second between two nodes' clocks must not let an attempt begin before the last has ended.
        Raises OSError when the run cannot be read.
        """
        try:
            with os.scandir(self._folder) as entries:
                grown = [e.path for e in entries if e.name.endswith(".jsonl") and self._has_grown(e)]
        except FileNotFoundError:
            return []
        offsets: dict[str, int] = {}
        events = [event for path in sorted(grown) for event in self._events(self._lines(path, offsets))]
        self._offsets |= offsets
        return sorted(events, key=lambda e: (e.attempt, e.time))

    def _has_grown(self, entry: os.DirEntry[str]) -> bool:
        return entry.stat().st_size > self._offsets.get(entry.path, 0)

    def _lines(self, path: str, offsets: dict[str, int]) -> Iterator[bytes]:
        offset = self._offsets.get(path, 0)
        with Path(path).open("rb") as file:
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break  # it is being written, or was torn
                offset += len(line)
                yield line
        offsets[path] = offset

    def _events(self, lines: Iterator[bytes]) -> Iterator[Event]:
        left_out = b""  # a line that counts if no progress follows
        for line in lines:
            is_progress = self._thinned and _PROGRESS in line
            if left_out and not is_progress:
                yield from self._parse(left_out)
                left_out = b""
            if is_progress and not self._again:
                left_out = line
            else:
                yield from self._parse(line)
        if left_out:
            yield from self._parse(left_out)

    def _parse(self, line: bytes) -> Iterator[Event]:
        event = Event.from_line(line.decode(errors="replace"))
        if event is None:
            self.num_skipped += bool(line.strip())
            return
        if event.step is not None and event.event in ("first_step", "progress", "guard", "checkpoint_durable"):
            if event.event in ("first_step", "progress"):
                self._again = event.step < self._highest
            self._highest = max(self._highest, event.step)
        yield event


def read_events(run: RunDir) -> list[Event]:
    """All events of a run, in the order of `EventReader.new`. Raises OSError when the run cannot be read."""
    return EventReader(run).new()
