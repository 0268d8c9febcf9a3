"""The cluster's end of a command that a laptop asked for: `xgen far-end`, which ssh starts there.

A command that only looks ends with the connection. One that changes something outlives it: its output goes to files,
from which it is told, now or after another connection.
"""

from __future__ import annotations

import os
import selectors
import signal
import sys
import time
from pathlib import Path

import xgen
from xgen.cluster.copied import make_copy, make_room, take_in
from xgen.remote import said
from xgen.remote.channel import Channel, become, code_of, tell_group
from xgen.remote.session import Session, keep, tell
from xgen.remote.wire import PROTOCOL, Attach, Coming, Greeting, Hello, Kind, Request, hello_line, unquoted

_GRACE = 5.0  # seconds to end for a command whose connection has ended


def serve() -> None:
    """Talk to the laptop. Returns in the process that is the command, ready to run it; every other one exits."""
    channel = Channel()
    greeting = channel.hear(Greeting)
    assert isinstance(greeting, Greeting)
    folder = Path(greeting.folder).expanduser()
    tree, error = (folder / greeting.copy_name).resolve(), ""  # as the specs in it will have it
    try:
        if greeting.makes_copy:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            make_copy(tree)
    except OSError as failed:
        error = _said(failed, tree)
    there = str(tree) if greeting.copy_name and tree.is_dir() else ""
    hello = Hello(protocol=PROTOCOL, version=xgen.__version__, home=str(Path.home()), tree=there, error=error)
    channel.say(hello_line(hello))
    asked = channel.hear(Request, Attach, Coming)
    if isinstance(asked, Coming):
        make_room(tree, asked.names)
        channel.say(hello_line(hello))
        asked = channel.hear(Request)
    if isinstance(asked, Attach):
        tell(channel, Session(folder / "sessions" / asked.session), asked.out, asked.err)
    assert isinstance(asked, Request)
    session = Session(folder / "sessions" / asked.session) if asked.session else None
    try:
        if asked.copied is not None:
            take_in(tree, asked.copied)
            Path(asked.folder).mkdir(parents=True, exist_ok=True)  # git knows no empty ones
        if session:
            session.create()
    except OSError as failed:
        channel.frame("err", f"{_said(failed, tree)}\n".encode())
        channel.frame("end", b"1")
        sys.exit()
    if session:
        keep(channel, asked, session)
    else:
        _relay(channel, asked)


def _said(failed: OSError, place: Path) -> str:
    return f"{failed.filename or place}: {failed.strerror}"


# A command that only looks.


def _relay(channel: Channel, request: Request) -> None:
    """Begin a command and pass on what it prints. Returns in the process that is the command."""
    out, err = os.pipe(), os.pipe()
    if (pid := os.fork()) == 0:
        os.close(out[0])
        os.close(err[0])
        return become(channel, request, out[1], err[1])
    os.close(out[1])
    os.close(err[1])
    kinds: dict[int, Kind] = {out[0]: "out", err[0]: "err"}
    with selectors.DefaultSelector() as selector:
        for fd in (*kinds, channel.lines.fd):
            selector.register(fd, selectors.EVENT_READ)
        code = None
        while kinds:
            ready = {key.fd for key, _ in selector.select(0 if code is not None else 0.2)}
            for fd in ready & kinds.keys():
                part = os.read(fd, 1 << 16)
                channel.frame(kinds[fd], part)
                if not part:
                    selector.unregister(fd)
                    del kinds[fd]
            while channel.lines.fd in ready and (order := channel.order(0)) is not None:
                tell_group(pid, order.signal)
            if channel.lines.closed and code is None:
                _end(pid)
            if code is not None and not ready & kinds.keys():
                break  # what still holds its output is no part of it
            code = code_of(pid, os.WNOHANG) if code is None else code
        if code is None:
            code = code_of(pid)
    channel.frame("end", str(code).encode())
    sys.exit()


def _end(pid: int) -> None:
    """Of a command that nobody listens to."""
    tell_group(pid, signal.SIGTERM)
    deadline = time.monotonic() + _GRACE
    while code_of(pid, os.WNOHANG) is None:
        if time.monotonic() > deadline:
            tell_group(pid, signal.SIGKILL)
        time.sleep(0.02)
    sys.exit()


# A command for a terminal: the connection is its terminal.


def become_terminal(text: str) -> None:
    """This process is the command that `wire.quoted` has written."""
    request = unquoted(text)
    os.chdir(request.folder)
    os.environ.update(request.env)
    said.options = request.options
    sys.argv = ["xgen", *request.options, *request.words]
