"""The OpenSSH client: its options, and a connection on which the cluster's xgen has answered."""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import IO

import xgen
from xgen.remote.faults import RemoteError, no_far_end, other_version, ssh_fault
from xgen.remote.wire import PROTOCOL, Coming, Greeting, Hello, line, read_frame, read_hello
from xgen.spec import Ssh
from xgen.spec.base import Strict

_OPTIONS = {
    "BatchMode": "yes",  # whoever is asked for a password has no terminal
    "StrictHostKeyChecking": "yes",
    "ConnectTimeout": "15",
    "ServerAliveInterval": "5",
    "ServerAliveCountMax": "3",
    "ClearAllForwardings": "yes",
    "RemoteCommand": "none",
    "LogLevel": "ERROR",
}
_ANSWER_TIME = 90.0  # seconds in all for the far end to answer: Python from a slow file system
_END_TIME = 30.0  # seconds for ssh to end whose output has ended
_LONGEST_PATH = 100  # of a socket, in bytes, with what ssh adds to it


class Client:
    """ssh to one login node, by one shared connection where that can be."""

    def __init__(self, ssh: Ssh, answer_time: float = _ANSWER_TIME) -> None:
        self.ssh, self.answer_time = ssh, answer_time

    @cached_property
    def words(self) -> list[str]:
        """The command up to the host."""
        command = shlex.split(os.environ.get("XGEN_SSH_COMMAND") or "ssh")
        words = [*command, *(part for name, value in _OPTIONS.items() for part in ("-o", f"{name}={value}"))]
        if self.ssh.port:
            words += ["-p", str(self.ssh.port)]
        if self.ssh.user:
            words += ["-l", self.ssh.user]
        if self.ssh.identity:
            key = Path(self.ssh.identity).expanduser()
            if not os.access(key, os.R_OK):
                raise RemoteError(f"{self.ssh.said}: the key {key} is no file that can be read; write another identity")
            words += ["-i", str(key), "-o", "IdentitiesOnly=yes"]
        if not self._shares(words) and (socket := _socket(words)):
            words += ["-o", "ControlMaster=auto", "-o", "ControlPersist=60", "-o", f"ControlPath={socket}"]
        return words

    def _shares(self, words: Sequence[str]) -> bool:
        """Whether the person's own settings share connections with this host; then ours would only stand beside it."""
        done = self._run([*words, "-G", self.ssh.host])
        settings = dict(text.partition(" ")[::2] for text in done.stdout.splitlines())
        return settings.get("controlpath", "none") != "none"

    def _run(self, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=15, check=False
            )
        except FileNotFoundError:
            raise RemoteError(f"{words[0]} is not on PATH; install the OpenSSH client") from None
        except subprocess.TimeoutExpired:
            raise RemoteError(f"{shlex.join(words[:1])} did not answer within 15 s") from None

    def far_end(self, *more: str) -> str:
        """The command line of the far end, for the login shell there, whichever it is."""
        program = self.ssh.xgen
        home = program.startswith("~/")
        path = f'"$HOME"/{shlex.quote(program[2:])}' if home else shlex.quote(program)
        return " ".join(["exec", path, "far-end", *more])

    def on_terminal(self, request: str, *, terminal: bool) -> int:
        """Run a command there with this process's own input and output. Returns ssh's exit code."""
        flag = "-t" if terminal else "-T"
        words = [*self.words, flag, self.ssh.host, self.far_end("--terminal", request)]
        return subprocess.run(words, check=False).returncode


def _socket(words: Sequence[str]) -> str:
    """Where connections with these options are shared; '' where that cannot be."""
    base = Path(os.environ.get("XDG_RUNTIME_DIR") or "/tmp")  # checked below
    folder = base / f"xgen-ssh-{os.getuid()}"
    with suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        name = hashlib.sha256("\0".join(words).encode()).hexdigest()[:8] + "-%C"
        if found.st_uid == os.getuid() and not found.st_mode & 0o077 and len(f"{folder}/{name}") + 56 < _LONGEST_PATH:
            return f"{folder}/{name}"
    return ""


class Connection:
    """A far end that has answered. `hello` is its answer. Raises RemoteError where there is none."""

    def __init__(self, client: Client, greeting: Greeting) -> None:
        self._client = client
        # A file: the shared connection goes on in the background, and would hold a pipe open.
        said, name = tempfile.mkstemp()
        Path(name).unlink()
        self._said: IO[bytes] = os.fdopen(said, "w+b")
        words = [*client.words, "-T", client.ssh.host, client.far_end()]
        try:
            # A session of its own: the Ctrl-C of a terminal is for the command, which is told of it, and not for ssh.
            self._ssh: subprocess.Popen[bytes] = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, start_new_session=True
            )
        except FileNotFoundError:
            raise RemoteError(f"{words[0]} is not on PATH; install the OpenSSH client") from None
        try:
            self.hello = self._greet(greeting)
        except BaseException:
            self.close()
            raise

    def _greet(self, greeting: Greeting) -> Hello:
        hello = self._hello(greeting)
        if (hello.protocol, hello.version) != (PROTOCOL, xgen.__version__):
            raise other_version(self._client.ssh, hello.version, xgen.__version__)
        return hello

    def make_room(self, names: Sequence[str]) -> None:
        """For a copy with these files. Raises RemoteError."""
        self._hello(Coming(names=tuple(names)))

    def _hello(self, message: Strict) -> Hello:
        ssh, seconds = self._client.ssh, self._client.answer_time
        assert self._ssh.stdout
        self.tell(message)
        with self.killed_after(seconds):
            try:
                hello, printed = read_hello(self._ssh.stdout)
            except ValueError:
                raise RemoteError(f"{ssh.said}: the xgen there is another version; install this one") from None
        if hello is None:
            try:
                code = self._ssh.wait(_END_TIME)
            except subprocess.TimeoutExpired:
                raise RemoteError(f"{ssh.said}: what is printed there is no answer of xgen: {printed[:60]!r}") from None
            if code < 0:
                raise RemoteError(f"{ssh.said}: did not answer within {seconds:.0f} s", passes=True)
            raise ssh_fault(ssh, self.said()) if code == 255 else no_far_end(ssh, code, printed, self.said())
        return hello

    @contextmanager
    def killed_after(self, seconds: float) -> Iterator[None]:
        """While a read waits for it."""
        timer = threading.Timer(seconds, self._ssh.kill)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def tell(self, message: Strict) -> None:
        """Where the connection is lost, what comes back says so."""
        assert self._ssh.stdin
        with suppress(OSError):
            self._ssh.stdin.write(line(message))
            self._ssh.stdin.flush()

    def frame(self) -> tuple[str, bytes] | None:
        """None where the connection is lost."""
        assert self._ssh.stdout
        return read_frame(self._ssh.stdout)

    def said(self) -> str:
        self._said.seek(0)
        return self._said.read().decode(errors="replace")

    def close(self) -> None:
        for pipe in (self._ssh.stdin, self._ssh.stdout):
            with suppress(OSError):
                if pipe:
                    pipe.close()
        with suppress(subprocess.TimeoutExpired):
            self._ssh.wait(2)
        self._ssh.kill()
        self._ssh.wait()
        self._said.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def connect(client: Client, greeting: Greeting) -> Connection:
    """Raises RemoteError."""
    try:
        return Connection(client, greeting)
    except RemoteError as error:
        if not error.stale:
            raise
        return Connection(client, greeting)
