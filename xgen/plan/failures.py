"""How often to save: the interval that makes most of the time, for failures that come at random.

A save costs `cost` seconds of training, a failure the time since the last save, half an interval on average, and the
restart. The share of the time that trains is 1 - cost / interval - (interval / 2 + restart) / mttf; it is greatest at
interval = sqrt(2 cost mttf) (Young 1974; Daly 2006 for what it leaves out where the three are of one size).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

# Llama 3 (arXiv 2407.21783, section 3.3.4): 419 unexpected interruptions in 54 days on 16,384 GPUs.
GPU_MTTF = 54 * 86400 * 16384 / 419  # seconds
RESTART = 300.0  # seconds from a failure to the next step: ours


@dataclass(frozen=True)
class Saving:
    """Seconds; `ettr` is the expected effective training time ratio, without what the queue takes."""

    mttf: float
    cost: float
    interval: float
    ettr: float


def best_interval(cost: float, mttf: float, restart: float = RESTART) -> Saving:
    interval = sqrt(2 * cost * mttf)
    return Saving(mttf, cost, interval, ettr(interval, cost, mttf, restart))


def ettr(interval: float, cost: float, mttf: float, restart: float = RESTART) -> float:
    """Expected share of the time that trains, at least 0."""
    return max(0.0, 1 - cost / interval - (interval / 2 + restart) / mttf)
