"""Results of a step: a folder for each item, renamed into place with done.json in it, left alone while it is good."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from xgen.data.staging import sync_tree

DONE_FILE = "done.json"
_TMP = ".tmp"


def fingerprint(*facts: Any) -> str:
    """A short name for what something follows from."""

    def plain(value: Any) -> Any:
        return value.model_dump(mode="json") if isinstance(value, BaseModel) else value.__dict__

    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=plain).encode()).hexdigest()[:16]


def is_done(folder: Path, recipe: str) -> bool:
    """Whether the result is there, and follows from the same."""
    try:
        return bool(json.loads((folder / DONE_FILE).read_bytes())["recipe"] == recipe)
    except (OSError, ValueError, KeyError):
        return False


@contextmanager
def published(folder: Path, recipe: str) -> Iterator[Path]:
    """An empty folder that becomes `folder`, with done.json in it, when the block ends without an error.

    Of two processes that do the same at once either wins, and both end well: what they wrote is equal.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    own = folder.with_name(f".{folder.name}.{os.uname().nodename}.{os.getpid()}{_TMP}")
    shutil.rmtree(own, ignore_errors=True)
    own.mkdir()
    try:
        yield own
        (own / DONE_FILE).write_text(json.dumps({"recipe": recipe}) + "\n", encoding="utf-8")
        sync_tree(own)
        if folder.exists() and not is_done(folder, recipe):
            remove(folder)
        try:
            own.rename(folder)
        except OSError:
            if not is_done(folder, recipe):
                raise
    finally:
        shutil.rmtree(own, ignore_errors=True)


def remove(folder: Path) -> None:
    """Remove a result: done.json first, so that a half of it is none."""
    (folder / DONE_FILE).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def clear_leftovers(folder: Path) -> None:
    """What killed writers left. Only where nobody writes any more."""
    for leftover in folder.rglob(f".*{_TMP}"):
        remove_any(leftover)


def clear_others(folder: Path, known: Iterable[str]) -> None:
    """Remove what does not belong into a folder."""
    names = set(known)
    for path in folder.iterdir():
        if path.name not in names:
            remove_any(path)


def remove_any(path: Path) -> None:
    """A folder, or a file."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_json(file: Path, value: BaseModel) -> None:
    """Atomically."""
    write_text(file, value.model_dump_json(indent=1) + "\n")


def write_text(file: Path, text: str) -> None:
    """Atomically."""
    own = file.with_name(f".{file.name}.{os.uname().nodename}.{os.getpid()}{_TMP}")
    own.write_text(text, encoding="utf-8")
    with own.open("rb") as written:
        os.fsync(written.fileno())
    own.rename(file)
