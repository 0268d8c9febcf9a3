"""What lies in the image folder: one row a name, also for images that xgen did not put there."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from xgen.images.formats import CONTENT, split_name
from xgen.images.record import STORE, Format, ImageRecord, read_record

REVISION = "org.opencontainers.image.revision"


@dataclass(frozen=True)
class Row:
    """One name, or one image that no name leads to (`name` is '')."""

    name: str
    digest: str  # '' where nothing is known
    formats: dict[Format, int | None] = field(default_factory=dict)  # bytes; None: not counted
    created: float | None = None  # seconds since the epoch
    revision: str = ""  # the git commit that the image was built of
    source: str = ""
    tool: str = ""
    broken: tuple[str, ...] = ()  # links that lead nowhere


def list_images(image_dir: Path) -> list[Row]:
    """Newest first, then what xgen knows nothing of, by name. Raises OSError where the folder cannot be read."""
    found: dict[tuple[str, str], Row] = {}
    for entry in sorted(image_dir.iterdir()) if image_dir.is_dir() else ():
        if entry.name.startswith("."):
            continue
        name, kind = split_name(entry.name)
        if kind is None:
            if not entry.is_dir() and not entry.is_symlink():
                continue  # no image: a note, a lock file
            kind = "folder"
        record = read_record(entry) if entry.is_symlink() else None
        key = (name, record.digest if record is not None else "")
        row = found.setdefault(key, _row(name, record))
        if not entry.exists():
            found[key] = Row(**{**row.__dict__, "broken": (*row.broken, entry.name)})
        else:
            row.formats[kind] = record.formats.get(kind) if record is not None else _file_size(entry)
    named = {row.digest for row in found.values()}
    for place in sorted((image_dir / STORE).glob("*/")):
        record = read_record(place / CONTENT["folder"])
        if record is not None and record.digest not in named:
            row = _row("", record)
            row.formats.update(record.formats)
            found["", record.digest] = row
    return sorted(found.values(), key=lambda row: (-(row.created or 0), row.name))


def _row(name: str, record: ImageRecord | None) -> Row:
    if record is None:
        return Row(name, "")
    return Row(name, record.digest, {}, record.created, record.labels.get(REVISION, ""), record.source, record.tool)


def _file_size(entry: Path) -> int | None:
    """None for a folder: to count a million files takes longer than a person waits for a list."""
    return entry.stat().st_size if entry.is_file() else None
