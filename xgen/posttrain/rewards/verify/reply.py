"""What a verifier says of one answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reply:
    """A score, or why there is none; `fault` is why an answer's program was stopped, which its score of 0 includes."""

    score: float | None
    failure: str | None = None  # timeout, memory, crashed, output, error
    fault: str | None = None  # the same words
    detail: str = ""
