"""What is known of an image in the image folder: written once beside it, read by submission, `list` and `check`.

image_dir/
  NAME        -> .images/<12 hex digits of the digest>/folder      what a runtime starts: a link that is
  NAME.sqsh   -> .images/<…>/image.sqsh                            replaced by rename, to content that never
  NAME.sif    -> .images/<…>/image.sif                             changes; a submission follows the link, so a
  NAME.tar    -> .images/<…>/image.tar                             requeue starts the same bits
  .images/<…>/image.json                                           this record
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

Format = Literal["folder", "sqsh", "sif", "tar"]
STORE = ".images"
RECORD = "image.json"


class ImageRecord(BaseModel):
    """One image, in one or more formats. All formats hold the same files."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    digest: str  # 'sha256:…' of the image's manifest or config, as the tool that made it says
    source: str  # what it was made from: a reference with its digest, or a recipe
    created: float  # seconds since the epoch
    tool: str  # and version, e.g. 'podman 4.3.1'
    labels: dict[str, str] = {}
    env: dict[str, str] = {}  # what the image sets for every process in it
    formats: dict[Format, int]  # bytes of each


def read_record(place: Path) -> ImageRecord | None:
    """The record of the image that `place`, a link in the image folder or what it leads to, belongs to; None for an
    image that xgen did not put there."""
    try:
        return ImageRecord.model_validate_json((place.resolve().parent / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValidationError, ValueError):
        return None
