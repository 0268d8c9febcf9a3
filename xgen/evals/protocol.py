"""What evaluates what: items, the records that come of them, suites that know how, the checkpoint that is scored.

No torch on import: whoever reads results needs none of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

if TYPE_CHECKING:
    import tokenizers

    from xgen.data.chat.template import ChatTemplate

SuiteName = Literal["ruler", "needles", "recall", "perplexity", "harness"]


@dataclass(frozen=True, slots=True)
class Item:
    """One sample of a suite, the same for every checkpoint. `length`: in tokens, 0 where the task has none."""

    suite: SuiteName
    task: str
    length: int
    index: int
    depth: float | None = None  # of the needle: 0 the begin, 1 the end


class Record(BaseModel):
    """What came of an item: a line of `RUN/evaluation/step-N/SHARD.jsonl`."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    suite: SuiteName
    task: str
    length: int
    index: int
    depth: float | None = None
    score: FiniteFloat  # 0 to 1, more is better; of `perplexity` mean nats a token, less is better
    values: dict[str, FiniteFloat] = Field(default_factory=dict)  # of the harness: its other metrics
    # Of `perplexity`: first position, tokens, sum of their nats.
    bins: list[tuple[int, int, FiniteFloat]] = Field(default_factory=list)
    tokens: int  # that were read
    seconds: float
    answer: str = ""  # its first 500 characters
    source: str = ""  # of the text around what is asked for: name and digest of an input; '': made by the suite
    digest: str  # of what was read: only samples of equal digests are the same sample in two runs

    @property
    def item(self) -> Item:
        return Item(self.suite, self.task, self.length, self.index, self.depth)


@dataclass(frozen=True, slots=True)
class Prompt:
    """Token ids to answer greedily, and what ends the answer; its tokens stay out of it."""

    ids: Sequence[int]
    max_tokens: int
    stop: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    ids: tuple[int, ...]
    seconds: float  # from its beginning to its last token, what was computed beside it included


class Model(Protocol):
    """The weights of one checkpoint, loaded to compute."""

    def generate(self, prompts: Iterable[Prompt]) -> Iterator[tuple[int, Answer]]:
        """The likeliest answer to each prompt by its number, in the order in which they end. Prompts are taken as
        there is room for them. Raises EngineError."""

    def losses(self, sequences: Iterable[Sequence[int]]) -> Iterator[NDArray[np.float32]]:
        """Negative log-likelihood in nats of every token of each sequence but the first, given those before: [T - 1],
        in the order of the sequences. Raises EngineError."""


class Subject(Protocol):
    """A checkpoint under evaluation."""

    name: str  # run@step, or the folder
    step: int  # 0 for a folder
    tokenizer: tokenizers.Tokenizer
    stop: tuple[int, ...]  # ids that end an answer
    template: ChatTemplate | None  # that prompts are put into

    def model(self) -> Model:
        """Loaded at the first call; one is in memory at a time."""

    def export(self, dtype: Literal["bfloat16", "float32"]) -> Path:
        """A folder that transformers loads, written at the first call of any shard."""


class Suite(Protocol):
    """One suite of a job, over the tokenizer of what is scored."""

    name: SuiteName

    def items(self) -> Sequence[Item]:
        """All of a checkpoint, in the same order in every process. Cheap, but for a first count of tokens."""

    def score(self, subject: Subject, items: Sequence[Item], stopped: Callable[[], bool]) -> Iterator[Record]:
        """A record of each of the items as it is done, in any order. Ends early once `stopped` says so. Raises Refused
        for what no other try can help."""
