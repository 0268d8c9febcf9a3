"""The trainer's end of its writer process (`write_process.py`): starts it, orders, hears what came of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import xxhash

from xgen.runs import STOP_SIGNALS, write_atomic

_PROGRAM = Path(__file__).with_name("write_process.py")


class Writer:
    """One process that writes the arena's content to files. One save at a time; never waits unless told to."""

    def __init__(self, arena_fd: int) -> None:
        self._arena_fd = arena_fd
        self._process: subprocess.Popen[bytes] | None = None
        self._heard = b""
        self.writing = False  # a save that was ordered and not answered
        self.start()

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    def start(self) -> None:
        """Start the process unless it runs."""
        if self._process and self._process.poll() is None:
            return
        packages = Path(xxhash.__file__).parents[1]
        command = [sys.executable, "-I", "-S", str(_PROGRAM), str(self._arena_fd), str(packages)]
        # A stop signal that comes before the process has learned to ignore it would end it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (*STOP_SIGNALS, signal.SIGINT, signal.SIGHUP))
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[self._arena_fd]
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        assert self._process.stdout
        os.set_blocking(self._process.stdout.fileno(), False)
        self._heard = b""

    def save(self, order: dict[str, Any]) -> None:
        """Order a save; `answer` tells what became of it. Raises OSError when no process can be had."""
        assert not self.writing
        self._order({"do": "save", **order})
        self.writing = True

    def delete(self, folders: list[Path]) -> None:
        """Order folders away, after the save under way. Raises OSError when no process can be had."""
        self._order({"do": "delete", "folders": [str(folder) for folder in folders]})

    def answer(self) -> str | None:
        """What went wrong with the save that was ordered, '' for nothing; None while it is being written."""
        if not self.writing:
            return None
        assert self._process and self._process.stdout
        gone = self._process.poll()  # before reading: what it said before it ended is then all there
        while (part := self._read()) != b"":
            self._heard += part
        if b"\n" in self._heard:
            line, _, self._heard = self._heard.partition(b"\n")
            self.writing = False
            return str(json.loads(line)["error"])
        if gone is None:
            return None
        self.writing = False
        how = f"was killed by signal {-gone}" if gone < 0 else f"exited with {gone}"
        return f"the writer process {how}"

    def kill(self) -> None:
        """End it at once: what it was writing is to be given up."""
        if self._process:
            self._process.kill()
            self._process.wait()

    def close(self, timeout: float) -> None:
        """Let it finish what it has, and see it end. One that takes longer goes on alone, and ends by itself."""
        if not self._process:
            return
        assert self._process.stdin
        try:
            self._process.stdin.close()
            self._process.wait(timeout)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            print(f"the writer process {self._process.pid} is left to finish alone", file=sys.stderr, flush=True)

    def _order(self, order: dict[str, Any]) -> None:
        line = json.dumps(order).encode() + b"\n"
        for _ in range(2):  # it may die between the look and the word
            self.start()
            assert self._process and self._process.stdin
            try:
                self._process.stdin.write(line)
                self._process.stdin.flush()
                return
            except BrokenPipeError:
                self._process.wait()
        raise BrokenPipeError("the writer process dies as soon as it is started")

    def _read(self) -> bytes:
        assert self._process and self._process.stdout
        try:
            return os.read(self._process.stdout.fileno(), 1 << 16)
        except BlockingIOError:
            return b""


def report_for_writer(building: Path, rank: int, token: int, error: str) -> None:
    """Tell rank 0's writer that this rank's part will not come; if not even that can be written, the ranks tell each
    other at the next save."""
    with suppress(OSError):
        building.mkdir(exist_ok=True)
        write_atomic(building / f"entries.{rank}.json", json.dumps({"token": token, "error": error, "entries": []}))
