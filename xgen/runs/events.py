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
    checkpoint: str | None = None
    stall: float | None = None  # seconds that the training stood still
    data: str | None = None  # hex: digest of all samples consumed up to `step`
    startup: dict[str, float] | None = None  # seconds by part of the start, from the process's own start
    stage: str | None = None  # name of the stage that the job is for
    action: str | None = None  # what the guard did about the step

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
        checkpoint: str | None = None,
        stall: float | None = None,
        data: str | None = None,
        startup: dict[str, float] | None = None,
        stage: str | None = None,
        action: str | None = None,
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
            checkpoint=checkpoint,
            stall=stall,
            data=data,
            startup=startup,
            stage=stage,
            action=action,
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
    """Reads what the writers of a run have added since it was last asked."""

    def __init__(self, run: RunDir) -> None:
        self._folder = run.events_dir
        self._offsets: dict[Path, int] = {}

    def new(self) -> list[Event]:
        """In order of attempts, and of time within each; writers' clocks are trusted as SLURM itself trusts them.

        Not of time alone: a second between two nodes' clocks must not let an attempt begin before the last has ended.
        Raises OSError when the run cannot be read.
        """
        try:
            paths = sorted(path for path in self._folder.iterdir() if path.suffix == ".jsonl")
        except FileNotFoundError:
            return []
        events = [event for path in paths for event in self._read(path)]
        return sorted(events, key=lambda e: (e.attempt, e.time))

    def _read(self, path: Path) -> Iterator[Event]:
        offset = self._offsets.get(path, 0)
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read()
        end = data.rfind(b"\n") + 1  # the rest is being written, or was torn
        self._offsets[path] = offset + end
        # Not splitlines(): a reason may hold U+2028, which JSON does not escape.
        for line in data[:end].decode(errors="replace").split("\n"):
            if line and (event := Event.from_line(line)) is not None:
                yield event


def read_events(run: RunDir) -> list[Event]:
    """All events of a run, in the order of `EventReader.new`. Raises OSError when the run cannot be read."""
    return EventReader(run).new()
