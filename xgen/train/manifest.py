"""The manifest of a checkpoint: every file with size and checksum. No torch: tools read it too.

A checkpoint is complete when `manifest.json` is in a folder named `step-N`; it is sound when every file matches.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, BinaryIO, Self

import xxhash
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from xgen.runs import write_atomic

MANIFEST = "manifest.json"
_BLOCK = 1 << 20


class FileEntry(BaseModel):
    model_config = ConfigDict(frozen=True)

    name: str
    size: int  # bytes
    checksum: str  # "xxh3_128:" and hex: faster than memory, and no accident goes unseen; version 1 had "blake2b:"


class Mesh(BaseModel):
    """How many ranks each parallelism had."""

    model_config = ConfigDict(frozen=True)

    replicate: int = 1
    fsdp: int = 1
    tp: int = 1
    cp: int = 1
    pp: int = 1


class Manifest(BaseModel):
    model_config = ConfigDict(frozen=True)

    version: int = 2
    step: int
    tokens: int  # trained on so far, over all ranks
    next_sample: int  # global sample index that the next step begins with
    data_digest: str = ""  # hex: sum of the digests of all samples consumed; '' when unknown
    loss: float | None = None  # mean training loss since the checkpoint before it
    world_size: int
    mesh: Mesh | None = None  # None when unknown: version 1 did not write it
    data: str  # fingerprint of the data order
    torch: str
    torchtitan: str
    attempt: int = 0
    saved_at: float = 0.0  # seconds since the epoch
    files: tuple[FileEntry, ...]

    @model_validator(mode="before")
    @classmethod
    def _from_version_1(cls, content: Any) -> Any:
        """Version 1 knew one store and one kind of checksum."""
        if not isinstance(content, dict) or content.get("version") != 1:
            return content
        files = [
            {**file, "checksum": f"blake2b:{file['blake2b']}"} if "blake2b" in file else file
            for file in content.get("files", ())
        ]
        return {**content, "data": content.get("store"), "files": files}

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
        checksum = _checksum(file, "xxh3_128")
        return FileEntry(name=path.name, size=file.tell(), checksum=checksum)


def checksum(path: Path) -> str:
    """Of the content of a file."""
    with path.open("rb") as file:
        return _checksum(file, "xxh3_128")


def verify(folder: Path, entry: FileEntry) -> None:
    """Raises Fault when the file is not what the manifest says."""
    try:
        with (folder / entry.name).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size != entry.size:
                what = "truncated" if size < entry.size else "too long"
                raise Fault(entry.name, f"{what}: {size} of {entry.size} bytes")
            if _checksum(file, entry.checksum.partition(":")[0]) != entry.checksum:
                raise Fault(entry.name, "its checksum is not the manifest's")
    except OSError as error:
        raise Fault(entry.name, error.strerror or str(error)) from None


def _checksum(file: BinaryIO, kind: str) -> str:
    match kind:
        case "xxh3_128":
            digest: Any = xxhash.xxh3_128()
        case "blake2b":
            digest = hashlib.blake2b(digest_size=16)
        case _:
            raise Fault(Path(file.name).name, f"has a checksum of the unknown kind {kind!r}; update xgen")
    while block := file.read(_BLOCK):
        digest.update(block)
    return f"{kind}:{digest.hexdigest()}"


def manifest_fingerprint(checkpoint: Path) -> str:
    """The manifest has the checksums of all else; '' where it is gone."""
    try:
        return hashlib.sha256((checkpoint / MANIFEST).read_bytes()).hexdigest()
    except FileNotFoundError:
        return ""


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
