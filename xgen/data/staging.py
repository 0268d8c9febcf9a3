"""A folder that appears whole or not at all: written beside its place, then renamed."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xgen.data.errors import InterruptedBuildError

_POLL = 0.1  # seconds


@contextmanager
def exclusive(target: Path, wait: float) -> Iterator[None]:
    """Hold the only right to write `target`; the kernel takes it back from a killed process.

    Raises InterruptedBuildError when another process still holds it after `wait` seconds.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = target.with_name(f".{target.name}.lock")
    fd = os.open(lock, os.O_CREAT | os.O_RDWR, 0o664)
    try:
        deadline = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    fix = "let it finish, or wait longer with --wait"
                    raise InterruptedBuildError(
                        target, f"another process has been writing it for {wait:.0f}s", fix
                    ) from None
                time.sleep(_POLL)
        yield
    finally:
        os.close(fd)


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """An empty folder that becomes `target`, in place of what is there, when the block ends without an error.

    Needs `exclusive`: it removes what killed writers left behind.
    """
    for leftover in target.parent.glob(f".{target.name}.*.tmp"):
        shutil.rmtree(leftover)
    folder = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    folder.mkdir()
    try:
        yield folder
        sync_tree(folder)
        if target.exists():
            target.rename(target.with_name(f".{target.name}.{os.getpid()}.old.tmp"))
        folder.rename(target)
        _sync_folder(target.parent)
    finally:
        for leftover in target.parent.glob(f".{target.name}.*.tmp"):
            shutil.rmtree(leftover)


def sync_tree(folder: Path) -> None:
    """Wait until the disk has all files: a rename must not outlive the data it names."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        else:
            _sync_folder(path)
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
