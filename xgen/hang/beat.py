"""The heartbeat of a node: one file, written by the watchdog of its first rank, who hears from the others of the node.

They tell it by datagrams to a name that only this attempt uses: ranks of a node may be in containers that share no
folder but the run's, and eight files a node and half minute would be eight times as many.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from xgen.hang.files import write_whole

if TYPE_CHECKING:
    import socket

PERIOD = 30.0  # seconds
_CHANCE = 5.0  # seconds


class Beat(NamedTuple):
    """Of one rank."""

    rank: int
    step: int
    phase: str
    silent: float  # seconds since its last sign of progress
    pace: float | None  # seconds between two of them, the median
    time: float  # seconds since the epoch


class NodeBeat(NamedTuple):
    """`metrics/heartbeats/NODE.json`."""

    node: str
    attempt: int
    job_id: str
    time: float
    ranks: tuple[Beat, ...]

    @property
    def slowest(self) -> Beat | None:
        """The rank without progress for longest, where that is more than chance: they are not asked at once."""
        last = max(self.ranks, key=lambda one: one.silent)
        return last if last.silent > _CHANCE + min(one.silent for one in self.ranks) else None

    def to_json(self) -> str:
        last = self.slowest
        slowest = {"slowest": last.rank if last else None, "step": min(beat.step for beat in self.ranks)}
        ranks = [beat._asdict() for beat in self.ranks]
        return json.dumps({**self._asdict(), "ranks": ranks, **slowest}) + "\n"

    @classmethod
    def read(cls, file: Path) -> NodeBeat | None:
        """None for what is none, or of another version."""
        try:
            said: dict[str, Any] = json.loads(file.read_bytes())
            ranks = tuple(Beat(**rank) for rank in said["ranks"])
            return cls(said["node"], said["attempt"], said["job_id"], said["time"], ranks) if ranks else None
        except (OSError, ValueError, KeyError, TypeError):
            return None


def read_beats(run: Path, attempt: int) -> list[NodeBeat]:
    """The heartbeats of an attempt, by node. A node that took part in another has left its file of that."""
    try:
        files = sorted((run / "metrics" / "heartbeats").glob("*.json"))
    except OSError:
        return []
    return [beat for file in files if (beat := NodeBeat.read(file)) and beat.attempt == attempt]


class Local:
    """The watchdogs of one node and attempt: the first gathers what the others tell."""

    def __init__(self, run: Path, attempt: int, node: int, gathers: bool) -> None:
        self._name = (
            b"\0xgen" + os.fsencode(f"{run}:{attempt}:{node}")[-100:]
        )  # of no file system: gone with the process
        self._gathers = gathers
        self._heard: dict[int, Beat] = {}
        self._opened: socket.socket | None = None

    @property
    def _socket(self) -> socket.socket:
        if self._opened is None:
            import socket

            self._opened = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._opened.setblocking(False)
            if self._gathers:
                with suppress(OSError):  # taken by a watchdog that does not die: the node has a heartbeat of one rank
                    self._opened.bind(self._name)
        return self._opened

    def tell(self, beat: Beat) -> None:
        """What this rank is at; nobody may hear it."""
        self._heard[beat.rank] = beat
        if not self._gathers:
            with suppress(OSError):
                self._socket.sendto(json.dumps(beat._asdict()).encode(), self._name)

    def heard(self) -> tuple[Beat, ...]:
        """Of all ranks of the node that have told lately, in their order."""
        while True:
            try:
                said = json.loads(self._socket.recv(4096))
                beat = Beat(**said)
            except OSError:
                break
            except (ValueError, TypeError):
                continue
            self._heard[beat.rank] = beat
        return tuple(self._heard[rank] for rank in sorted(self._heard))

    def write(self, run: Path, node: str, attempt: int, job_id: str) -> None:
        """Raises OSError."""
        folder = run / "metrics" / "heartbeats"
        folder.mkdir(parents=True, exist_ok=True)
        now = time.time()
        ranks = tuple(b._replace(silent=round(b.silent + now - b.time, 1), time=now) for b in self.heard())
        write_whole(folder / f"{node}.json", NodeBeat(node, attempt, job_id, now, ranks).to_json())
