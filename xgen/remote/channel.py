"""The connection as the cluster's end has it, and the process that becomes the command."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from xgen.cluster.secrets import bring
from xgen.remote import said
from xgen.remote.wire import Kind, Lines, Order, Request, frame, parse
from xgen.spec.base import Strict


class Channel:
    """The connection, moved away from where programs look for their input and output."""

    def __init__(self) -> None:
        self.lines, self._out = Lines(os.dup(0)), os.dup(1)
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.dup2(nothing, 1)
        os.close(nothing)

    def leave(self) -> None:
        """In a process that goes on without it: only once all have left can ssh end."""
        os.close(self.lines.fd)
        os.close(self._out)
        os.dup2(0, 2)

    def say(self, content: bytes) -> None:
        left = memoryview(content)
        try:
            while left:
                left = left[os.write(self._out, left) :]
        except OSError:
            self.lines.closed = True

    def frame(self, kind: Kind, content: bytes) -> None:
        if content:
            self.say(frame(kind, content))

    def hear(self, *types: type[Strict]) -> Strict:
        """Exits where the laptop says no more."""
        text = self.lines.next()
        if text is None:
            sys.exit()
        return parse(text, *types)

    def order(self, timeout: float) -> Order | None:
        text = self.lines.next(timeout)
        found = parse(text, Order) if text is not None else None
        return found if isinstance(found, Order) else None


def become(channel: Channel, request: Request, out: int, err: int) -> None:
    """This process is the command from now on."""
    os.setpgid(0, 0)  # what the laptop's Ctrl-C is for
    channel.leave()
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.close(out)
    os.close(err)
    os.chdir(request.folder)
    os.environ.update(request.env)
    bring(dict(request.secrets))
    said.options = request.options
    sys.argv = ["xgen", *request.options, *request.words]


def tell_group(group: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)


def code_of(pid: int, how: int = 0) -> int | None:
    """None for one that runs."""
    found, status = os.waitpid(pid, how)
    if not found:
        return None
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code
