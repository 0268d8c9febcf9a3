"""In a command that another machine asked for: the options that were given there. None in any other."""

from __future__ import annotations

options: tuple[str, ...] | None = None
