"""Answers and groups of them, as they go from the engine to the loss. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import xxhash
from numpy.typing import NDArray

from xgen.data.permutation import shuffle_keys
from xgen.data.proof import MODULUS

Versions = tuple[tuple[int, int], ...]
_MOST_SEED = (1 << 63) - 1
_RIGHT = ("exact", "math", "code")  # rewards that say whether an answer is right


@dataclass(frozen=True)
class Judged:
    """What the verifiers said. `reward` is None where one of them failed: the answer is left out, and counted.
    `details`: why, of those that failed."""

    reward: float | None
    parts: Mapping[str, float | None]
    failures: Mapping[str, str]
    seconds: float
    details: Mapping[str, str] = field(default_factory=dict)

    @property
    def outcome(self) -> bool | float | None:
        """Whether the answer is right, by the rewards that can tell; the reward where none can."""
        told = [score for kind, score in self.parts.items() if _kind(kind) in _RIGHT and score is not None]
        return all(score >= 1 for score in told) if told and self.reward is not None else self.reward

    @property
    def passed(self) -> bool | None:
        """Whether it is right; where no reward can tell, whether its reward is above 0."""
        return None if self.outcome is None else self.outcome > 0


@dataclass(frozen=True, eq=False)
class Answer:
    """tokens int32, logprobs float32, both [num_tokens]; `versions` of the weights, with tokens sampled from each."""

    tokens: NDArray[np.int32]
    logprobs: NDArray[np.float32]
    finish: Literal["stop", "length"]
    versions: Versions
    judged: Judged

    @property
    def truncated(self) -> bool:
        return self.finish == "length"


@dataclass(frozen=True, eq=False)
class Group:
    """All answers to one prompt; `number` is the prompt's in the order of the run."""

    number: int
    source: str
    answers: tuple[Answer, ...]

    @property
    def oldest(self) -> int:
        """Version of the oldest weights that sampled one of the tokens."""
        return min(version for answer in self.answers for version, _ in answer.versions)

    @property
    def teaches(self) -> bool:
        """Whether its answers differ in being right, or in their rewards where nothing tells what is right."""
        return len({answer.judged.outcome for answer in self.answers} - {None}) > 1


def _kind(name: str) -> str:
    """Of a reward by its name: the second of a kind is KIND#2."""
    return name.partition("#")[0]


def answer_seed(seed: int, prompt: int, answer: int) -> int:
    """Of an answer to a prompt, whoever generates it and when."""
    return int(shuffle_keys(1, seed, "answer", prompt, answer)[0]) & _MOST_SEED


def digest(groups: Iterable[Group]) -> int:
    """The sum, modulo 2^64, of the hashes of (prompt number, answer number, tokens): proof of what was trained on,
    whatever the order and the ranks. Unlike XOR a sum also counts repeats."""
    total = 0
    for group in groups:
        for number, answer in enumerate(group.answers):
            content = xxhash.xxh3_64(group.number.to_bytes(8, "little") + number.to_bytes(8, "little"))
            content.update(answer.tokens.astype("<i4", copy=False).tobytes())
            total += content.intdigest()
    return total % MODULUS
