"""A digest of an unpacked image: the same files have the same digest, wherever and whenever they lie."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from xgen.images.progress import Tick

_CHUNK = 2**20
_THREADS = 8  # on a shared file system the time is latency; hashlib releases the lock of the interpreter


def tree_digest(root: Path, tick: Tick) -> str:
    """'sha256:…' of a listing of names, modes, sizes and contents.

    Owners and times are left out: they differ between two unpackings of one image. So are device nodes, which
    no import keeps. Raises OSError for a file that cannot be read.
    """
    entries = sorted(_walk(os.fsencode(root)))
    done = 0
    total = hashlib.sha256()
    with ThreadPoolExecutor(_THREADS) as pool:
        for (path, info), content in zip(entries, pool.map(_content, entries), strict=True):
            size = info.st_size if stat.S_ISREG(info.st_mode) else 0
            name = os.path.relpath(path, os.fsencode(root))
            head = f"{stat.filemode(info.st_mode)} {size} {content} {len(name)} ".encode()
            total.update(head + name + b"\n")
            done += size
            tick(done)
    return f"sha256:{total.hexdigest()}"


def tree_bytes(root: Path) -> int:
    """Bytes in the files of a folder; a file with several names counts once."""
    sizes = {(i.st_dev, i.st_ino): i.st_size for _, i in _walk(os.fsencode(root)) if stat.S_ISREG(i.st_mode)}
    return sum(sizes.values())


def file_digest(path: Path, tick: Tick) -> str:
    """'sha256:…' of a file."""
    total = hashlib.sha256()
    done = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            total.update(chunk)
            done += len(chunk)
            tick(done)
    return f"sha256:{total.hexdigest()}"


def _walk(root: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
    for entry in os.scandir(root):
        info = entry.stat(follow_symlinks=False)
        if stat.S_ISBLK(info.st_mode) or stat.S_ISCHR(info.st_mode) or stat.S_ISSOCK(info.st_mode):
            continue
        yield entry.path, info
        if stat.S_ISDIR(info.st_mode):
            yield from _walk(entry.path)


def _content(entry: tuple[bytes, os.stat_result]) -> str:
    path, info = entry
    if stat.S_ISLNK(info.st_mode):
        return hashlib.sha256(os.fsencode(Path(os.fsdecode(path)).readlink())).hexdigest()
    if not stat.S_ISREG(info.st_mode):
        return "-"
    with Path(os.fsdecode(path)).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
