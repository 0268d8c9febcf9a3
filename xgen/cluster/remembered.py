"""A cache of what runs that have ended will say for ever: one file of this user for a run root.

It may be removed at any time; where it cannot be read or written, nothing is remembered.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

_WAIT = 1.0  # seconds for another command that writes


def cache_file(run_root: Path) -> Path:
    """Of a run root, in this user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "xgen" / f"runs-{hashlib.sha256(str(run_root.resolve()).encode()).hexdigest()[:16]}.sqlite"


@dataclass(frozen=True, slots=True)
class Entry:
    """It holds as long as people order nothing more of the run: `orders` is the size of what they had."""

    name: str
    orders: int
    submitted: float  # seconds since the epoch
    text: str


@dataclass(frozen=True)
class Remembered:
    """A table of the cache. Its name carries the version of what the texts mean."""

    file: Path
    table: str

    def read(self) -> dict[str, tuple[int, float, str]]:
        """Orders, time of submission and text of each run that is remembered."""
        if not self.file.is_file():
            return {}
        try:
            with closing(sqlite3.connect(self.file, timeout=_WAIT)) as known:
                rows = known.execute(f"select name, orders, submitted, text from {self.table}")
                return {name: (orders, submitted, text) for name, orders, submitted, text in rows}
        except sqlite3.Error:
            return {}

    def write(self, entries: list[Entry]) -> None:
        """Add them, or put them in place of what was known of these runs."""
        columns = "name text primary key, orders integer, submitted real, text text"
        rows = [(one.name, one.orders, one.submitted, one.text) for one in entries]
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.file, timeout=_WAIT)) as known, known:
                known.execute(f"create table if not exists {self.table} ({columns})")
                known.executemany(f"insert or replace into {self.table} values (?, ?, ?, ?)", rows)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):  # locked, full, read-only: another time
                return
            self.file.unlink(missing_ok=True)  # broken: it is made anew
        except OSError:
            pass
