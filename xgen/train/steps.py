"""`metrics/steps.jsonl`: one line a step. After a resume steps may repeat, and the last one counts."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class StepRecord:
    """One finished step, over all ranks."""

    step: int
    loss: float | None  # mean over all tokens; None: not finite
    loss_hex: str  # the same, for comparing runs bit by bit
    grad_norm: float | None  # before clipping; None: not finite
    lr: float
    tokens: int  # since step 0
    seconds: float
    first_sample: int = 0  # number in its stage of its first sample
    data: str = ""  # hex: sum of the digests of the step's samples, modulo 2^64 (xgen.data.proof)
    stage: str = ""
    time: float = 0.0  # seconds since the epoch: the heartbeat of the training
    guard: str = ""  # what the guard did about it, '' for nothing
    extra: dict[str, float] = field(default_factory=dict)  # what its kind of training measures beside, by name
