"""Needles in a haystack: of noise, of an essay, or of needles that nobody asks for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xgen.data.errors import StoreError
from xgen.evals.ruler.draws import identifier, number, positions
from xgen.evals.ruler.haystack import Haystack
from xgen.evals.ruler.pool import Pool, key_maker, pairs
from xgen.evals.ruler.recipe import Noise, Recipe, Sample
from xgen.evals.ruler.tasks import NEEDLE, NOISE, NeedleTask
from xgen.evals.ruler.tokens import Counter

DEPTHS = np.round(np.linspace(0, 100, num=40)).astype(int)  # percent


@dataclass(frozen=True)
class Needles:
    """Keys with their values, the lines that say so in the order of the text, which keys are asked for."""

    keys: list[str]
    values: list[list[str]]
    lines: list[str]
    queries: list[int]
    places: list[int]  # depths in percent of the sentences, or lines of a pool


class _Niah:
    """What the three haystacks share: needles, question, answers."""

    smallest = 1

    def __init__(self, task: NeedleTask) -> None:
        self._task = task
        self._key = key_maker(task.keys)
        self._value = identifier if task.values == "uuids" else number

    def _needles(self, random: np.random.Generator, places: list[int]) -> Needles:
        task = self._task
        keys = [self._key(random) for _ in range(task.num_keys)]
        values = [[self._value(random) for _ in range(task.num_values)] for _ in keys]
        lines = [self._line(key, value) for key, of in zip(keys, values, strict=True) for value in of]
        lines = [lines[i] for i in random.permutation(len(lines))]
        queries = random.permutation(task.num_keys)[: task.num_queries].tolist()
        return Needles(keys, values, lines, queries, places)

    def _line(self, key: str, value: str) -> str:
        return NEEDLE.format(values=self._task.values, key=key, value=value)

    def _sample(self, needles: Needles, context: str) -> Sample:
        task = self._task
        asked = [needles.keys[i] for i in needles.queries]
        query = ", ".join(asked[:-1]) + ", and " + asked[-1] if len(asked) > 1 else asked[0]
        # The scripts write the singular for one value, in the question but not in the needle.
        values = task.values if task.num_queries * task.num_values > 1 else task.values[:-1]
        outputs = tuple(value for i in needles.queries for value in needles.values[i])
        text = task.template.format(values=values, context=context, query=query)
        return Sample(text, task.answer_prefix.format(values=values, query=query), outputs)


class InNoise(_Niah):
    """Needles between lines of noise. A recipe with a depth has one needle."""

    smallest = 5

    def __init__(self, task: NeedleTask, counter: Counter) -> None:
        super().__init__(task)
        self._noise = Noise(counter, NOISE)

    def draw(self, recipe: Recipe) -> Needles:
        return self._needles(recipe.random("needles"), [])

    def text(self, recipe: Recipe, drawn: Needles) -> Sample:
        lines = self._noise.lines(recipe.size)
        places = (
            positions(recipe.random("places"), len(lines), len(drawn.lines))
            if recipe.depth is None
            else [round(recipe.depth * len(lines))]
        )
        for place, line in zip(reversed(places), drawn.lines, strict=True):
            lines.insert(place, line)
        return self._sample(drawn, "\n".join(lines))

    def frame(self, recipe: Recipe, drawn: Needles) -> tuple[str, int]:
        return self.text(recipe, drawn).prompt, 0

    def fill(self, recipe: Recipe, drawn: Needles, room: int) -> tuple[int, tuple[int, ...], int]:  # noqa: ARG002
        return self._noise.fill(self.smallest, room)


class InEssay(_Niah):
    """Needles at sentence boundaries of a text, at depths of a grid of 40, or at the one that a recipe has."""

    def __init__(self, task: NeedleTask, counter: Counter, haystack: Haystack) -> None:
        super().__init__(task)
        self._haystack = haystack
        self._tokens = haystack.tokens(counter)

    def draw(self, recipe: Recipe) -> Needles:
        random = recipe.random("needles")
        if recipe.depth is not None:
            return self._needles(random, [round(100 * recipe.depth)])
        return self._needles(random, [int(DEPTHS[i]) for i in positions(random, len(DEPTHS), self._task.num_needles)])

    def text(self, recipe: Recipe, drawn: Needles) -> Sample:
        return self._sample(drawn, self._haystack.with_needles(recipe.size, drawn.places, drawn.lines))

    def frame(self, recipe: Recipe, drawn: Needles) -> tuple[str, int]:
        return self.text(recipe, drawn).prompt, 0

    def fill(self, recipe: Recipe, drawn: Needles, room: int) -> tuple[int, tuple[int, ...], int]:  # noqa: ARG002
        first = int(self._tokens[0])
        size = max(1, int(np.searchsorted(self._tokens, first + room, side="right")))
        if size == len(self._tokens):
            raise StoreError(recipe.task, f"length {recipe.length} is beyond the haystack", "ask for a shorter one")
        return size, (), int(self._tokens[size - 1]) - first


class InNeedles(_Niah):
    """One needle among its like."""

    smallest = Pool.smallest

    def __init__(self, task: NeedleTask, counter: Counter) -> None:
        super().__init__(task)
        self._pairs = pairs(task.keys, task.values)
        self._pool = Pool([self._line(key, value) for key, value in self._pairs], "\n", counter)

    def draw(self, recipe: Recipe) -> Needles:
        places = self._pool.draw(recipe)
        key, value = self._pairs[places[0]]
        return Needles([key], [[value]], [self._pool.lines[places[0]]], [0], places)

    def text(self, recipe: Recipe, drawn: Needles) -> Sample:
        return self._sample(drawn, self._pool.text(recipe, drawn.places))

    def frame(self, recipe: Recipe, drawn: Needles) -> tuple[str, int]:
        return self.text(recipe, drawn).prompt, 0

    def fill(self, recipe: Recipe, drawn: Needles, room: int) -> tuple[int, tuple[int, ...], int]:
        return self._pool.fill(recipe, drawn.places, room)
