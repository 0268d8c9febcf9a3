"""What the batch script does on the host around the tasks: bash, a room each, in the order in which they are read."""

from __future__ import annotations

from pathlib import Path

PARTS = (
    "records", "budget", "shards", "attempt", "hang", "times", "tasks", "health", "decision",
    "requeue", "waiting", "settle",
)  # fmt: skip


def host_library() -> str:
    """The text that render.py puts into every batch script."""
    return "\n".join(Path(__file__).with_name(f"{part}.sh").read_text(encoding="utf-8") for part in PARTS)
