"""A checkpoint as it computes: greedy answers and losses by the engine of xgen. No torch on import."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from xgen.engine import Completion, Request, Sampling
from xgen.evals.protocol import Answer, Prompt

if TYPE_CHECKING:
    from xgen.engine.inprocess import InProcessEngine


@dataclass
class Rows:
    """Which prompts are taken up beside others: no more than memory holds, where every row of the engine's cache is as
    long as the longest, and the old cache is there until a larger one has its content."""

    at_once: int
    num_tokens: int | None  # that memory holds; None: a person has said how many rows
    _rows: int = 0  # of the cache
    _length: int = 0  # tokens of each

    def admits(self, length: int, beside: Sequence[int]) -> bool:
        """A prompt that comes with its answer to `length` tokens, beside those that are on their way. One that is alone
        always is: the engine then says what is too large."""
        if not beside or len(beside) >= self.at_once:
            return not beside
        rows, longest = max(self._rows, len(beside) + 1), max(self._length, length, *beside)
        if self.num_tokens is None or (rows, longest) == (self._rows, self._length):
            return True
        return rows * longest + self._rows * self._length <= self.num_tokens

    def computed(self, lengths: Sequence[int]) -> None:
        """The engine goes on with these, and has room for all; with none it has forgotten its cache."""
        self._rows = max(self._rows, len(lengths)) if lengths else 0
        self._length = max(self._length, *lengths) if lengths else 0


class EngineModel:
    """`Model` by an engine that has its weights."""

    MOST_AT_ONCE = 64  # answers: from there on a step takes longer by as much as it does more

    def __init__(self, engine: InProcessEngine, at_once: int) -> None:
        """`at_once`: answers at a time; 0: as many as memory holds."""
        self._engine = engine
        self._at_once = at_once or self.MOST_AT_ONCE
        self._num_tokens = None if at_once else engine.num_tokens()

    def generate(self, prompts: Iterable[Prompt]) -> Iterator[tuple[int, Answer]]:
        rows = Rows(self._at_once, self._num_tokens)
        coming = enumerate(prompts)
        ahead = next(coming, None)
        under_way: dict[str, tuple[int, Prompt]] = {}
        try:
            while ahead or under_way:
                lengths = [_longest(prompt) for _, prompt in under_way.values()]
                while ahead and rows.admits(_longest(ahead[1]), lengths):
                    self._engine.submit(_request(*ahead))
                    under_way[str(ahead[0])] = ahead
                    lengths.append(_longest(ahead[1]))
                    ahead = next(coming, None)
                rows.computed(lengths)
                for completion in self._engine.completed():
                    number, prompt = under_way.pop(completion.id)
                    yield number, _answer(completion, prompt)
                if not under_way:
                    rows.computed([])
        finally:
            self._engine.cancel(under_way)

    def losses(self, sequences: Iterable[Sequence[int]]) -> Iterator[NDArray[np.float32]]:
        return (losses.numpy() for losses in self._engine.losses(sequences))


def _longest(prompt: Prompt) -> int:
    return len(prompt.ids) + prompt.max_tokens


def _request(number: int, prompt: Prompt) -> Request:
    sampling = Sampling(prompt.max_tokens, temperature=0, stop=prompt.stop)
    return Request(str(number), tuple(prompt.ids), 0, sampling)


def _answer(completion: Completion, prompt: Prompt) -> Answer:
    ids = completion.tokens
    return Answer(ids[:-1] if ids[-1] in prompt.stop else ids, completion.seconds)
