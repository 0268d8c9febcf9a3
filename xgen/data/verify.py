"""Every byte of a store is read, by many threads: hashing and reading let go of the interpreter."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from xgen.data.errors import StoreError
from xgen.data.progress import Progress, silent
from xgen.data.store import StoreMeta, TokenStore, file_meta, read_meta


def find_faults(path: Path, progress: Progress = silent, threads: int = 0) -> Iterator[StoreError]:
    """The first fault of every broken file of the store in `path`; then, when all are sound, of what they hold.

    `threads` 0: some for each core. Raises StoreError when there is no meta.json that can be read.
    """
    meta = read_meta(path)
    total = sum(file.bytes for file in meta.files.values())
    done = 0
    sound = True
    # The largest first: else the last one is read alone.
    names = sorted(meta.files, key=lambda name: -meta.files[name].bytes)
    with ThreadPoolExecutor(threads or None) as pool:
        for name, fault in zip(names, pool.map(lambda name: fault_of(path, meta, name), names), strict=True):
            done += meta.files[name].bytes
            progress("MB read", int(done / 1e6), int(total / 1e6))
            if fault:
                sound = False
                yield fault
    if sound:
        try:
            TokenStore.open(path).verify_content()
        except StoreError as error:
            yield error


def fault_of(path: Path, meta: StoreMeta, name: str) -> StoreError | None:
    """What is wrong with one of `meta.files`, None for nothing; reads all of it."""
    what = _fault(path / name, meta.files[name].bytes, meta.files[name].sha256)
    return StoreError(path / name, what, "build the store again") if what else None


def _fault(file: Path, size: int, sha256: str) -> str:
    try:
        found = file.stat().st_size
        if found != size:
            return f"has {found} bytes, and meta.json says {size}"
        if file_meta(file).sha256 != sha256:
            return "has another checksum than meta.json says"
    except OSError as error:
        return error.strerror or str(error)
    return ""
