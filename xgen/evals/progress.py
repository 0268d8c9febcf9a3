"""Now and then a line of how far a shard is."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from xgen.evals.protocol import Item
from xgen.spec.units import format_duration

_EVERY = 10.0  # seconds between two lines


def say(text: str) -> None:
    print(text, flush=True)


class Meter:
    """Of one suite of one checkpoint. What is left takes as long for each token as what is done: long samples come
    last."""

    def __init__(
        self,
        what: str,
        done: int,
        left: Sequence[Item],
        clock: Callable[[], float] = time.monotonic,
        show: Callable[[str], None] = say,
    ) -> None:
        """`done`: samples of the shard that attempts before have scored."""
        self._what, self._done, self._total = what, done, done + len(left)
        self._clock, self._show = clock, show
        self._began = self._shown = clock()
        self._num = 0  # of this attempt
        self._tokens, self._all_tokens = 0, sum(_weight(item) for item in left)

    def add(self, item: Item) -> None:
        """One more is done."""
        self._num += 1
        self._tokens += _weight(item)
        now = self._clock()
        if now - self._shown >= _EVERY and self._done + self._num < self._total:
            self._shown = now
            seconds = now - self._began
            left = seconds * (self._all_tokens - self._tokens) / self._tokens
            self._show(
                f"{self._what} {self._done + self._num:,}/{self._total:,} samples, "
                f"{_rate(self._num / seconds)}, about {_coarse(left)} left"
            )

    def end(self) -> None:
        """None is left."""
        seconds = self._clock() - self._began
        self._show(f"{self._what} {self._total:,} samples, {self._num:,} of them in {_coarse(seconds)}")


def _weight(item: Item) -> int:
    return max(1, item.length)


def _rate(a_second: float) -> str:
    return f"{a_second:.1f} a second" if a_second >= 1 else f"{60 * a_second:.1f} a minute"


def _coarse(seconds: float) -> str:
    return format_duration(seconds if seconds < 100 else round(seconds / 60) * 60)
