"""A trainer's end of the server: starts it, notices when it is gone or hangs, and starts the next."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from xgen.posttrain.rewards.jail import Bounds, Isolation
from xgen.posttrain.rewards.server import HEARTBEAT
from xgen.posttrain.rewards.wire import Channel, ClosedError

_START = 60.0  # seconds
_SILENT = 30.0  # seconds without a heartbeat


class StartError(Exception):
    """The process that holds the verifiers did not start; the text says what it printed."""


class ServerLink:
    """One server, from its start to its end. Raises StartError."""

    def __init__(self, bounds: Bounds, workers: int) -> None:
        here, there = socket.socketpair()
        self._folder = tempfile.mkdtemp(prefix="xgen-verifiers-")
        Path(self._folder).chmod(0o711)  # a worker of another user passes through it
        asked = json.dumps({"bounds": bounds.__dict__, "workers": workers})
        command = [sys.executable, "-m", "xgen.posttrain.rewards.server", str(there.fileno()), asked]
        self.process = subprocess.Popen(
            command, env=_environment(self._folder), pass_fds=[there.fileno()], cwd="/", start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        there.close()
        self.channel = Channel(here)
        self._heard = time.monotonic()
        try:
            ((_, told), *_rest) = self.channel.wait(_START)
            self.isolation = Isolation(**json.loads(told))
        except (ClosedError, ValueError) as error:
            self.close()
            raise StartError("the verifiers' process did not start; what it said is above") from error

    def put(self, number: int, body: bytes) -> None:
        """With what comes after it, by `push`."""
        self.channel.put(number, body)

    def push(self) -> None:
        """Raises ClosedError, also when the server has taken nothing for too long."""
        self.channel.flush()
        if self.channel.is_sending and not self.channel.drain(_SILENT):
            raise ClosedError

    def receive(self, seconds: float) -> list[tuple[int, bytes]]:
        """Replies, [] after that time. Raises ClosedError, also when its heart has stopped."""
        until = time.monotonic() + seconds
        while True:
            left = until - time.monotonic()
            messages = self.channel.wait(min(max(left, 0.0), HEARTBEAT))
            now = time.monotonic()
            if messages:
                self._heard = now
            elif now - self._heard > _SILENT:
                raise ClosedError
            if (replies := [message for message in messages if message[0]]) or left <= 0:
                return replies

    def close(self) -> None:
        """With all its workers."""
        self.channel.close()
        try:
            self.process.wait(2.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


def _environment(folder: str) -> dict[str, str]:
    """Nothing of the trainer's but where its modules are; `folder`: for temporary files."""
    places = os.pathsep.join(dict.fromkeys(os.path.abspath(place) for place in sys.path))  # noqa: PTH100
    alone = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    own = {"PYTHONPATH": places, "TMPDIR": folder, "PYTHONDONTWRITEBYTECODE": "1", "LC_ALL": "C.UTF-8"}
    return {**own, "PATH": os.defpath, **alone}
