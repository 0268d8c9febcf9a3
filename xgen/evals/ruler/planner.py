"""Plans the samples of one task as recipes, and makes their text when it is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any

from xgen.data.errors import StoreError
from xgen.evals.ruler.recipe import Generator, Recipe, Sample
from xgen.evals.ruler.tasks import Task
from xgen.evals.ruler.tokens import Counter

_TRIED = 8  # samples that show whether a tokenizer's counts add up
_TRIED_LENGTH = 8192
_ROUNDS = 16


@dataclass(frozen=True)
class Fitted:
    """A sample whose tokens were counted: never over its length."""

    recipe: Recipe
    sample: Sample
    ids: list[int]  # of the prompt


class Planner:
    """The samples of one task for one tokenizer."""

    def __init__(self, task: Task, generator: Generator[Any], counter: Counter) -> None:
        self.task, self._generator, self._counter = task, generator, counter
        self._exact: bool | None = None

    def plan(
        self, length: int, indices: Sequence[int], seed: int, depths: Sequence[float] | None = None, reserved: int = 0
    ) -> list[Recipe]:
        """Samples at `length` tokens, of which a chat template gets `reserved`. `depths`: of each, where not random.

        Sample i is the same whatever the others. Raises StoreError for a length that is too short for the task or too
        long for the inputs.
        """
        if self._exact is None:
            self._exact = self._adds_up()
        return list(self._planned(length, indices, seed, depths, reserved, self._exact))

    def render(self, recipe: Recipe) -> Sample:
        """The text. Tokens are counted only where the recipe is not exact."""
        if not recipe.exact:
            return self.fit(recipe).sample
        return self._generator.text(recipe, self._generator.draw(recipe))

    def fit(self, recipe: Recipe, encode: Callable[[Sample], list[int]] | None = None) -> Fitted:
        """The text with its tokens, counted. What is over, or leaves more than 1%, is made again with less or more.

        `encode`: with the chat template around, whose tokens are then counted too. Tokenizers that merge across words
        make counts that do not add up: each round corrects by what the last missed.
        """
        drawn = self._generator.draw(recipe)
        around = recipe.reserved if encode else 0
        limit = recipe.length - self.task.answer_tokens - recipe.reserved + around
        enough = limit - recipe.length // 100
        best: Fitted | None = None
        wanted = recipe
        base = room = None
        for _ in range(_ROUNDS):
            sample = self._generator.text(wanted, drawn)
            ids = encode(sample) if encode else self._counter.encode(sample.prompt)
            if len(ids) <= limit and (best is None or len(ids) > len(best.ids)):
                best = Fitted(replace(wanted, tokens=len(ids) - around, exact=True), sample, ids)
            # An exact plan is the fullest there is, although a short length may lack more than 1%.
            planned = recipe.exact and wanted is recipe and len(ids) == recipe.tokens + around
            if enough <= len(ids) <= limit or (best and planned):
                break
            if base is None or room is None:
                base = self._base(recipe, drawn)
                room = wanted.tokens - base
            room += limit - len(ids) - recipe.length // 1024
            if room < 0 and best is None and wanted.size == self._generator.smallest:
                break
            size, extra, taken = self._generator.fill(recipe, drawn, max(room, 0))
            wanted = replace(recipe, size=size, extra=extra, tokens=base + taken)
        if best is None:
            raise self._too_short(recipe, len(ids) - around)
        return best

    def _base(self, recipe: Recipe, drawn: object) -> int:
        frame, beside = self._generator.frame(replace(recipe, size=self._generator.smallest, extra=()), drawn)
        return int(self._counter.count([frame])[0]) + beside

    def _planned(
        self,
        length: int,
        indices: Sequence[int],
        seed: int,
        depths: Sequence[float] | None,
        reserved: int,
        exact: bool,
    ) -> Iterator[Recipe]:
        generator, name = self._generator, self.task.name
        smallest = [
            Recipe(name, length, seed, index, generator.smallest, (), 0, reserved, exact, depth)
            for index, depth in zip(indices, repeat(None, len(indices)) if depths is None else depths, strict=True)
        ]
        drawn = [generator.draw(recipe) for recipe in smallest]
        frames = [generator.frame(recipe, of) for recipe, of in zip(smallest, drawn, strict=True)]
        bases = self._counter.count([text for text, _ in frames]) + [beside for _, beside in frames]
        # The small margin is for merges that the eight samples did not show.
        limit = length - reserved - self.task.answer_tokens - length // 1024
        for recipe, of, base in zip(smallest, drawn, bases.tolist(), strict=True):
            if base > limit:
                raise self._too_short(recipe, base)
            size, extra, taken = generator.fill(recipe, of, limit - base)
            yield replace(recipe, size=size, extra=extra, tokens=base + taken)

    def _adds_up(self) -> bool:
        """Whether planned and counted tokens are the same: tokenizers that split at words first, that is almost all.
        Where the inputs make no sample of the tried length nobody knows, and other lengths may still fit."""
        try:
            tried = list(self._planned(_TRIED_LENGTH, range(_TRIED), 0, None, 0, exact=True))
        except StoreError:
            return False
        texts = [self._generator.text(recipe, self._generator.draw(recipe)).prompt for recipe in tried]
        return bool(self._counter.count(texts).tolist() == [recipe.tokens for recipe in tried])

    def _too_short(self, recipe: Recipe, tokens: int) -> StoreError:
        beside = f" and its answer {self.task.answer_tokens}"
        beside += f", beside {recipe.reserved} of a chat template" if recipe.reserved else ""
        what = f"sample {recipe.index} of {recipe.task} takes {tokens} tokens without a haystack{beside}"
        return StoreError(f"length {recipe.length}", what, "ask for a longer one")
