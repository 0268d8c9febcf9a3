"""How long nothing may move: what the spec says for each phase, and what the rank's own pace has shown."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

_TIMES_MEDIAN, _TIMES_LONGEST = 20, 3
_WINDOW = 200  # intervals that the median is of
# A collective gives up after 10 minutes (xgen/train/config.py), and then nobody knows any more where the ranks stood.
_BEFORE_COLLECTIVES = 540.0


class Limits(NamedTuple):
    """Seconds between two signs of progress, by phase; a phase that is not there has no limit. `learns`: that of
    `train` is the least, and is raised to what the steps take."""

    seconds: Mapping[str, float]
    learns: bool = True

    @property
    def shortest(self) -> float:
        return min(self.seconds.values(), default=float("inf"))


class Pace:
    """Intervals between signs of progress, by phase."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._recent: dict[str, deque[float]] = {}
        self._longest: dict[str, float] = {}

    def add(self, phase: str, seconds: float, signs: int) -> None:
        """So many signs came in so many seconds."""
        self._recent.setdefault(phase, deque(maxlen=_WINDOW)).append(seconds / signs)
        self._longest[phase] = max(self._longest.get(phase, 0.0), seconds / signs)

    def median(self, phase: str) -> float | None:
        recent = self._recent.get(phase)
        return sorted(recent)[len(recent) // 2] if recent else None

    def limit(self, phase: str) -> float:
        """Seconds after which a phase counts as hung; infinite for one without a limit.

        Twenty times the median step: one that waits for a disk or a page of data is no hang. Three times the longest of
        the phase: what has happened once may happen again, a little worse.
        """
        least = self.limits.seconds.get(phase)
        if least is None:
            return float("inf")
        median = self.median(phase)
        if median is None or (phase == "train" and not self.limits.learns):
            return least
        usual = min(_TIMES_MEDIAN * median, _BEFORE_COLLECTIVES) if phase == "train" else 0.0
        return max(least, usual, _TIMES_LONGEST * self._longest[phase])
