"""What a sample is before anyone reads it, what it is then, and what makes the one from the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from xgen.evals.ruler.draws import rng
from xgen.evals.ruler.tokens import Counter, Counts


@dataclass(frozen=True)
class Recipe:
    """A sample in numbers. `size`: units of its haystack; `extra`: units that fill its end; `tokens`: of the prompt."""

    task: str
    length: int  # tokens of prompt and answer
    seed: int
    index: int
    size: int
    extra: tuple[int, ...]
    tokens: int
    reserved: int  # tokens left free for a chat template
    exact: bool  # `tokens` is certain: this tokenizer never merges across units
    depth: float | None = None  # of what is asked for, where it is not random: 0 the begin, 1 the end

    def random(self, stream: str) -> np.random.Generator:
        """The same numbers for the same sample; each `stream` has its own."""
        depth = () if self.depth is None else (round(self.depth * 10**6),)
        return rng(self.seed, self.task, self.length, self.index, *depth, stream)


@dataclass(frozen=True)
class Sample:
    """A prompt and its answers. A model reads `input + answer_prefix`."""

    input: str
    answer_prefix: str
    outputs: tuple[str, ...]

    @property
    def prompt(self) -> str:
        return self.input + self.answer_prefix


Drawn = TypeVar("Drawn")


class Generator(Protocol[Drawn]):
    """Makes the samples of a task in two steps: what is random, then the text with as much haystack as fits."""

    smallest: int  # size

    def draw(self, recipe: Recipe) -> Drawn:
        """What does not depend on the size."""

    def text(self, recipe: Recipe, drawn: Drawn) -> Sample: ...

    def frame(self, recipe: Recipe, drawn: Drawn) -> tuple[str, int]:
        """A text that, with so many tokens more, has as many as the prompt of the smallest sample."""

    def fill(self, recipe: Recipe, drawn: Drawn, room: int) -> tuple[int, tuple[int, ...], int]:
        """Size and extra that take the most of `room` tokens beyond the smallest sample's, and the tokens they take."""


class Noise:
    """Tokens of the noise, whose unit is a sentence: five make a line."""

    def __init__(self, counter: Counter, sentences: tuple[str, ...]) -> None:
        line = " ".join(sentences)
        starts = [" ".join(sentences[:n]) for n in range(1, len(sentences))]
        self._sentences = sentences
        self.line, *self._starts = (int(n) for n in counter.added(line, ["\n" + text for text in (line, *starts)]))

    def lines(self, num_sentences: int) -> list[str]:
        whole, rest = divmod(num_sentences, len(self._sentences))
        lines = [" ".join(self._sentences)] * whole
        return [*lines, " ".join(self._sentences[:rest])] if rest else lines

    def fill(self, smallest: int, room: int) -> tuple[int, tuple[int, ...], int]:
        """`smallest` has to be whole lines."""
        whole, rest = divmod(max(room, 0), self.line)
        part = sum(start <= rest for start in self._starts)
        taken = whole * self.line + (self._starts[part - 1] if part else 0)
        return smallest + whole * len(self._sentences) + part, (), taken


def most(cost: Callable[[int], int], smallest: int, room: int) -> int:
    """The largest size whose `cost`, which never falls, is within `room`; at least `smallest`."""
    step = 64
    while cost(smallest + step) <= room:
        step *= 2
    low, high = smallest, smallest + step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(middle) <= room else (low, middle)
    return low


def upto(costs: Counts, room: int) -> tuple[int, int]:
    """How many of `costs`, in order, fit into `room`, and what they take."""
    sums = np.cumsum(costs)
    fitting = int(np.searchsorted(sums, room, side="right"))
    return fitting, int(sums[fitting - 1]) if fitting else 0
