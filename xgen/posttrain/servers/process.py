"""The process of a server: started on a free port, asked for its health, ended with all that it has started."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from xgen.runs import Refused
from xgen.runs.bond import die_with_parent

_GRACE = 5.0  # seconds to end by itself
_HEALTH = 5.0


class Ended(Exception):  # noqa: N818 - a fact
    """The process has ended, or has to."""


@dataclass
class ServerProcess:
    child: subprocess.Popen[bytes]
    url: str

    @classmethod
    def start(cls, command: Sequence[str], host: str, model: Path, environment: Mapping[str, str]) -> ServerProcess:
        """`command` with {host}, {port} and {model} in it. Raises Refused for what no node can start."""
        port = _free_port(host)
        values = {"{host}": host, "{port}": str(port), "{model}": str(model)}
        words = [_filled(word, values) for word in command]
        try:
            child = subprocess.Popen(
                words,
                env=os.environ | environment,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=die_with_parent(),  # noqa: PLW1509 - a thread at most waits for a server that has ended
            )
        except (FileNotFoundError, PermissionError, NotADirectoryError) as error:
            what = f"rollout.servers.command: cannot start {words[0]!r}: {error.strerror}"
            raise Refused(f"{what}; is it in rollout.servers.image?") from None
        return cls(child, f"http://{f'[{host}]' if ':' in host else host}:{port}")

    def check(self) -> None:
        """Raises Ended."""
        if (code := self.child.poll()) is not None:
            said = f"was killed by signal {-code}" if code < 0 else f"exited with {code}"
            raise Ended(f"the server {said}")

    def is_healthy(self, client: httpx.Client) -> bool:
        try:
            return client.get(f"{self.url}/health", timeout=_HEALTH).status_code == 200
        except httpx.HTTPError:
            return False

    def end(self) -> None:
        """Quickly: what it was at goes on elsewhere."""
        if self.child.poll() is None:
            self.child.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.child.wait(timeout=_GRACE)
        with suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)  # and what it has started
        self.child.wait()


def _filled(word: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        word = word.replace(name, value)
    return word


def _free_port(host: str) -> int:
    """Another process may take it first: then the server fails, and is started on another one."""
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as found:
        return int(found.getsockname()[1])
