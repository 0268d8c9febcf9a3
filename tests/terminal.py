"""A terminal whose other end is read at once, as a person's is: one that nobody reads stops its writer after 4 KB."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import termios
import threading
import time


class Terminal:
    """`fd` is what a program is given for its streams."""

    def __init__(self, columns: int = 80, lines: int = 24) -> None:
        self._ours, self.fd = pty.openpty()
        self.resize(columns, lines)
        self._said, self._told = bytearray(), 0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, text: str) -> None:
        """As a person does."""
        os.write(self._ours, text.encode())

    def until(self, text: str, seconds: float = 60) -> str:
        """What was shown since the last such question, once `text` is in it."""
        deadline = time.monotonic() + seconds
        while text.encode() not in self._said[self._told :]:
            assert time.monotonic() < deadline, self.shown
            time.sleep(0.02)
        told, self._told = self._told, len(self._said)
        return self._said[told : self._told].decode(errors="replace")

    @property
    def shown(self) -> str:
        """All of it so far."""
        return self._said.decode(errors="replace")

    def close(self) -> str:
        """All that was shown, by programs that have ended."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            self._reader.join(10)
            os.close(self._ours)
        return self.shown

    def _read(self) -> None:
        try:
            while chunk := os.read(self._ours, 1 << 16):
                self._said += chunk
        except OSError:  # nobody has the other end any more
            pass
