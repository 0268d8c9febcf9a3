"""Numbered messages over a stream socket, without waiting: what the verifier's processes speak."""

from __future__ import annotations

import select
import socket
import struct
import time

_HEAD = struct.Struct(">QI")
_READ = 1 << 18


class ClosedError(Exception):
    """The other end is gone."""


class Channel:
    """Sends and receives (number, body); nothing is lost or cut while both ends live."""

    def __init__(self, end: socket.socket, most: int = 1 << 30) -> None:
        self.socket = end
        end.setblocking(False)
        self._most = most  # bytes of a body
        self._in, self._out = bytearray(), bytearray()

    def fileno(self) -> int:
        return self.socket.fileno()

    @property
    def is_sending(self) -> bool:
        return bool(self._out)

    def send(self, number: int, body: bytes) -> None:
        """As much as the other end takes now; the rest with `flush`. Raises ClosedError."""
        self.put(number, body)
        self.flush()

    def put(self, number: int, body: bytes) -> None:
        """For the next `flush`."""
        self._out += _HEAD.pack(number, len(body)) + body

    def flush(self) -> None:
        try:
            while self._out:
                del self._out[: self.socket.send(memoryview(self._out)[:_READ].tobytes())]
        except BlockingIOError:
            pass
        except OSError as error:
            raise ClosedError from error

    def receive(self) -> list[tuple[int, bytes]]:
        """What is here by now. Raises ClosedError when nothing is and nothing will be."""
        closed = False
        try:
            while data := self.socket.recv(_READ):
                self._in += data
                if len(data) < _READ:
                    break
            else:
                closed = True
        except BlockingIOError:
            pass
        except OSError:
            closed = True
        found, at = [], 0
        while len(self._in) >= at + _HEAD.size:
            number, size = _HEAD.unpack_from(self._in, at)
            if size > self._most:
                raise ClosedError
            end = at + _HEAD.size + size
            if len(self._in) < end:
                break
            found.append((number, bytes(self._in[at + _HEAD.size : end])))
            at = end
        del self._in[:at]
        if closed and not found:
            raise ClosedError
        return found

    def wait(self, seconds: float | None) -> list[tuple[int, bytes]]:
        """At least one message, after at most so long, else []. Sends what is left meanwhile. Raises ClosedError."""
        until = None if seconds is None else time.monotonic() + seconds
        while True:
            left = None if until is None else max(until - time.monotonic(), 0)
            events = self._poll(select.POLLIN | (select.POLLOUT if self._out else 0), left)
            if events & select.POLLOUT:
                self.flush()
            if events & ~select.POLLOUT and (found := self.receive()):
                return found
            if until is not None and time.monotonic() >= until:
                return []

    def drain(self, seconds: float) -> bool:
        """All that was sent is on its way."""
        until = time.monotonic() + seconds
        while self._out and time.monotonic() < until:
            self._poll(select.POLLOUT, until - time.monotonic())
            self.flush()
        return not self._out

    def _poll(self, events: int, seconds: float | None) -> int:
        """Not `select`, which ends at file descriptor 1024."""
        poller = select.poll()
        poller.register(self, events)
        found = poller.poll(None if seconds is None else max(seconds, 0) * 1000)
        return found[0][1] if found else 0

    def close(self) -> None:
        self.socket.close()
