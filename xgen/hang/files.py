"""Files that others read while they are written. As in `xgen.runs.rundir`, which brings pydantic along."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_whole(path: Path, text: str) -> None:
    """A reader sees the old file or the new one. Raises OSError."""
    building = path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}.tmp")
    try:
        building.write_text(text, encoding="utf-8", errors="replace")
        building.rename(path)
    finally:
        building.unlink(missing_ok=True)


def write_first(path: Path, text: str) -> bool:
    """Write where nothing is; returns whether it was this. Raises OSError."""
    building = path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}.once")
    try:
        building.write_text(text, encoding="utf-8", errors="replace")
        os.link(building, path)
    except FileExistsError:
        return False
    finally:
        building.unlink(missing_ok=True)
    return True


def append_event(file: Path, facts: Mapping[str, Any]) -> None:
    """One event of a run (`xgen.runs.events`), on disk when this returns. Raises OSError."""
    line = json.dumps({"time": time.time(), **facts, "event": "hang", "writer": file.stem}, separators=(",", ":"))
    fd = os.open(file, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o664)
    try:
        os.write(fd, f"{line}\n".encode())
        os.fsync(fd)
    finally:
        os.close(fd)


def outcome(reason: str, step: int) -> str:
    """An `outcome.<rank>.json` (`xgen.runs.outcome`) of a rank that crashed; the host finds it by its exact text."""
    facts: dict[str, Any] = {"status": "crashed", "reason": reason, "step": step or None, "time": time.time()}
    return json.dumps(facts, separators=(",", ":"), ensure_ascii=False) + "\n"
