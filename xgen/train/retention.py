"""Which checkpoints of a run stay. Pure: the trainer and the CLI delete by it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Summary:
    """What of a checkpoint decides whether it stays."""

    step: int
    loss: float | None  # mean training loss since the checkpoint before it; None when nobody wrote it down


def keep_steps(manifests: Sequence[Summary], keep: int, keep_every: int, keep_best: int) -> set[int]:
    """The steps that stay: the last `keep` of them (one at least), the multiples of `keep_every` (0: none), and the
    `keep_best` of the lowest loss. Of two with the same loss the later one counts as better; one without never does."""
    steps = sorted(summary.step for summary in manifests)
    staying = set(steps[-max(keep, 1) :])
    if keep_every:
        staying |= {step for step in steps if step % keep_every == 0}
    known = [(s.loss, -s.step) for s in manifests if s.loss is not None and not math.isnan(s.loss)]
    return staying | {-step for _, step in sorted(known)[:keep_best]}
