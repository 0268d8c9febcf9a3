"""`xgen` in processes of its own, forked from one that has imported it: a tenth of a second a call instead of a half.

    python -m tests.warm FD     serves calls that come over the socket FD, until that is closed

A call is a message (arguments, folder, environment) and three pipes: its output, its errors, and its process id and
exit code. What reads the environment as it is imported has to be a new process: `is_as_new` says so.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

MAIN = "xgen.cli.main"
# No numpy, no torch: whoever is forked has one thread, and loads what is heavy as the command itself does.
_USED = ("yaml", "xgen.spec", "xgen.runs", "xgen.cluster.local", "xgen.cluster.submit", "xgen.cluster.status")
_AT_START = ("PYTHON", "XGEN_", "LC_", "LANG", "LD_")


def _fixed(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(_AT_START)}


_OURS = _fixed(os.environ)


def is_as_new(environment: Mapping[str, str]) -> bool:
    """Whether a process that is forked is in this environment as one that has begun in it."""
    return _fixed(environment) == _OURS


@cache
def _server() -> socket.socket:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        subprocess.Popen(
            [sys.executable, "-m", "tests.warm", str(theirs.fileno())], cwd=Path(__file__).parents[1],
            pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip
    return ours


def call(
    arguments: Sequence[str], folder: Path, environment: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """As subprocess.run with `capture_output` and `text`."""
    command = [sys.executable, "-m", MAIN, *arguments]
    pipes = [os.pipe() for _ in range(3)]
    message = json.dumps([[str(one) for one in arguments], str(folder), dict(environment)]).encode()
    socket.send_fds(_server(), [message], [written for _, written in pipes])
    for _, written in pipes:
        os.close(written)
    said = {read: b"" for read, _ in pipes}
    try:
        is_in_time = _read(said, time.monotonic() + timeout)
    finally:
        for read in said:
            os.close(read)
    out, err, end = said.values()
    numbers = [int(number) for number in end.split()]  # none: it has not even begun
    if not is_in_time:
        if len(numbers) == 1:  # with a second it has ended, and another process holds its output
            os.kill(numbers[0], signal.SIGKILL)
        raise subprocess.TimeoutExpired(command, timeout, out, err)
    return subprocess.CompletedProcess(command, numbers[1], _text(out), _text(err))


def _read(said: dict[int, bytes], deadline: float) -> bool:
    """All that comes, to its end; False where that does not come in time."""
    with selectors.DefaultSelector() as selector:
        for read in said:
            selector.register(read, selectors.EVENT_READ)
        while selector.get_map():
            if (left := deadline - time.monotonic()) <= 0:
                return False
            for key, _ in selector.select(left):
                part = os.read(key.fd, 1 << 16)
                said[key.fd] += part
                if not part:
                    selector.unregister(key.fd)
    return True


def _text(content: bytes) -> str:
    return content.decode().replace("\r\n", "\n").replace("\r", "\n")


def _serve(channel: socket.socket) -> None:
    """Returns in the process of a call, ready to run the command; ends the server when nobody can ask any more."""
    importlib.import_module(MAIN)
    for name in _USED:
        importlib.import_module(name)
    del sys.modules[MAIN]  # which runs as the main module
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the keepers
    while True:
        message, pipes, *_ = socket.recv_fds(channel, 1 << 20, 3)
        if not message:
            sys.exit()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            return _begin(message, *pipes)
        for written in pipes:
            os.close(written)


def _begin(message: bytes, out: int, err: int, end: int) -> None:
    arguments, folder, environment = json.loads(message)
    if pid := os.fork():  # the keeper
        os.dup2(os.open(os.devnull, os.O_RDWR), out)
        os.dup2(out, err)
        os.write(end, f"{pid} ".encode())
        os.write(end, str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())
        os._exit(0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.closerange(3, 256)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[0] = folder
    sys.argv = ["xgen", *arguments]


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
    runpy.run_module(MAIN, run_name="__main__", alter_sys=True)
