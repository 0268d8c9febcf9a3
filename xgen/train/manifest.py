"""The manifest of a checkpoint: every file with size and checksum. No torch: tools read it too.

A checkpoint is complete when `manifest.json` is in a folder named `step-N`; it is sound when every file matches.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import BinaryIO, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from xgen.runs import write_atomic

MANIFEST = "manifest.json"
_BLOCK = 1 << 20


class FileEntry(BaseModel):
    model_config = ConfigDict(frozen=True)

    name: str
    size: int  # bytes
    blake2b: str  # 16 bytes in hex: 1 GB/s a core, and no accident goes unseen


class Manifest(BaseModel):
    model_config = ConfigDict(frozen=True)

    version: int = 1
    step: int
    tokens: int  # trained on so far, over all ranks
    next_sample: int  # global sample index that the next step begins with
    world_size: int
    store: str  # fingerprint of the token store
    torch: str
    torchtitan: str
    files: tuple[FileEntry, ...]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Raises Fault when there is no manifest that can be read."""
        try:
            return cls.model_validate_json((folder / MANIFEST).read_bytes())
        except OSError as error:
            raise Fault(MANIFEST, error.strerror or str(error)) from None
        except ValidationError as error:
            raise Fault(MANIFEST, f"cannot be read: {error.errors()[0]['msg']}") from None

    def write(self, folder: Path) -> None:
        write_atomic(folder / MANIFEST, self.model_dump_json(indent=1) + "\n")


class Fault(Exception):  # noqa: N818 - a finding about a file
    """What is wrong with a file of a checkpoint."""

    def __init__(self, name: str, what: str) -> None:
        super().__init__(f"{name}: {what}")


def describe(path: Path) -> FileEntry:
    """Size and checksum of a file, after its content is on disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        checksum = _checksum(file)
        return FileEntry(name=path.name, size=file.tell(), blake2b=checksum)


def verify(folder: Path, entry: FileEntry) -> None:
    """Raises Fault when the file is not what the manifest says."""
    try:
        with (folder / entry.name).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size != entry.size:
                what = "truncated" if size < entry.size else "too long"
                raise Fault(entry.name, f"{what}: {size} of {entry.size} bytes")
            if _checksum(file) != entry.blake2b:
                raise Fault(entry.name, "its checksum is not the manifest's")
    except OSError as error:
        raise Fault(entry.name, error.strerror or str(error)) from None


def _checksum(file: BinaryIO) -> str:
    digest = hashlib.blake2b(digest_size=16)
    while block := file.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest()


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
