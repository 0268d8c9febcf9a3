"""How often to save: the interval that makes most of the time, for failures that come at random.

A save stops the training for `cost` seconds, and counts once it is durable, `lag` seconds after it began. A failure
costs the time since the last save that counts, half an interval and the lag on average, and the restart. The share of
the time that trains is 1 - cost / interval - (interval / 2 + lag + restart) / mttf; it is greatest at
interval = sqrt(2 cost mttf) (Young 1974; Daly 2006 for what it leaves out where the three are of one size).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, sqrt

# Llama 3 (arXiv 2407.21783, section 3.3.4): 419 unexpected interruptions in 54 days on 16,384 GPUs.
GPU_MTTF = 54 * 86400 * 16384 / 419  # seconds
RESTART = 300.0  # seconds from a failure to the next step: ours


@dataclass(frozen=True)
class Saving:
    """Seconds; `ettr` is the expected effective training time ratio, without what the queue takes."""

    mttf: float
    cost: float
    lag: float
    every: int  # steps
    interval: float
    ettr: float


def best_saving(cost: float, lag: float, step: float, mttf: float, restart: float = RESTART) -> Saving:
    """The best number of steps, at least one. It is never so small that a save is due while the one before is being
    written: that one would be left out."""
    every = max(1, ceil((lag + cost) / step), round(sqrt(2 * cost * mttf) / step))
    interval = every * step
    return Saving(mttf, cost, lag, every, interval, ettr(interval, cost, lag, mttf, restart))


def ettr(interval: float, cost: float, lag: float, mttf: float, restart: float = RESTART) -> float:
    """Expected share of the time that trains, at least 0."""
    return max(0.0, 1 - cost / interval - (interval / 2 + lag + restart) / mttf)
