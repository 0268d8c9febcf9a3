"""A work folder is one spec's at a time, in as many processes as it likes, on whatever nodes."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import BaseModel, ValidationError

from xgen.data.curate.steps.folders import fingerprint
from xgen.data.curate.steps.plan import PLAN_FILE, spec_fingerprint
from xgen.data.errors import StoreError
from xgen.spec.curate import Curate

LOCK_FILE = ".lock"  # says whose the folder is, or was


class _Owner(BaseModel):
    spec: str
    name: str
    node: str


@contextmanager
def at_work(job: Curate) -> Iterator[None]:
    """Hold the folder for the spec of `job`, with others that have the same; the kernel takes it back from the dead.

    Raises StoreError where another spec is at work in it, where `prepare` has not run, and for a file system without
    locks.
    """
    work = Path(job.work_folder)
    spec = fingerprint(spec_fingerprint(job), job.frequency, job.mixtures, job.out)
    try:
        fd = os.open(work / LOCK_FILE, os.O_CREAT | os.O_RDWR, 0o664)
    except FileNotFoundError:
        raise StoreError(work, f"has no {PLAN_FILE}", "run the step prepare first") from None
    try:
        owner = _hold(work, fd, _Owner(spec=spec, name=job.name, node=os.uname().nodename))
        if owner.spec != spec:
            what = f"another spec is at work in it: {owner.name}, on {owner.node}"
            raise StoreError(work, what, "let it end, or cancel it, or name another `work`")
        yield
    finally:
        os.close(fd)


def _hold(work: Path, fd: int, own: _Owner) -> _Owner:
    """Who was first. Who is alone writes itself down; all who are at work share the lock."""
    while True:
        if take(work, fd):
            os.ftruncate(fd, os.pwrite(fd, own.model_dump_json().encode(), 0))
            os.fsync(fd)
        fcntl.flock(fd, fcntl.LOCK_SH)
        with suppress(ValidationError):  # of one that was killed before it had written
            return _Owner.model_validate_json(os.pread(fd, 1 << 16, 0))
        fcntl.flock(fd, fcntl.LOCK_UN)


def take(folder: Path, fd: int) -> bool:
    """Lock a file of the folder, unless another process has it. Raises StoreError for a file system without locks."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK):
            raise
        fix = "have it mounted with flock, or write to another one"
        raise StoreError(folder, f"is on a file system without locks: {error.strerror}", fix) from None
    return True
