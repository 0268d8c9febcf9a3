"""The records of an evaluation: a line a sample, in a folder of each checkpoint, whoever of the shards has written it.

What is done is the union of all files of a folder, so that an attempt with other shards repeats nothing.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Self

from pydantic import ValidationError

from xgen.evals.protocol import Item, Record
from xgen.runs import Refused, RunDir
from xgen.runs.lines import LineFile

_STEP = re.compile(r"step-(\d+)")
_SYNC_EVERY = 1.0  # seconds
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


def step_folder(run: RunDir, step: int) -> Path:
    """Of one checkpoint; that of a Hugging Face folder is step 0."""
    return run.evaluation_dir / f"step-{step}"


def steps_of(run: RunDir) -> list[int]:
    """Of the checkpoints that some shard has begun with, ascending."""
    try:
        found = (_STEP.fullmatch(path.name) for path in run.evaluation_dir.iterdir())
        return sorted(int(name[1]) for name in found if name)
    except FileNotFoundError:
        return []


def gone_of(run: RunDir) -> dict[int, str]:
    """Why, of each checkpoint that was wanted and could not be scored, by its step."""
    found = ((step, step_folder(run, step) / "gone") for step in steps_of(run))
    return {step: file.read_text(encoding="utf-8").strip() for step, file in found if file.exists()}


def read_records(folder: Path) -> list[Record]:
    """Of one checkpoint, each sample once, in the order of the files and their lines; lines that were torn are left
    out. Raises OSError."""
    found: dict[Item, Record] = {}
    for path in sorted(folder.glob("*.jsonl")):
        for line in _whole_lines(path):
            try:
                record = Record.model_validate_json(line)
            except ValidationError:  # a disk that was full, a node that died
                continue
            found.setdefault(record.item, record)
    return list(found.values())


def num_records(run: RunDir, shard: int) -> int:
    """Lines that the shard of that number has written, of all checkpoints."""
    files = run.evaluation_dir.glob(f"step-*/{shard}.jsonl")
    return sum(1 for path in files for _ in _whole_lines(path))


def num_recorded(folder: Path) -> int:
    """Lines of all shards of one checkpoint: cheap, and more than its samples where two have scored the same."""
    return sum(1 for path in folder.glob("*.jsonl") for _ in _whole_lines(path))


def _whole_lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from (line for line in file if line.endswith(b"\n"))


class RecordWriter:
    """Appends records to the file of one shard. A kill loses the sample under way, a lost node those of the last
    second."""

    def __init__(self, path: Path) -> None:
        """Raises Refused where nothing may be written, OSError where another try may help."""
        self._path = path
        make_folder(path.parent)
        self._lines = LineFile(path)
        self._synced = monotonic()

    def append(self, record: Record) -> None:
        """Raises OSError for a full disk; all that was written before stays."""
        try:
            self._lines.append(record.model_dump_json(exclude_defaults=True))
            if monotonic() - self._synced > _SYNC_EVERY:
                self._lines.sync()
                self._synced = monotonic()
        except OSError as error:
            why = error.strerror or str(error)
            said = f"{why}; the samples before are safe: make room, and what is left is scored by the next attempt"
            raise OSError(error.errno, said, str(self._path)) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            if kind is None:
                self._lines.sync()
        finally:
            self._lines.close()


def make_folder(folder: Path) -> None:
    """Raises Refused where nothing may be written, OSError where another try may help."""
    why = os.strerror(errno.EACCES)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        may_write = os.access(folder, os.W_OK)
    except OSError as error:
        if error.errno not in _FORBIDDEN:
            raise
        may_write, why = False, str(error.strerror)
    if not may_write:
        raise Refused(f"{folder} cannot be written by user {os.getuid()}: {why}; give the folder to that user")
