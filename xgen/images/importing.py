"""Import an image into the image folder: once, whole, under its digest, with a name that leads to it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from xgen.images import commands
from xgen.images.config import ImageConfig, archive_config, layout_config, machine
from xgen.images.convert import Work, is_packed, keep, squashfs_config, unpack
from xgen.images.errors import ImageError
from xgen.images.formats import CONTENT, SUFFIX, check_name
from xgen.images.progress import Progress
from xgen.images.record import Format, ImageRecord
from xgen.images.registry import resolve_digest
from xgen.images.source import Material, Source, parse_source
from xgen.images.store import ImageStore
from xgen.images.tools import PROBE_SECONDS, answers, installed, run, version
from xgen.images.treehash import file_digest, tree_bytes, tree_digest
from xgen.images.ways import find_ways

LOCK_SECONDS = 4 * 3600.0  # longer than the import that one may wait for


@dataclass(frozen=True)
class Imported:
    """What an import did. `made` is empty where all was there."""

    record: ImageRecord
    name: str
    made: tuple[Format, ...]
    links: tuple[Path, ...]
    notes: tuple[str, ...]


def import_image(
    text: str,
    image_dir: Path,
    formats: Sequence[Format],
    progress: Progress,
    *,
    name: str | None = None,
    lock_timeout: float = LOCK_SECONDS,
) -> Imported:
    """Put the image that `text` names into `image_dir`.

    `lock_timeout` in seconds. Raises SpecError for a mistake in the call, ImageError for all else that a person can
    act on; nothing half-made stays.
    """
    source = parse_source(text)
    name = check_name(name or source.default_name)
    store = ImageStore(image_dir)
    store.check_free(name)
    digest = store.digest_of(source.path) or identify(source, progress)
    known = store.record(digest)
    if known is not None and set(formats) <= set(known.formats) and store.leads_to(name, known):
        return _done(store, known, name, (), [])
    with store.adding(digest, lock_timeout, progress.say) as tmp:
        known = store.record(digest)
        missing = tuple(f for f in dict.fromkeys(formats) if known is None or f not in known.formats)
        record = _make(source, digest, name, missing, known, store, tmp, progress) if missing else known
        assert record is not None
        notes = store.link(name, record)
    return _done(store, record, name, missing, notes)


def _done(store: ImageStore, record: ImageRecord, name: str, made: tuple[Format, ...], notes: list[str]) -> Imported:
    links = tuple(store.image_dir / f"{name}{SUFFIX[kind]}" for kind in record.formats)
    return Imported(record, name, made, links, tuple(notes))


def identify(source: Source, progress: Progress) -> str:
    """'sha256:…' of a registry's manifest, an archive's or local image's configuration, a file's or folder's bytes."""
    if source.reference is not None:
        return resolve_digest(source.reference)
    if source.path is None:
        return _local_digest(source)
    if source.material in ("tar", "oci-archive"):
        return archive_config(source.path).digest
    if source.material == "oci":
        return layout_config(source.path).digest
    with progress.step(f"read {source.path}") as tick:
        return (tree_digest if source.material == "tree" else file_digest)(source.path, tick)


def _local_digest(source: Source) -> str:
    tools = {"docker-daemon": ("docker",), "podman": ("podman",)}.get(source.material, ("skopeo", "podman", "buildah"))
    tool = next((tool for tool in tools if installed(tool)), None)
    if tool is None:
        raise ImageError(f"{source.text}: {' or '.join(tools)} is needed to read it, and not installed on this machine")
    if tool == "skopeo":
        text = run(commands.skopeo_config(f"{source.material}:{source.image}"), timeout=PROBE_SECONDS)
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
    said = run(commands.image_id(tool, source.image), timeout=PROBE_SECONDS).strip()
    return f"sha256:{said.removeprefix('sha256:')}"


def _make(
    source: Source,
    digest: str,
    name: str,
    missing: tuple[Format, ...],
    known: ImageRecord | None,
    store: ImageStore,
    tmp: Path,
    progress: Progress,
) -> ImageRecord:
    have: dict[Material, Path] = {source.material: source.path or Path()}
    for kind in known.formats if known is not None else ():
        have[kind] = store.place(digest) / CONTENT[kind]
    reference = source.reference and source.reference.with_digest(digest)
    work = Work(source, reference, digest, tmp, progress, have)
    if source.material in ("tar", "oci-archive") and source.path is not None:
        work.config = archive_config(source.path)
        if is_packed(source.path):
            have[source.material] = tmp / "plain.tar"
            with progress.step(f"unpack {source.text}") as tick:
                unpack(source.path, tmp / "plain.tar", tick)
    if source.material == "sqsh" and source.path is not None:
        work.config = squashfs_config(source.path)
    if known is not None:
        work.recorded = ImageConfig(env=known.env, labels=known.labels)
    for way in find_ways(have, missing, _usable(source)):
        work.go(way)
    if work.config is not None and work.config.architecture not in ("", machine()):
        progress.say(f"note: the image is for {work.config.architecture}, and this machine is {machine()}")
    out = tmp / "out"
    keep(work, missing, out, dict(CONTENT.items()))
    with progress.step("write it to the disk") as tick:
        sizes = {kind: _size(out / CONTENT[kind]) for kind in missing}
        run(("sync", "--file-system", str(out)), timeout=600, tick=tick)
    config = work.config or work.recorded
    record = ImageRecord(
        name=name,
        digest=digest,
        source=_described(source, digest),
        created=time.time(),
        tool=", ".join(version(tool) for tool in work.tools) or "copied",
        labels=config.labels,
        env=config.env,
        formats=sizes,
    )
    return store.publish(record, out)


def _usable(source: Source) -> Callable[[str], bool]:
    """Docker counts where its daemon answers: its command is on many a login node without one."""

    @cache
    def usable(tool: str) -> bool:
        if not installed(tool):
            return False
        return tool != "docker" or source.material == "docker-daemon" or answers(commands.DOCKER_ANSWERS)

    return usable


def _size(place: Path) -> int:
    return tree_bytes(place) if place.is_dir() else place.stat().st_size


def _described(source: Source, digest: str) -> str:
    """What the image was made from, for a person who looks at it in a year."""
    if source.reference is not None:
        return str(source.reference) if source.reference.pinned else f"{source.reference}@{digest}"
    return str(source.path) if source.path is not None else source.text
