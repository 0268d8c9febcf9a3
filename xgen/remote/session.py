"""A command that outlives the connection: its output goes to files, from which it is told, now or after another
connection."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from xgen.remote.channel import Channel, become, code_of, tell_group
from xgen.remote.wire import Kind, Request
from xgen.runs import write_atomic

_QUICK, _SLOW = 0.02, 0.25  # seconds between two looks at what a command has written
_BEGIN = 60.0  # seconds for a command to begin, on a login node that is busy
_HEAR = 5.0  # seconds for a request to arrive whose laptop is here again already, and for the laptop's last word
_KEPT = 7 * 86400.0  # seconds for which a command's last words are kept for a laptop that does not come back


@dataclass(frozen=True)
class Session:
    """Its folder: what it has printed, who keeps it, and in the end its exit code."""

    path: Path

    def create(self) -> None:
        for folder in (self.path.parent.parent, self.path.parent):  # mkdir gives the mode to the last one only
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for old in self.path.parent.iterdir():
            with suppress(OSError):
                if time.time() - old.stat().st_mtime > _KEPT:
                    shutil.rmtree(old)
        self.path.mkdir(mode=0o700)
        for name in ("out", "err"):
            os.close(self.open(name, os.O_CREAT | os.O_EXCL))
        write_atomic(self.path / "who", "", mode=0o600)  # where there is no room, it is known before anything is done

    def open(self, name: str, flags: int) -> int:
        return os.open(self.path / name, flags | os.O_WRONLY | os.O_APPEND, 0o600)

    def read(self, name: str, at: int) -> bytes:
        with (self.path / name).open("rb") as file:
            file.seek(at)
            return file.read(1 << 20)

    def code(self) -> str | None:
        try:
            return (self.path / "code").read_text()
        except FileNotFoundError:
            return None

    def who(self) -> tuple[str, int, int]:
        """Host, process that keeps it, process group of the command."""
        words = (self.path / "who").read_text().split()
        return (words[0], int(words[1]), int(words[2])) if words else ("", 0, 0)

    def has_begun(self) -> bool:
        try:
            return bool(self.who()[0])
        except FileNotFoundError:
            return False

    def is_dead(self) -> bool:
        """Whether its keeper has gone without a word, as at a reboot; of another login node nobody knows."""
        host, keeper, _ = self.who()
        if host != os.uname().nodename:
            return False
        try:
            os.kill(keeper, 0)
        except ProcessLookupError:
            return self.code() is None
        except PermissionError:
            return True
        return False


def keep(channel: Channel, request: Request, session: Session) -> None:
    """Begin a command and tell what it prints. Returns in the process that is the command; every other one exits."""
    if os.fork():
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # a keeper that was killed is gone
        tell(channel, session, 0, 0)
    os.setsid()
    out, err = (session.open(name, 0) for name in ("out", "err"))
    if (pid := os.fork()) == 0:
        return become(channel, request, out, err)
    try:
        channel.leave()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        write_atomic(session.path / "who", f"{os.uname().nodename} {os.getpid()} {pid}", mode=0o600)
        write_atomic(session.path / "code", str(code_of(pid)), mode=0o600)
    finally:
        os._exit(0)


def tell(channel: Channel, session: Session, out: int, err: int) -> None:
    """What the command has printed after so many bytes, until it ends. Exits."""
    asked = time.monotonic()
    while not session.has_begun():
        is_there = session.path.is_dir()
        if time.monotonic() > asked + (_BEGIN if is_there else _HEAR):
            channel.frame("end", b"gone" if is_there else b"absent")
            sys.exit()
        time.sleep(_QUICK)
    places: dict[Kind, int] = {"out": out, "err": err}
    pause = _QUICK
    while not channel.lines.closed:
        code = session.code()  # before what it printed, so that all of that is there
        is_dead = code is None and session.is_dead()
        new = {kind: session.read(kind, at) for kind, at in places.items()}
        for kind, part in new.items():
            channel.frame(kind, part)
            places[kind] += len(part)
        if any(new.values()):
            pause = _QUICK
            continue
        if code is not None or is_dead:
            channel.frame("end", (code or "gone").encode())
            if (order := channel.order(_HEAR)) is not None and order.done:
                shutil.rmtree(session.path, ignore_errors=True)
            break
        order = channel.order(pause)
        if order is not None and order.signal and session.who()[0] == os.uname().nodename:
            tell_group(session.who()[2], order.signal)
        pause = min(_SLOW, 1.5 * pause)
    sys.exit()
