"""What the two ends tell each other: messages as lines of JSON to the cluster, frames of bytes back."""

from __future__ import annotations

import base64
import os
import select
from typing import IO, Literal

from pydantic import ValidationError

from xgen.cluster.copied import Copied
from xgen.spec.base import Strict

PROTOCOL = 1
_MARK = b"xgen-far-end "  # before the first answer: a login shell may print its own words first
_LONGEST_HELLO = 1 << 16  # bytes of such words
Kind = Literal["out", "err", "end"]
_LETTERS: dict[Kind, bytes] = {"out": b"o", "err": b"e", "end": b"x"}
_KINDS = {letter: kind for kind, letter in _LETTERS.items()}


class Greeting(Strict):
    """The first word: who asks, and which folders it will use."""

    protocol: int
    version: str
    folder: str  # for copies, as the profile has it
    copy_name: str  # '' for none
    makes_copy: bool  # else it is used where it is there


class Hello(Strict):
    """The answer. `tree`: where the copy lies, '' where there is none; `error`: why it cannot be."""

    protocol: int
    version: str
    home: str
    tree: str
    error: str = ""


class Coming(Strict):
    """What the copy will hold, before it is brought: what it held and holds no more goes. The answer is another
    Hello."""

    names: tuple[str, ...]


class Request(Strict):
    """A command to run. `session`: it outlives the connection under this name; '' where it ends with it."""

    words: tuple[str, ...]
    options: tuple[str, ...]  # what stands before the command, on the laptop
    folder: str
    env: dict[str, str]
    secrets: tuple[tuple[str, str], ...] = ()  # where the spec says that a value is, and the value
    copied: Copied | None = None
    session: str = ""


class Attach(Strict):
    """Go on showing a command: what comes after so many bytes."""

    session: str
    out: int
    err: int


class Order(Strict):
    """A signal for the command, or `done`: all has arrived, and nobody comes back."""

    signal: int = 0
    done: bool = False


def line(message: Strict) -> bytes:
    return type(message).__name__.encode() + b" " + message.model_dump_json().encode() + b"\n"


def parse(text: bytes, *types: type[Strict]) -> Strict:
    """Raises ValueError for what is none of these."""
    name, _, body = text.partition(b" ")
    for one in types:
        if one.__name__.encode() == name:
            try:
                return one.model_validate_json(body)
            except ValidationError as error:
                raise ValueError(str(error)) from None
    raise ValueError(f"{name[:40]!r} is no message")


def hello_line(hello: Hello) -> bytes:
    return _MARK + line(hello)


def read_hello(stream: IO[bytes]) -> tuple[Hello | None, str]:
    """The answer, and what was printed before it; None where the other end has closed without one."""
    before = b""
    while len(before) < _LONGEST_HELLO and (text := stream.readline()):
        _, mark, rest = text.partition(_MARK)
        if mark:
            hello = parse(rest.rstrip(b"\n"), Hello)
            assert isinstance(hello, Hello)
            return hello, before.decode(errors="replace")
        before += text
    return None, before.decode(errors="replace")


def frame(kind: Kind, content: bytes) -> bytes:
    return b"%s %d\n%s" % (_LETTERS[kind], len(content), content)


def read_frame(stream: IO[bytes]) -> tuple[Kind, bytes] | None:
    """None where the connection has ended."""
    head = stream.readline()
    letter, _, size = head.strip().partition(b" ")
    if not head.endswith(b"\n") or letter not in _KINDS or not size.isdigit():
        return None
    content = stream.read(int(size))
    return (_KINDS[letter], content) if len(content) == int(size) else None


class Lines:
    """Lines of a file descriptor, as they come."""

    def __init__(self, fd: int) -> None:
        self.fd, self.closed = fd, False
        self._rest = bytearray()

    def next(self, timeout: float | None = None) -> bytes | None:
        """None where none has come, or `closed`."""
        seen = 0
        while (end := self._rest.find(b"\n", seen)) < 0 and not self.closed:
            seen = len(self._rest)
            if not select.select([self.fd], [], [], timeout)[0]:
                return None
            try:
                part = os.read(self.fd, 1 << 16)
            except OSError:
                part = b""
            self.closed = not part
            self._rest += part
        if end < 0:
            return None
        text = bytes(self._rest[:end])
        del self._rest[: end + 1]
        return text


def quoted(request: Request) -> str:
    """A request without secrets as one word, which every shell leaves as it is."""
    assert not request.secrets
    return base64.urlsafe_b64encode(request.model_dump_json().encode()).decode()


def unquoted(text: str) -> Request:
    return Request.model_validate_json(base64.urlsafe_b64decode(text))
