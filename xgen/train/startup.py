"""How long a start took, by part, from the start of the process to the first new step. No torch."""

from __future__ import annotations

import os
import time
from pathlib import Path

_parts: dict[str, float] = {}
_last: float | None = None


def mark(part: str) -> dict[str, float]:
    """The end of a part, which began with the end of the part before; returns the seconds of all so far."""
    global _last  # noqa: PLW0603 - a process starts once; what lies between, torchtitan builds and would not pass it on
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    _parts[part] = round(now - (_process_start() if _last is None else _last), 3)
    _last = now
    return dict(_parts)


def _process_start() -> float:
    """Seconds since boot, to a hundredth: before the interpreter's own first line."""
    after_name = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    return int(after_name[19]) / os.sysconf("SC_CLK_TCK")  # field 22 of proc(5), the name being the second
