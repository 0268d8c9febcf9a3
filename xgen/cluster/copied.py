"""A copy of a checkout that another machine made here, without its .git: what the checkout said of itself lies beside
it, so that a snapshot of the copy is what a snapshot of the checkout would be (docs/remote.md)."""

from __future__ import annotations

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
    """None for a folder that is no such copy."""
    try:
        return Copied.model_validate_json(_record(root).read_bytes())
    except (OSError, ValidationError):
        return None


def make_copy(root: Path) -> None:
    """An empty copy, which is the root of a project whatever lies in it or above it."""
    (root / ".git").mkdir(parents=True, exist_ok=True)


def take_in(root: Path, copied: Copied) -> None:
    """Note what has been copied, and remove what the checkout has no more. What was never copied stays."""
    before = read_copied(root)
    gone = {*before.files, *before.others}.difference(copied.files, copied.others) if before else ()
    for name in gone:
        file = root / name
        with suppress(OSError):
            file.unlink()
            for folder in list(file.parents)[: len(Path(name).parts) - 1]:
                folder.rmdir()
    write_atomic(_record(root), copied.model_dump_json(), mode=0o600)


def _record(root: Path) -> Path:
    return root.with_name(f".{root.name}.copied.json")
