"""From what a spec says to the very bits that start: a file that does not change, or a digest."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from xgen.images.formats import SUFFIX
from xgen.images.record import STORE, Format, read_record
from xgen.spec.image import Reference, is_registry_reference, parse_reference

Kind = Literal["none", "registry", "folder", "sqsh", "sif", "tar"]
_BY_SUFFIX: dict[str, Format] = {".sqsh": "sqsh", ".squashfs": "sqsh", ".sif": "sif", ".tar": "tar"}


@dataclass(frozen=True)
class Image:
    """What a runtime starts. It is written into the run directory, and every attempt starts the same."""

    reference: str  # as the spec says it
    kind: Kind
    location: str  # a path without links, or a reference with its digest
    digest: str = ""  # 'sha256:…'; '' for a file or folder that `xgen image import` did not make
    size: int = 0  # bytes, with mtime the mark of a file without a digest
    mtime: int = 0  # seconds since the epoch

    def to_dict(self) -> dict[str, object]:
        return asdict(self)

    @property
    def registry(self) -> Reference:
        """Raises ValueError for an image that is no registry's."""
        return parse_reference(self.location)


NO_IMAGE = Image("", "none", "")


def resolve_image(text: str, image_dir: str | None, formats: Sequence[Kind], pin: Callable[[Reference], str]) -> Image:
    """The image that `text` names, in the first of `formats` that there is.

    `pin` asks a registry for a digest, and answers '' to leave the tag as it is.

    Raises ValueError that says what to write instead, and whatever `pin` raises.
    """
    if is_registry_reference(text):
        if "registry" not in formats:
            raise ValueError(
                f"{text} is in a registry, and this runtime starts files only ({', '.join(formats)}); "
                f"write `xgen image import {text}` first, then its name here"
            )
        reference = parse_reference(text)
        digest = reference.digest or pin(reference)
        pinned = reference.with_digest(digest) if digest else reference
        return Image(text, "registry", str(pinned), pinned.digest)
    wanted = sorted((f for f in SUFFIX if f in formats), key=list(formats).index)
    if "/" in text:
        place = Path(text)
        if not place.exists():
            raise ValueError(f"{text} is not there; write the path of an image, or a name in image_dir")
        kind = format_of(place)
        if kind not in wanted:
            raise ValueError(
                f"{text} is a {kind} image, which this runtime does not start; "
                f"write `xgen image import {text} --format {wanted[0]}` first, then its name here"
            )
        return _at(text, place, kind)
    if image_dir is None:
        raise ValueError(f"{text!r} is a name, and the cluster profile has no image_dir; write a path")
    places = [(Path(image_dir) / f"{text}{SUFFIX[f]}", f) for f in wanted]
    for place, kind in places:
        if place.exists():
            return _at(text, place, kind)
    expected = " or ".join(str(place) for place, _ in places)
    there = [f for f, suffix in SUFFIX.items() if (Path(image_dir) / f"{text}{suffix}").exists()]
    if there:
        made = Path(image_dir) / f"{text}{SUFFIX[there[0]]}"
        how = f"`xgen image import {made} --name {text} --format {wanted[0]}`"
    else:
        how = f"`xgen image build` or `xgen image import SOURCE --name {text}`"
    raise ValueError(f"{text!r} is not there as {expected}; write {how}")


def format_of(place: Path) -> Format:
    return "folder" if place.is_dir() else _BY_SUFFIX.get(place.suffix, "tar")


def _at(text: str, place: Path, kind: Format) -> Image:
    real = place.resolve()
    digest = image_id(real) if kind == "tar" else ""  # by which docker and podman know what they loaded
    record = read_record(place) if STORE in real.parts else None
    if record is not None:
        return Image(text, kind, str(real), digest or record.digest)
    status = real.stat()
    marks = (0, 0) if kind == "folder" else (status.st_size, int(status.st_mtime))
    return Image(text, kind, str(real), digest, *marks)


def image_id(archive: Path) -> str:
    """'sha256:…', the checksum of the configuration of the image in a docker archive.

    Raises ValueError when the file is no such archive, or holds several images.
    """
    try:
        with tarfile.open(archive) as tar:
            listed = tar.extractfile("manifest.json")
            configs = [entry["Config"] for entry in json.load(listed)] if listed else []
    except (KeyError, tarfile.TarError, ValueError):
        configs = []
    found = re.search(r"[0-9a-f]{64}", configs[0]) if len(configs) == 1 else None
    if found is None:
        raise ValueError(
            f"{archive} is no docker archive of one image; write `xgen image import {archive}`, or docker save"
        )
    return f"sha256:{found[0]}"
