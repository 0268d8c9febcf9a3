"""What is done about a loss or a gradient norm that is not finite, or far above the last ones. No torch.

Every rank judges the numbers of rank 0, which were reduced over all of them, and so comes to the same verdict.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from dataclasses import dataclass
from typing import Literal

from xgen.spec import Guard

# Losses and gradient norms of the last steps, at which steps it acted, and how many it has seen.
GuardState = tuple[tuple[float, ...], tuple[float, ...], tuple[int, ...], int]
Action = Literal["", "record", "skip", "rollback", "stop"]
_MAD_TO_SIGMA = 1.4826  # of a normal distribution
_LEAST_SPREAD = 1e-2  # of the median: losses that hardly differ must not make a spike of a ripple


@dataclass(frozen=True)
class Verdict:
    """`action` is '' for a step as any other. `reason` names the value and what it was held against."""

    action: Action
    reason: str = ""

    @property
    def applies(self) -> bool:
        """Whether the step changes the weights."""
        return self.action in ("", "record")


class StepGuard:
    """Remembers the last steps of the stage: a spike is not seen in its first ones. Checkpoints hold what it knows."""

    def __init__(self, policy: Guard) -> None:
        self._policy = policy
        self.forget()

    def forget(self) -> None:
        """Begin anew, with other data."""
        self.state = (), (), (), 0

    @property
    def state(self) -> GuardState:
        """All that it knows."""
        return tuple(self._losses), tuple(self._norms), self.acted, self._seen

    @state.setter
    def state(self, state: GuardState) -> None:
        losses, norms, acted, self._seen = state
        self.median_loss: float | None = None  # of the steps before the last one; None: too few to say
        self._losses = deque(losses, self._policy.window)
        self._norms = deque(norms, self._policy.window)
        self.acted = acted  # number of steps seen, at each skip or rollback

    def judge(self, loss: float, grad_norm: float) -> Verdict:
        """The verdict on a step, given over all ranks, before it changes a weight."""
        self._seen += 1
        verdict = self._judge(loss, grad_norm)
        if verdict.action in ("", "record"):
            # A spike that is only recorded is the new level, if it stays.
            self._losses.append(loss)
            self._norms.append(grad_norm)
            return verdict
        # After a rollback fewer steps have been seen than at its cause.
        self.acted = *(seen for seen in self.acted if seen > self._seen - self._policy.window), self._seen
        if verdict.action != "stop" and len(self.acted) > self._policy.most:
            many = f"{len(self.acted)} in the last {self._policy.window} steps, and guard.most is {self._policy.most}"
            return Verdict("stop", f"{verdict.reason}; {many}")
        return verdict

    def _judge(self, loss: float, grad_norm: float) -> Verdict:
        values = (("loss", loss, self._losses), ("gradient norm", grad_norm, self._norms))
        for name, value, _ in values:
            if not math.isfinite(value):
                return Verdict(self._policy.non_finite, f"{name} {value}")
        for name, value, before in values:
            if len(before) < min(self._policy.window, 20):
                continue
            median = statistics.median(before)
            self.median_loss = median if name == "loss" else self.median_loss
            spread = _MAD_TO_SIGMA * statistics.median(abs(other - median) for other in before)
            limit = median + self._policy.threshold * max(spread, _LEAST_SPREAD * abs(median))
            if value > limit:
                reason = f"{name} {value:.4g} is above {limit:.4g}, the median of {len(before)} steps is {median:.4g}"
                return Verdict(self._policy.spike, reason)
        return Verdict("")
