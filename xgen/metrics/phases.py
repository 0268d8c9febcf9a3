"""Time by phase as counters: no phase may ever go down, and their sum is wall time at every scrape."""

from __future__ import annotations

import threading
import time

from xgen.runs import PHASES, Ledger, Phase

_EXACT = 0.001  # seconds
_TRIES = 5


class PhaseCounters:
    """What the ledger says, made fit for Prometheus, which takes a falling counter for a restart.

    The ledger moves time between phases after the fact: what a step waited for data is known after the step. A
    phase that fell therefore stands still, and the others grow by wall time only, until all agree again.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._one_scrape = threading.Lock()
        self._published: dict[Phase, float] = dict.fromkeys(PHASES, 0.0)
        # Time between an end and a later `xgen resume` belongs to no phase.
        now = time.time()
        self._outside = now - ledger.began - sum(ledger.totals(now).values()) if ledger.phase else 0.0

    def read(self, now: float) -> dict[Phase, float]:
        """Seconds by phase; sums to the wall time of the run until `now`."""
        with self._one_scrape:
            wanted = self._settled_totals(now)
            steps = {phase: wanted[phase] - seconds for phase, seconds in self._published.items()}
            wall = sum(steps.values())
            growth = sum(step for step in steps.values() if step > 0)
            if wall > 0:
                for phase, step in steps.items():
                    self._published[phase] += max(0.0, step) * wall / growth
            return dict(self._published)

    def _settled_totals(self, now: float) -> dict[Phase, float]:
        """Totals that no event was changing while they were read: then they sum to wall time.

        The trainer writes its events in another thread and must never wait for a scrape: no lock, but another look.
        """
        for _ in range(_TRIES):
            totals = self.ledger.totals(now)
            wall = now - self.ledger.began - self._outside
            if self.ledger.phase is None or abs(sum(totals.values()) - wall) < _EXACT:
                break
        return totals
