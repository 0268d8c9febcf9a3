"""The run root as this machine sees it: there, writable, with room, with locks."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from xgen.cluster.doctor.finding import Finding
from xgen.cluster.doctor.need import Need
from xgen.cluster.site.machine import ask_disk
from xgen.spec.units import format_bytes

LITTLE_ROOM = 2**30  # bytes, below which the checks of every job say so too
_PROBE = 2**24  # bytes that are written: quotas are no part of what statvfs says
_PATIENCE = 30.0  # seconds for all of it


@dataclass(frozen=True)
class RunRoot:
    """Facts of the folder that will hold the runs; `folder` is the nearest one that is there."""

    path: Path
    folder: Path
    free: int  # bytes for its user
    error: str = ""  # of a write, in the system's words
    is_full: bool = False  # that was for room or quota
    lock_error: str = ""
    hangs: bool = False  # whoever touches it waits


def look_at_run_root(path: Path, seconds: float = _PATIENCE) -> RunRoot:
    """Writes 16 MB, and removes them. A file system that does not answer holds nobody up for longer than that."""
    silent = RunRoot(path, path, 0, f"its file system did not answer within {seconds:.0f} s", hangs=True)
    return ask_disk(lambda: _look(path), silent, seconds)


def _look(path: Path) -> RunRoot:
    try:
        folder = next(one for one in (path, *path.parents) if one.is_dir())
        about = os.statvfs(folder)
    except OSError as error:  # a server that is gone, a stale handle
        return RunRoot(path, path, 0, error.strerror or str(error))
    free = about.f_bavail * about.f_frsize
    file = folder / f".doctor-{os.getpid()}"
    try:
        try:
            with file.open("wb") as out:
                lock_error = try_lock(out.fileno())
                out.write(os.urandom(_PROBE))  # what compresses well says nothing of a quota
                out.flush()
                os.fsync(out.fileno())
        finally:
            file.unlink(missing_ok=True)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return RunRoot(path, folder, free, error.strerror or str(error), full)
    return RunRoot(path, folder, free, lock_error=lock_error)


def try_lock(descriptor: int) -> str:
    """As the batch script locks; what is wrong with that, '' for nothing."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def judge_run_root(root: RunRoot, needs: Sequence[Need]) -> Iterator[Finding]:
    where = str(root.path) if root.folder == root.path else f"{root.path}, to be made in {root.folder}"
    if root.error and not root.is_full:
        said = f"{root.folder} cannot be written: {root.error}"
        fix = "profile: run_root: a folder that you can write, or have it made so"
        yield Finding(
            "run root", "failed", said, "mount it anew here, or ask who runs its server" if root.hangs else fix
        )
        return
    if root.folder == Path("/"):  # and not even a folder in it: a file system that is not mounted
        said = f"nothing of {root.path} is there: it would be made on this machine's own disk"
        yield Finding(
            "run root", "failed", said, "mount its file system here, or profile: run_root: a folder of another"
        )
        return
    yield Finding("run root", "ok", where)
    yield _room(root, needs)
    if not root.is_full:
        fix = "mount it with locks: Lustre: -o flock; NFS: without nolock; the batch script takes one for each run"
        said = f"{root.folder} cannot be locked: {root.lock_error}" if root.lock_error else "can be taken here"
        yield Finding("file locks", "failed" if root.lock_error else "ok", said, fix if root.lock_error else "")


def _room(root: RunRoot, needs: Sequence[Need]) -> Finding:
    most = max(needs, key=lambda need: need.checkpoint_bytes, default=None)
    mend = f"make room in {root.folder}, or profile: run_root: a folder with more"
    if root.is_full:
        return Finding("room", "failed", f"{root.folder}: {root.error}, after {format_bytes(root.free)} free", mend)
    if most and most.checkpoint_bytes > root.free:
        wanted = format_bytes(most.checkpoint_bytes)
        said = f"{format_bytes(root.free)} free, and the checkpoints of {most.name} take {wanted}"
        return Finding("room", "failed", said, f"{mend}; or spec: checkpoint.keep: fewer")
    if root.free < LITTLE_ROOM:
        return Finding("room", "warning", f"{format_bytes(root.free)} free", mend)
    wants = f", {format_bytes(most.checkpoint_bytes)} wanted" if most and most.checkpoint_bytes else ""
    return Finding("room", "ok", f"{format_bytes(root.free)} free{wants}")
