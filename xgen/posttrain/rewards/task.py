"""What is asked of verifiers, and what they say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from xgen.spec.rewards import Reward

REASONS = ("timeout", "memory", "crashed", "output", "error")
# Seconds of a verdict, for histograms.
BUCKETS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


@dataclass(frozen=True)
class Task:
    """One answer. `record` is the prompt's line: what it is verified by (`answer`, `tests`, `entry_point`)."""

    source: str
    rewards: tuple[Reward, ...]
    prompt: str
    answer: str
    num_tokens: int
    record: Mapping[str, Any]


@dataclass(frozen=True)
class Verdict:
    """The weighted sum of the parts; None as soon as one of them is: a verifier that failed says nothing.

    `failures`: {kind: reason}. `faults`: why a program was stopped, which is a score of 0 and no failure. Two rewards
    of a kind are `kind` and `kind#2`.
    """

    score: float | None
    parts: Mapping[str, float | None]
    failures: Mapping[str, str] = field(default_factory=dict)
    faults: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0  # of work; 0 when all of it was known


@dataclass(frozen=True)
class KindStats:
    """Of one kind of verifier, since its `Verifiers` began."""

    verdicts: int  # with a score
    cached: int  # of these: known from before
    failures: Mapping[str, int]  # {reason: count}: no score
    faults: Mapping[str, int]  # {reason: count}: programs that were stopped, a score of 0 each
    retries: int
    seconds: float  # sum, of those that were worked on
    buckets: tuple[int, ...]  # how many took at most BUCKETS[i]; the last one: longer


@dataclass(frozen=True)
class Stats:
    kinds: Mapping[str, KindStats]
    restarts: int  # of the process that holds the workers
    waiting: int  # tasks without a verdict
