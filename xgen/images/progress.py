"""How far a long step is: one line a step, on a terminal with the bytes and the time so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TextIO

from xgen.spec.units import format_bytes, format_duration

Tick = Callable[[int], None]  # bytes so far; 0 where only the time is known
_QUIET_SECONDS = 30.0


class Progress(Protocol):
    def say(self, text: str) -> None: ...

    def step(self, text: str) -> AbstractContextManager[Tick]: ...


class Silent:
    """For callers that want the result only."""

    def say(self, text: str) -> None:
        del text

    @contextmanager
    def step(self, text: str) -> Iterator[Tick]:
        del text
        yield lambda _: None


class Lines:
    """Plain lines, for a file or a pipe: when a step begins, every half a minute, and when it ends."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock

    def say(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    @contextmanager
    def step(self, text: str) -> Iterator[Tick]:
        began = said = self._clock()
        done = 0
        self.say(f"{text} …")

        def tick(count: int) -> None:
            nonlocal said, done
            done = max(done, count)
            if self._clock() - said >= _QUIET_SECONDS:
                said = self._clock()
                self.say(f"  … {_so_far(done, said - began)}")

        yield tick
        self.say(f"  done: {_so_far(done, self._clock() - began)}")


class Terminal:
    """A line that is redrawn (rich), left behind with its total when the step ends."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console

        self._console = Console(file=stream, highlight=False, markup=False)

    def say(self, text: str) -> None:
        self._console.print(text)

    @contextmanager
    def step(self, text: str) -> Iterator[Tick]:
        began = time.monotonic()
        done = 0
        with self._console.status(text) as status:

            def tick(count: int) -> None:
                nonlocal done
                done = max(done, count)
                status.update(f"{text}  {_so_far(done, time.monotonic() - began)}")

            yield tick
        self._console.print(f"{text}  {_so_far(done, time.monotonic() - began)}")


def _so_far(count: int, seconds: float) -> str:
    return f"{format_bytes(count)}, {format_duration(seconds)}" if count else format_duration(seconds)
