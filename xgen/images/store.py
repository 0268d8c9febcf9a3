"""The image folder: content that never changes under its digest, and names that lead to it.

One import of a digest at a time, under a lock that also holds on NFS. All is made in `.images/<12 digits>.tmp/` and
renamed last, so what stands under a digest is whole. A process that was killed leaves that folder, and its lock is
free: the next import, of whatever image, clears it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from xgen.images.errors import ImageError
from xgen.images.formats import CONTENT, SUFFIX
from xgen.images.record import RECORD, STORE, ImageRecord, read_record
from xgen.images.tools import ToolError
from xgen.runs import write_atomic
from xgen.spec.errors import Problem, SpecError
from xgen.spec.units import format_bytes

_LOCK_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class ImageStore:
    """Paths of one image folder. Constructing it touches nothing on disk."""

    image_dir: Path

    def place(self, digest: str) -> Path:
        """Where an image lies, by the first 12 digits of its digest."""
        return self.image_dir / STORE / digest.removeprefix("sha256:")[:12]

    def digest_of(self, path: Path | None) -> str:
        """The digest of an image that lies here already: `import NAME.sqsh --format folder`. '' for another path."""
        store = (self.image_dir / STORE).resolve()
        known = read_record(path) if path is not None and store in path.resolve().parents else None
        return known.digest if known is not None else ""

    def record(self, digest: str) -> ImageRecord | None:
        """What is stored under this digest, with the formats that are really there. Raises ImageError."""
        place = self.place(digest)
        if not place.is_dir():
            return None
        record = read_record(place / "folder")
        if record is None:
            raise ImageError(f"{place} has no readable {RECORD}; remove the folder and import the image again")
        if record.digest != digest:
            raise ImageError(f"{place} is of {record.digest}, not of {digest}; remove it if no run needs it")
        there = {kind: size for kind, size in record.formats.items() if (place / CONTENT[kind]).exists()}
        return record.model_copy(update={"formats": there})

    @contextmanager
    def adding(self, digest: str, timeout: float, say: Callable[[str], None]) -> Iterator[Path]:
        """Hold the lock of this digest; an empty folder to make its formats in, which is gone afterwards.

        `timeout` in seconds. Raises ImageError when another process holds the lock for longer, SpecError where the
        image folder cannot be written.
        """
        store = self.image_dir / STORE
        try:
            if not store.is_dir():
                store.mkdir(parents=True, exist_ok=True)
                _share(store, self.image_dir)
        except OSError as error:
            raise SpecError(Problem(str(self.image_dir), "", f"{error.strerror}; write --image-dir DIR")) from None
        self._clear_leftovers(say)
        place = self.place(digest)
        with locked(place.with_suffix(".lock"), timeout, say):
            tmp = place.with_suffix(".tmp")
            remove_tree(tmp)
            tmp.mkdir()
            try:
                yield tmp
            except (OSError, ToolError) as error:
                remove_tree(tmp)
                if isinstance(error, ToolError) and error.full:
                    raise _full_disk(self.image_dir, str(error)) from None
                if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise _full_disk(self.image_dir, str(error)) from None
                raise
            finally:
                remove_tree(tmp)

    def publish(self, record: ImageRecord, made: Path) -> ImageRecord:
        """Put the formats that lie in `made` (named as in CONTENT) under the record's digest; call it in `adding`.

        An image that is there already gets the formats that it lacks. Returns the record as stored.
        """
        place = self.place(record.digest)
        known = self.record(record.digest)
        if known is None:
            write_atomic(made / RECORD, record.model_dump_json(indent=2) + "\n", 0o664)
            for entry in made.iterdir():
                (_share if entry.is_file() else _share_root)(entry, place.parent)
            _share(made, place.parent)
            made.rename(place)
            return record
        new = {kind: size for kind, size in record.formats.items() if kind not in known.formats}
        for kind in new:
            (_share if kind != "folder" else _share_root)(made / CONTENT[kind], place)
            (made / CONTENT[kind]).rename(place / CONTENT[kind])
        merged = known.model_copy(update={"formats": {**known.formats, **new}})
        write_atomic(place / RECORD, merged.model_dump_json(indent=2) + "\n", 0o664)
        _share(place / RECORD, place)
        return merged

    def link(self, name: str, record: ImageRecord) -> list[str]:
        """Let NAME lead to every format of an image. Returns what a person must know of older links.

        Raises SpecError where something that is no link has the name.
        """
        notes = []
        place = self.place(record.digest)
        self.check_free(name)
        for kind, suffix in SUFFIX.items():
            entry = self.image_dir / f"{name}{suffix}"
            old = read_record(entry) if entry.is_symlink() else None
            if kind in record.formats:
                _replace_link(entry, f"{STORE}/{place.name}/{CONTENT[kind]}")
                if old is not None and old.digest != record.digest:
                    notes.append(f"{entry.name} was {old.digest[:19]} and is {record.digest[:19]} now")
            elif old is not None and old.digest != record.digest:
                notes.append(
                    f"{entry.name} still leads to {old.digest[:19]}; write --format {kind} to have it of this image too"
                )
        return notes

    def leads_to(self, name: str, record: ImageRecord) -> bool:
        """Whether NAME leads to every format of this image."""
        place = self.place(record.digest).resolve()
        entries = ((self.image_dir / f"{name}{SUFFIX[kind]}", CONTENT[kind]) for kind in record.formats)
        return all(entry.is_symlink() and entry.resolve() == place / content for entry, content in entries)

    def check_free(self, name: str) -> None:
        """Raises SpecError where NAME, in any format, is a file or folder that xgen did not make."""
        for suffix in SUFFIX.values():
            entry = self.image_dir / f"{name}{suffix}"
            if entry.exists() and not entry.is_symlink():
                message = f"{entry} is there and is no link of xgen; write another --name, or move it away"
                raise SpecError(Problem("", "--name", message))

    def _clear_leftovers(self, say: Callable[[str], None]) -> None:
        """Remove the temporary folders of imports that were killed: nobody holds their lock."""
        for tmp in (self.image_dir / STORE).glob("*.tmp"):
            with contextlib.suppress(OSError), tmp.with_suffix(".lock").open("a+") as file:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove_tree(tmp)
                say(f"removed {STORE}/{tmp.name}, left by an import that was killed")


@contextmanager
def locked(path: Path, timeout: float, say: Callable[[str], None]) -> Iterator[None]:
    """A POSIX lock: it holds between the hosts of an NFS, and is free when its process is gone."""
    end = time.monotonic() + timeout
    waits = False
    with path.open("a+") as file:
        _share(path, path.parent)
        while True:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EAGAIN):
                    raise ImageError(f"{path}: cannot be locked: {error.strerror}") from None
            file.seek(0)
            holder = file.read().strip() or "another process"
            if time.monotonic() > end:
                raise ImageError(f"{holder} is still at this image after {timeout:.0f} s; wait, or end it")
            if not waits:
                say(f"waiting: {holder} is at this image now")
                waits = True
            time.sleep(_LOCK_POLL_SECONDS)
        file.seek(0)
        file.truncate()
        file.write(f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%H:%M:%S')}")
        file.flush()
        yield


def _share(path: Path, like: Path) -> None:
    """Who may write the image folder may add formats and take locks, whatever the umask of who came first."""
    mode = stat.S_IMODE(like.stat().st_mode)
    with contextlib.suppress(PermissionError):  # another user's: shared by them
        path.chmod(mode | stat.S_IRWXU if path.is_dir() else mode & 0o066 | 0o600)


# Of an image, where file systems are mounted as a rule.
_MOUNTED = ("", "data", "home", "media", "mnt", "opt", "scratch", "shared", "srv")


def _share_root(folder: Path, like: Path) -> None:
    """Who may write the image folder may start an image from it: in a folder ch-run finds only the mount points that a
    job has made, which need a place to begin, in the group that made the image folder."""
    shared = like.stat()
    if not shared.st_mode & stat.S_IWGRP:
        return
    for place in (folder / name for name in _MOUNTED):
        if place.is_dir() and not place.is_symlink():
            with contextlib.suppress(PermissionError):  # a group that is not one's own
                os.chown(place, -1, shared.st_gid)
                place.chmod(stat.S_IMODE(place.stat().st_mode) | stat.S_IRWXG | stat.S_ISGID)


def _replace_link(entry: Path, target: str) -> None:
    tmp = entry.with_name(f".{entry.name}.{secrets.token_hex(4)}.tmp")
    tmp.symlink_to(target)
    try:
        tmp.replace(entry)
    except BaseException:
        tmp.unlink(missing_ok=True)
        raise


def remove_tree(path: Path) -> None:
    """Remove a folder, also where an unpacked image took the owner's right to write. Raises OSError."""
    if not path.exists():
        return
    shutil.rmtree(path, ignore_errors=True)
    if path.exists():
        for folder, folders, _ in os.walk(path):
            for name in folders:
                sub = Path(folder, name)
                if not sub.is_symlink():
                    sub.chmod(stat.S_IRWXU)
        shutil.rmtree(path)


def _full_disk(image_dir: Path, said: str) -> ImageError:
    try:
        free = format_bytes(shutil.disk_usage(image_dir).free)
    except OSError:
        free = "nothing"
    return ImageError(
        f"{image_dir}: the disk is full; the import is undone and {free} are free again. Remove images that no run "
        f"needs, or write --image-dir DIR ({said})"
    )
