"""A copy of a checkout that another machine made here, without its .git: what the checkout said of itself lies beside
it, so that a snapshot of the copy is what a snapshot of the checkout would be (docs/remote.md)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from xgen.runs import write_atomic
from xgen.spec.base import Strict


class Copied(Strict):
    """`diff` is of bytes, each a character. `others`: specs that git ignores; no snapshot holds them."""

    commit: str
    files: tuple[str, ...]
    changed: tuple[str, ...]
    untracked: tuple[str, ...]
    num_bytes: int
    diff: str
    others: tuple[str, ...] = ()


def read_copied(root: Path) -> Copied | None:
    """None for a folder that is no such copy, and where another person says that it is one."""
    try:
        with os.fdopen(os.open(_record(root), os.O_RDONLY | os.O_NOFOLLOW), "rb") as record:
            is_mine = os.fstat(record.fileno()).st_uid == os.geteuid()
            return Copied.model_validate_json(record.read()) if is_mine else None
    except (OSError, ValidationError):
        return None


def make_copy(root: Path) -> None:
    """An empty copy, which is the root of a project whatever lies in it or above it."""
    (root / ".git").mkdir(parents=True, exist_ok=True)


def make_room(root: Path, names: Iterable[str]) -> None:
    """Remove what was copied and is none of these any more. What was never copied stays."""
    before = read_copied(root)
    for name in {*before.files, *before.others}.difference(names) if before else ():
        file = root / name
        folders = list(file.parents)[: len(Path(name).parts) - 1]
        if not _is_below(name) or any(folder.is_symlink() for folder in folders):
            continue  # what lies behind a link was never copied
        with suppress(OSError):
            file.unlink()
            for folder in folders:
                folder.rmdir()


def _is_below(name: str) -> bool:
    return not Path(name).is_absolute() and ".." not in Path(name).parts


def take_in(root: Path, copied: Copied) -> None:
    """Note what has been copied."""
    make_room(root, (*copied.files, *copied.others))
    write_atomic(_record(root), copied.model_dump_json(), mode=0o600)


def _record(root: Path) -> Path:
    return root.with_name(f".{root.name}.copied.json")
