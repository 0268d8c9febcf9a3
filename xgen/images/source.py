"""What an image is imported from, as a person writes it: a reference, a file, a folder, an image of a local tool."""

from __future__ import annotations

import os
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from xgen.spec.errors import Problem, SpecError
from xgen.spec.image import Reference, is_registry_reference, parse_reference

# In what shape the bits are. The first four must be fetched; `oci` and `tree` are a person's folders, which are read
# only, where `layout` and `folder` are ours.
Material = Literal[
    "registry", "docker-daemon", "podman", "containers-storage",
    "oci-archive", "oci", "tree", "layout", "tar", "folder", "sqsh", "sif",
]  # fmt: skip
_LOCAL_TOOLS: tuple[Material, ...] = ("docker-daemon", "podman", "containers-storage")
_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


@dataclass(frozen=True)
class Source:
    """One image to import. `path` is set for files and folders, `reference` for a registry, else `image` counts."""

    text: str  # as the person wrote it
    material: Material
    image: str = ""  # the name in the local tool's storage
    path: Path | None = None
    reference: Reference | None = None

    @property
    def default_name(self) -> str:
        """`nvcr.io/nvidia/pytorch:25.06-py3` -> `pytorch-25.06-py3`, `/images/trainer.sqsh` -> `trainer`."""
        if self.reference is not None:
            end = self.reference.tag or self.reference.digest.removeprefix("sha256:")[:12]
            return f"{self.reference.repository.rpartition('/')[2]}-{end}"
        text = self.path.name if self.path else self.image.rpartition("/")[2]
        for suffix in (*_ARCHIVES, ".sqsh", ".sif"):
            if self.path and text.endswith(suffix):
                text = text.removesuffix(suffix)
                break
        return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._") or "image"


def parse_source(text: str) -> Source:
    """Raises SpecError that says what to write instead."""
    for material in _LOCAL_TOOLS:
        if text.startswith(f"{material}:"):
            image = text.removeprefix(f"{material}:")
            if not image:
                raise _wrong(text, f"names no image; write {material}:NAME:TAG")
            return Source(text, material, image=image)
    path = Path(text).expanduser()
    if not path.exists() and is_registry_reference(text):
        try:
            return Source(text, "registry", reference=parse_reference(text))
        except ValueError as error:
            raise _wrong(text, str(error)) from None
    if not path.exists():
        raise _wrong(
            text, "is not there; write a file, a folder, or a reference such as nvcr.io/nvidia/pytorch:25.06-py3"
        )
    whole = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would lose the name of a link
    return Source(text, _material_of(text, path), path=whole)


def _material_of(text: str, path: Path) -> Material:
    """By content: a docker archive and an OCI archive have the same suffix."""
    if path.is_dir():
        if (path / "oci-layout").is_file():
            return "oci"
        if any((path / top).is_dir() for top in ("bin", "usr", "sbin")):
            return "tree"
        raise _wrong(text, "has neither bin nor usr; write the root folder of an unpacked image, or an OCI layout")
    if not path.is_file():
        raise _wrong(text, "is neither a file nor a folder")
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise _wrong(text, error.strerror or str(error)) from None
    if head.startswith(b"hsqs"):
        return "sqsh"
    if b"SIF_MAGIC" in head:
        return "sif"
    try:
        with tarfile.open(path) as archive:
            names = {name.removeprefix("./") for name in archive.getnames()}
    except (tarfile.TarError, EOFError, OSError):
        raise _wrong(text, "is no image; write a docker or OCI archive (.tar), a .sqsh, a .sif or a folder") from None
    if "manifest.json" in names:  # docker's own archives hold an index.json beside it since version 25
        return "tar"
    if "index.json" in names:
        return "oci-archive"
    raise _wrong(text, "is an archive of files, not of an image; unpack it into a folder and import that")


def _wrong(text: str, message: str) -> SpecError:
    return SpecError(Problem("", repr(text), message))
