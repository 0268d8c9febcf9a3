"""A file by its URL: https and http with the standard library, all else with fsspec. Goes on where it was."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from xgen.data.errors import InterruptedBuildError, StoreError
from xgen.data.fetch import FETCH_FILE, Fetched, Kind, read_fetched, redact, write_fetched
from xgen.data.progress import Progress, silent
from xgen.data.store import file_meta

_BLOCK = 1 << 20
_TIMEOUT = 60.0  # seconds without a byte
_AGAIN = "fetch again: it goes on where it was"


@dataclass(frozen=True)
class _Answer:
    """What is there: where the bytes begin, how many there are in all (None: unknown), and what names this content."""

    data: BinaryIO
    start: int
    size: int | None
    mark: str


def is_url(name: str) -> bool:
    return "://" in name


def fetch_url(kind: Kind, url: str, to: Path, sha256: str | None = None, progress: Progress = silent) -> Fetched:
    """Download one file into the folder `to`. Credentials and queries of `url` are not written down.

    Raises StoreError for a URL that leads nowhere and a checksum that is not `sha256`, InterruptedBuildError when less
    came than was announced.
    """
    parts = urllib.parse.urlsplit(url)
    name = Path(urllib.parse.unquote(parts.path)).name
    if not name:
        raise StoreError(redact(url), "names no file", "write the URL of a file, not of a folder")
    public = urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    earlier = read_fetched(to)
    files = dict(earlier.files) if earlier else {}
    with _said(public):
        mark = _load(url, to, name, progress)
    found = file_meta(to / name)
    if sha256 and found.sha256 != sha256:
        (to / name).unlink()
        raise StoreError(public, f"has SHA-256 {found.sha256}; it was removed", "check the URL and --sha256")
    fetched = Fetched(kind=kind, name=public, revision=mark, files=files | {name: found})
    write_fetched(to, fetched)
    return fetched


def _load(url: str, to: Path, name: str, progress: Progress) -> str:
    """Bring `url` to `to`/`name`; returns what names its content."""
    to.mkdir(parents=True, exist_ok=True)
    part, note = to / f".{name}.part", to / f".{name}.part.json"
    known = json.loads(note.read_bytes())["mark"] if note.is_file() and part.is_file() else ""
    have = part.stat().st_size if known else 0
    with _open(url, have, known) as answer:
        if (to / name).is_file() and answer.size == (to / name).stat().st_size and _is(to, name, answer.mark):
            return answer.mark
        (to / FETCH_FILE).unlink(missing_ok=True)
        note.write_text(json.dumps({"mark": answer.mark}), encoding="utf-8")
        with part.open("r+b" if answer.start else "wb") as file:
            file.seek(answer.start)
            file.truncate()
            while block := answer.data.read(_BLOCK):
                file.write(block)
                progress(name, file.tell(), answer.size or 0)
            size = file.tell()
        if answer.size is not None and size < answer.size:
            what = f"broke off at {size:,} of {answer.size:,} bytes"
            raise InterruptedBuildError(redact(url), what, _AGAIN)
        if answer.size is not None and size > answer.size:
            part.unlink()
            raise StoreError(redact(url), f"has {size:,} bytes and announces {answer.size:,}", "fetch again")
    part.rename(to / name)
    note.unlink()
    return answer.mark


def _is(to: Path, name: str, mark: str) -> bool:
    fetched = read_fetched(to)
    return bool(mark) and fetched is not None and name in fetched.files and fetched.revision == mark


@contextmanager
def _open(url: str, have: int, known: str) -> Iterator[_Answer]:
    if urllib.parse.urlsplit(url).scheme in ("http", "https"):
        with _open_http(url, have, known) as answer:
            yield answer
        return
    import fsspec

    system, path = fsspec.core.url_to_fs(url)
    facts = system.info(path)
    mark = str(facts.get("ETag") or facts.get("etag") or system.modified(path))
    start = have if known and known == mark else 0
    with system.open(path, "rb") as data:
        data.seek(start)
        yield _Answer(data, start, facts.get("size"), mark)


@contextmanager
def _open_http(url: str, have: int, known: str) -> Iterator[_Answer]:
    parts = urllib.parse.urlsplit(url)
    credentials, _, host = parts.netloc.rpartition("@")
    headers = {"Accept-Encoding": "identity", "User-Agent": "xgen"}
    if credentials:
        text = urllib.parse.unquote(credentials).encode()
        headers["Authorization"] = f"Basic {base64.b64encode(text).decode()}"
    request = urllib.request.Request(parts._replace(netloc=host).geturl(), headers=headers)
    if have and known:
        # If-Range: the server sends all of it where the content is another one by now.
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", known)
    try:
        response: Any = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise
        # Nothing is left to send, or the content has become shorter: from the beginning.
        request.remove_header("Range")
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    with response:
        mark = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
        length = response.headers.get("Content-Length")
        start = have if response.status == 206 else 0
        yield _Answer(response, start, None if length is None else start + int(length), mark)


@contextmanager
def _said(public: str) -> Iterator[None]:
    import http.client

    try:
        yield
    except urllib.error.HTTPError as error:
        what = f"the server says {error.code} {error.reason}"
        if error.code >= 500 or error.code == 429:
            raise InterruptedBuildError(public, what, _AGAIN) from None
        raise StoreError(public, what, "check the URL, and who may read it") from None
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise InterruptedBuildError(public, f"cannot be read: {redact(error)}", _AGAIN) from None
    except (FileNotFoundError, ValueError, ImportError) as error:
        raise StoreError(public, redact(error), "write an URL that fsspec knows, or one of https") from None
