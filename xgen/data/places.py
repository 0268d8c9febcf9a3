"""Where input lies: a path of this machine, or a URL of a file system that fsspec knows (s3, gs, http, …)."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast
from urllib.parse import urlsplit

from xgen.data.errors import InterruptedBuildError, StoreError
from xgen.data.fetch import redact

if TYPE_CHECKING:
    import pyarrow

HUB = "hf:"
_AGAIN = "run it again: it goes on where it was"
# By which file systems tell that a file is another one now, the best first.
_MARKS = ("ETag", "etag", "md5Hash", "content_md5", "generation", "LastModified", "last_modified", "Last-Modified",
          "mtime", "created")  # fmt: skip

_NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound")  # of botocore


@dataclass(frozen=True)
class File:
    """A file as it is now: `mark` is its time of change in ns, or what a remote file system knows its content by."""

    path: str
    size: int
    mark: int | str


def is_remote(place: Path | str) -> bool:
    return "://" in str(place)


def absolute(name: str) -> str:
    """What an input is called in a recipe: a URL, hf:NAME, or an absolute path."""
    if name.startswith("file://"):
        name = name.removeprefix("file://")
    return name if is_remote(name) or name.startswith(HUB) else str(Path(name).absolute())


def stem(name: str) -> str:
    """What a collection is called whose name nobody gave: shard.jsonl.zst gives shard, hf:org/web:train gives web."""
    path = name.removeprefix(HUB).partition(":")[0] if name.startswith(HUB) else absolute(name).rstrip("/")
    return Path(path).name.partition(".")[0] or "input"


def look(path: str, fresh: bool = True) -> File:
    """A file as it is now, or, not `fresh`, as it was listed. Raises OSError for one of this machine; StoreError."""
    if not is_remote(path):
        stat = Path(path).stat()
        return File(path, stat.st_size, stat.st_mtime_ns)
    system, inner = _system(path)
    with _reaching(path):
        if fresh:
            system.invalidate_cache()
        return _file(path, system.info(inner))


def find(url: str) -> list[File]:
    """The file that a URL names, or all files under it, sorted. Raises StoreError, InterruptedBuildError."""
    system, inner = _system(url)
    with _reaching(url):
        system.invalidate_cache()
        info = system.info(inner)
        if info["type"] != "directory":
            return [_file(url, info)]
        found = system.find(inner, detail=True)
    names = sorted(found, key=lambda name: name.split("/"))  # as paths are sorted
    return [_file(system.unstrip_protocol(name), found[name]) for name in names]


def open_input(path: Path | str) -> BinaryIO:
    """A file for reading. Of a remote one all errors say that the same call may go on. Raises OSError, StoreError."""
    return cast(BinaryIO, _Remote(str(path))) if is_remote(path) else Path(path).open("rb")


@contextmanager
def arrow_input(path: str, mapped: bool = False) -> Iterator[pyarrow.NativeFile]:
    """A file for pyarrow, `mapped` into memory where it lies on this machine."""
    import pyarrow

    if not is_remote(path):
        with pyarrow.memory_map(path) if mapped else pyarrow.OSFile(path) as file:
            yield file
        return
    with open_input(path) as remote, pyarrow.PythonFile(remote, mode="r") as file:
        yield file


class _Remote(io.RawIOBase):
    """A file that fails where its connection does: what ends early is not taken for a file that ends."""

    def __init__(self, url: str) -> None:
        self._url = url
        system, inner = _system(url)
        with _reaching(url):
            self._file = system.open(inner, "rb")
        self._size: int = self._file.size

    def read(self, size: int | None = -1) -> bytes:
        place = self._file.tell()
        left = max(self._size - place, 0)
        wanted = left if size is None or size < 0 else min(size, left)
        try:
            data: bytes = self._file.read(wanted)
        except Exception as error:  # noqa: BLE001 - each file system raises what its library raises
            raise self._broken(place, error) from None
        if len(data) < wanted:
            raise self._broken(place + len(data), "the connection ended")
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def size(self) -> int:
        return self._size

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()

    def _broken(self, place: int, error: object) -> InterruptedBuildError:
        what = f"broke off at byte {place:,} of {self._size:,}: {_said(error)}"
        return InterruptedBuildError(self._url, what, _AGAIN)


def _system(url: str) -> tuple[Any, str]:
    """Raises StoreError for a file system that is not known or not installed, and for a URL with secrets in it."""
    import fsspec

    parts = urlsplit(url)
    if "@" in parts.netloc or parts.query:
        fix = "let the settings of the file system hold them (docs/data.md), or xgen fetch it first"
        raise StoreError(redact(url), "has credentials or a query in it, which would be written down", fix)
    try:
        system, inner = fsspec.core.url_to_fs(url)
    except ImportError as error:
        s3 = url.startswith(("s3://", "s3a://"))
        what, fix = (
            ("needs the package s3fs", "pip install 'xgen[s3]'") if s3 else (_said(error), "install what it names")
        )
        raise StoreError(url, what, fix) from None
    except ValueError as error:
        raise StoreError(url, _said(error), "write a path, or a URL that fsspec knows, as s3://BUCKET/FOLDER") from None
    return system, inner


@contextmanager
def _reaching(url: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        # fsspec says so of HTTP servers, too, that it cannot reach.
        cause = error.__cause__
        if type(cause).__module__.startswith("aiohttp") and getattr(cause, "status", 0) not in (404, 410):
            raise InterruptedBuildError(url, f"cannot be reached: {_said(cause)}", _AGAIN) from None
        raise StoreError(url, "does not exist", "name a file, or a folder that holds some") from None
    except StoreError:
        raise
    except Exception as error:  # noqa: BLE001 - each file system raises what its library raises
        if isinstance(error, PermissionError) or type(error).__name__ in _NO_CREDENTIALS:
            fix = "check who may read it, and the credentials in the file system's settings"
            raise StoreError(url, f"may not be read: {_said(error)}", fix) from None
        raise InterruptedBuildError(url, f"cannot be reached: {_said(error)}", _AGAIN) from None


def _file(url: str, info: dict[str, Any]) -> File:
    if info.get("size") is None:
        raise StoreError(url, "has no size that its server says", "xgen fetch it first, and name the folder")
    mark = next((str(info[key]) for key in _MARKS if info.get(key)), "")
    return File(url, info["size"], mark.strip('"'))


def _said(error: object) -> str:
    return redact(error) or type(error).__name__
