"""Which servers there are: a file each in RUN/servers, written by the one that runs it and read by all that ask.

A file is renamed into place; its time of change is the server's heartbeat. Clocks of nodes differ, so a reader takes a
server for dead when it has not seen that time move for a while by its own clock.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from xgen.runs import RunDir, write_atomic

BEAT = 5.0  # seconds between heartbeats
STALE = 60.0  # seconds without one


class Server(BaseModel):
    """RUN/servers/SHARD.json."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    shard: int
    url: str  # without a slash at its end
    weights: str  # name of the folder in RUN/weights that is loaded
    started: float  # seconds since the epoch

    @property
    def name(self) -> tuple[int, float]:
        """Of this process of the server: the next one has another."""
        return self.shard, self.started


def servers_dir(run: RunDir) -> Path:
    return run.path / "servers"


def register(run: RunDir, server: Server) -> None:
    """Say that it serves, or that it has other weights."""
    servers_dir(run).mkdir(exist_ok=True)
    write_atomic(_file(run, server.shard), server.model_dump_json() + "\n")


def beat(run: RunDir, shard: int) -> None:
    with suppress(OSError):  # a hiccup of the file system: the next one tells
        os.utime(_file(run, shard))


def deregister(run: RunDir, shard: int) -> None:
    _file(run, shard).unlink(missing_ok=True)


def _file(run: RunDir, shard: int) -> Path:
    return servers_dir(run) / f"{shard}.json"


@dataclass
class _Seen:
    changed: int  # as the file system says, ns
    at: float  # by this clock
    server: Server | None


class Watch:
    """The servers whose heart beats."""

    def __init__(self, run: RunDir, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._clock = servers_dir(run), clock
        self._seen: dict[str, _Seen] = {}

    def alive(self) -> list[Server]:
        """In order of their shards. A file that cannot be read counts as none: the next look may read it."""
        now = self._clock()
        found: dict[str, _Seen] = {}
        with suppress(OSError):
            for entry in os.scandir(self._folder):
                if entry.name.endswith(".json") and not entry.name.startswith("."):
                    with suppress(OSError):
                        found[entry.name] = self._look(Path(entry.path), now)
        self._seen = found
        beating = [seen.server for seen in found.values() if seen.server and now - seen.at < STALE]
        return sorted(beating, key=lambda server: server.shard)

    def _look(self, file: Path, now: float) -> _Seen:
        changed, before = file.stat().st_mtime_ns, self._seen.get(file.name)
        if before and before.changed == changed:
            return before
        try:
            server = Server.model_validate_json(file.read_bytes())
        except ValidationError:
            server = None
        return _Seen(changed, now, server)
