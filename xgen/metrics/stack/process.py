"""A program that goes on when the command that started it has ended, and is found again by the next one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from xgen.runs import write_atomic

_TERM_SECONDS = 15.0
_KILL_SECONDS = 5.0


@dataclass(frozen=True)
class Started:
    """What `started.json` in the program's folder says of it."""

    pid: int
    ticks: int  # when the process began, since boot: the same number may be given to another process
    url: str
    asked: str  # what it was started with; another answer means that it has to be started anew


class Process:
    """One program, with a folder for its log and its data."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "log"
        self._file = folder / "started.json"

    def running(self) -> Started | None:
        """What runs of it now; None when it was never started, has ended, or its number is another's."""
        try:
            started = Started(**json.loads(self._file.read_text()))
        except (OSError, ValueError, TypeError):
            return None
        return started if _began(started.pid) == started.ticks else None

    def start(self, command: Sequence[str], url: str, asked: str, environment: Mapping[str, str]) -> Started:
        """In a session of its own, with its output in the log. Raises OSError when it cannot be."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, **environment}, cwd=self.folder,
            )  # fmt: skip
        started = Started(process.pid, _began(process.pid) or 0, url, asked)
        self.remember(started)
        return started

    def remember(self, started: Started) -> None:
        write_atomic(self._file, json.dumps(asdict(started)))  # half of it would be a process that nobody ends

    def reload(self) -> None:
        """Have it read its configuration anew."""
        if (started := self.running()) is not None:
            os.kill(started.pid, signal.SIGHUP)

    def stop(self) -> None:
        """Ask, wait, then insist."""
        for number, seconds in ((signal.SIGTERM, _TERM_SECONDS), (signal.SIGKILL, _KILL_SECONDS)):
            if (started := self.running()) is None:
                break
            os.kill(started.pid, number)
            until = time.monotonic() + seconds
            while self.running() is not None and time.monotonic() < until:
                time.sleep(0.05)
        self._file.unlink(missing_ok=True)

    def last_words(self, num_lines: int = 5) -> str:
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-num_lines:])
        except OSError:
            return ""


def _began(pid: int) -> int | None:
    """Clock ticks from boot to the start of a process; None when there is none, or only what is left of one."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])  # where pid 1 does not reap, a dead one stays for ever
