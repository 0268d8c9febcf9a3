"""Work that gives no sign of progress and gets on all the same: bytes that move, a busy core, a log that grows."""

from __future__ import annotations

import os
from contextlib import suppress

from xgen.hang import proc
from xgen.hang.config import Config

_MOVED = 64 << 20  # bytes read or written between two looks: less is a log, or a metric that is scraped
_BUSY = 0.05  # of a core: who works less than that waits
_BY_BYTES = ("restore", "checkpoint", "stop", "work")
_BY_CPU = ("work",)  # a training that waits in a collective may be as busy as one that computes


class Activity:
    """Of one rank, between two looks."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._output = self._output_now()
        self._before: tuple[float, proc.Used] | None = None

    def forget(self) -> None:
        """The next look is the first again."""
        self._before = None

    def goes_on(self, phase: str, now: float) -> bool:
        """Whether something was done since the last look; at the first look nobody knows."""
        if phase == "command":
            before, self._output = self._output, self._output_now()
            return self._output != before
        if phase not in _BY_BYTES:
            return False
        last, used = self._before, proc.used(self._config.pid, but=os.getpid())
        self._before = (now, used)
        if last is None:
            return False
        if used.moved - last[1].moved >= _MOVED:
            return True
        return phase in _BY_CPU and used.cpu - last[1].cpu > _BUSY * (now - last[0])

    def _output_now(self) -> tuple[int, ...]:
        """Of what a command leaves: the log, which is that of all ranks, and the checkpoints."""
        found = []
        with suppress(OSError):
            for name in ("out.log", "err.log"):
                found.append((self._config.attempt_dir / name).stat().st_size)
            found.append((self._config.run_dir / "checkpoints").stat().st_mtime_ns)
        return tuple(found)
