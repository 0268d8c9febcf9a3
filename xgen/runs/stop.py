"""The stop flag: what a signal means to a running task."""

from __future__ import annotations

import signal
import time
from types import FrameType

STOP_SIGNALS = (signal.SIGUSR2, signal.SIGTERM)


class StopFlag:
    """Set by SIGUSR2 (SLURM's early warning) or SIGTERM (no warning); never cleared.

    The handler only sets the flag: the work saves and leaves at its next safe point. A second signal
    changes nothing, so a save under way is finished.
    """

    def __init__(self) -> None:
        self.signal = ""  # name of the first signal, '' when none came
        self.time = 0.0  # seconds since the epoch

    def __bool__(self) -> bool:
        return bool(self.signal)

    def arm(self) -> None:
        """Install the handlers, then let in what came while the signals were blocked."""
        for number in STOP_SIGNALS:
            signal.signal(number, self._on_signal)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if not self.signal:
            self.time = time.time()
            self.signal = signal.Signals(number).name
