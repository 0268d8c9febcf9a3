"""Of those who submit for a run, settle it or take it away, one is at it at a time."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xgen.runs import RunDir


@contextmanager
def alone(run: RunDir) -> Iterator[int | None]:
    """The lock of it; None where another has it. It is not waited for."""
    lock = take(lock_file(run))
    try:
        yield lock
    finally:
        if lock is not None:
            os.close(lock)


def lock_file(run: RunDir) -> Path:
    return run.path / ".resume.lock"


def take(path: Path, patience: float = 0.0) -> int | None:
    """Lock a file, until what is returned is closed; None where another still has it after `patience` seconds."""
    lock = os.open(path, os.O_CREAT | os.O_WRONLY, 0o664)
    deadline = time.monotonic() + patience
    try:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return lock
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    os.close(lock)
                    return None
                time.sleep(0.05)
    except OSError:
        os.close(lock)
        raise
