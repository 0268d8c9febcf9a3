"""The configuration inside an image: environment, labels, what runs. From an OCI layout or a docker archive."""

from __future__ import annotations

import hashlib
import json
import platform
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from xgen.images.errors import ImageError

_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


class _Inner(BaseModel):
    model_config = ConfigDict(extra="ignore")

    env: list[str] | None = Field(default=None, alias="Env")
    labels: dict[str, str] | None = Field(default=None, alias="Labels")
    entrypoint: list[str] | None = Field(default=None, alias="Entrypoint")
    cmd: list[str] | None = Field(default=None, alias="Cmd")
    working_dir: str | None = Field(default=None, alias="WorkingDir")
    volumes: dict[str, Any] | None = Field(default=None, alias="Volumes")


class _Outer(BaseModel):
    model_config = ConfigDict(extra="ignore")

    architecture: str = ""
    config: _Inner | None = None


@dataclass(frozen=True)
class ImageConfig:
    """What an image says of itself (OCI image-spec, config.md)."""

    architecture: str = ""
    env: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    working_dir: str = ""
    volumes: tuple[str, ...] = ()
    digest: str = ""  # 'sha256:…' of its text: the image ID


def machine() -> str:
    """This machine's architecture as images spell it, e.g. `amd64`."""
    return _MACHINES.get(platform.machine(), platform.machine())


def parse_config(text: bytes) -> ImageConfig:
    """Raises ImageError where the text is no image configuration."""
    try:
        outer = _Outer.model_validate_json(text)
    except ValidationError as error:
        raise ImageError(f"the image's configuration cannot be read: {error.errors()[0]['msg']}") from None
    inner = outer.config or _Inner()
    return ImageConfig(
        architecture=outer.architecture,
        env={name: value for name, _, value in (entry.partition("=") for entry in inner.env or ())},
        labels=inner.labels or {},
        entrypoint=tuple(inner.entrypoint or ()),
        cmd=tuple(inner.cmd or ()),
        working_dir=inner.working_dir or "",
        volumes=tuple(inner.volumes or ()),
        digest=f"sha256:{hashlib.sha256(text).hexdigest()}",
    )


def layout_config(layout: Path) -> ImageConfig:
    """Of the one image in an OCI layout (a folder). Raises ImageError."""

    def blob(digest: str) -> bytes:
        return (layout / "blobs" / digest.replace(":", "/", 1)).read_bytes()

    try:
        return _from_index(str(layout), json.loads((layout / "index.json").read_bytes()), blob)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ImageError(f"{layout}: not a whole OCI layout ({error})") from None


def archive_config(archive: Path) -> ImageConfig:
    """Of the one image in a docker archive or an OCI archive. Raises ImageError."""

    def text(member: IO[bytes] | None) -> bytes:
        if member is None:
            raise KeyError("not a file")
        return member.read()

    try:
        with tarfile.open(archive) as tar:
            names = {name.removeprefix("./"): name for name in tar.getnames()}
            if "manifest.json" in names:
                images = json.loads(text(tar.extractfile(names["manifest.json"])))
                if len(images) != 1:
                    said = ", ".join(tag for image in images for tag in image.get("RepoTags") or ())
                    raise ImageError(f"{archive}: holds {len(images)} images ({said}); save one image a file")
                return parse_config(text(tar.extractfile(names[images[0]["Config"]])))
            index = json.loads(text(tar.extractfile(names["index.json"])))
            return _from_index(
                str(archive), index, lambda d: text(tar.extractfile(names[f"blobs/{d.replace(':', '/', 1)}"]))
            )
    except (OSError, ValueError, KeyError, TypeError, tarfile.TarError) as error:
        raise ImageError(f"{archive}: not a whole image archive ({error})") from None


def _from_index(place: str, index: dict[str, Any], blob: Any) -> ImageConfig:
    """Follows indexes down to the image for this machine."""
    for _ in range(4):
        manifests = index["manifests"]
        if len(manifests) > 1:
            manifests = [m for m in manifests if (m.get("platform") or {}).get("architecture") == machine()]
        if len(manifests) != 1:
            raise ImageError(f"{place}: holds {len(index['manifests'])} images; save one image for {machine()} in it")
        document = json.loads(blob(manifests[0]["digest"]))
        if "config" in document:
            return parse_config(blob(document["config"]["digest"]))
        index = document
    raise ImageError(f"{place}: its index leads to no image")
