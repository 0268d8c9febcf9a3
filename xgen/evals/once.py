"""Work on a file system that several shards share, done by one of them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from xgen.data.curate.steps.lock import take
from xgen.evals.progress import say
from xgen.evals.records import make_folder
from xgen.runs import Refused, write_atomic

LONGEST = 2 * 3600.0  # seconds: more than the largest checkpoint takes to be verified and exported
_NAP, _LONGEST_NAP = 0.1, 5.0  # seconds between two looks: a thousand shards may wait
_TOLD_AFTER = 5.0  # seconds


@contextmanager
def alone(folder: Path, is_done: Callable[[], bool] = lambda: False) -> Iterator[bool]:
    """One process at a time, on whatever node; False, and no lock, once there is nothing left to do. The kernel takes
    the lock back from the dead, but a file server may keep it for a node that is gone: TimeoutError then says so."""
    if is_done():
        yield False
        return
    fd = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR, 0o664)
    try:
        yield _wait(folder, fd, is_done)
    finally:
        os.close(fd)


def _wait(folder: Path, fd: int, is_done: Callable[[], bool]) -> bool:
    began, nap, is_told = time.monotonic(), _NAP, False
    while not take(folder, fd):
        if is_done():
            return False
        waited = time.monotonic() - began
        if waited > LONGEST:
            fix = "if no process of this evaluation is at it, remove that file"
            raise TimeoutError(f"{folder / '.lock'} is held by another shard for {waited / 3600:.1f} h; {fix}")
        if not is_told and waited > _TOLD_AFTER:
            is_told = True
            say(f"another shard is at {folder}; waiting for it")
        time.sleep(nap)
        nap = min(1.5 * nap, _LONGEST_NAP)
    return not is_done()


def once(mark: Path, content: str, work: Callable[[], object]) -> None:
    """Do the work unless the mark says so, which is then written; whoever comes meanwhile waits, and is refused what
    was refused meanwhile. `content`: what the work follows from."""
    make_folder(mark.parent)
    refusal = mark.with_name(f"{mark.name}.refused")
    before = _stamp(refusal)
    with alone(mark.parent, lambda: _says(mark, content)) as is_left:
        if not is_left:
            return
        if _stamp(refusal) != before:
            raise Refused(refusal.read_text(encoding="utf-8"))
        try:
            work()
        except Refused as refused:
            write_atomic(refusal, str(refused))
            raise
        write_atomic(mark, content)


def _says(mark: Path, content: str) -> bool:
    try:
        return mark.read_text(encoding="utf-8") == content
    except FileNotFoundError:
        return False


def _stamp(file: Path) -> tuple[int, int] | None:
    """Changes whenever the file is written."""
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns
